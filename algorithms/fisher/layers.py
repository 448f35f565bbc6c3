"""What single layers saw in one forward pass: the raw material of per-state gradients."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from algorithms.fisher.parameters import as_function


class Constant(nn.Module):
    """A learned vector that no input changes, repeated for every state: (B, ...) -> (B, n)."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.values.expand(len(inputs), -1)


@dataclass(frozen=True)
class LayerPass:
    """One layer in one forward pass: its input a_s and output, batch first, the output part of the graph.

    The gradient with respect to the layer's parameters, for state s and gradient delta_s at its output, is
    delta_s (a_s, 1)^T for a linear layer with bias and delta_s for a `Constant`.
    """

    layer: nn.Module
    inputs: Tensor
    output: Tensor

    def input_norms(self) -> Tensor:
        """||a_s||^2, plus 1 for a bias: the factor from ||delta_s||^2 to the squared norm of the gradient; (B,)."""
        if isinstance(self.layer, Constant):
            return torch.ones(len(self.inputs), dtype=self.output.dtype, device=self.output.device)
        return self.inputs.square().sum(-1) + (0 if self.layer.bias is None else 1)


def forward_with_passes(module: nn.Module, theta: Tensor, inputs: Tensor) -> tuple[Tensor, list[LayerPass]]:
    """module(inputs) at the parameters theta, with its graph, and the pass of every layer that has parameters.

    Raises:
        TypeError: a layer with parameters whose per-state gradient has no closed form here.
    """
    passes: list[LayerPass] = []

    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        passes.append(LayerPass(layer, args[0].detach(), output))

    handles = []
    for layer in module.modules():
        if isinstance(layer, nn.Linear | Constant):
            handles.append(layer.register_forward_hook(record))
        elif any(True for _ in layer.parameters(recurse=False)):
            raise TypeError(f"layer {type(layer).__name__} has parameters of its own: use Linear or Constant layers")
    try:
        with torch.enable_grad():
            return as_function(module, inputs)(theta.detach().requires_grad_()), passes
    finally:
        for handle in handles:
            handle.remove()

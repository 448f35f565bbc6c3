"""What single layers see in one pass through a network: the raw material of per-state gradients.

Every layer with parameters is read as a matrix W of shape (n_out, n_in + 1), weights and bias side by side, applied at
T positions of a state: a linear layer has one position, a convolution as many as its output has pixels, and a
`Constant` is a bias without weights. With a_st the layer's input at position t of state s, extended by a 1 for the
bias, and delta_st the gradient at its output, the gradient of state s is sum_t delta_st a_st^T.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from algorithms.fisher.parameters import as_function

CHUNK = 64
"""States whose gradients are held at the same time, where a layer has several positions."""


class Constant(nn.Module):
    """A learned vector that no input changes, repeated for every state: (B, ...) -> (B, n)."""

    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.values = nn.Parameter(values)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.values.expand(len(inputs), -1)


class OutputNetwork(nn.Module):
    """z = (network(s), log sigma): a network, and beside its outputs a constant if there is one: (B, ...) -> (B, K)."""

    network: nn.Sequential
    log_std: Constant | None

    def forward(self, inputs: Tensor) -> Tensor:
        z: Tensor = self.network(inputs)
        return z if self.log_std is None else torch.cat((z, self.log_std(inputs)), -1)


@dataclass(frozen=True)
class Layer:
    """A layer of a known type, and where its parameters lie in theta."""

    name: str
    module: nn.Module
    start: int
    stop: int

    @property
    def is_constant(self) -> bool:
        return isinstance(self.module, Constant)

    @property
    def n_out(self) -> int:
        return len(next(self.module.parameters()))

    def matrix(self, v: Tensor) -> Tensor:
        """The layer's part of vectors over theta as matrices W: (..., d) -> (..., n_out, n_in + 1)."""
        parts = v[..., self.start : self.stop].split([p.numel() for p in self.module.parameters()], -1)
        return torch.cat([part.unflatten(-1, (self.n_out, -1)) for part in parts], -1)

    def vector(self, matrix: Tensor) -> Tensor:
        """The inverse of `matrix`: (..., n_out, n_in + 1) -> (..., stop - start)."""
        columns = [p.numel() // self.n_out for p in self.module.parameters()]
        return torch.cat([part.flatten(-2) for part in matrix.split(columns, -1)], -1)

    def inputs(self, x: Tensor) -> Tensor:
        """a_st from a batch of the layer's inputs: (B, T, n_in + 1)."""
        if isinstance(self.module, Constant):
            return x.new_ones(len(x), 1, 1)
        if isinstance(self.module, nn.Conv2d):
            c = self.module
            assert not isinstance(c.padding, str)
            a = torch.nn.functional.unfold(x, c.kernel_size, c.dilation, c.padding, c.stride).mT
        else:
            a = x.unsqueeze(1)
        return a if self.module.bias is None else torch.cat((a, a.new_ones(*a.shape[:2], 1)), -1)

    def outputs(self, delta: Tensor) -> Tensor:
        """delta_st from a batch of gradients at the layer's output: (B, T, n_out)."""
        return delta.flatten(2).mT if isinstance(self.module, nn.Conv2d) else delta.unsqueeze(1)


def layers_of(module: nn.Module) -> list[Layer]:
    """The layers of a network in the order of its parameters.

    Raises:
        TypeError: a layer with parameters whose per-state gradient has no closed form here.
    """
    layers: list[Layer] = []
    for name, layer in module.named_modules():
        if size := sum(p.numel() for p in layer.parameters(recurse=False)):
            if reason := _unknown(layer):
                raise TypeError(
                    f"layer {name or 'at the top'}: {reason}; per-layer curvature knows Linear, Conv2d with one group, "
                    "zero padding in numbers, and Constant"
                )
            start = layers[-1].stop if layers else 0
            if any(p is q for p in layer.parameters() for known in layers for q in known.module.parameters()):
                raise TypeError(f"layer {name}: shares a parameter with another, which per-layer curvature excludes")
            layers.append(Layer(name, layer, start, start + size))
    return layers


def _unknown(layer: nn.Module) -> str | None:
    if isinstance(layer, nn.Conv2d):
        if layer.groups != 1 or layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            return f"Conv2d with groups={layer.groups}, padding={layer.padding!r}, padding_mode={layer.padding_mode}"
        return None
    return None if isinstance(layer, nn.Linear | Constant) else f"{type(layer).__name__} has parameters of its own"


@dataclass(frozen=True)
class LayerPass:
    """One layer in one forward pass: a_st, shape (B, T, n_in + 1), and its output, a part of the graph."""

    layer: Layer
    inputs: Tensor
    output: Tensor

    def mean_gradient(self, delta: Tensor) -> Tensor:
        """(1/B) sum_st delta_st a_st^T: (n_out, n_in + 1)."""
        return self.layer.outputs(delta).flatten(0, 1).mT @ self.inputs.flatten(0, 1) / len(self.inputs)

    def squared_norms(self, delta: Tensor) -> Tensor:
        """||sum_t delta_st a_st^T||^2 for every state: (B,)."""
        d = self.layer.outputs(delta)
        if d.shape[1] == 1:
            return d.square().sum((1, 2)) * self.inputs.square().sum((1, 2))
        chunks = zip(d.split(CHUNK), self.inputs.split(CHUNK), strict=True)
        return torch.cat([(d_s.mT @ a_s).square().sum((1, 2)) for d_s, a_s in chunks])

    def mean_squares(self, delta: Tensor, bases: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(1/B) sum_s (sum_t delta_st a_st^T)^2, entry by entry: (n_out, n_in + 1).

        With orthogonal matrices (Q_out, Q_in), entries are those in their columns: Q_out^T (...) Q_in is squared.
        """
        d, a = self.layer.outputs(delta), self.inputs
        if bases is not None:
            d, a = d @ bases[0], a @ bases[1]
        if d.shape[1] == 1:
            return d[:, 0].square().mT @ a[:, 0].square() / len(d)
        chunks = zip(d.split(CHUNK), a.split(CHUNK), strict=True)
        return sum(((d_s.mT @ a_s).square().sum(0) for d_s, a_s in chunks), d.new_zeros(())) / len(d)


def forward_with_passes(module: nn.Module, theta: Tensor, inputs: Tensor) -> tuple[Tensor, list[LayerPass]]:
    """module(inputs) at the parameters theta, with its graph, and the pass of every layer, in their order.

    Raises:
        TypeError: a layer of an unknown type, one that is used several times or not at all, or inputs of a linear layer
            that have more than one position.
    """
    layers = {layer.module: layer for layer in layers_of(module)}
    passes: dict[nn.Module, LayerPass] = {}

    def record(called: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        layer = layers[called]
        if called in passes:
            raise TypeError(f"layer {layer.name}: used twice in one pass, which per-layer curvature does not allow")
        if isinstance(called, nn.Linear) and args[0].dim() != 2:
            raise TypeError(f"layer {layer.name}: input of shape {tuple(args[0].shape)}, (states, features) is needed")
        passes[called] = LayerPass(layer, layer.inputs(args[0].detach()), output)

    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        with torch.enable_grad():
            z = as_function(module, inputs)(theta.detach().requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    if unused := [layer.name for called, layer in layers.items() if called not in passes]:
        raise TypeError(f"layer {unused[0]}: has parameters, but takes no part in the network's output")
    return z, [passes[called] for called in layers]

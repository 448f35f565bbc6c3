"""Chains: networks of linear layers and elementwise activations, whose derivatives are a few matrix products.

The networks of tasks without images are of this kind. On them a graph costs more to keep than the arithmetic behind it;
other networks (convolutions, modules of one's own) are differentiated by `torch.autograd`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from algorithms.fisher.layers import OutputNetwork

Slope = Callable[[Tensor], Tensor]
"""f'(x) from h = f(x), entry by entry."""

# Results of this size are written where the ones before stood: fetching new memory takes as long as the arithmetic.
ACTIVATIONS: dict[type[nn.Module], tuple[Callable[[Tensor], Tensor], Slope]] = {
    nn.Tanh: (torch.tanh_, lambda h: torch.addcmul(h.new_ones(()), h, h, value=-1)),
    nn.ReLU: (torch.relu_, lambda h: (h > 0).to(h.dtype)),
    nn.ELU: (torch.nn.functional.elu_, lambda h: h.clamp(max=0).add_(1)),
}


@dataclass(frozen=True)
class Stage:
    """h -> f(W h + b); without b and f where there are none."""

    weight: Tensor
    bias: Tensor | None
    activation: tuple[Callable[[Tensor], Tensor], Slope] | None


@dataclass(frozen=True)
class Chain:
    """z = (W_n f_{n-1}(... f_1(W_1 s + b_1) ...) + b_n, c): stages one after the other, and a constant c or none.

    Weights, biases and constant follow each other in theta as they do here. They are shared with what they were taken
    from, a module or a vector theta, and follow its changes in place.
    """

    stages: tuple[Stage, ...]
    constant: Tensor | None

    def at(self, theta: Tensor) -> "Chain":
        """The chain with its parameters in theta, as views of it."""
        parameters = self.parameters
        split = theta.split([p.numel() for p in parameters])
        pieces = iter([piece.view(p.shape) for piece, p in zip(split, parameters, strict=True)])
        stages = tuple(
            Stage(next(pieces), None if stage.bias is None else next(pieces), stage.activation) for stage in self.stages
        )
        return Chain(stages, None if self.constant is None else next(pieces))

    @property
    def parameters(self) -> list[Tensor]:
        """Weights, biases and constant in the order of theta."""
        found = [p for stage in self.stages for p in (stage.weight, stage.bias)]
        return [p for p in (*found, self.constant) if p is not None]

    def __call__(self, states: Tensor) -> Tensor:
        """z: (B, n) -> (B, K)."""
        h = states
        for stage in self.stages:
            h = nn.functional.linear(h, stage.weight, stage.bias)
            if stage.activation is not None:
                h = stage.activation[0](h)
        return _beside(h, self.constant)

    @torch.no_grad()
    def linearise(self, states: Tensor) -> "Linearised":
        """z and dz/dtheta on these states."""
        h, inputs, slopes = states, [], []
        for stage in self.stages:
            inputs.append(h)
            h = nn.functional.linear(h, stage.weight, stage.bias)
            if stage.activation is not None:
                h = stage.activation[0](h)
            slopes.append(None if stage.activation is None else stage.activation[1](h))
        return Linearised(self, inputs, slopes, _beside(h, self.constant))


@dataclass(frozen=True)
class Linearised:
    """z(theta + v) = z + J v to first order, J = dz/dtheta, on a batch of B states.

    Attributes:
        chain: at theta.
        inputs: what every stage saw, (B, n_in) each.
        slopes: f' of every stage, (B, n_out); None where f is the identity.
        z: outputs, (B, K).
    """

    chain: Chain
    inputs: list[Tensor]
    slopes: list[Tensor | None]
    z: Tensor

    @torch.no_grad()
    def jvp(self, v: Tensor) -> Tensor:
        """J v: (d,) -> (B, K)."""
        change, tangent = self.chain.at(v), None
        for stage, moved, h, slope in zip(self.chain.stages, change.stages, self.inputs, self.slopes, strict=True):
            output = nn.functional.linear(h, moved.weight, moved.bias)
            tangent = output if tangent is None else output.addmm_(tangent, stage.weight.mT)
            if slope is not None:
                tangent.mul_(slope)
        assert tangent is not None
        return _beside(tangent, change.constant)

    @torch.no_grad()
    def vjp(self, u: Tensor) -> Tensor:
        """J^T u, summed over states: (B, K) -> (d,)."""
        parts: list[Tensor] = []
        if self.chain.constant is not None:
            u, constant = u.tensor_split([self.z.shape[1] - len(self.chain.constant)], 1)
            parts.append(constant.sum(0))
        delta = u if self.slopes[-1] is None else u * self.slopes[-1]
        for i in reversed(range(len(self.inputs))):
            stage = self.chain.stages[i]
            if stage.bias is not None:
                parts.append(delta.sum(0))
            parts.append((delta.mT @ self.inputs[i]).view(-1))
            if i > 0:
                delta, slope = delta @ stage.weight, self.slopes[i - 1]
                if slope is not None:
                    delta.mul_(slope)
        return torch.cat(parts[::-1])


def _beside(h: Tensor, constant: Tensor | None) -> Tensor:
    return h if constant is None else torch.cat((h, constant.expand(len(h), -1)), -1)


def chain_of(module: nn.Module) -> Chain | None:
    """The module as a chain of its own parameters; None if it is none.

    A chain is an `nn.Sequential` of linear layers, each followed by one activation of `ACTIVATIONS` or none, or such a
    one in an `OutputNetwork`.
    """
    network, constant = module, None
    if isinstance(module, OutputNetwork) and type(module).forward is OutputNetwork.forward:
        network, constant = module.network, module.log_std
    if type(network) is not nn.Sequential:
        return None
    stages: list[Stage] = []
    for layer in network:
        if type(layer) is nn.Linear:
            stages.append(Stage(layer.weight, layer.bias, None))
        elif (
            type(layer) in ACTIVATIONS and stages and stages[-1].activation is None and getattr(layer, "alpha", 1) == 1
        ):
            stages[-1] = replace(stages[-1], activation=ACTIVATIONS[type(layer)])
        elif type(layer) is not nn.Identity:
            return None
    chain = Chain(tuple(stages), None if constant is None else constant.values)
    same = [id(p) for p in chain.parameters] == [id(p) for p in module.parameters()]
    return chain if stages and same else None  # the parameters differ where layers share some

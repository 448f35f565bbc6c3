"""A module's parameters as one vector theta of length d, and the module as a function of theta."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


def flatten(module: nn.Module) -> Tensor:
    """A copy of all parameters, in the order of `named_parameters`: shape (d,)."""
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()])


def assign(module: nn.Module, theta: Tensor) -> None:
    """Copy theta into the module's parameters. They never share storage with theta, so theta stays what it was."""
    with torch.no_grad():
        for p, values in zip(module.parameters(), _split(module, theta), strict=True):
            p.copy_(values)


def as_function(module: nn.Module, inputs: Tensor) -> Callable[[Tensor], Tensor]:
    """theta -> module(inputs) at the parameters theta; differentiable, in theta's precision."""
    names = [name for name, _ in module.named_parameters()]

    def function(theta: Tensor) -> Tensor:
        values = dict(zip(names, _split(module, theta), strict=True))
        result: Tensor = torch.func.functional_call(module, values, (inputs.to(theta.dtype),))
        return result

    return function


def in_passes(function: Callable[[Tensor], Tensor], inputs: Tensor, states_per_pass: int | None) -> Tensor:
    """function(inputs) for a function of every state by itself, so many states at a time."""
    if states_per_pass is None or len(inputs) <= states_per_pass:
        return function(inputs)
    return torch.cat([function(part) for part in inputs.split(states_per_pass)])


def _split(module: nn.Module, theta: Tensor) -> list[Tensor]:
    parameters = list(module.parameters())
    pieces = theta.split([p.numel() for p in parameters])
    return [piece.view_as(p) for piece, p in zip(pieces, parameters, strict=True)]

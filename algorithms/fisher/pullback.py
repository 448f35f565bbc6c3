"""Fisher matrices known without approximation in theta: sums over states of J_s^T M_s J_s."""

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from algorithms.fisher.metric import Metric, Model, backward_from
from algorithms.fisher.parameters import as_function, in_passes


@dataclass(frozen=True)
class _Graph:
    """z(theta), and J^T u as a function of u at u = 0: differentiated, it gives J v."""

    theta: Tensor
    z: Tensor
    u: Tensor
    pulled_back: Tensor


class Pullback(Metric):
    r"""F = (1/B) sum_s J_s^T M_s J_s, J_s = dz(s)/dtheta, for one (K, K) matrix M_s = sum_i l_i l_i^T per state.

    What is kept of the network at theta serves every product. Of a chain that is its activations. Of another network it
    is one graph: J^T u is a backward pass through it, and J v the derivative of J^T u with respect to u, a second one.
    Subclasses say what M_s is.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.theta = model, model.theta

    @cached_property
    def z(self) -> Tensor:
        """Outputs at theta, shape (B, K)."""
        m = self.model
        if m.linearised is not None:
            return m.linearised.z
        with torch.no_grad():
            return in_passes(lambda s: as_function(m.module, s)(self.theta), m.inputs, m.states_per_pass)

    @cached_property
    def _graph(self) -> _Graph:
        theta = self.theta.detach().requires_grad_()
        with torch.enable_grad():
            z = self.model.function(theta)
            u = torch.zeros_like(z, requires_grad=True)
            (pulled_back,) = torch.autograd.grad(z, theta, u, create_graph=True)
        return _Graph(theta, z, u, pulled_back)

    @abstractmethod
    def output_product(self, u: Tensor) -> Tensor:
        """M_s u_s for every state: (B, K) -> (B, K)."""

    @abstractmethod
    def output_factors(self) -> list[Tensor]:
        """Vectors l_i of shape (B, K)."""

    def product(self, v: Tensor) -> Tensor:
        if v.dim() == 2:
            return torch.stack([self.product(column) for column in v.unbind(1)], 1)
        if (at := self.model.linearised) is not None:
            return at.vjp(self.output_product(at.jvp(v))) / len(self.z)
        g = self._graph
        (u,) = torch.autograd.grad(g.pulled_back, g.u, v, retain_graph=True)
        (result,) = torch.autograd.grad(g.z, g.theta, self.output_product(u), retain_graph=True)
        return result / len(self.z)

    def quadratic(self, v: Tensor) -> Tensor:
        """v^T F v = (1/B) sum_s (J_s v)^T M_s (J_s v), non-negative by construction; a scalar.

        By forward differentiation, which needs no graph: a batch of any size, `states_per_pass` at a time.
        """
        m = self.model

        def jvp(states: Tensor) -> Tensor:
            tangent: Tensor = torch.func.jvp(as_function(m.module, states), (self.theta,), (v,))[1]
            return tangent

        with torch.no_grad():
            u = in_passes(jvp, m.inputs, m.states_per_pass) if m.linearised is None else m.linearised.jvp(v)
            return (u * self.output_product(u)).sum() / len(self.z)

    def diagonal(self) -> Tensor:
        """Mean squares of per-state gradients. Raises TypeError for a layer of an unknown type."""
        z, passes = self.model.forward()
        squares = {p.layer.name: p.inputs.new_zeros(p.layer.n_out, p.inputs.shape[-1]) for p in passes}
        for p, delta in backward_from(z, passes, self.output_factors()):
            squares[p.layer.name] += p.mean_squares(delta)
        return torch.cat([p.layer.vector(squares[p.layer.name]) for p in passes])


class ScoredFisher(Pullback):
    """M_s = sum_i l_i l_i^T from given scores, l_i = d log p(a_i; z) / dz up to weights.

    Args:
        model: where F is taken.
        scores: makes the vectors l_i, each (B, K), from z; called once.
    """

    def __init__(self, model: Model, scores: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__(model)
        self._scores = torch.stack(scores(self.z))

    def output_product(self, u: Tensor) -> Tensor:
        return torch.einsum("isk,isl,sl->sk", self._scores, self._scores, u)

    def output_factors(self) -> list[Tensor]:
        return list(self._scores.unbind())

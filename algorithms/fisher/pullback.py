"""Fisher matrices known without approximation in theta: sums over states of J_s^T M_s J_s."""

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.fisher.metric import Metric, Model, backward_from


class Pullback(Metric):
    r"""F = (1/B) sum_s J_s^T M_s J_s, J_s = dz(s)/dtheta, for one (K, K) matrix M_s = sum_i l_i l_i^T per state.

    One graph is built at theta and serves every product: J^T u is one backward pass, and J v the derivative of J^T u
    with respect to u, a second one. Subclasses say what M_s is.
    """

    def __init__(self, model: Model) -> None:
        self.model, self.theta = model, model.theta
        self._theta = model.theta.detach().requires_grad_()
        with torch.enable_grad():
            self._z = model.function(self._theta)
            self._cotangent = torch.zeros_like(self._z, requires_grad=True)
            (self._pullback,) = torch.autograd.grad(self._z, self._theta, self._cotangent, create_graph=True)
        self.z = self._z.detach()

    @abstractmethod
    def output_product(self, u: Tensor) -> Tensor:
        """M_s u_s for every state: (B, K) -> (B, K)."""

    @abstractmethod
    def output_factors(self) -> list[Tensor]:
        """Vectors l_i of shape (B, K)."""

    def product(self, v: Tensor) -> Tensor:
        if v.dim() == 2:
            return torch.stack([self.product(column) for column in v.unbind(1)], 1)
        weighted = self.output_product(self._jvp(v))
        (result,) = torch.autograd.grad(self._z, self._theta, weighted, retain_graph=True)
        return result / len(self.z)

    def quadratic(self, v: Tensor) -> Tensor:
        """v^T F v = (1/B) sum_s (J_s v)^T M_s (J_s v), non-negative by construction; a scalar."""
        u = self._jvp(v)
        return (u * self.output_product(u)).sum() / len(self.z)

    def diagonal(self) -> Tensor:
        """Mean squares of per-state gradients. Raises TypeError for a layer of an unknown type."""
        z, passes = self.model.forward()
        squares = {p.layer.name: p.inputs.new_zeros(p.layer.n_out, p.inputs.shape[-1]) for p in passes}
        for p, delta in backward_from(z, passes, self.output_factors()):
            squares[p.layer.name] += p.mean_squares(delta)
        return torch.cat([p.layer.vector(squares[p.layer.name]) for p in passes])

    def _jvp(self, v: Tensor) -> Tensor:
        (u,) = torch.autograd.grad(self._pullback, self._cotangent, v, retain_graph=True)
        return u


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

"""The Fisher matrix with the expectation over outcomes taken in closed form, as a linear operator."""

from collections.abc import Callable

import torch
from torch import Tensor

from algorithms.fisher.distributions import Distribution


class ExactFisher:
    r"""F = (1/B) sum_s J_s^T M_s J_s, J_s = dz(s)/dtheta, M_s the Fisher matrix of the output distribution in z.

    Equal to the generalised Gauss-Newton matrix of the mean KL divergence (Martens 2020, section 9). One graph is
    built at theta and serves every product: J^T u is one backward pass, and J v the derivative of J^T u with respect
    to u, a second one.

    Args:
        function: theta (d,) -> z (B, K), twice differentiable.
        theta: where F is taken, shape (d,). Its precision is the operator's.
        distribution: the family that z parametrises.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], theta: Tensor, distribution: Distribution) -> None:
        self.distribution = distribution
        self._theta = theta.detach().requires_grad_()
        with torch.enable_grad():
            self._z = function(self._theta)
            self._cotangent = torch.zeros_like(self._z, requires_grad=True)
            (self._pullback,) = torch.autograd.grad(self._z, self._theta, self._cotangent, create_graph=True)
        self.z = self._z.detach()

    def product(self, v: Tensor) -> Tensor:
        """F v, shape (d,)."""
        weighted = self.distribution.fisher_product(self.z, self._jvp(v))
        (result,) = torch.autograd.grad(self._z, self._theta, weighted, retain_graph=True)
        return result / len(self.z)

    def quadratic(self, v: Tensor) -> Tensor:
        """v^T F v = (1/B) sum_s (J_s v)^T M_s (J_s v), non-negative by construction; a scalar."""
        u = self._jvp(v)
        return (u * self.distribution.fisher_product(self.z, u)).sum() / len(self.z)

    def _jvp(self, v: Tensor) -> Tensor:
        (u,) = torch.autograd.grad(self._pullback, self._cotangent, v, retain_graph=True)
        return u

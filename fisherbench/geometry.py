"""The geometry of a policy on a batch: divergences, the Fisher matrix and the natural gradient, as runs log them."""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from algorithms.fisher.solvers import conjugate_gradient
from algorithms.fisher.trace import fisher_trace
from algorithms.parts.alignment import alignment_error
from algorithms.parts.surrogate import Surrogate

if TYPE_CHECKING:
    from fisherbench.policy import LoadedPolicy, Sample


class Geometry:
    """The local problem of a policy update at theta, the parameters of a policy, on a sample of what it experienced.

    Attributes:
        problem: g, F and exact gains and divergences (`algorithms.parts.surrogate`).
        sample: the states, with the observations as the task gave them.
    """

    def __init__(self, policy: LoadedPolicy, sample: Sample) -> None:
        self.sample, self.problem = sample, Surrogate(policy.network, sample.batch)

    @property
    def theta(self) -> Tensor:
        """The policy's parameters, shape (d,)."""
        return self.problem.theta

    @property
    def gradient(self) -> Tensor:
        """g = (1/B) sum_t A_t grad log pi(a_t|s_t), shape (d,)."""
        return self.problem.gradient

    @cached_property
    def fisher_trace(self) -> float:
        """tr F, exact over actions, the mean over all states of the sample."""
        return float(fisher_trace(self.problem.model).double().mean())

    def fisher_product(self, v: Tensor) -> Tensor:
        """F v, shape (d,)."""
        return self.problem.fisher.product(v)

    def damping(self, rho: float = 0.1) -> float:
        """lambda = rho tr(F) / d."""
        return rho * self.fisher_trace / len(self.theta)

    def natural_gradient(self, rho: float = 0.1, tolerance: float = 1e-2, max_iterations: int = 1000) -> Tensor:
        """n = (F + lambda I)^-1 g by conjugate gradients, to that relative residual; shape (d,).

        Raises:
            ValueError: the gradient is 0, or the solve broke down.
        """
        if not self.gradient.any():
            raise ValueError("natural_gradient: the policy gradient of this batch is 0; there is no direction")
        product = partial(self.problem.fisher.damped_product, damping=self.damping(rho))
        solution = conjugate_gradient(product, self.gradient, max_iterations, tolerance)
        if not torch.isfinite(solution.x).all():
            raise ValueError(f"natural_gradient: the solve ended as {solution.outcome.value}; choose a larger rho")
        return solution.x

    def kl(self, other: LoadedPolicy | Tensor) -> float:
        """Mean over the sample's states of KL(pi || other), nats; other: a policy, or a step.

        A step, (d,), stands for the policy at theta + step. Another policy has its own normaliser.

        Raises:
            ValueError: the other policy is of another task.
        """
        if isinstance(other, Tensor):
            return self.problem.evaluate(self.theta + other)[1]
        mine, theirs = self.problem.policy.distribution, other.network.distribution
        theirs_shape = other.observation_space.shape
        if (type(mine), mine.width, self.sample.observations.shape[1:]) != (type(theirs), theirs.width, theirs_shape):
            raise ValueError(f"kl: {other} acts in another space, or sees other observations; compare two of one task")
        z = other.network.z(torch.as_tensor(other.normaliser(self.sample.observations), device=other.device))
        return float(mine.kl(self.problem.z.double(), z.double().to(self.problem.z.device)).mean())

    def alignment_error(self, step: Tensor, rho: float = 0.1) -> float:
        """e = 1 - cos of the angle between a step, (d,), and the natural gradient in the metric F + lambda I.

        0 along it, 1 orthogonal, 2 against; docs/alignment.md. Errors as `natural_gradient`.
        """
        product = partial(self.problem.fisher.damped_product, damping=self.damping(rho))
        return alignment_error(step.to(self.theta.dtype), self.natural_gradient(rho), product)

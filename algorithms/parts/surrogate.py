"""The local problem of one policy update: raise the surrogate return without leaving the policy's neighbourhood."""

from dataclasses import replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from algorithms.fisher.metric import Model
from algorithms.fisher.metrics.exact import ExactFisher
from algorithms.fisher.parameters import as_function, flatten, in_passes
from algorithms.parts.batch import Batch
from algorithms.parts.policy import Policy


class Surrogate:
    r"""Maximise L(theta) subject to D(theta) <= delta around theta_old, the parameters at construction.

        L(theta) = (1/B) sum_t (pi_theta(a_t|s_t) / pi_old(a_t|s_t)) A_t
        D(theta) = (1/B) sum_s KL(pi_old(.|s) || pi_theta(.|s))

    (Schulman et al. 2015, equation 14.) Near theta_old, L has gradient g and D is the quadratic form of F / 2.

    Attributes:
        policy: the policy being updated; the surrogate reads its parameters once and never writes them.
        batch: the transitions.
        theta: theta_old, shape (d,).
    """

    def __init__(self, policy: Policy, batch: Batch, theta: Tensor | None = None) -> None:
        self.policy, self.batch = policy, batch
        self.theta = flatten(policy) if theta is None else theta

    def on(self, states: Tensor) -> Self:
        """The same problem on the states of these indices alone."""
        return type(self)(self.policy, self.batch.select(states), self.theta)

    def of_environments(self, which: Tensor) -> Self:
        """The same problem on all states of the environments of these indices."""
        return type(self)(self.policy, self.batch.of_environments(which), self.theta)

    @cached_property
    def gradient(self) -> Tensor:
        """g = (1/B) sum_t A_t grad log pi(a_t|s_t) at theta_old: the policy gradient; no entropy bonus, no clipping."""
        return self._gradient(0.0)

    def gradient_with_bonus(self, entropy_coefficient: float) -> Tensor:
        """g + beta grad (1/B) sum_t H(pi(.|s_t)) at theta_old, shape (d,); beta: entropy_coefficient, H in nats."""
        return self.gradient if entropy_coefficient == 0 else self._gradient(entropy_coefficient)

    def _gradient(self, entropy_coefficient: float) -> Tensor:
        batch, distribution, linearised = self.batch, self.policy.distribution, self.model.linearised
        if linearised is not None:
            ascent = batch.advantages.unsqueeze(-1) * distribution.score(self.z, batch.actions)
            if entropy_coefficient > 0:
                ascent += entropy_coefficient * distribution.entropy_gradient(self.z)
            return linearised.vjp(ascent / len(batch))
        theta = self.theta.clone().requires_grad_()
        g = torch.zeros_like(self.theta)
        for part in batch.split(self.policy.states_per_pass):
            z = as_function(self.policy, part.observations)(theta)
            objective = distribution.log_prob(z, part.actions) * part.advantages
            if entropy_coefficient > 0:
                objective = objective + entropy_coefficient * distribution.entropy(z)
            g += torch.autograd.grad(objective.sum() / len(batch), theta)[0]
        return g

    @cached_property
    def model(self) -> Model:
        """The policy at theta_old on the whole batch: where Fisher matrices are taken."""
        return Model(
            self.policy,
            self.theta,
            self.batch.observations,
            self.policy.distribution,
            self.batch.actions,
            self.policy.states_per_pass,
        )

    @cached_property
    def fisher(self) -> ExactFisher:
        """F at theta_old over the whole batch, in the policy's precision."""
        return ExactFisher(self.model)

    @cached_property
    def fisher64(self) -> ExactFisher:
        """F at theta_old in float64, for differences that float32 would drown."""
        return ExactFisher(replace(self.model, theta=self.theta.double()))

    @torch.no_grad()
    def evaluate(self, theta: Tensor, entropy_coefficient: float = 0.0) -> tuple[float, float]:
        """(gain, D(theta)) on the whole batch, in float64 from outputs in the precision of theta.

        The gain is L(theta) - L(theta_old), of L + beta H with an entropy_coefficient beta.
        """
        distribution, actions = self.policy.distribution, self.batch.actions
        z_old, z = self.z.double() if theta.dtype == self.z.dtype else self._z64, self._z_at(theta).double()
        log_ratio = distribution.log_prob(z, actions) - distribution.log_prob(z_old, actions)
        gain = (torch.expm1(log_ratio) * self.batch.advantages).mean()
        if entropy_coefficient > 0:
            gain = gain + entropy_coefficient * (distribution.entropy(z) - distribution.entropy(z_old)).mean()
        return float(gain), float(distribution.kl(z_old, z).mean())

    @cached_property
    def z(self) -> Tensor:
        """Distribution parameters of the old policy on the batch, in the policy's precision, shape (B, K)."""
        linearised = self.model.linearised
        return self._z_at(self.theta) if linearised is None else linearised.z

    @cached_property
    def _z64(self) -> Tensor:
        return self._z_at(self.theta.double())

    @torch.no_grad()
    def _z_at(self, theta: Tensor) -> Tensor:
        def z(observations: Tensor) -> Tensor:
            return as_function(self.policy, observations)(theta)

        return in_passes(z, self.batch.observations, self.policy.states_per_pass)

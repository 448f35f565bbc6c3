"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017)."""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import assign
from algorithms.parts.adam import adam
from algorithms.parts.algorithm import Algorithm, Outcome, Pair, Update
from algorithms.parts.gradient import GradientConfig, NonFiniteGradient
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate


@dataclass
class PPOConfig(GradientConfig):
    """Settings of PPO.

    Attributes:
        learning_rate: Adam's, before the schedule.
        epochs: passes over the batch.
        minibatch_size: transitions per Adam step.
        clip: epsilon: how far the probability ratio may leave 1 before its gradient is cut.
    """

    learning_rate: float = MISSING
    epochs: int = MISSING
    minibatch_size: int = MISSING
    clip: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("learning_rate", "clip"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"algorithm.{setting}={getattr(self, setting)}: must be above 0")
        if self.epochs < 1:
            raise ValueError(f"algorithm.epochs={self.epochs}: must be at least 1")
        if not 1 <= self.minibatch_size <= self.batch_size:
            raise ValueError(
                f"algorithm.minibatch_size={self.minibatch_size}: must lie between 1 and "
                f"algorithm.batch_size={self.batch_size}"
            )


@dataclass(frozen=True)
class ClippedSurrogate:
    """-(1/B) sum_t min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t) - beta H, to be descended (equation 7).

    Attributes:
        distribution: pi's family.
        actions: a_t.
        advantages: A_t.
        log_prob_old: log pi_old(a_t|s_t); rho_t = pi / pi_old.
        clip: epsilon.
        entropy_coefficient: beta.
    """

    distribution: Distribution
    actions: Tensor
    advantages: Tensor
    log_prob_old: Tensor
    clip: float
    entropy_coefficient: float

    def __call__(self, z: Tensor) -> Tensor:
        loss = -torch.minimum(*self._terms(z)).mean()
        if self.entropy_coefficient > 0:
            loss = loss - self.entropy_coefficient * self.distribution.entropy(z).mean()
        return loss

    def gradient(self, z: Tensor) -> Tensor:
        """-(1/B) (rho_t A_t grad log pi where that is the minimum, 0 where it is the clipped term; + beta grad H)."""
        free, clipped = self._terms(z)
        weights = free.masked_fill(clipped < free, 0.0)
        ascent = weights.unsqueeze(-1) * self.distribution.score(z, self.actions)
        if self.entropy_coefficient > 0:
            ascent += self.entropy_coefficient * self.distribution.entropy_gradient(z)
        return ascent / -len(z)

    def _terms(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """What the minimum is taken of."""
        ratio = (self.distribution.log_prob(z, self.actions) - self.log_prob_old).exp()
        return ratio * self.advantages, ratio.clamp(1 - self.clip, 1 + self.clip) * self.advantages


class PPO(Algorithm):
    """Several epochs of Adam on the clipped surrogate, in minibatches (algorithm 1).

    L(theta) = mean_t min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t) + beta H,  rho_t = pi_theta / pi_old
    """

    Config = PPOConfig

    def __init__(self, config: PPOConfig, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(config, pair, policy, rng)
        self.adam = adam(policy, epsilon=1e-5)

    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        c, batch, policy, distribution = self.config, problem.batch, self.policy, self.policy.distribution
        if not torch.isfinite(batch.advantages).all():
            return Update(Outcome.NON_FINITE)
        if not batch.advantages.any():
            return Update(Outcome.ZERO_GRADIENT)
        log_prob_old = distribution.log_prob(problem.z, batch.actions)
        columns = (batch.observations, batch.actions, batch.advantages, log_prob_old)
        max_gradient_norm = math.inf if c.max_gradient_norm is None else c.max_gradient_norm
        state_before = deepcopy(self.adam.state_dict())

        self.adam.begin(c.learning_rate * lr_scale)
        try:
            for _ in range(c.epochs):
                order = torch.from_numpy(self.rng.permutation(len(batch))).to(log_prob_old.device)
                minibatches = zip(*(column[order].split(c.minibatch_size) for column in columns), strict=True)
                for observations, actions, advantages, old in minibatches:
                    loss = ClippedSurrogate(distribution, actions, advantages, old, c.clip, c.entropy_coefficient)
                    self.adam.step(observations, loss, max_gradient_norm)
        except NonFiniteGradient:
            assign(policy, problem.theta)
            self.adam.load_state_dict(state_before)
            return Update(Outcome.NON_FINITE)
        self.adam.end()

        ratio = (distribution.log_prob(policy.z(batch.observations), batch.actions) - log_prob_old).exp()
        clip_fraction = float(((ratio - 1).abs() > c.clip).float().mean())
        return Update(Outcome.STEPPED, {"clip_fraction": clip_fraction})

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.adam.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.adam.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]

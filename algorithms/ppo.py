"""PPO: proximal policy optimisation with a clipped surrogate (Schulman et al. 2017)."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from algorithms.fisher.parameters import assign
from algorithms.parts.algorithm import Algorithm, AlgorithmConfig, Outcome, Pair, Update
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate


@dataclass
class PPOConfig(AlgorithmConfig):
    """Settings of PPO.

    Attributes:
        learning_rate: Adam's, before the schedule.
        epochs: passes over the batch.
        minibatch_size: transitions per Adam step.
        clip: epsilon: how far the probability ratio may leave 1 before its gradient is cut.
        entropy_coefficient: weight of the entropy bonus.
        max_gradient_norm: the gradient is scaled down to this Euclidean norm.
    """

    learning_rate: float = MISSING
    epochs: int = MISSING
    minibatch_size: int = MISSING
    clip: float = MISSING
    entropy_coefficient: float = MISSING
    max_gradient_norm: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("learning_rate", "clip", "max_gradient_norm"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"algorithm.{setting}={getattr(self, setting)}: must be above 0")
        if self.epochs < 1:
            raise ValueError(f"algorithm.epochs={self.epochs}: must be at least 1")
        if not self.entropy_coefficient >= 0:
            raise ValueError(f"algorithm.entropy_coefficient={self.entropy_coefficient}: must not be negative")
        if not 1 <= self.minibatch_size <= self.batch_size:
            raise ValueError(
                f"algorithm.minibatch_size={self.minibatch_size}: must lie between 1 and "
                f"algorithm.batch_size={self.batch_size}"
            )


class PPO(Algorithm):
    """Several epochs of Adam on the clipped surrogate (equation 7).

    L(theta) = mean_t min(rho_t A_t, clip(rho_t, 1 - epsilon, 1 + epsilon) A_t),  rho_t = pi_theta / pi_old
    """

    Config = PPOConfig

    def __init__(self, config: PPOConfig, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(config, pair, policy, rng)
        self.optimiser = torch.optim.Adam(policy.parameters(), config.learning_rate, eps=1e-5, fused=True)

    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        c, batch, policy, distribution = self.config, problem.batch, self.policy, self.policy.distribution
        if not torch.isfinite(batch.advantages).all():
            return Update(Outcome.NON_FINITE)
        if not batch.advantages.any():
            return Update(Outcome.ZERO_GRADIENT)
        for group in self.optimiser.param_groups:
            group["lr"] = c.learning_rate * lr_scale
        log_prob_old = distribution.log_prob(problem.z, batch.actions)
        columns = (batch.observations, batch.actions, batch.advantages, log_prob_old)
        parameters = list(policy.parameters())
        state_before = deepcopy(self.optimiser.state_dict())

        for _ in range(c.epochs):
            order = torch.from_numpy(self.rng.permutation(len(batch))).to(log_prob_old.device)
            minibatches = zip(*(column[order].split(c.minibatch_size) for column in columns), strict=True)
            for observations, actions, advantages, log_prob_old_ in minibatches:
                z = policy(observations)
                ratio = (distribution.log_prob(z, actions) - log_prob_old_).exp()
                clipped = ratio.clamp(1 - c.clip, 1 + c.clip)
                loss = -torch.minimum(ratio * advantages, clipped * advantages).mean()
                if c.entropy_coefficient > 0:
                    loss = loss - c.entropy_coefficient * distribution.entropy(z).mean()
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(parameters, c.max_gradient_norm, foreach=True)
                if not torch.isfinite(norm):
                    assign(policy, problem.theta)
                    self.optimiser.load_state_dict(state_before)
                    return Update(Outcome.NON_FINITE)
                self.optimiser.step()

        ratio = (distribution.log_prob(policy.z(batch.observations), batch.actions) - log_prob_old).exp()
        clip_fraction = float(((ratio - 1).abs() > c.clip).float().mean())
        return Update(Outcome.STEPPED, {"clip_fraction": clip_fraction})

    def state_dict(self) -> dict[str, Any]:
        return {"optimiser": self.optimiser.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state["optimiser"])
        self.rng.bit_generator.state = state["rng"]

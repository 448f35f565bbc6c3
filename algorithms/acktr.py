"""ACKTR: actor critic using Kronecker-factored trust region (Wu et al. 2017)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from omegaconf import MISSING

from algorithms.fisher.factors import kronecker_factors
from algorithms.fisher.parameters import assign
from algorithms.parts.algorithm import Algorithm, Outcome, Pair, Update
from algorithms.parts.gradient import GradientConfig, NonFiniteGradient, ascent_gradient
from algorithms.parts.kfac_step import KFACConfig, KFACStep
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate


@dataclass
class ACKTRConfig(KFACConfig, GradientConfig):
    """Settings of ACKTR: those of its K-FAC step, delta in nats, of its gradient, and how its factors are sampled.

    Attributes:
        samples: actions drawn per state for the factors; null: the expectation over actions in closed form.
        adaptation: factor by which eta_max follows the measured divergence; 1: it stays at learning_rate.
    """

    samples: int | None = MISSING
    adaptation: float = MISSING

    def __post_init__(self) -> None:
        GradientConfig.__post_init__(self)
        self.check("algorithm")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"algorithm.samples={self.samples}: must be at least 1, or null for the closed form")
        if not self.adaptation >= 1:
            raise ValueError(f"algorithm.adaptation={self.adaptation}: must be at least 1, which is none")


class ACKTR(Algorithm):
    """Natural gradient by K-FAC, its factors a running average over batches.

        g <- (1/B) sum_t A_t grad log pi(a_t|s_t) + beta grad H(pi(.|s_t))
        A, G <- running averages of E[a a^T], E[delta delta^T], delta from actions sampled from pi
        x <- F^-1 g,  F = diag over layers of A ⊗ G, damped;  2 I for log sigma
        theta <- theta + step(x)                     kfac_step.py: min(eta_max, sqrt(2 delta / x^T F x)), momentum
        eta_max <- eta_max / c if D > 2 delta, min(c eta_max, learning_rate) if D < delta / 2;  c: adaptation

    The bonus is not in the paper but in its authors' code for Atari, the last line in that for continuous control:
    K-FAC underestimates the divergence D along its own natural gradient, and the more so the more deterministic the
    policy becomes.

    The critic beside it is `critic=kfac`, the Gauss-Newton step of the same kind, unless another is asked for.
    """

    Config = ACKTRConfig

    def __init__(self, config: ACKTRConfig, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(config, pair, policy, rng)
        self.step = KFACStep(config, policy)
        self.eta_max = config.learning_rate

    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        c = self.config
        try:
            g = ascent_gradient(problem, c)
        except NonFiniteGradient:
            return Update(Outcome.NON_FINITE)
        if not g.any():
            return Update(Outcome.ZERO_GRADIENT)
        factors = kronecker_factors(problem.model.subsample(c.states, self.rng), c.samples, self.rng)
        step = self.step(problem.theta, g, self.eta_max * lr_scale, factors)
        if step.change is None:
            return Update(Outcome(step.outcome.value), {**step.metrics}, step.damping)
        assign(self.policy, problem.theta + step.change)
        self._adapt(problem)
        return Update(Outcome.STEPPED, {**step.metrics, "eta_max": self.eta_max}, step.damping)

    def _adapt(self, problem: Surrogate) -> None:
        """Let eta_max follow the divergence of the step just made."""
        c = self.config
        kl = float(self.policy.distribution.kl(problem.z, self.policy.z(problem.batch.observations)).mean())
        if kl > 2 * c.delta:
            self.eta_max /= c.adaptation
        elif kl < c.delta / 2:
            self.eta_max = min(c.adaptation * self.eta_max, c.learning_rate)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step.state_dict(), "eta_max": self.eta_max, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step.load_state_dict(state["step"])
        self.eta_max = float(state["eta_max"])
        self.rng.bit_generator.state = state["rng"]

"""ACKTR: actor critic using Kronecker-factored trust region (Wu et al. 2017)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING

from algorithms.algorithm import Algorithm, AlgorithmConfig, Outcome, Pair, Update
from algorithms.fisher.factors import kronecker_factors
from algorithms.fisher.parameters import assign
from algorithms.kfac_step import KFACConfig, KFACStep
from algorithms.policy import Policy
from algorithms.surrogate import Surrogate


@dataclass
class ACKTRConfig(KFACConfig, AlgorithmConfig):
    """Settings of ACKTR: those of its K-FAC step, delta in nats, and how its factors are sampled.

    Attributes:
        samples: actions drawn per state for the factors; null: the expectation over actions in closed form.
    """

    samples: int | None = MISSING

    def __post_init__(self) -> None:
        AlgorithmConfig.__post_init__(self)
        self.check("algorithm")
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"algorithm.samples={self.samples}: must be at least 1, or null for the closed form")


class ACKTR(Algorithm):
    """Natural gradient by K-FAC, its factors a running average over batches.

        g <- (1/B) sum_t A_t grad log pi(a_t|s_t)
        A, G <- running averages of E[a a^T], E[delta delta^T], delta from actions sampled from pi
        x <- F^-1 g,  F = diag over layers of A ⊗ G, damped;  2 I for log sigma
        theta <- theta + step(x)                     kfac_step.py: min(eta_max, sqrt(2 delta / x^T F x)), momentum

    The critic beside it is `critic=kfac`, the Gauss-Newton step of the same kind, unless another is asked for.
    """

    Config = ACKTRConfig

    def __init__(self, config: ACKTRConfig, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(config, pair, policy, rng)
        self.step = KFACStep(config, policy)

    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        c, g = self.config, problem.gradient
        if not torch.isfinite(g).all():
            return Update(Outcome.NON_FINITE)
        if not g.any():
            return Update(Outcome.ZERO_GRADIENT)
        factors = kronecker_factors(problem.model, c.samples, self.rng)
        step = self.step(problem.theta, g, lr_scale, factors)
        if step.change is None:
            return Update(Outcome(step.outcome.value), {**step.metrics}, c.damping)
        assign(self.policy, problem.theta + step.change)
        return Update(Outcome.STEPPED, {**step.metrics}, c.damping)

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.step.load_state_dict(state["step"])
        self.rng.bit_generator.state = state["rng"]

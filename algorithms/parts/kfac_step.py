"""The step that ACKTR's actor and critic share: K-FAC with running factors, momentum and a trust region."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import MISSING
from torch import Tensor, nn

from algorithms.fisher.factors import Factors, RunningFactors, factors_from_state, factors_to_state
from algorithms.fisher.layers import layers_of
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.fisher.parameters import flatten
from algorithms.fisher.solvers import JITTERS, Outcome


@dataclass
class KFACConfig:
    """Settings of a K-FAC step.

    Attributes:
        learning_rate: largest eta_max, before the schedule.
        delta: radius of the trust region.
        damping: lambda_0 of the factored Tikhonov damping lambda = lambda_0 + rho tr(F) / d.
        rho: its part in proportion to F, as `diagnostics.rho`.
        momentum: m of the momentum buffer.
        decay: of the running factors, per step.
        inverse_interval: steps between two factorisations; 1: at every step.
        states: states that the factors are taken over, drawn anew for every step; null: all it sees.
    """

    learning_rate: float = MISSING
    delta: float = MISSING
    damping: float = MISSING
    rho: float = MISSING
    momentum: float = MISSING
    decay: float = MISSING
    inverse_interval: int = MISSING
    states: int | None = MISSING

    def check(self, group: str) -> None:
        """Refuse values out of range. Raises ValueError."""
        for setting in ("learning_rate", "delta"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"{group}.{setting}={getattr(self, setting)}: must be above 0")
        for setting in ("damping", "rho"):
            if not getattr(self, setting) >= 0:
                raise ValueError(f"{group}.{setting}={getattr(self, setting)}: must not be negative")
        for setting in ("momentum", "decay"):
            if not 0 <= getattr(self, setting) < 1:
                raise ValueError(f"{group}.{setting}={getattr(self, setting)}: must lie in [0, 1)")
        if self.inverse_interval < 1:
            raise ValueError(f"{group}.inverse_interval={self.inverse_interval}: must be at least 1")
        if self.states is not None and self.states < 1:
            raise ValueError(f"{group}.states={self.states}: must be at least 1, or null for all")


@dataclass(frozen=True)
class Step:
    """The change of theta, or None and the reason, the lambda it was made with, and what it logs."""

    change: Tensor | None
    outcome: Outcome
    damping: float | None
    metrics: dict[str, float] = field(default_factory=dict)


class KFACStep:
    r"""One step up the gradient g in the metric of K-FAC (Wu et al. 2017, sections 3.1 and 3.2).

        x <- F^-1 g                     F: K-FAC of the running factors, damped by lambda_0 + rho tr(F) / d
        eta <- min(eta_max, sqrt(2 delta / x^T F x))
        Delta <- m Delta + (1 - m) eta x
        Delta <- Delta min(1, sqrt(2 delta / Delta^T F Delta))

    The last line keeps the trust region for the change that is made, momentum included. x^T F x = x^T g, since products
    and inverse are of the same damped F, the one of the last factorisation. A step that fails changes neither the
    momentum nor the factorisation.
    """

    def __init__(self, config: KFACConfig, network: nn.Module) -> None:
        self.config, self.network = config, network
        self.layers = layers_of(network)
        self.running = RunningFactors(config.decay)
        self.metric: KFAC | None = None
        self.momentum: Tensor | None = None
        self.steps = 0

    def __call__(self, theta: Tensor, g: Tensor, eta_max: float, factors: list[Factors]) -> Step:
        """The step at theta up g.

        Args:
            theta: parameters, shape (d,).
            g: gradient, shape (d,), finite and not 0.
            eta_max: the largest multiple of the natural gradient.
            factors: of the present batch.
        """
        c = self.config
        metrics = {"factors_skipped": 0.0 if self.running.add(factors) else 1.0, "factor_jitters": 0.0}
        due = self.metric is None or self.steps % c.inverse_interval == 0
        self.steps += 1
        if due and self.running.factors:
            self.metric = KFAC(theta, self.running.factors, JITTERS)
        if self.metric is None:
            return Step(None, Outcome.NON_FINITE, None, metrics)
        damping = c.damping + c.rho * self.metric.trace() / self.metric.dim
        natural = self.metric.unchecked_inverse_product(g, damping)
        metrics["factor_jitters"] = float(self.metric.jitters_used) if due else 0.0
        if not natural.usable:
            return Step(None, natural.outcome, damping, metrics)

        squared = float(natural.x.dot(g))
        if not (math.isfinite(squared) and squared > 0):
            outcome = Outcome.NEGATIVE_CURVATURE if math.isfinite(squared) else Outcome.NON_FINITE
            return Step(None, outcome, damping, metrics)
        metrics["step_size"] = min(eta_max, math.sqrt(2 * c.delta / squared))
        change = (1 - c.momentum) * metrics["step_size"] * natural.x
        if self.momentum is not None:
            change = change + c.momentum * self.momentum
        squared = float(change.dot(self.metric.damped_product(change, damping)))
        if squared > 2 * c.delta:
            change = change * math.sqrt(2 * c.delta / squared)
        if not torch.isfinite(change).all():
            return Step(None, Outcome.NON_FINITE, damping, metrics)
        self.momentum = change
        metrics["predicted_kl"] = min(0.5 * squared, c.delta)
        return Step(change, natural.outcome, damping, metrics)

    def state_dict(self) -> dict[str, Any]:
        """All that shapes later steps."""
        return {
            "running": factors_to_state(self.running.factors),
            "metric": None if self.metric is None else factors_to_state(self.metric.factors),
            "momentum": self.momentum,
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.running.factors = factors_from_state(state["running"], self.layers)
        metric = state["metric"]
        self.metric = (
            None if metric is None else KFAC(flatten(self.network), factors_from_state(metric, self.layers), JITTERS)
        )
        self.momentum, self.steps = state["momentum"], int(state["steps"])

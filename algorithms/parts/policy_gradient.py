"""Policy gradient methods as pairs: a direction and a step rule, chosen independently of each other."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from algorithms.fisher.parameters import assign
from algorithms.parts.algorithm import Algorithm, Outcome, Pair, Update
from algorithms.parts.directions import Adam, DirectionRule, Gradient, Natural, RMSProp
from algorithms.parts.gradient import GradientConfig, NonFiniteGradient, ascent_gradient
from algorithms.parts.policy import Policy
from algorithms.parts.step_rules import CurvatureError, Step, learning_rate_step, line_search, normalised, to_divergence
from algorithms.parts.surrogate import Surrogate


@dataclass
class PairConfig(GradientConfig):
    """Settings of a direction-and-step-rule pair; each part reads its own, so that any two can be combined.

    Attributes:
        learning_rate: step rule `lr`: x is multiplied by it, times the schedule's factor.
        delta: step rules `normalised`, `kl` and `line_search`: radius of the trust region, nats.
        damping: lambda in F + lambda I, in the direction `natural` and wherever a step rule measures x.
        betas: direction `adam`: decay rates of the two moments.
        alpha: direction `rmsprop`: decay rate of the second moment.
        epsilon: directions `adam` and `rmsprop`: added to the root of the second moment.
        backtrack_ratio: step rule `line_search`: factor from trial to trial.
        max_backtracks: step rule `line_search`: trials after the first before the step is rejected.
        line_search_start: step rule `line_search`: its first trial, `normalised` or `kl`.
    """

    learning_rate: float = MISSING
    delta: float = MISSING
    damping: float = MISSING
    betas: list[float] = MISSING
    alpha: float = MISSING
    epsilon: float = MISSING
    backtrack_ratio: float = MISSING
    max_backtracks: int = MISSING
    line_search_start: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        for setting in ("learning_rate", "delta", "epsilon"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"algorithm.{setting}={getattr(self, setting)}: must be above 0")
        if not self.damping >= 0:
            raise ValueError(f"algorithm.damping={self.damping}: must not be negative")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"algorithm.betas={self.betas}: must be two numbers in [0, 1)")
        if not 0 <= self.alpha < 1:
            raise ValueError(f"algorithm.alpha={self.alpha}: must lie in [0, 1)")
        if not 0 < self.backtrack_ratio < 1:
            raise ValueError(f"algorithm.backtrack_ratio={self.backtrack_ratio}: must lie in (0, 1)")
        if self.max_backtracks < 0:
            raise ValueError(f"algorithm.max_backtracks={self.max_backtracks}: must not be negative")
        if self.line_search_start not in ("normalised", "kl"):
            raise ValueError(f"algorithm.line_search_start={self.line_search_start}: choose one of normalised, kl")


class PolicyGradient(Algorithm):
    """theta <- theta + change(x), x a direction of ascent of the surrogate return, or with an entropy bonus."""

    Config = PairConfig
    is_pair = True

    def __init__(self, config: PairConfig, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        super().__init__(config, pair, policy, rng)
        self.direction = self._direction()

    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        try:
            g = ascent_gradient(problem, self.config)
        except NonFiniteGradient:
            return Update(Outcome.NON_FINITE)
        if not g.any():
            return Update(Outcome.ZERO_GRADIENT)

        direction = self.direction(problem, g)
        if not direction.usable:
            return Update(Outcome(direction.outcome.value), {**direction.metrics}, self._damping)

        try:
            step = self._step(problem, direction.x, lr_scale)
        except CurvatureError as error:
            return Update(Outcome(error.outcome), {**direction.metrics}, self._damping)
        metrics: dict[str, float | None] = {**direction.metrics, **step.metrics}
        if step.change is None:
            return Update(Outcome.REJECTED, metrics, self._damping)
        theta = problem.theta + step.change
        if not torch.isfinite(theta).all():
            return Update(Outcome.NON_FINITE, metrics, self._damping)
        assign(self.policy, theta)
        return Update(Outcome.STEPPED, metrics, self._damping)

    @property
    def _damping(self) -> float | None:
        return self.config.damping if self.pair.direction == "natural" else None

    def _direction(self) -> DirectionRule:
        c, fisher = self.config, self.pair.fisher
        match self.pair.direction:
            case "gradient" | "sgd":
                return Gradient()
            case "adam":
                return Adam(c.betas[0], c.betas[1], c.epsilon)
            case "rmsprop":
                return RMSProp(c.alpha, c.epsilon)
            case "natural":
                dim = sum(p.numel() for p in self.policy.parameters())
                return Natural(fisher, self.pair.solver, c.damping, dim, self.rng)
            case other:
                raise ValueError(f"direction={other}: unknown")

    def _step(self, problem: Surrogate, x: Tensor, lr_scale: float) -> Step:
        c = self.config
        match self.pair.step_rule:
            case "lr":
                return learning_rate_step(x, c.learning_rate * lr_scale)
            case "normalised":
                return normalised(problem, x, c.delta, c.damping)
            case "kl":
                return to_divergence(problem, x, c.delta, c.damping)
            case "line_search":
                start = normalised if c.line_search_start == "normalised" else to_divergence
                full = start(problem, x, c.delta, c.damping)
                return line_search(problem, full, c.delta, c.backtrack_ratio, c.max_backtracks, c.entropy_coefficient)
            case other:
                raise ValueError(f"step_rule={other}: unknown")

    def state_dict(self) -> dict[str, Any]:
        return {"direction": self.direction.state, "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.direction.state = deepcopy(state["direction"])
        self.rng.bit_generator.state = state["rng"]

"""What an algorithm is to the rest of the suite: a policy update with a named outcome."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

import numpy as np
from omegaconf import MISSING

from algorithms.fisher.metric import FisherConfig, Metric
from algorithms.parts.plugins import load
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate

DIRECTIONS = ("gradient", "sgd", "adam", "rmsprop", "natural")
STEP_RULES = ("lr", "normalised", "kl", "line_search")
SOLVERS = ("cg", "cholesky", "factored", "woodbury")


class Outcome(StrEnum):
    """How an update ended. All but `stepped` leave the policy's parameters exactly as they were."""

    STEPPED = "stepped"
    REJECTED = "rejected"
    ZERO_GRADIENT = "zero_gradient"
    NEGATIVE_CURVATURE = "negative_curvature"
    ILL_CONDITIONED = "ill_conditioned"
    NON_FINITE = "non_finite"


@dataclass(frozen=True)
class Update:
    """What one update reports.

    Attributes:
        outcome: how it ended.
        metrics: columns this algorithm adds to `progress.parquet`; None is a value that was not measured.
        damping: lambda of the metric the update itself followed, if it followed one.
    """

    outcome: Outcome
    metrics: dict[str, float | None] = field(default_factory=dict)
    damping: float | None = None


@dataclass
class AlgorithmConfig:
    """What every algorithm's settings contain.

    Attributes:
        name: the algorithm's file name, here and in `conf/algorithm/`.
        label: what readers see, as TRPO; null: the name.
        batch_size: environment steps per update, a multiple of the number of environments.
        direction: its own direction, if it is a pair of direction and step rule.
        step_rule: its own step rule, likewise.
    """

    name: str = MISSING
    label: str | None = None
    batch_size: int = MISSING
    direction: str | None = None
    step_rule: str | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"algorithm.batch_size={self.batch_size}: must be at least 1")


@dataclass
class Pair:
    """The settings that cut across algorithms: direction, step rule, and the Fisher matrix of a natural direction."""

    direction: str | None
    step_rule: str | None
    fisher: FisherConfig
    solver: str

    def __post_init__(self) -> None:
        _check_choice("solver", self.solver, SOLVERS)
        if self.direction is not None:
            _check_choice("direction", self.direction, DIRECTIONS)
        if self.step_rule is not None:
            _check_choice("step_rule", self.step_rule, STEP_RULES)


def load_fisher(name: str) -> type[Metric]:
    """The metric in `algorithms/fisher/metrics/<name>.py`. Raises ValueError."""
    return load("fisher", name, Metric, f"algorithms.fisher.metrics.{name}")


def _check_choice(setting: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{setting}={value}: unknown; choose one of {', '.join(choices)}")


class Algorithm(ABC):
    """A policy update rule.

    A subclass named in `algorithms/<name>.py` and its values in `conf/algorithm/<name>.yaml` are all a new one takes.

    Attributes:
        Config: the dataclass of the algorithm's settings.
        is_pair: whether it is a direction-and-step-rule pair, so that `direction=` and `step_rule=` apply.
    """

    Config: ClassVar[type[AlgorithmConfig]]
    is_pair: ClassVar[bool] = False

    def __init__(self, config: Any, pair: Pair, policy: Policy, rng: np.random.Generator) -> None:
        self.config, self.pair, self.policy, self.rng = config, pair, policy, rng

    @abstractmethod
    def update(self, problem: Surrogate, lr_scale: float) -> Update:
        """Improve `self.policy` in place on `problem.batch`.

        Args:
            problem: the batch, and the surrogate objective and Fisher matrix at the policy's current parameters.
            lr_scale: the learning-rate schedule's factor, in (0, 1].
        """

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """All that shapes future updates besides the policy's parameters."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""

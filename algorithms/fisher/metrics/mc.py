"""The Fisher matrix with actions sampled from the policy."""

from dataclasses import dataclass

import numpy as np
from omegaconf import MISSING

from algorithms.fisher.metric import FisherConfig, Model
from algorithms.fisher.pullback import ScoredFisher


@dataclass
class MonteCarloConfig(FisherConfig):
    """Settings of the sampled Fisher matrix.

    Attributes:
        samples: actions drawn per state.
    """

    samples: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples < 1:
            raise ValueError(f"fisher.samples={self.samples}: must be at least 1")


class MonteCarloFisher(ScoredFisher):
    """F = (1/(B m)) sum_s sum_{j <= m} grad log pi(a_sj|s) grad log pi(a_sj|s)^T, a_sj drawn from pi(.|s).

    Unbiased; its error falls with the root of B m. The gradients of log sigma are sampled too.
    """

    Config = MonteCarloConfig

    @classmethod
    def at(cls, model: Model, config: MonteCarloConfig, rng: np.random.Generator) -> "MonteCarloFisher":
        return cls(model, lambda z: model.sampled_scores(z, config.samples, rng))

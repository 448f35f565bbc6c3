"""The empirical Fisher matrix: outer products of the gradients at the actions that were taken."""

import numpy as np

from algorithms.fisher.metric import FisherConfig, Model
from algorithms.fisher.pullback import ScoredFisher


class EmpiricalFisher(ScoredFisher):
    """F = (1/B) sum_s grad log pi(a_s|s) grad log pi(a_s|s)^T at the actions of the batch.

    At the parameters that took these actions it is a Monte-Carlo estimate with one action per state; at any others, or
    with actions from elsewhere, it is another matrix altogether (Kunstner, Balles and Hennig 2019).
    """

    @classmethod
    def at(cls, model: Model, config: FisherConfig, rng: np.random.Generator) -> "EmpiricalFisher":
        return cls(model, lambda z: [model.distribution.score(z, model.actions)])

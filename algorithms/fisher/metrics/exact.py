"""The Fisher matrix with the expectation over actions in closed form."""

import numpy as np
from torch import Tensor

from algorithms.fisher.metric import FisherConfig, Model
from algorithms.fisher.pullback import Pullback


class ExactFisher(Pullback):
    r"""F = (1/B) sum_s J_s^T M_s J_s, M_s the Fisher matrix of the output distribution in z.

    Equal to the generalised Gauss-Newton matrix of the mean KL divergence (Martens 2020, section 9).
    """

    @classmethod
    def at(cls, model: Model, config: FisherConfig, rng: np.random.Generator) -> "ExactFisher":
        return cls(model)

    def output_product(self, u: Tensor) -> Tensor:
        return self.model.distribution.fisher_product(self.z, u)

    def output_factors(self) -> list[Tensor]:
        return list(self.model.distribution.fisher_factors(self.z))

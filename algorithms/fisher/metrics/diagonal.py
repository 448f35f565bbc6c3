"""The diagonal of the Fisher matrix."""

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.metric import Metric, Model, SampledConfig
from algorithms.fisher.solvers import Solution, divide


class DiagonalFisher(Metric):
    """diag(F), F_ii = E_s E_a (d log pi(a|s) / d theta_i)^2: mean squares of per-state gradients.

    Args:
        theta: where it was taken, shape (d,).
        entries: the diagonal, shape (d,).
    """

    Config = SampledConfig
    solvers = ("factored", "cg", "cholesky")

    def __init__(self, theta: Tensor, entries: Tensor) -> None:
        self.theta, self.entries = theta, entries

    @classmethod
    def at(cls, model: Model, config: SampledConfig, rng: np.random.Generator) -> "DiagonalFisher":
        entries = torch.zeros_like(model.theta)
        for p, delta in model.backward(config.samples, rng):
            entries[p.layer.start : p.layer.stop] += p.layer.vector(p.mean_squares(delta))
        return cls(model.theta, entries)

    def product(self, v: Tensor) -> Tensor:
        return torch.einsum("i,i...->i...", self.entries, v)

    def inverse_product(self, b: Tensor, damping: float) -> Solution:
        return divide(b, self.entries + damping)

    def diagonal(self) -> Tensor:
        return self.entries

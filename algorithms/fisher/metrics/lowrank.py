"""A low-rank Fisher matrix from a randomised sketch of the exact one."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from algorithms.fisher.metric import FisherConfig, Metric, Model
from algorithms.fisher.metrics.exact import ExactFisher
from algorithms.fisher.solvers import Outcome, Solution, relative_residual


@dataclass
class LowRankConfig(FisherConfig):
    """Settings of the low-rank Fisher matrix.

    Attributes:
        rank: columns of the sketch, and products with the exact Fisher matrix per update; at most d are used.
    """

    rank: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank < 1:
            raise ValueError(f"fisher.rank={self.rank}: must be at least 1")


class LowRankFisher(Metric):
    """U diag(e) U^T, the Nystrom approximation (F W) (W^T F W)^+ (F W)^T with a random orthonormal W of r columns.

    (Frangella, Tropp and Udell 2023, algorithm 2.1.) It never exceeds F, and equals F when r reaches F's rank. Damped,
    it is low rank plus identity, and Woodbury's formula inverts it:

        (U diag(e) U^T + lambda I)^-1 b = U diag(1 / (e + lambda)) U^T b + (b - U U^T b) / lambda

    Args:
        theta: where it was taken, shape (d,).
        basis: U, orthonormal columns, shape (d, r).
        eigenvalues: e, shape (r,).
    """

    Config = LowRankConfig
    solvers = ("woodbury", "cg", "cholesky")

    def __init__(self, theta: Tensor, basis: Tensor, eigenvalues: Tensor) -> None:
        self.theta, self.basis, self.eigenvalues = theta, basis, eigenvalues

    @classmethod
    def at(cls, model: Model, config: LowRankConfig, rng: np.random.Generator) -> "LowRankFisher":
        d = len(model.theta)
        directions = torch.from_numpy(rng.standard_normal((d, min(config.rank, d)))).to(model.theta)
        w = torch.linalg.qr(directions)[0]
        return cls(model.theta, *nystrom(ExactFisher(model).product(w), w))

    def product(self, v: Tensor) -> Tensor:
        return self.basis @ torch.einsum("i,i...->i...", self.eigenvalues, self.basis.mT @ v)

    def inverse_product(self, b: Tensor, damping: float) -> Solution:
        if not (torch.isfinite(self.eigenvalues).all() and torch.isfinite(b).all()):
            return Solution(torch.zeros_like(b), Outcome.NON_FINITE, math.nan, 0)
        if not damping > 0:  # of lower rank than d, or too close to it to tell
            return Solution(torch.zeros_like(b), Outcome.ILL_CONDITIONED, math.nan, 0)
        inside = self.basis.mT @ b
        scaled = torch.einsum("i,i...->i...", 1 / (self.eigenvalues + damping), inside)
        x = self.basis @ scaled + (b - self.basis @ inside) / damping
        return Solution(x, Outcome.CONVERGED, relative_residual(self.damped_product(x, damping), b), 0)

    def diagonal(self) -> Tensor:
        return self.basis.square() @ self.eigenvalues

    def trace(self) -> float:
        return float(self.eigenvalues.sum())


def nystrom(sketch: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvectors (d, r) and eigenvalues (r,) of Y (W^T Y)^-1 Y^T, Y = F W the sketch; NaN when it is not finite.

    In float64, with Y shifted by nu W so that the inner matrix has a Cholesky factor, and nu taken off at the end.
    """
    y, w64 = sketch.double(), w.double()
    # Y carries the rounding errors of its own precision, which nu has to outweigh.
    nu = math.sqrt(len(y)) * torch.finfo(sketch.dtype).eps * float(y.norm()) + torch.finfo(torch.float32).tiny
    root, info = torch.linalg.cholesky_ex(_symmetric(w64.mT @ (y + nu * w64)))
    if int(info) or not torch.isfinite(root).all():
        return torch.full_like(w, math.nan), torch.full_like(w[0], math.nan)
    b = torch.linalg.solve_triangular(root, (y + nu * w64).mT, upper=False).mT
    u, singular, _ = torch.linalg.svd(b, full_matrices=False)
    return u.to(w), (singular.square() - nu).clamp(min=0).to(w)


def _symmetric(a: Tensor) -> Tensor:
    return (a + a.mT) / 2

"""EKFAC: the eigenbasis of K-FAC with the Fisher matrix's own diagonal in it."""

import math
from contextlib import suppress

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.factors import Factors, blockwise, kronecker_factors
from algorithms.fisher.metric import Metric, Model, SampledConfig
from algorithms.fisher.solvers import JITTERS, Solution, divide, relative_residual


class EKFAC(Metric):
    """F = Q diag(s) Q^T, Q = Q_G ⊗ Q_A layer by layer, s_i = E (q_i^T grad log pi)^2 (George et al. 2018, section 3).

    Q_A and Q_G are the eigenvectors of the K-FAC factors. Of all matrices with the eigenvectors Q this one is the
    closest to the block-diagonal Fisher matrix in the Frobenius norm, so never further from it than K-FAC.

    Args:
        theta: where it was taken, shape (d,).
        factors: the layers in the order of theta; their A and G hold the eigenvectors in their columns.
        eigenvalues: s in the order of theta, shape (d,).
    """

    Config = SampledConfig
    solvers = ("factored", "cg", "cholesky")

    def __init__(self, theta: Tensor, factors: list[Factors], eigenvalues: Tensor) -> None:
        self.theta, self.factors, self.eigenvalues = theta, factors, eigenvalues

    @classmethod
    def at(cls, model: Model, config: SampledConfig, rng: np.random.Generator) -> "EKFAC":
        state = rng.bit_generator.state
        bases = [
            Factors(f.layer, eigenvectors(f.a), eigenvectors(f.g))
            for f in kronecker_factors(model, config.samples, rng)
        ]
        rng.bit_generator.state = state  # the same actions for the eigenvalues as for the factors
        by_name = {f.layer.name: f for f in bases}
        eigenvalues = torch.zeros_like(model.theta)
        for p, delta in model.backward(config.samples, rng):
            f = by_name[p.layer.name]
            eigenvalues[p.layer.start : p.layer.stop] += p.layer.vector(p.mean_squares(delta, (f.g, f.a)))
        return cls(model.theta, bases, eigenvalues)

    def product(self, v: Tensor) -> Tensor:
        return self._out_of_basis(torch.einsum("i,i...->i...", self.eigenvalues, self._into_basis(v)))

    def inverse_product(self, b: Tensor, damping: float) -> Solution:
        eigenvalues = self.eigenvalues + damping
        # Beside the largest, rounding noise: as little to be divided by as 0 itself.
        noise = torch.finfo(eigenvalues.dtype).eps * eigenvalues.max()
        solution = divide(self._into_basis(b), torch.where(eigenvalues <= noise, 0.0, eigenvalues))
        x = self._out_of_basis(solution.x)
        return Solution(x, solution.outcome, relative_residual(self.damped_product(x, damping), b), 0)

    def diagonal(self) -> Tensor:
        return torch.cat(
            [f.layer.vector(f.g.square() @ f.layer.matrix(self.eigenvalues) @ f.a.square().mT) for f in self.factors]
        )

    def trace(self) -> float:
        return float(self.eigenvalues.sum())

    def _into_basis(self, v: Tensor) -> Tensor:
        return blockwise(v, [Factors(f.layer, f.a, f.g.mT) for f in self.factors])

    def _out_of_basis(self, v: Tensor) -> Tensor:
        return blockwise(v, [Factors(f.layer, f.a.mT, f.g) for f in self.factors])


def eigenvectors(factor: Tensor) -> Tensor:
    """Orthonormal eigenvectors in columns, computed in float64; NaN when the factor is not finite.

    A decomposition that does not converge is tried again with `JITTERS` on the diagonal, which moves no eigenvector,
    and gives NaN when they are used up: the solve then ends as `non_finite`.
    """
    a = factor.double()
    if torch.isfinite(a).all():
        for jitter in (0.0, *JITTERS):
            shift = jitter * a.diagonal().mean() * torch.eye(len(a), dtype=a.dtype, device=a.device)
            with suppress(RuntimeError):  # which is what LinAlgError is
                vectors: Tensor = torch.linalg.eigh(a + shift)[1]
                return vectors.to(factor)
    return torch.full_like(factor, math.nan)

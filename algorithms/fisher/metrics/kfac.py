"""K-FAC: block-diagonal by layer, every block a Kronecker product."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.factors import Factors, blockwise, kronecker_factors
from algorithms.fisher.metric import Metric, Model, SampledConfig
from algorithms.fisher.solvers import Outcome, Solution, cholesky_factor, relative_residual

LARGE = 1024
"""Rows above which solves with a factor are in the precision of their right-hand side: with the 3,137 rows of a layer
on top of convolutions they weigh in an update. The factorisation, where rounding does harm, is in float64."""


class KFAC(Metric):
    r"""F = diag over layers of A ⊗ G (Martens and Grosse 2015, section 4.2).

    Exact in its diagonal blocks with a single state, and for networks without nonlinearity under a Gaussian head, where
    inputs and gradients are independent; elsewhere an approximation. Damping is the factored Tikhonov form,

        (A + pi sqrt(lambda) I) ⊗ (G + sqrt(lambda) / pi I),  pi^2 = (tr A / dim A) / (tr G / dim G),

    (ibid., section 6.3) in products and inverses alike. A 1 x 1 factor A is a number, and lambda goes to G as a whole.

    Args:
        theta: where the factors were taken, shape (d,).
        factors: of every layer, in the order of theta.
        jitters: added to a damped factor that has no Cholesky factor, one after another, in units of its mean diagonal
            entry; without any, such a factor makes every inverse product `ill_conditioned`.

    Attributes:
        jitters_used: how many were tried so far.
    """

    Config = SampledConfig
    solvers = ("factored", "cg", "cholesky")

    def __init__(self, theta: Tensor, factors: list[Factors], jitters: Sequence[float] = ()) -> None:
        self.theta, self.factors, self.jitters = theta, factors, jitters
        self._damped: dict[float, list[Factors]] = {}
        self._cholesky: dict[float, list[tuple[Tensor, Tensor]] | Outcome] = {}
        self.jitters_used = 0

    @classmethod
    def at(cls, model: Model, config: SampledConfig, rng: np.random.Generator) -> "KFAC":
        return cls(model.theta, kronecker_factors(model, config.samples, rng))

    def product(self, v: Tensor) -> Tensor:
        return blockwise(v, self.factors)

    def damped_product(self, v: Tensor, damping: float) -> Tensor:
        return blockwise(v, self.damped_factors(damping))

    def inverse_product(self, b: Tensor, damping: float) -> Solution:
        solution = self.unchecked_inverse_product(b, damping)
        if not solution.usable:
            return solution
        return replace(solution, residual=relative_residual(self.damped_product(solution.x, damping), b))

    def unchecked_inverse_product(self, b: Tensor, damping: float) -> Solution:
        """`inverse_product` without its residual, which costs a product; NaN stands for it."""
        if not torch.isfinite(b).all():
            return Solution(torch.zeros_like(b), Outcome.NON_FINITE, math.nan, 0)
        if damping not in self._cholesky:
            self._cholesky[damping] = self._factorise(damping, b.dtype)
        roots = self._cholesky[damping]
        if isinstance(roots, Outcome):
            return Solution(torch.zeros_like(b), roots, math.nan, 0)
        parts = []
        for f, (root_a, root_g) in zip(self.factors, roots, strict=True):
            v = f.layer.matrix(b.movedim(0, -1)).to(root_g.dtype)
            half = torch.cholesky_solve(v, root_g).to(root_a.dtype)
            parts.append(f.layer.vector(torch.cholesky_solve(half.mT, root_a).mT))
        x = torch.cat([part.to(b.dtype) for part in parts], -1).movedim(-1, 0)
        return Solution(x, Outcome.CONVERGED, math.nan, 0)

    def diagonal(self) -> Tensor:
        return torch.cat([f.layer.vector(torch.outer(f.g.diagonal(), f.a.diagonal())) for f in self.factors])

    def damped_factors(self, damping: float) -> list[Factors]:
        """A and G of every layer with their shares of the damping added."""
        if damping not in self._damped:
            self._damped[damping] = [_damp(f, damping) for f in self.factors]
        return self._damped[damping]

    def _factorise(self, damping: float, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]] | Outcome:
        """Cholesky factors, made in float64; those of more than `LARGE` rows are rounded to dtype."""
        roots = []
        for f in self.damped_factors(damping):
            if not f.is_finite:
                return Outcome.NON_FINITE
            (root_a, tried_a), (root_g, tried_g) = (cholesky_factor(m, self.jitters) for m in (f.a, f.g))
            self.jitters_used += tried_a + tried_g
            if root_a is None or root_g is None:
                return Outcome.ILL_CONDITIONED
            root_a, root_g = (root.to(dtype) if len(root) > LARGE else root for root in (root_a, root_g))
            roots.append((root_a, root_g))
        return roots


def _damp(f: Factors, damping: float) -> Factors:
    trace_a, trace_g = f.a.trace() / len(f.a), f.g.trace() / len(f.g)
    if len(f.a) == 1:
        to_a, to_g = torch.zeros_like(trace_a), damping / trace_a
    else:
        # A layer whose gradients have died out has G = 0: any split of lambda is as good, and pi = 1 is finite.
        pi = (trace_a / trace_g).sqrt() if trace_a > 0 and trace_g > 0 else torch.ones_like(trace_a)
        to_a, to_g = pi * math.sqrt(damping), math.sqrt(damping) / pi
    eye_a, eye_g = (torch.eye(len(m), dtype=m.dtype, device=m.device) for m in (f.a, f.g))
    return Factors(f.layer, f.a + to_a * eye_a, f.g + to_g * eye_g)

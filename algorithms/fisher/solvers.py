"""Solvers of A x = b for a symmetric positive definite A known through its products, with named outcomes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import torch
from torch import Tensor


class Outcome(StrEnum):
    """How a solve ended. `capped` is the normal end of a truncated solve; the last two leave no usable direction."""

    CONVERGED = "converged"
    CAPPED = "capped"
    NEGATIVE_CURVATURE = "negative_curvature"
    NON_FINITE = "non_finite"


@dataclass(frozen=True)
class Solution:
    """x with A x close to b.

    Attributes:
        x: the solution, or the last iterate before the trouble that `outcome` names.
        residual: ||b - A x|| / ||b||, by the solver's own recursion.
        iterations: products with A.
        largest_eigenvalue: largest Ritz value of A, a lower bound of its largest eigenvalue that is tight after a
            few iterations; NaN before the first.
    """

    x: Tensor
    outcome: Outcome
    residual: float
    iterations: int
    largest_eigenvalue: float

    @property
    def usable(self) -> bool:
        return self.outcome in (Outcome.CONVERGED, Outcome.CAPPED)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, max_iterations: int, tolerance: float
) -> Solution:
    """Conjugate gradients from x = 0 (Hestenes and Stiefel 1952) until ||b - A x|| <= tolerance ||b||.

    Every iterate minimises 1/2 x^T A x - b^T x over a growing Krylov space, so a capped solve is still an ascent
    direction: b^T x > 0. The coefficients are those of the Lanczos tridiagonalisation of A (Golub and Van Loan,
    section 11.3), which gives the largest eigenvalue without another product.

    Args:
        product: v -> A v.
        b: right-hand side, shape (d,), not zero.
        max_iterations: products at most.
        tolerance: relative residual at which to stop.
    """
    x = torch.zeros_like(b)
    residual, direction = b.clone(), b.clone()
    squared = squared_b = float(b.dot(b))
    steps: list[float] = []
    ratios: list[float] = []

    def solution(outcome: Outcome) -> Solution:
        relative = math.sqrt(squared / squared_b) if squared_b > 0 else math.nan
        return Solution(x, outcome, relative, len(steps), _largest_ritz_value(steps, ratios))

    if not math.isfinite(squared_b):
        return solution(Outcome.NON_FINITE)
    for _ in range(max_iterations):
        a_direction = product(direction)
        curvature = float(direction.dot(a_direction))
        if not math.isfinite(curvature):
            return solution(Outcome.NON_FINITE)
        if curvature <= 0:
            return solution(Outcome.NEGATIVE_CURVATURE)
        step = squared / curvature
        x = x + step * direction
        residual = residual - step * a_direction
        previous, squared = squared, float(residual.dot(residual))
        steps.append(step)
        ratios.append(squared / previous)
        if squared <= tolerance**2 * squared_b:
            return solution(Outcome.CONVERGED)
        direction = residual + ratios[-1] * direction
    return solution(Outcome.CAPPED)


def _largest_ritz_value(steps: list[float], ratios: list[float]) -> float:
    """Largest eigenvalue of the Lanczos matrix with diagonal 1/a_k + b_{k-1}/a_{k-1} and off-diagonal sqrt(b_k)/a_k."""
    if not steps:
        return math.nan
    a, b = np.asarray(steps), np.asarray(ratios[:-1])
    diagonal = 1 / a
    diagonal[1:] += b / a[:-1]
    off_diagonal = np.sqrt(b) / a[:-1]
    lanczos = np.diag(diagonal) + np.diag(off_diagonal, 1) + np.diag(off_diagonal, -1)
    return float(np.linalg.eigvalsh(lanczos)[-1])

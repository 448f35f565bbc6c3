"""Solvers of A x = b for a symmetric positive definite A, with named outcomes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import psutil
import torch
from torch import Tensor

LARGEST_DENSE = 20_000
"""Parameters up to which a matrix is written out: its square takes 3.2 GB in float64."""

JITTERS = (1e-10, 1e-8, 1e-6)
"""What is added to a factor's diagonal, in units of its mean, one after the other while its factorisation fails."""


class Outcome(StrEnum):
    """How a solve ended. `capped` is the normal end of a truncated solve; those after it leave no usable direction."""

    CONVERGED = "converged"
    CAPPED = "capped"
    NEGATIVE_CURVATURE = "negative_curvature"
    ILL_CONDITIONED = "ill_conditioned"
    NON_FINITE = "non_finite"


@dataclass(frozen=True)
class Solution:
    """x with A x close to b.

    Attributes:
        x: the solution, or the last iterate before the trouble that `outcome` names.
        residual: ||b - A x|| / ||b||, the largest over the columns of a block; by its own recursion for conjugate
            gradients.
        iterations: products with A, over all columns; 0 for a direct solve.
        largest_eigenvalue: largest Ritz value of A, a lower bound of its largest eigenvalue that is tight after a
            few iterations; NaN before the first, and for direct or preconditioned solves.
    """

    x: Tensor
    outcome: Outcome
    residual: float
    iterations: int
    largest_eigenvalue: float = math.nan

    def __post_init__(self) -> None:
        if self.usable and not torch.isfinite(self.x).all():  # overflow: no solution, whatever led to it
            object.__setattr__(self, "outcome", Outcome.NON_FINITE)

    @property
    def usable(self) -> bool:
        return self.outcome in (Outcome.CONVERGED, Outcome.CAPPED)


def conjugate_gradient(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    max_iterations: int,
    tolerance: float,
    preconditioner: Callable[[Tensor], Tensor] | None = None,
) -> Solution:
    """Conjugate gradients from x = 0 (Hestenes and Stiefel 1952) until ||b - A x|| <= tolerance ||b||.

    Every iterate minimises 1/2 x^T A x - b^T x over a growing Krylov space, so a capped solve is still an ascent
    direction: b^T x > 0. Without a preconditioner the coefficients are those of the Lanczos tridiagonalisation of A
    (Golub and Van Loan, section 11.3), which gives the largest eigenvalue without another product.

    Args:
        product: v -> A v.
        b: right-hand side, shape (d,), not zero; or a block (d, k), solved column by column.
        max_iterations: products at most, per column.
        tolerance: relative residual at which to stop.
        preconditioner: r -> P^-1 r for a symmetric positive definite P close to A, fixed through the solve.
    """
    if b.dim() == 2:
        return _join([conjugate_gradient(product, c, max_iterations, tolerance, preconditioner) for c in b.unbind(1)])
    x = torch.zeros_like(b)
    residual = b.clone()
    steps: list[float] = []
    ratios: list[float] = []
    squared = squared_b = float(b.dot(b))

    def solution(outcome: Outcome) -> Solution:
        relative = math.sqrt(squared / squared_b) if squared_b > 0 else math.nan
        largest = math.nan if preconditioner else _largest_ritz_value(steps, ratios)
        return Solution(x, outcome, relative, len(steps), largest)

    if not math.isfinite(squared_b):
        return solution(Outcome.NON_FINITE)
    direction = preconditioner(residual) if preconditioner else residual.clone()
    alignment = float(residual.dot(direction)) if preconditioner else squared
    for _ in range(max_iterations):
        a_direction = product(direction)
        curvature = float(direction.dot(a_direction))
        if not (math.isfinite(curvature) and math.isfinite(alignment)):
            return solution(Outcome.NON_FINITE)
        if curvature <= 0 or alignment <= 0:
            return solution(Outcome.NEGATIVE_CURVATURE)
        step = alignment / curvature
        x = x + step * direction
        residual = residual - step * a_direction
        squared = float(residual.dot(residual))
        preconditioned = preconditioner(residual) if preconditioner else residual
        previous, alignment = alignment, float(residual.dot(preconditioned)) if preconditioner else squared
        steps.append(step)
        ratios.append(alignment / previous)
        if squared <= tolerance**2 * squared_b:
            return solution(Outcome.CONVERGED)
        direction = preconditioned + ratios[-1] * direction
    return solution(Outcome.CAPPED)


def shifted_conjugate_gradient(
    product: Callable[[Tensor], Tensor], b: Tensor, shifts: Sequence[float], max_iterations: int, tolerance: float
) -> list[Solution]:
    """Conjugate gradients on (A + sigma I) x = b for every shift sigma, for one product with A per iteration in all.

    The Krylov space of b is the same for all shifts (Frommer and Maass 1999). In its Lanczos basis A is a tridiagonal
    matrix T, and the iterates of conjugate gradients follow from T + sigma I = L D L^T, which grows by a row per
    iteration (Paige and Saunders 1975). In exact arithmetic every solution is that of `conjugate_gradient` on its own
    system, stopped by itself; `largest_eigenvalue` is not computed.

    Args:
        product: v -> A v.
        b: right-hand side, shape (d,), not zero.
        shifts: sigma, one per solution.
        max_iterations: products at most.
        tolerance: relative residual at which each system stops.
    """
    norm = float(b.norm())
    systems = [_ShiftedSystem(shift, torch.zeros_like(b), torch.zeros_like(b), norm) for shift in shifts]
    basis, previous, off_diagonal = b / norm, torch.zeros_like(b), norm
    for _ in range(max_iterations):
        running = [system for system in systems if system.outcome is Outcome.CAPPED]
        if not running:
            break
        following = product(basis)
        diagonal = float(basis.dot(following))
        following = following - diagonal * basis - off_diagonal * previous
        next_off_diagonal = float(following.norm())
        for system in running:
            system.advance(basis, diagonal, off_diagonal, next_off_diagonal, tolerance * norm)
        basis, previous, off_diagonal = following / next_off_diagonal, basis, next_off_diagonal
    return [Solution(s.x, s.outcome, s.residual / norm if norm else math.nan, s.iterations) for s in systems]


@dataclass
class _ShiftedSystem:
    """(A + sigma I) x = b on its way through the Lanczos basis: the last row of L and D, and what follows from it.

    A pivot is the inverse of the step length of conjugate gradients, so it is positive where the curvature is.
    """

    shift: float
    x: Tensor
    direction: Tensor
    residual: float
    pivot: float = math.inf
    coefficient: float = -1.0
    iterations: int = 0
    outcome: Outcome = Outcome.CAPPED

    def advance(
        self, basis: Tensor, diagonal: float, off_diagonal: float, next_off_diagonal: float, goal: float
    ) -> None:
        """One iteration, with the next basis vector and the row of T that belongs to it."""
        ratio = off_diagonal / self.pivot
        pivot = diagonal + self.shift - off_diagonal * ratio
        if not (math.isfinite(pivot) and math.isfinite(next_off_diagonal)):
            self.outcome = Outcome.NON_FINITE
        elif pivot <= 0:
            self.outcome = Outcome.NEGATIVE_CURVATURE
        else:
            self.pivot = pivot
            self.direction = basis - ratio * self.direction
            self.coefficient *= -off_diagonal / pivot
            self.x = self.x + self.coefficient * self.direction
            self.residual = next_off_diagonal * abs(self.coefficient)
            self.iterations += 1
            if self.residual <= goal:
                self.outcome = Outcome.CONVERGED


def cholesky(dense: Callable[[], Tensor], b: Tensor) -> Solution:
    """x by the Cholesky factorisation of A, in float64; `ill_conditioned` when A is not numerically positive definite.

    Args:
        dense: makes A, shape (d, d); called once, after the check of size and memory.
        b: right-hand side, shape (d,) or (d, k).

    Raises:
        TooLarge: d is above `LARGEST_DENSE`, or A and its factor do not fit into the memory that is free.
    """
    check_dense(len(b))
    a = dense().double()
    if not (torch.isfinite(a).all() and torch.isfinite(b).all()):
        return Solution(torch.zeros_like(b), Outcome.NON_FINITE, math.nan, 0)
    root, info = torch.linalg.cholesky_ex(a)
    if int(info):
        return Solution(torch.zeros_like(b), Outcome.ILL_CONDITIONED, math.nan, 0)
    x = torch.cholesky_solve(b.double().view(len(b), -1), root).view_as(b).to(b.dtype)
    return Solution(x, Outcome.CONVERGED, relative_residual(a @ x.double(), b.double()), 0)


def divide(b: Tensor, entries: Tensor) -> Solution:
    """x for A = diag(entries), shape (d,); `ill_conditioned` when an entry is not positive.

    Args:
        b: right-hand side, shape (d,) or (d, k).
        entries: the diagonal of A, shape (d,).
    """
    if not (torch.isfinite(entries).all() and torch.isfinite(b).all()):
        return Solution(torch.zeros_like(b), Outcome.NON_FINITE, math.nan, 0)
    if not (entries > 0).all():
        return Solution(torch.zeros_like(b), Outcome.ILL_CONDITIONED, math.nan, 0)
    x = torch.einsum("i,i...->i...", 1 / entries, b)
    return Solution(x, Outcome.CONVERGED, relative_residual(torch.einsum("i,i...->i...", entries, x), b), 0)


class TooLarge(ValueError):
    """A matrix is too large to be written out; the message is one line that says what to choose instead."""


def check_dense(d: int) -> None:
    """Whether a d x d matrix may be written out and factorised. Raises TooLarge."""
    advice = "choose solver=cg, or a smaller network.hidden"
    if d > LARGEST_DENSE:
        raise TooLarge(f"solver=cholesky: {d:,} parameters are above its limit of {LARGEST_DENSE:,}; {advice}")
    needed, free = 3 * 8 * d**2, psutil.virtual_memory().available
    if needed > free:
        raise TooLarge(
            f"solver=cholesky: {d:,} parameters need {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB of memory are free; "
            f"{advice}"
        )


def cholesky_factor(a: Tensor, jitters: Sequence[float] = ()) -> tuple[Tensor | None, int]:
    """The lower Cholesky factor of a + jitter I in float64, and the number of jitters it took; None if all failed.

    Args:
        a: symmetric matrix.
        jitters: tried one after the other when a itself has no factor, in units of its mean diagonal entry.
    """
    a = a.double()
    mean = a.diagonal().mean()
    for tries, jitter in enumerate((0.0, *jitters)):
        shifted = a + jitter * mean * torch.eye(len(a), dtype=a.dtype, device=a.device) if jitter else a
        root, info = torch.linalg.cholesky_ex(shifted)
        if not int(info):
            return root, tries
    return None, len(jitters)


def relative_residual(a_x: Tensor, b: Tensor) -> float:
    """||b - A x|| / ||b||, the largest over the columns of a block; NaN when b is 0."""
    return float(((b - a_x).norm(dim=0) / b.norm(dim=0)).max())


def _join(columns: list[Solution]) -> Solution:
    """The solution of a block: the outcome of the first column that went wrong, capped if one was."""
    outcomes = [s.outcome for s in columns]
    wrong = [s.outcome for s in columns if not s.usable]
    capped = Outcome.CAPPED if Outcome.CAPPED in outcomes else Outcome.CONVERGED
    return Solution(
        torch.stack([s.x for s in columns], 1),
        wrong[0] if wrong else capped,
        max(s.residual for s in columns),
        sum(s.iterations for s in columns),
    )


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

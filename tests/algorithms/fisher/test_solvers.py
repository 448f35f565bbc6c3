"""Solvers on matrices that are positive definite by construction, and on those that are not."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch
from torch import Tensor

from algorithms.fisher.solvers import (
    JITTERS,
    LARGEST_DENSE,
    Outcome,
    Solution,
    TooLarge,
    check_dense,
    cholesky,
    cholesky_factor,
    conjugate_gradient,
    divide,
    relative_residual,
)


def spd(d: int, condition: float, seed: int = 0) -> Tensor:
    """Q diag(1 .. condition) Q^T with a random orthogonal Q."""
    return with_eigenvalues(np.geomspace(1, condition, d), seed)


def with_eigenvalues(eigenvalues: np.ndarray, seed: int = 0) -> Tensor:
    d = len(eigenvalues)
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return torch.from_numpy(q @ np.diag(eigenvalues) @ q.T)


def rhs(d: int, *columns: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(7).standard_normal((d, *columns)))


INDEFINITE = torch.diag(torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64))
SINGULAR = torch.diag(torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64))
B = torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_solves_to_the_tolerance_and_says_so_truly(condition: float) -> None:
    a, b = spd(40, condition), rhs(40)
    solution = conjugate_gradient(lambda v: a @ v, b, 1000, 1e-10)
    assert solution.outcome is Outcome.CONVERGED
    assert float((b - a @ solution.x).norm() / b.norm()) <= 2e-10
    error = (solution.x - torch.linalg.solve(a, b)).norm() / solution.x.norm()
    assert float(error) <= 2 * condition * 1e-10


def test_as_many_iterations_as_distinct_eigenvalues() -> None:
    a = with_eigenvalues(np.repeat([1.0, 5.0, 9.0], 10))
    assert conjugate_gradient(lambda v: a @ v, rhs(30), 100, 1e-12).iterations == 3


def test_a_capped_solve_reports_its_residual_and_is_an_ascent_direction() -> None:
    a, b = spd(40, 1e4), rhs(40)
    for preconditioner in (None, lambda r: r / a.diagonal()):
        solution = conjugate_gradient(lambda v: a @ v, b, 5, 1e-10, preconditioner)
        assert (solution.outcome, solution.iterations) == (Outcome.CAPPED, 5)
        assert solution.residual == pytest.approx(float((b - a @ solution.x).norm() / b.norm()), rel=1e-10)
        assert float(b @ solution.x) > 0


def test_the_largest_ritz_value_is_the_largest_eigenvalue() -> None:
    a = spd(40, 1e3)
    full = conjugate_gradient(lambda v: a @ v, rhs(40), 40, 1e-13)
    assert full.largest_eigenvalue == pytest.approx(1e3, rel=1e-8)
    early = conjugate_gradient(lambda v: a @ v, rhs(40), 6, 1e-13)
    assert 0.8e3 < early.largest_eigenvalue <= 1e3 * (1 + 1e-12)
    preconditioned = conjugate_gradient(lambda v: a @ v, rhs(40), 6, 1e-13, lambda r: r / 2)
    assert math.isnan(preconditioned.largest_eigenvalue)


def test_negative_curvature_and_non_finite_products_are_named() -> None:
    for matrix in (INDEFINITE, torch.zeros_like(INDEFINITE)):
        solution = conjugate_gradient(lambda v, m=matrix: m @ v, B, 10, 1e-10)  # type: ignore[misc]
        assert solution.outcome is Outcome.NEGATIVE_CURVATURE
    assert conjugate_gradient(lambda v: v * math.nan, B, 10, 1e-10).outcome is Outcome.NON_FINITE
    assert conjugate_gradient(lambda v: v, B * math.inf, 10, 1e-10).outcome is Outcome.NON_FINITE


def test_a_preconditioner_that_is_no_metric_is_named() -> None:
    a = spd(3, 10)
    outcomes = [
        conjugate_gradient(lambda v: a @ v, B, 10, 1e-10, preconditioner).outcome
        for preconditioner in (lambda r: -r, lambda r: 0 * r, lambda r: math.nan * r)
    ]
    assert outcomes == [Outcome.NEGATIVE_CURVATURE, Outcome.NEGATIVE_CURVATURE, Outcome.NON_FINITE]


def test_the_exact_inverse_as_preconditioner_converges_in_one_iteration() -> None:
    a, b = spd(40, 1e4), rhs(40)
    inverse = torch.linalg.inv(a)
    solution = conjugate_gradient(lambda v: a @ v, b, 100, 1e-8, lambda r: inverse @ r)
    assert (solution.outcome, solution.iterations) == (Outcome.CONVERGED, 1)


def test_a_good_preconditioner_saves_iterations_and_leaves_the_solution() -> None:
    """Rows and columns scaled over four decades: the diagonal takes back what the scaling did."""
    scale = torch.from_numpy(np.geomspace(1, 1e2, 40))
    a, b = scale[:, None] * spd(40, 10) * scale, rhs(40)
    plain = conjugate_gradient(lambda v: a @ v, b, 1000, 1e-12)
    preconditioned = conjugate_gradient(lambda v: a @ v, b, 1000, 1e-12, lambda r: r / a.diagonal())
    assert preconditioned.outcome is plain.outcome is Outcome.CONVERGED
    assert preconditioned.iterations < plain.iterations / 2
    expected = torch.linalg.solve(a, b)
    for solution in (plain, preconditioned):
        assert float((solution.x - expected).norm() / expected.norm()) < 1e-8


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_block_is_solved_column_by_column(preconditioned: bool) -> None:
    a, block = spd(20, 1e2), rhs(20, 3)
    inverse = (lambda r: r / a.diagonal()) if preconditioned else None
    together = conjugate_gradient(lambda v: a @ v, block, 100, 1e-10, inverse)
    columns = [conjugate_gradient(lambda v: a @ v, b, 100, 1e-10, inverse) for b in block.unbind(1)]
    assert torch.equal(together.x, torch.stack([c.x for c in columns], 1))
    assert together.iterations == sum(c.iterations for c in columns)
    assert together.residual == max(c.residual for c in columns)
    assert together.outcome is Outcome.CONVERGED


def test_a_block_ends_as_its_worst_column() -> None:
    """Along eigenvectors, so that one column converges where another cannot."""
    capped = torch.stack((B, rhs(3)), 1)
    a = spd(3, 1e3)
    assert conjugate_gradient(lambda v: a @ v, capped, 1, 1e-10).outcome is Outcome.CAPPED
    columns = torch.eye(3, dtype=torch.float64)[:, [1, 0, 2]]
    assert conjugate_gradient(lambda v: INDEFINITE @ v, columns, 10, 1e-10).outcome is Outcome.NEGATIVE_CURVATURE
    assert conjugate_gradient(lambda v: INDEFINITE @ v, columns[:, [0, 2]], 10, 1e-10).outcome is Outcome.CONVERGED


@pytest.mark.parametrize("condition", [1.0, 1e4, 1e8])
def test_cholesky_solves_vectors_and_blocks_up_to_rounding(condition: float) -> None:
    a = spd(40, condition)
    for b in (rhs(40), rhs(40, 3)):
        solution = cholesky(lambda: a, b)
        expected = torch.linalg.solve(a, b)
        error = float((solution.x - expected).norm() / expected.norm())
        assert error < 100 * condition * torch.finfo(torch.float64).eps, f"error {error:.1e} at {condition:.0e}"
        assert (solution.outcome, solution.iterations) == (Outcome.CONVERGED, 0)
        assert solution.residual == pytest.approx(relative_residual(a @ solution.x, b), abs=1e-15)


def test_cholesky_factorises_in_double_precision_and_answers_in_that_of_the_right_hand_side() -> None:
    a, b = spd(40, 1e6).float(), rhs(40).float()
    solution = cholesky(lambda: a, b)
    expected = torch.linalg.solve(a.double(), b.double())
    assert solution.x.dtype == torch.float32
    assert float((solution.x - expected).norm() / expected.norm()) < 1e-6


def test_cholesky_names_singular_indefinite_and_non_finite_matrices() -> None:
    for matrix in (SINGULAR, INDEFINITE):
        assert cholesky(lambda m=matrix: m, B).outcome is Outcome.ILL_CONDITIONED  # type: ignore[misc]
    assert cholesky(lambda: SINGULAR * math.nan, B).outcome is Outcome.NON_FINITE
    assert cholesky(lambda: torch.eye(3).double(), B * math.inf).outcome is Outcome.NON_FINITE


def never() -> Tensor:
    raise AssertionError("the matrix was written out")


def test_cholesky_refuses_too_many_parameters_before_the_matrix_is_written_out() -> None:
    with pytest.raises(TooLarge, match=r"solver=cholesky: 20,001 parameters are above its limit of 20,000; choose "):
        cholesky(never, torch.zeros(LARGEST_DENSE + 1))


def test_cholesky_refuses_a_matrix_that_does_not_fit_into_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three matrices of 8 bytes an entry: 2.4 MB for a hundred thousand entries."""
    d = 1000
    for free, fits in ((3 * 8 * d**2, True), (3 * 8 * d**2 - 1, False)):
        memory = SimpleNamespace(available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        if fits:
            check_dense(d)
        else:
            with pytest.raises(TooLarge, match=r"1,000 parameters need 0\.0 GB, 0\.0 GB of memory are free"):
                cholesky(never, torch.zeros(d))


def test_division_solves_vectors_and_blocks_and_names_what_is_not_positive() -> None:
    entries = torch.from_numpy(np.geomspace(1e-8, 1e8, 9))
    for b in (rhs(9), rhs(9, 2)):
        solution = divide(b, entries)
        torch.testing.assert_close(solution.x, torch.linalg.solve(entries.diag(), b), rtol=1e-14, atol=0)
        assert (solution.outcome, solution.iterations) == (Outcome.CONVERGED, 0)
        assert solution.residual < 1e-15
    for bad, outcome in (
        (0.0, Outcome.ILL_CONDITIONED),
        (-1.0, Outcome.ILL_CONDITIONED),
        (math.nan, Outcome.NON_FINITE),
    ):
        entries[4] = bad
        assert divide(rhs(9), entries).outcome is outcome
    assert divide(rhs(9) * math.inf, torch.ones(9)).outcome is Outcome.NON_FINITE


OVERFLOWING: dict[str, Callable[[Tensor], Solution]] = {
    "divide": lambda entries: divide(B, entries),
    "cholesky": lambda entries: cholesky(entries.diag, B),
    "cg": lambda entries: conjugate_gradient(lambda v: entries * v, B, 1, 1e-10),
}


@pytest.mark.parametrize("solver", OVERFLOWING)
def test_a_solution_that_overflows_is_not_usable(solver: str) -> None:
    """Entries so small, as squares of small gradients are, that their inverses are infinite."""
    solution = OVERFLOWING[solver](torch.full_like(B, 1e-320))
    assert not solution.usable, solution


def test_a_factor_is_mended_by_the_first_jitter_that_is_large_enough() -> None:
    """Smallest eigenvalue -x times the mean diagonal entry: jitters below x fail and are counted."""
    for tries, smallest in enumerate((1e-3, -1e-11, -1e-9, -1e-7)):
        eigenvalues = np.array([smallest, 1.0, 2.0, 3.0])
        a = with_eigenvalues(eigenvalues * 50)
        root, count = cholesky_factor(a, JITTERS)
        assert count == tries
        assert root is not None
        jitter = (0.0, *JITTERS)[tries] * float(a.diagonal().mean())
        torch.testing.assert_close(root @ root.T, a + jitter * torch.eye(4, dtype=a.dtype), rtol=1e-12, atol=1e-12)


def test_a_badly_indefinite_factor_and_one_without_jitters_have_none() -> None:
    a = with_eigenvalues(np.array([-1e-2, 1.0, 2.0, 3.0]))
    assert cholesky_factor(a, JITTERS) == (None, len(JITTERS))
    assert cholesky_factor(with_eigenvalues(np.array([-1e-9, 1.0, 2.0, 3.0]))) == (None, 0)


def test_factors_of_single_precision_are_factorised_in_double() -> None:
    root, _ = cholesky_factor(spd(5, 1e3).float())
    assert root is not None
    assert root.dtype == torch.float64


PRODUCED_BY: dict[Outcome, Callable[[], Solution]] = {
    Outcome.CONVERGED: lambda: cholesky(lambda: spd(3, 2.0), B),
    Outcome.CAPPED: lambda: conjugate_gradient(lambda v: spd(3, 1e3) @ v, B, 1, 1e-10),
    Outcome.NEGATIVE_CURVATURE: lambda: conjugate_gradient(lambda v: INDEFINITE @ v, B, 10, 1e-10),
    Outcome.ILL_CONDITIONED: lambda: divide(B, SINGULAR.diagonal()),
    Outcome.NON_FINITE: lambda: divide(B * math.nan, torch.ones(3)),
}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_is_produced_and_only_converged_and_capped_ones_are_usable(outcome: Outcome) -> None:
    solution = PRODUCED_BY[outcome]()
    assert solution.outcome is outcome
    assert solution.usable == (outcome in (Outcome.CONVERGED, Outcome.CAPPED))
    assert torch.isfinite(solution.x).all()

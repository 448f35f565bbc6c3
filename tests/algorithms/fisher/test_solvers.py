"""Conjugate gradients on matrices that are positive definite by construction, and on those that are not."""

import math

import numpy as np
import pytest
import torch

from algorithms.fisher.solvers import Outcome, conjugate_gradient


def spd(d: int, condition: float, seed: int = 0) -> torch.Tensor:
    """Q diag(1 .. condition) Q^T with a random orthogonal Q."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    return torch.from_numpy(q @ np.diag(np.geomspace(1, condition, d)) @ q.T)


def rhs(d: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).standard_normal(d))


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_solves_to_the_tolerance_and_says_so_truly(condition: float) -> None:
    a, b = spd(40, condition), rhs(40)
    solution = conjugate_gradient(lambda v: a @ v, b, 1000, 1e-10)
    assert solution.outcome is Outcome.CONVERGED
    assert float((b - a @ solution.x).norm() / b.norm()) <= 2e-10
    error = (solution.x - torch.linalg.solve(a, b)).norm() / solution.x.norm()
    assert float(error) <= 2 * condition * 1e-10


def test_as_many_iterations_as_distinct_eigenvalues() -> None:
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((30, 30)))
    a = torch.from_numpy(q @ np.diag([1.0] * 10 + [5.0] * 10 + [9.0] * 10) @ q.T)
    assert conjugate_gradient(lambda v: a @ v, rhs(30), 100, 1e-12).iterations == 3


def test_a_capped_solve_reports_its_residual_and_is_an_ascent_direction() -> None:
    a, b = spd(40, 1e4), rhs(40)
    solution = conjugate_gradient(lambda v: a @ v, b, 5, 1e-10)
    assert (solution.outcome, solution.iterations) == (Outcome.CAPPED, 5)
    assert solution.residual == pytest.approx(float((b - a @ solution.x).norm() / b.norm()), rel=1e-10)
    assert float(b @ solution.x) > 0


def test_the_largest_ritz_value_is_the_largest_eigenvalue() -> None:
    a = spd(40, 1e3)
    full = conjugate_gradient(lambda v: a @ v, rhs(40), 40, 1e-13)
    assert full.largest_eigenvalue == pytest.approx(1e3, rel=1e-8)
    early = conjugate_gradient(lambda v: a @ v, rhs(40), 6, 1e-13)
    assert 0.8e3 < early.largest_eigenvalue <= 1e3 * (1 + 1e-12)


def test_negative_curvature_and_non_finite_products_are_named() -> None:
    indefinite = torch.diag(torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64))
    b = torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64)
    assert conjugate_gradient(lambda v: indefinite @ v, b, 10, 1e-10).outcome is Outcome.NEGATIVE_CURVATURE
    assert conjugate_gradient(lambda v: v * math.nan, b, 10, 1e-10).outcome is Outcome.NON_FINITE
    assert conjugate_gradient(lambda v: v, b * math.inf, 10, 1e-10).outcome is Outcome.NON_FINITE
    singular = torch.zeros(3, 3, dtype=torch.float64)
    assert conjugate_gradient(lambda v: singular @ v, b, 10, 1e-10).outcome is Outcome.NEGATIVE_CURVATURE

"""Many shifts of one matrix solved in one Krylov space: each as if it were alone, and as a dense solve."""

import math

import numpy as np
import pytest
import torch

from algorithms.fisher.solvers import Outcome, Solution, conjugate_gradient, shifted_conjugate_gradient

SHIFTS = [10.0, 0.0, 1.0, 0.1, 100.0]


def spd(d: int, condition: float) -> torch.Tensor:
    """Q diag(1 .. condition) Q^T with a random orthogonal Q."""
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((d, d)))
    return torch.from_numpy(q @ np.diag(np.geomspace(1, condition, d)) @ q.T)


def rhs(d: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).standard_normal(d))


def shifted(a: torch.Tensor, shift: float) -> torch.Tensor:
    return a + shift * torch.eye(len(a), dtype=a.dtype)


def alone(a: torch.Tensor, shift: float, b: torch.Tensor, max_iterations: int, tolerance: float) -> Solution:
    matrix = shifted(a, shift)
    return conjugate_gradient(lambda v: matrix @ v, b, max_iterations, tolerance)


@pytest.mark.parametrize("condition", [1.0, 1e2, 1e4])
def test_every_shift_equals_its_dense_solve(condition: float) -> None:
    a, b = spd(40, condition), rhs(40)
    solutions = shifted_conjugate_gradient(lambda v: a @ v, b, SHIFTS, 1000, 1e-11)
    for shift, solution in zip(SHIFTS, solutions, strict=True):
        assert solution.outcome is Outcome.CONVERGED
        assert float((b - shifted(a, shift) @ solution.x).norm() / b.norm()) <= 2e-11
        expected = torch.linalg.solve(shifted(a, shift), b)
        assert float((solution.x - expected).norm() / expected.norm()) <= 2e-11 * condition


@pytest.mark.parametrize("cap", [1, 5, 1000])
def test_every_shift_goes_through_the_iterates_of_its_own_conjugate_gradients(cap: int) -> None:
    """Capped and converged solves alike: outcome, iterations, residual and solution."""
    a, b = spd(60, 1e2), rhs(60)
    solutions = shifted_conjugate_gradient(lambda v: a @ v, b, SHIFTS, cap, 1e-2)
    for shift, solution in zip(SHIFTS, solutions, strict=True):
        expected = alone(a, shift, b, cap, 1e-2)
        assert (solution.outcome, solution.iterations) == (expected.outcome, expected.iterations)
        assert solution.residual == pytest.approx(expected.residual, rel=1e-8)
        torch.testing.assert_close(solution.x, expected.x, rtol=1e-9, atol=1e-12)
    assert len({solution.outcome for solution in solutions}) == (2 if cap == 5 else 1)


def test_all_shifts_together_take_the_products_of_the_slowest() -> None:
    a, b, products = spd(40, 1e3), rhs(40), []

    def product(v: torch.Tensor) -> torch.Tensor:
        products.append(v)
        return a @ v

    solutions = shifted_conjugate_gradient(product, b, SHIFTS, 1000, 1e-6)
    assert len(products) == max(solution.iterations for solution in solutions) == solutions[1].iterations


def test_the_stated_residual_is_the_true_one_in_float32() -> None:
    a, b = spd(200, 1e4).float(), rhs(200).float()
    solutions = shifted_conjugate_gradient(lambda v: a @ v, b, SHIFTS, 2000, 1e-2)
    for shift, solution in zip(SHIFTS, solutions, strict=True):
        true = float((b - shifted(a, shift) @ solution.x).norm() / b.norm())
        assert solution.outcome is Outcome.CONVERGED
        assert solution.residual == pytest.approx(true, rel=0.02)


def test_a_singular_matrix_is_solved_wherever_the_shift_is_positive() -> None:
    singular = torch.diag(torch.tensor([0.0, 0.0, 4.0], dtype=torch.float64))
    null, lifted = shifted_conjugate_gradient(lambda v: singular @ v, rhs(3), [0.0, 1.0], 10, 1e-12)
    assert null.outcome is Outcome.NEGATIVE_CURVATURE
    assert lifted.outcome is Outcome.CONVERGED
    torch.testing.assert_close(lifted.x, rhs(3) / torch.tensor([1.0, 1.0, 5.0], dtype=torch.float64))


def test_negative_curvature_ends_the_shifts_that_have_it_and_no_other() -> None:
    indefinite = torch.diag(torch.tensor([-1.0, 2.0, 3.0], dtype=torch.float64))
    b = torch.tensor([1.0, 0.1, 0.1], dtype=torch.float64)
    shifts = [0.5, 2.0, 0.0]
    solutions = shifted_conjugate_gradient(lambda v: indefinite @ v, b, shifts, 10, 1e-12)
    outcomes = [solution.outcome for solution in solutions]
    assert outcomes == [Outcome.NEGATIVE_CURVATURE, Outcome.CONVERGED, Outcome.NEGATIVE_CURVATURE]
    torch.testing.assert_close(solutions[1].x, torch.linalg.solve(shifted(indefinite, 2.0), b))
    for shift, solution in zip(shifts, solutions, strict=True):
        expected = alone(indefinite, shift, b, 10, 1e-12)
        assert (solution.outcome, solution.iterations) == (expected.outcome, expected.iterations)


def test_what_is_not_finite_is_named_and_stays_with_its_shift() -> None:
    b = rhs(3)
    broken, sound = shifted_conjugate_gradient(lambda v: v, b, [math.nan, 1.0], 10, 1e-12)
    assert (broken.outcome, sound.outcome) == (Outcome.NON_FINITE, Outcome.CONVERGED)
    torch.testing.assert_close(sound.x, b / 2)
    for product, right in ((math.nan, b), (1.0, b * math.inf), (1.0, b * 0)):
        [solution] = shifted_conjugate_gradient(lambda v, s=product: s * v, right, [1.0], 10, 1e-12)  # type: ignore[misc]
        assert (solution.outcome, solution.iterations) == (Outcome.NON_FINITE, 0)
        assert not solution.x.any()


def test_without_an_iteration_there_is_no_solution_yet() -> None:
    [solution] = shifted_conjugate_gradient(lambda v: v, rhs(3), [1.0], 0, 1e-2)
    assert (solution.outcome, solution.residual, solution.iterations) == (Outcome.CAPPED, 1.0, 0)
    assert not solution.x.any()

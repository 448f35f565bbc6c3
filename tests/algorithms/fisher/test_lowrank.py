"""The low-rank Fisher matrix against the exact one that it is a sketch of."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.metrics.lowrank import LowRankConfig, LowRankFisher, nystrom
from algorithms.fisher.solvers import Outcome
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    POLICIES,
    assert_close,
    both,
    dense_fisher,
    every_policy,
    make_policy,
    make_problem,
    random_vectors,
)


def lowrank(problem: Surrogate, rank: int, seed: int = 0) -> LowRankFisher:
    config = LowRankConfig("lowrank", "woodbury", iterations=1, tolerance=0.0, rank=rank)
    return LowRankFisher.at(problem.model, config, np.random.default_rng(seed))


@every_policy
def test_it_is_the_nystrom_approximation_of_the_fisher_matrix(policy: str) -> None:
    """(F W) (W^T F W)^-1 (F W)^T with the orthonormal W that the generator draws."""
    problem = make_problem(POLICIES[policy]())
    gaussian = np.random.default_rng(3).standard_normal((len(problem.theta), 8))
    w = torch.from_numpy(np.linalg.qr(gaussian)[0])
    sketch = dense_fisher(problem) @ w
    expected = sketch @ torch.linalg.solve(w.T @ sketch, sketch.T)
    f = lowrank(problem, 8, seed=3)
    assert_close(f.dense(), expected)
    assert_close(f.basis.T @ f.basis, torch.eye(8, dtype=torch.float64), relative=1e-12)
    assert (f.eigenvalues > 0).all()


@both
def test_it_is_the_fisher_matrix_once_its_rank_is_reached(distribution: Distribution) -> None:
    """Three states: rank 3 x 2 of the network's outputs, and 2 more of log sigma."""
    problem = make_problem(make_policy(distribution), n=3, num_envs=1)
    f = dense_fisher(problem)
    rank = int(torch.linalg.matrix_rank(f))
    assert rank <= 8
    for more in (0, 1, 5, 1000):
        assert_close(lowrank(problem, rank + more).dense(), f)


@every_policy
def test_it_never_exceeds_the_fisher_matrix_and_its_error_falls_with_the_rank(policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    f = dense_fisher(problem)
    errors = []
    for rank in (1, 4, 16, 32):
        left_out = f - lowrank(problem, rank).dense()
        eigenvalues = torch.linalg.eigvalsh(left_out)
        assert float(eigenvalues[0]) >= -1e-13 * float(f.trace())
        errors.append(float(eigenvalues[-1]))
    assert sorted(errors, reverse=True) == errors
    assert errors[-1] < 0.1 * errors[0]


@every_policy
@pytest.mark.parametrize("damping", [1e-4, 0.1, 10.0])
def test_woodbury_is_the_dense_inverse(policy: str, damping: float) -> None:
    problem = make_problem(POLICIES[policy]())
    f, b = lowrank(problem, 10), random_vectors(problem, 2)
    damped = f.basis @ f.eigenvalues.diag() @ f.basis.T + damping * torch.eye(f.dim, dtype=torch.float64)
    solution = f.inverse_product(b, damping)
    assert_close(solution.x, torch.linalg.solve(damped, b))
    assert (solution.outcome, solution.iterations) == (Outcome.CONVERGED, 0)


def test_a_matrix_of_low_rank_has_no_inverse_without_damping() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    assert lowrank(problem, 10).inverse_product(problem.gradient, 0.0).outcome is Outcome.ILL_CONDITIONED


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_matrix_of_zeros_and_one_of_a_single_direction_are_sketched(dtype: torch.dtype) -> None:
    w = torch.linalg.qr(random_vectors(make_problem(make_policy(DISTRIBUTIONS[0])), 5).to(dtype))[0]
    zeros: Tensor = nystrom(torch.zeros_like(w), w)[1]
    assert zeros.abs().max() < 1e-30  # sigma^2 - nu, some 1e-38 both
    u = torch.full((len(w), 1), len(w) ** -0.5, dtype=dtype)
    basis, eigenvalues = nystrom(3 * u @ (u.T @ w), w)
    assert float(eigenvalues[0]) == pytest.approx(3, rel=1e3 * torch.finfo(dtype).eps)
    assert float(eigenvalues[1]) <= 1e3 * torch.finfo(dtype).eps
    assert abs(float(basis[:, 0] @ u[:, 0])) == pytest.approx(1, rel=1e3 * torch.finfo(dtype).eps)


def test_a_sketch_that_is_not_finite_gives_nan() -> None:
    w = torch.eye(4)[:, :2]
    basis, eigenvalues = nystrom(w * math.nan, w)
    assert basis.isnan().all()
    assert eigenvalues.isnan().all()


def test_a_rank_below_one_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"fisher\.rank=0: must be at least 1"):
        LowRankConfig("lowrank", "woodbury", iterations=1, tolerance=0.0, rank=0)

"""The alignment error with a held-out batch, and its noise, against dense float64 solves."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import assign
from algorithms.parts.alignment import Row, heldout_alignment
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    both,
    dense_fisher,
    dense_jacobian,
    make_policy,
    make_problem,
    output_scores,
    random_vectors,
)

CONFIG = DiagnosticsConfig(interval=1, states=24, rho=0.1, tolerance=1e-12, max_iterations=1000)


def heldout(problem: Surrogate, config: DiagnosticsConfig = CONFIG) -> Row:
    return heldout_alignment(problem, config, np.random.default_rng(0))


def dense_gradient(problem: Surrogate) -> Tensor:
    """(1/B) sum_t A_t J_t^T d log pi(a_t|s_t) / dz, from the definition."""
    batch = problem.batch
    scores = output_scores(problem, batch.actions) * batch.advantages[:, None]
    return torch.einsum("bk,bkd->d", scores, dense_jacobian(problem)) / len(batch)


def metric(problem: Surrogate, damping: float) -> Tensor:
    f = dense_fisher(problem)
    return f + damping * torch.eye(len(f), dtype=f.dtype)


def damping_of(problem: Surrogate) -> float:
    return 0.1 * float(dense_fisher(problem).trace()) / len(problem.theta)


def error(a: Tensor, b: Tensor, g: Tensor) -> float:
    return 1 - float((a @ g @ b) / ((a @ g @ a) * (b @ g @ b)).sqrt())


@both
def test_both_equal_their_definitions(distribution: Distribution) -> None:
    """Halves: states 0, 1 and 2, 3 of every four, since an entry is step t of environment n."""
    policy = make_policy(distribution)
    problem = make_problem(policy, n=24, seed=5, num_envs=4)
    damping = damping_of(problem)
    g, natural = metric(problem, damping), torch.linalg.solve(metric(problem, damping), dense_gradient(problem))
    halves = [problem.on(torch.tensor([4 * t + n for t in range(6) for n in pair])) for pair in ((0, 1), (2, 3))]
    one, other = (torch.linalg.solve(metric(half, damping), dense_gradient(half)) for half in halves)
    for seed in range(3):
        change = random_vectors(problem, seed=seed)
        assign(policy, problem.theta + 1e-3 * change)
        row = heldout(problem)
        assert row["alignment_error_heldout"] == pytest.approx(error(change, natural, g), abs=1e-7)
        assert row["alignment_noise"] == pytest.approx(error(one, other, g), abs=1e-9)
        assert (row["heldout_states"], row["alignment_heldout_outcome"]) == (24, "converged")


@both
def test_a_step_along_the_natural_gradient_of_the_second_batch_has_error_0(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem, own = make_problem(policy, seed=5), make_problem(policy, seed=6)
    naturals = [torch.linalg.solve(metric(p, damping_of(p)), dense_gradient(p)) for p in (problem, own)]
    for step, expected in ((1e-3 * naturals[0], 0.0), (-1e-3 * naturals[0], 2.0)):
        assign(policy, problem.theta + step)
        assert heldout(problem)["alignment_error_heldout"] == pytest.approx(expected, abs=1e-9)
    assign(policy, problem.theta + 1e-3 * naturals[1])
    assert heldout(problem)["alignment_error_heldout"] > 0.1  # type: ignore[operator]


def test_equal_halves_have_no_noise() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]), num_envs=4)
    for column in (problem.batch.observations, problem.batch.actions, problem.batch.advantages):
        by_env = column.view(6, 4, *column.shape[1:])
        by_env[:, 2:] = by_env[:, :2]
    assert heldout(problem)["alignment_noise"] == pytest.approx(0, abs=1e-9)


def test_what_is_not_measured_has_a_reason() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    without_step = heldout(make_problem(policy))
    assert "alignment_error_heldout" not in without_step
    assert isinstance(without_step["alignment_noise"], float)
    alone = make_problem(policy, num_envs=1)
    assert "alignment_noise" not in heldout(alone)
    without_gradient = make_problem(policy)
    without_gradient.batch.advantages.zero_()
    assert heldout(without_gradient) == {"heldout_states": 24}


def test_a_solve_that_stops_short_is_named() -> None:
    row = heldout(make_problem(make_policy(DISTRIBUTIONS[0])), replace(CONFIG, max_iterations=2))
    assert row["alignment_heldout_outcome"] == "capped"
    assert row["alignment_heldout_residual"] > 1e-3  # type: ignore[operator]


def test_the_fisher_matrix_takes_the_states_that_it_takes_on_the_own_batch() -> None:
    """12 of 24: the first, a middle and the last time of every environment; the gradient is that of all."""
    policy = make_policy(DISTRIBUTIONS[1])
    problem = make_problem(policy)
    local = problem.on(torch.tensor([*range(4), *range(8, 12), *range(20, 24)]))
    g = metric(local, damping_of(problem))
    change = random_vectors(problem)
    assign(policy, problem.theta + 1e-3 * change)
    row = heldout(problem, replace(CONFIG, geometry_states=12))
    natural = torch.linalg.solve(g, dense_gradient(problem))
    assert row["alignment_error_heldout"] == pytest.approx(error(change, natural, g), abs=1e-7)


def test_the_network_of_a_second_batch_is_the_old_one() -> None:
    """The policy has moved by then: noise does not know where it went."""
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    before = heldout(problem)["alignment_noise"]
    again = make_problem(policy)
    assign(policy, problem.theta + 0.5)
    assert heldout(again)["alignment_noise"] == before

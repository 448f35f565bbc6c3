"""Directions against torch's optimisers and a dense solve."""

from typing import cast

import numpy as np
import pytest
import torch

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.metric import PRECONDITIONERS, FisherConfig
from algorithms.fisher.solvers import Outcome, TooLarge
from algorithms.parts.directions import Adam, Direction, DirectionRule, Gradient, Natural, RMSProp
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
)


@pytest.mark.parametrize("name", ["adam", "rmsprop"])
def test_first_order_directions_move_as_torch_optimisers_do(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    parameter = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    rule: DirectionRule = Adam(0.9, 0.999, 1e-8) if name == "adam" else RMSProp(0.99, 1e-8)
    optimiser: torch.optim.Optimizer = (
        torch.optim.Adam([parameter], lr=0.01)
        if name == "adam"
        else torch.optim.RMSprop([parameter], lr=0.01, alpha=0.99)
    )
    theta = torch.zeros(6, dtype=torch.float64)
    for _ in range(5):
        g = torch.randn(6, generator=generator, dtype=torch.float64)
        theta = theta + 0.01 * rule(cast(Surrogate, None), g).x
        parameter.grad = -g
        optimiser.step()
    torch.testing.assert_close(theta, parameter.detach(), rtol=1e-12, atol=0)


def natural(
    problem: Surrogate,
    damping: float,
    iterations: int = 1000,
    tolerance: float = 1e-13,
    preconditioner: str | None = None,
) -> Direction:
    """The exact natural direction by conjugate gradients."""
    config = FisherConfig("exact", "cg", None, iterations, tolerance, preconditioner)
    return Natural(config, "cg", damping, len(problem.theta), np.random.default_rng(0))(problem, problem.gradient)


def test_the_gradient_is_a_direction_of_its_own() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    assert torch.equal(Gradient()(problem, problem.gradient).x, problem.gradient)


@both
def test_the_natural_direction_equals_the_dense_solve(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution))
    direction = natural(problem, damping=0.1)
    assert direction.outcome is Outcome.CONVERGED
    damped = dense_fisher(problem) + 0.1 * torch.eye(len(problem.theta), dtype=torch.float64)
    assert_close(direction.x, torch.linalg.solve(damped, problem.gradient))
    residual = (damped @ direction.x - problem.gradient).norm() / problem.gradient.norm()
    assert direction.metrics["solver_residual"] == pytest.approx(float(residual), abs=1e-13)


def test_the_whole_batch_s_exact_metric_is_the_problem_s_own() -> None:
    """One graph serves the direction, the step rule and the diagnostics."""
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    products = []
    product = problem.fisher.product
    problem.fisher.product = lambda v: products.append(v) or product(v)  # type: ignore[method-assign, func-returns-value]
    direction = natural(problem, damping=0.1, iterations=7)
    assert len(products) == direction.metrics["solver_iterations"] == 7
    assert direction.outcome is Outcome.CAPPED
    assert direction.usable


@every_policy
@pytest.mark.parametrize("preconditioner", PRECONDITIONERS)
def test_a_preconditioner_changes_the_way_and_not_the_destination(policy: str, preconditioner: str) -> None:
    problem = make_problem(POLICIES[policy]())
    direction = natural(problem, damping=0.01, preconditioner=preconditioner)
    damped = dense_fisher(problem) + 0.01 * torch.eye(len(problem.theta), dtype=torch.float64)
    assert direction.outcome is Outcome.CONVERGED
    assert_close(direction.x, torch.linalg.solve(damped, problem.gradient), relative=1e-9)


def test_a_preconditioner_that_is_the_matrix_itself_needs_one_product() -> None:
    """EKFAC is exact for a linear Gaussian policy; without it the solve takes a product per distinct eigenvalue."""
    problem = make_problem(make_policy(DISTRIBUTIONS[0], hidden=()))
    products = [
        natural(problem, damping=0.01, tolerance=1e-10, preconditioner=p).metrics["solver_iterations"]
        for p in ("ekfac", None)
    ]
    assert products[0] == 1
    assert products[1] > 5


def test_a_solver_that_the_metric_does_not_have_and_a_matrix_too_large_are_refused_at_once() -> None:
    config = FisherConfig("exact", "cg", None, 10, 1e-10)
    with pytest.raises(ValueError, match="solver=woodbury: does not apply to fisher=exact; choose one of cg, cholesky"):
        Natural(config, "woodbury", 0.1, 50, np.random.default_rng(0))
    with pytest.raises(TooLarge, match="solver=cholesky: 30,000 parameters"):
        Natural(config, "cholesky", 0.1, 30_000, np.random.default_rng(0))
    Natural(config, "cg", 0.1, 30_000, np.random.default_rng(0))

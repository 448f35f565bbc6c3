"""Directions against torch's optimisers and a dense solve."""

from typing import cast

import pytest
import torch

from algorithms.directions import Adam, DirectionRule, Natural, RMSProp
from algorithms.fisher.solvers import Outcome
from algorithms.surrogate import Surrogate
from tests.algorithms.problems import DISTRIBUTIONS, dense_fisher, make_policy, make_problem


class GradientOnly:
    """All that first-order directions look at."""

    def __init__(self, gradient: torch.Tensor) -> None:
        self.gradient = gradient


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
        theta = theta + 0.01 * rule(cast(Surrogate, GradientOnly(g))).x
        parameter.grad = -g
        optimiser.step()
    torch.testing.assert_close(theta, parameter.detach(), rtol=1e-12, atol=0)


@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_the_natural_direction_equals_the_dense_solve(distribution) -> None:  # type: ignore[no-untyped-def]
    problem = make_problem(make_policy(distribution))
    direction = Natural(0.1, 1000, 1e-13)(problem)
    assert direction.outcome is Outcome.CONVERGED
    damped = dense_fisher(problem) + 0.1 * torch.eye(len(problem.theta), dtype=torch.float64)
    torch.testing.assert_close(direction.x, torch.linalg.solve(damped, problem.gradient), rtol=1e-9, atol=1e-12)

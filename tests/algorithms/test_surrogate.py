"""The surrogate problem against its definition in float64."""

import pytest
import torch

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import as_function, assign, flatten
from tests.algorithms.problems import DISTRIBUTIONS, make_policy, make_problem

both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)


@both
def test_gradient_and_gain_equal_finite_differences_of_the_definition(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution))
    batch = problem.batch

    def objective(theta: torch.Tensor) -> torch.Tensor:
        log_prob = distribution.log_prob(as_function(problem.policy, batch.observations)(theta), batch.actions)
        old = distribution.log_prob(problem.z, batch.actions)
        return ((log_prob.exp() / old.exp()) * batch.advantages).mean()

    step = 1e-5
    for i in range(0, len(problem.theta), 7):
        e = torch.zeros_like(problem.theta)
        e[i] = step
        difference = (objective(problem.theta + e) - objective(problem.theta - e)) / (2 * step)
        assert float(problem.gradient[i]) == pytest.approx(float(difference), rel=1e-6, abs=1e-9)

    other = problem.theta + 0.1
    gain, kl = problem.evaluate(other)
    assert gain == pytest.approx(float(objective(other) - objective(problem.theta)), rel=1e-10)
    z = as_function(problem.policy, batch.observations)(other)
    assert kl == pytest.approx(float(distribution.kl(problem.z, z).mean()), rel=1e-12)


@both
def test_the_policy_is_read_once_and_never_written(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    before = flatten(policy)
    gradient = problem.gradient.clone()
    _ = problem.fisher.product(gradient), problem.evaluate(problem.theta + 1)
    assert torch.equal(flatten(policy), before)
    assign(policy, before + 1)
    assert torch.equal(problem.theta, before)
    fresh = make_problem(make_policy(distribution))
    torch.testing.assert_close(problem.evaluate(before + 0.1), fresh.evaluate(before + 0.1), rtol=0, atol=0)


def test_float32_policies_are_evaluated_in_float64() -> None:
    """A step too small for float32 outputs to resolve still has the divergence of its quadratic model."""
    policy = make_policy(DISTRIBUTIONS[0]).float()
    problem = make_problem(policy)
    v = torch.randn(len(problem.theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    kl = problem.evaluate(problem.theta.double() + 1e-6 * v)[1]
    assert kl == pytest.approx(0.5e-12 * float(problem.fisher64.quadratic(v)), rel=1e-4)

"""The exact Fisher operator against the dense matrix, and against the curvature of the KL divergence."""

import pytest
import torch

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.trace import fisher_trace
from tests.algorithms.problems import DISTRIBUTIONS, dense_fisher, dense_jacobian, make_policy, make_problem

both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)


@both
def test_products_and_quadratic_forms_equal_the_dense_matrix(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution))
    f = dense_fisher(problem)
    for seed in range(3):
        v = torch.randn(len(problem.theta), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        torch.testing.assert_close(problem.fisher.product(v), f @ v, rtol=1e-10, atol=1e-13)
        torch.testing.assert_close(problem.fisher.quadratic(v), v @ f @ v, rtol=1e-10, atol=0)


@both
def test_the_fisher_matrix_is_the_hessian_of_the_mean_divergence(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution), n=6)

    def divergence(theta: torch.Tensor) -> torch.Tensor:
        from algorithms.fisher.parameters import as_function

        z = as_function(problem.policy, problem.batch.observations)(theta)
        return distribution.kl(problem.z_old, z).mean()

    hessian = torch.autograd.functional.hessian(divergence, problem.theta)
    torch.testing.assert_close(hessian, dense_fisher(problem), rtol=1e-8, atol=1e-10)


@both
def test_per_state_traces_equal_the_dense_ones(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution))
    traces = fisher_trace(problem.policy, problem.theta, problem.batch.observations, distribution)
    for s, jacobian in enumerate(dense_jacobian(problem)):
        single = make_problem(make_policy(distribution), n=1, num_envs=1)
        m = single.policy.distribution.fisher_factors(problem.z_old[s : s + 1])
        expected = sum(float((jacobian.T @ factor[0]).square().sum()) for factor in m)
        assert float(traces[s]) == pytest.approx(expected, rel=1e-10)
    assert float(traces.mean()) == pytest.approx(float(dense_fisher(problem).trace()), rel=1e-10)


def test_the_trace_refuses_layers_it_does_not_know() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3)).double()
    theta = torch.cat([p.detach().reshape(-1) for p in network.parameters()])
    with pytest.raises(TypeError, match="LayerNorm"):
        fisher_trace(network, theta, torch.zeros(2, 3, dtype=torch.float64), DISTRIBUTIONS[1])

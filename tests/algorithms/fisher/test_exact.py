"""The exact Fisher matrix against its definition, and against the curvature of the KL divergence."""

from dataclasses import replace

import torch

from algorithms.fisher.distributions import Distribution, MultiCategorical
from algorithms.fisher.metrics.exact import ExactFisher
from algorithms.fisher.parameters import as_function
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
    reference,
)


@every_policy
def test_the_matrix_and_its_diagonal_equal_the_definition(policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    f = ExactFisher(problem.model)
    assert_close(f.dense(), dense_fisher(problem))
    assert_close(f.diagonal(), dense_fisher(problem).diagonal())


@both
def test_the_matrix_is_the_hessian_of_the_mean_divergence(distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution, hidden=(4,)), n=6, num_envs=1)
    old = reference(distribution, problem.z)

    def divergence(theta: torch.Tensor) -> torch.Tensor:
        z = as_function(problem.policy, problem.batch.observations)(theta)
        return torch.distributions.kl_divergence(old, reference(distribution, z)).mean()

    hessian = torch.autograd.functional.hessian(divergence, problem.theta)
    assert_close(ExactFisher(problem.model).dense(), hessian)


def test_a_double_theta_makes_it_double_whatever_network_and_states_are() -> None:
    policy = make_policy(DISTRIBUTIONS[0]).float()
    single = make_problem(policy)
    f = ExactFisher(replace(single.model, theta=single.theta.double()))
    double = Surrogate(policy.double(), replace(single.batch, observations=single.batch.observations.double()))
    assert f.dense().dtype == torch.float64
    assert_close(f.dense(), dense_fisher(double))


def test_the_fisher_matrix_of_several_choices_is_that_of_their_combinations() -> None:
    problem = make_problem(make_policy(MultiCategorical((3, 2))))
    assert_close(ExactFisher(problem.model).dense(), dense_fisher(problem))

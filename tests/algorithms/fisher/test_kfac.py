"""K-FAC against Kronecker products written out, and where it is and is not the Fisher matrix itself."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import DiagonalGaussian, Distribution, MultiCategorical
from algorithms.fisher.layers import Constant
from algorithms.fisher.metric import SampledConfig
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.fisher.parameters import assign
from algorithms.fisher.solvers import Outcome
from algorithms.parts.policy import Policy
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    CHANNELS,
    DISTRIBUTIONS,
    POLICIES,
    SIDE,
    assert_close,
    block_diagonal,
    every_policy,
    kronecker_dense,
    kronecker_truths,
    make_conv_policy,
    make_policy,
    make_problem,
    random_vectors,
    sampled_output_fisher,
)

GAUSSIAN, CATEGORICAL = DISTRIBUTIONS


def kfac(problem: Surrogate, samples: int | None = None, seed: int = 0) -> KFAC:
    config = SampledConfig("kfac", "factored", iterations=1, tolerance=0.0, samples=samples)
    return KFAC.at(problem.model, config, np.random.default_rng(seed))


def distance(a: Tensor, b: Tensor) -> float:
    """Frobenius distance relative to b."""
    return float((a - b).norm() / b.norm())


@every_policy
def test_the_matrix_is_the_kronecker_product_of_its_factors_in_the_order_of_theta(policy: str) -> None:
    problem = make_problem(POLICIES[policy]())
    assert_close(kfac(problem).dense(), kronecker_dense(kronecker_truths(problem)))


@every_policy
@pytest.mark.parametrize("samples", [1, 4])
def test_sampled_gradients_are_those_at_the_actions_drawn(policy: str, samples: int) -> None:
    problem = make_problem(POLICIES[policy]())
    m = sampled_output_fisher(problem, samples, np.random.default_rng(7))
    assert_close(kfac(problem, samples, seed=7).dense(), kronecker_dense(kronecker_truths(problem, m)))


def test_factors_of_several_choices_are_those_of_their_combinations() -> None:
    problem = make_problem(make_policy(MultiCategorical((3, 2))))
    assert_close(kfac(problem).dense(), kronecker_dense(kronecker_truths(problem)))
    m = sampled_output_fisher(problem, 2, np.random.default_rng(7))
    assert_close(kfac(problem, 2, seed=7).dense(), kronecker_dense(kronecker_truths(problem, m)))


@every_policy
@pytest.mark.parametrize("damping", [1e-3, 0.5])
def test_damping_is_split_between_the_factors_by_pi(policy: str, damping: float) -> None:
    """(A + pi sqrt(lambda)) x (G + sqrt(lambda) / pi), pi^2 = mean of A's diagonal over mean of G's; 2 + lambda."""
    problem = make_problem(POLICIES[policy]())
    damped = []
    for truth, a, g in kronecker_truths(problem):
        eye_a, eye_g = torch.eye(len(a), dtype=a.dtype), torch.eye(len(g), dtype=g.dtype)
        if len(a) == 1:
            damped.append((truth, a, g + damping * eye_g))
        else:
            pi = (float(a.diagonal().mean()) / float(g.diagonal().mean())) ** 0.5
            damped.append((truth, a + pi * damping**0.5 * eye_a, g + damping**0.5 / pi * eye_g))
    metric, expected = kfac(problem), kronecker_dense(damped)
    assert_close(metric.dense(damping), expected)
    b = random_vectors(problem)
    assert_close(metric.inverse_product(b, damping).x, torch.linalg.solve(expected, b))


@pytest.mark.parametrize(
    "policy",
    [
        *(make_policy(d, activation=f) for d in DISTRIBUTIONS for f in ("tanh", "relu")),
        make_conv_policy(CATEGORICAL, SIDE, padding=0),
    ],
    ids=["gaussian, tanh", "gaussian, relu", "categorical, tanh", "categorical, relu", "convolution at one position"],
)
def test_on_a_single_state_it_is_the_block_diagonal_of_the_fisher_matrix(policy: Policy) -> None:
    problem = make_problem(policy, n=1, num_envs=1)
    assert_close(kfac(problem).dense(), block_diagonal(problem))


def test_a_deep_linear_network_under_a_gaussian_head_has_it_exactly_on_any_batch() -> None:
    problem = make_problem(make_policy(GAUSSIAN, hidden=(5, 4, 3), activation="identity"))
    assert_close(kfac(problem).dense(), block_diagonal(problem))


@pytest.mark.parametrize(
    ("distribution", "activation"), [(GAUSSIAN, "tanh"), (CATEGORICAL, "tanh"), (CATEGORICAL, "identity")]
)
def test_elsewhere_it_is_an_approximation(distribution: Distribution, activation: str) -> None:
    """Further than 15 % of the norm away on 24 states: by tanh, or by probabilities that depend on the state."""
    problem = make_problem(make_policy(distribution, activation=activation))
    assert 0.15 < distance(kfac(problem).dense(), block_diagonal(problem)) < 1


@pytest.mark.parametrize("samples", [None, 1, 3])
@pytest.mark.parametrize("states", [1, 24, 25])
def test_the_block_of_log_sigma_is_2_bit_for_bit(samples: int | None, states: int) -> None:
    problem = make_problem(make_policy(DiagonalGaussian(3)), n=states, num_envs=1)
    block = kfac(problem, samples).dense()[-3:, -3:]
    assert torch.equal(block, 2 * torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(2, 1, 0), (2, 2, 1), (1, 1, 0)])
def test_positions_are_summed_in_a_and_averaged_in_g(kernel: int, stride: int, padding: int) -> None:
    """Each pixel of the output is the mean of an action of variance 1, so gradients at any two are uncorrelated.

    Then G = I, and A x G is the block of F itself; with A divided by the number of positions it were too small.
    """
    actions = 2 * ((SIDE + 2 * padding - kernel) // stride + 1) ** 2
    policy = make_conv_policy(DiagonalGaussian(actions), kernel, stride, padding)
    policy.network = nn.Sequential(policy.network[0], nn.Flatten())
    policy.log_std = Constant(torch.zeros(actions, dtype=torch.float64))
    problem = make_problem(policy)
    metric = kfac(problem)
    assert_close(metric.factors[0].g, torch.eye(2, dtype=torch.float64))
    assert_close(metric.dense(), block_diagonal(problem))
    assert metric.trace() == pytest.approx(float(block_diagonal(problem).trace()), rel=1e-10)


def test_a_convolution_with_one_position_is_a_linear_layer() -> None:
    policy = make_conv_policy(CATEGORICAL, kernel=SIDE, padding=0)
    problem = make_problem(policy)
    expected = kfac(problem).dense()
    linear = nn.Linear(CHANNELS * SIDE**2, 2).double()
    policy.network = nn.Sequential(nn.Flatten(), linear, policy.network[1], policy.network[3])
    assign(policy, problem.theta)
    assert_close(kfac(Surrogate(policy, problem.batch)).dense(), expected, relative=1e-13)


def test_inverse_products_reuse_one_factorisation_per_damping(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = make_problem(make_policy(GAUSSIAN))
    metric, b = kfac(problem), random_vectors(problem)
    first = metric.inverse_product(b, 0.1).x

    def fail(*args: Any) -> None:
        raise AssertionError("factorised again")

    monkeypatch.setattr("algorithms.fisher.metrics.kfac.cholesky_factor", fail)
    assert torch.equal(metric.inverse_product(b, 0.1).x, first)
    with pytest.raises(AssertionError, match="factorised again"):
        metric.inverse_product(b, 0.2)


@every_policy
def test_large_factors_are_solved_in_the_precision_of_the_right_hand_side(
    policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = make_problem(POLICIES[policy]())
    b = random_vectors(problem)
    expected = kfac(problem).inverse_product(b, 0.1).x
    assert_close(kfac(problem).unchecked_inverse_product(b.float(), 0.1).x.double(), expected, 1e-6)
    monkeypatch.setattr("algorithms.fisher.metrics.kfac.LARGE", 1)
    assert torch.equal(kfac(problem).inverse_product(b, 0.1).x, expected)
    in_float32 = kfac(problem).unchecked_inverse_product(b.float(), 0.1)
    assert in_float32.x.dtype == torch.float32
    assert_close(in_float32.x.double(), expected, 1e-5)


def test_the_residual_is_left_out_where_nobody_reads_it() -> None:
    problem = make_problem(make_policy(GAUSSIAN))
    metric, b = kfac(problem), random_vectors(problem)
    checked, unchecked = metric.inverse_product(b, 0.1), metric.unchecked_inverse_product(b, 0.1)
    assert torch.equal(checked.x, unchecked.x)
    assert 0 < checked.residual < 1e-12
    assert np.isnan(unchecked.residual)


def test_jitter_is_opted_into_and_counted() -> None:
    """An input that is always 0 makes A singular; without damping only jitter makes it positive definite."""
    problem = make_problem(make_policy(GAUSSIAN))
    problem.batch.observations[:, 0] = 0.0
    factors = kfac(problem).factors
    plain, jittered = KFAC(problem.theta, factors), KFAC(problem.theta, factors, jitters=(1e-10,))
    assert plain.inverse_product(problem.gradient, 0.0).outcome is Outcome.ILL_CONDITIONED
    assert plain.jitters_used == 0
    assert jittered.inverse_product(problem.gradient, 0.0).outcome is Outcome.CONVERGED
    assert jittered.jitters_used == 1
    assert jittered.inverse_product(problem.gradient, 0.1).outcome is Outcome.CONVERGED
    assert jittered.jitters_used == 1


def test_a_layer_whose_gradients_have_died_out_is_damped_by_lambda_alone() -> None:
    policy = make_policy(CATEGORICAL, hidden=(4,), activation="relu")
    first = policy.network[0]
    assert isinstance(first, nn.Linear)
    with torch.no_grad():
        first.bias.fill_(-100.0)
    problem = make_problem(policy)
    metric, b = kfac(problem), random_vectors(problem)
    assert not metric.factors[0].g.any()
    solution = metric.inverse_product(b, 0.25)
    assert solution.outcome is Outcome.CONVERGED
    a, g = metric.damped_factors(0.25)[0].a, metric.damped_factors(0.25)[0].g
    assert torch.equal(g, 0.5 * torch.eye(4, dtype=torch.float64))
    assert_close(a, metric.factors[0].a + 0.5 * torch.eye(4, dtype=torch.float64))

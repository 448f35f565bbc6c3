"""Fisher matrices at single actions: against their definition, and what sampling does to them on average."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.metric import FisherConfig, SampledConfig
from algorithms.fisher.metrics.diagonal import DiagonalFisher
from algorithms.fisher.metrics.empirical import EmpiricalFisher
from algorithms.fisher.metrics.exact import ExactFisher
from algorithms.fisher.metrics.kfac import KFAC
from algorithms.fisher.metrics.mc import MonteCarloConfig, MonteCarloFisher
from algorithms.fisher.trace import fisher_trace
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    assert_close,
    both,
    dense_fisher,
    dense_jacobian,
    dense_output_fisher,
    make_conv_policy,
    make_policy,
    make_problem,
    output_scores,
    random_vectors,
    sampled_output_fisher,
)

EMPIRICAL = FisherConfig("empirical", "cg", iterations=1, tolerance=0.0)


def monte_carlo(samples: int) -> MonteCarloConfig:
    return MonteCarloConfig("mc", "cg", iterations=1, tolerance=0.0, samples=samples)


def sampled(samples: int | None) -> SampledConfig:
    return SampledConfig("kfac", "factored", iterations=1, tolerance=0.0, samples=samples)


@both
@pytest.mark.parametrize("samples", [1, 5])
def test_the_monte_carlo_matrix_is_the_mean_outer_product_at_the_actions_drawn(
    distribution: Distribution, samples: int
) -> None:
    for policy in (make_policy(distribution), make_conv_policy(distribution)):
        problem = make_problem(policy)
        f = MonteCarloFisher.at(problem.model, monte_carlo(samples), np.random.default_rng(4))
        m = sampled_output_fisher(problem, samples, np.random.default_rng(4))
        assert_close(f.dense(), dense_fisher(problem, m))
        assert_close(f.diagonal(), dense_fisher(problem, m).diagonal())


@both
def test_the_empirical_matrix_is_the_mean_outer_product_at_the_actions_of_the_batch(distribution: Distribution) -> None:
    for policy in (make_policy(distribution), make_conv_policy(distribution)):
        problem = make_problem(policy)
        f = EmpiricalFisher.at(problem.model, EMPIRICAL, np.random.default_rng(0))
        scores = torch.einsum("sk,ska->sa", output_scores(problem, problem.batch.actions), dense_jacobian(problem))
        assert_close(f.dense(), scores.T @ scores / len(scores))
        assert_close(f.diagonal(), scores.square().mean(0))


def test_only_the_empirical_matrix_looks_at_the_actions_of_the_batch() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[1]))
    others = replace(problem.model, actions=(problem.model.actions + 1) % 3)
    rng = np.random.default_rng
    same = MonteCarloFisher.at(problem.model, monte_carlo(1), rng(0)).dense()
    assert torch.equal(MonteCarloFisher.at(others, monte_carlo(1), rng(0)).dense(), same)
    here, there = (EmpiricalFisher.at(model, EMPIRICAL, rng(0)).dense() for model in (problem.model, others))
    assert not torch.allclose(here, there)


Estimate = Callable[[Surrogate, Tensor, int | None, np.random.Generator], float]

ESTIMATES: dict[str, Estimate] = {
    "v^T F v of mc": lambda problem, v, samples, rng: float(
        (
            ExactFisher(problem.model)
            if samples is None
            else MonteCarloFisher.at(problem.model, monte_carlo(samples), rng)
        ).quadratic(v)
    ),
    "v^T F v of kfac": lambda problem, v, samples, rng: float(
        KFAC.at(problem.model, sampled(samples), rng).quadratic(v)
    ),
    "v^T F v of diagonal": lambda problem, v, samples, rng: float(
        DiagonalFisher.at(problem.model, sampled(samples), rng).quadratic(v)
    ),
    "tr F of kfac": lambda problem, v, samples, rng: KFAC.at(problem.model, sampled(samples), rng).trace(),
    "tr F of fisher_trace": lambda problem, v, samples, rng: float(fisher_trace(problem.model, samples, rng).mean()),
}
"""Numbers that sampling estimates without bias, and that have a closed form without samples."""


@both
@pytest.mark.parametrize("name", ESTIMATES)
def test_sampling_is_unbiased_and_four_times_the_samples_halve_the_error(name: str, distribution: Distribution) -> None:
    problem = make_problem(make_policy(distribution, hidden=(4,)), n=6, num_envs=1)
    estimate, v, repeats = ESTIMATES[name], random_vectors(problem), 300
    rng = np.random.default_rng(5)
    truth = estimate(problem, v, None, rng)
    few, many = (np.array([estimate(problem, v, m, rng) - truth for _ in range(repeats)]) for m in (1, 4))
    for errors in (few, many):
        standard_error = errors.std() / repeats**0.5
        assert abs(errors.mean()) < 4 * standard_error, f"bias {errors.mean():.2e}, standard error {standard_error:.2e}"
    ratio = float(np.sqrt((few**2).mean() / (many**2).mean()))
    assert 0.75 * 2 < ratio < 1.25 * 2, f"error ratio {ratio:.2f}"


@both
def test_the_empirical_matrix_is_the_fisher_matrix_on_policy_and_another_one_off_policy(
    distribution: Distribution,
) -> None:
    """v^T F v over 20,000 states is off by less than 4 standard errors on policy, by more than 15 off policy."""
    problem = make_problem(make_policy(distribution, hidden=(4,)), n=20_000)
    elsewhere = make_problem(make_policy(distribution, hidden=(4,), seed=9), n=20_000).batch.actions
    v = random_vectors(problem)
    _, jv = torch.autograd.functional.jvp(problem.model.function, problem.theta, v)
    exact = torch.einsum("sk,skl,sl->s", jv, dense_output_fisher(problem.z, distribution), jv)
    deviations = []
    for actions in (problem.batch.actions, elsewhere):
        terms = (output_scores(problem, actions) * jv).sum(-1).square()
        f = EmpiricalFisher.at(replace(problem.model, actions=actions), EMPIRICAL, np.random.default_rng(0))
        assert float(f.quadratic(v)) == pytest.approx(float(terms.mean()), rel=1e-10)
        standard_error = (terms - exact).std() / len(terms) ** 0.5
        deviations.append(abs(float((terms - exact).mean() / standard_error)))
    assert deviations[0] < 4 < 15 < deviations[1], deviations

"""KPIs against dense truth, exact cases and the degenerate updates."""

import math

import pytest
import torch

from algorithms.algorithm import Outcome, Update
from algorithms.diagnostics import DiagnosticsConfig, alignment_error, measure, trace_estimate
from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import assign, flatten
from algorithms.surrogate import Surrogate
from tests.algorithms.problems import DISTRIBUTIONS, dense_fisher, make_policy, make_problem

both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
CONFIG = DiagnosticsConfig(interval=1, states=24, rho=0.1, tolerance=1e-12, max_iterations=1000)
STEPPED = Update(Outcome.STEPPED, damping=0.3)


def damped(problem: Surrogate, rho: float = 0.1) -> torch.Tensor:
    f = dense_fisher(problem)
    return f + rho * f.trace() / len(f) * torch.eye(len(f), dtype=f.dtype)


@both
def test_a_step_along_the_natural_gradient_of_a_dense_solve_has_alignment_error_0(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    natural = torch.linalg.solve(damped(problem), problem.gradient)
    for sign, expected in ((1e-4, 0.0), (-1e-4, 2.0)):
        assign(policy, problem.theta + sign * natural)
        assert measure(problem, STEPPED, CONFIG, 0)["alignment_error"] == pytest.approx(expected, abs=1e-9)


@both
def test_alignment_error_equals_its_definition_for_any_step(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    g = damped(problem)
    natural = torch.linalg.solve(g, problem.gradient)
    for seed in range(3):
        change = torch.randn(len(g), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        cosine = (change @ g @ natural) / ((change @ g @ change) * (natural @ g @ natural)).sqrt()
        assign(policy, problem.theta + 1e-3 * change)
        row = measure(problem, STEPPED, CONFIG, 0)
        assert row["alignment_error"] == pytest.approx(1 - float(cosine), abs=1e-7)
        assert row["alignment_outcome"] == "converged"


def test_alignment_error_does_not_depend_on_the_size_of_the_step_even_in_float32() -> None:
    change, natural = torch.tensor([3.0, 4.0]), torch.tensor([1.0, 0.0])
    for size in (1e-25, 1.0, 1e25):
        assert alignment_error(size * change, natural, lambda v: v) == pytest.approx(0.4, rel=1e-5)


def test_alignment_error_without_a_positive_length_is_nan() -> None:
    v = torch.ones(2)
    assert math.isnan(alignment_error(v, v, lambda u: -u))
    assert math.isnan(alignment_error(v, v * math.nan, lambda u: u))


@both
def test_divergence_trace_conditioning_and_own_damping_equal_dense_values(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    assign(policy, problem.theta + 0.05)
    row = measure(problem, STEPPED, CONFIG, 0)
    eigenvalues = torch.linalg.eigvalsh(dense_fisher(problem))
    trace, largest = float(eigenvalues.sum()), float(eigenvalues[-1])
    damping = 0.1 * trace / len(problem.theta)
    assert row["kl"] == problem.evaluate(flatten(policy))[1]
    assert row["fisher_trace"] == pytest.approx(trace, rel=1e-10)
    assert row["alignment_damping"] == pytest.approx(damping, rel=1e-10)
    assert row["lambda_max"] == pytest.approx(largest, rel=1e-6)
    assert row["condition_number"] == pytest.approx((largest + damping) / damping, rel=1e-6)
    assert row["effective_rank"] == pytest.approx(trace / largest, rel=1e-6)
    assert row["rho_own"] == pytest.approx(0.3 * len(problem.theta) / trace, rel=1e-10)
    assert row["gradient_norm"] == pytest.approx(float(problem.gradient.norm()))
    assert row["step_norm"] == pytest.approx(0.05 * math.sqrt(len(problem.theta)))


@both
def test_quadratic_error_is_the_third_order_remainder(distribution: Distribution) -> None:
    """|D - v^T F v / 2| / D is of first order in the step, so a tenth of the step has a tenth of the error."""
    policy = make_policy(distribution)
    problem = make_problem(policy)
    v = torch.randn(len(problem.theta), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    errors = []
    for size in (1e-3, 1e-4):
        assign(policy, problem.theta + size * v)
        row = measure(problem, STEPPED, CONFIG, 0)
        kl, model = row["kl"], 0.5 * size**2 * float(v @ dense_fisher(problem) @ v)
        assert isinstance(kl, float)
        assert row["quadratic_error"] == pytest.approx(abs(kl - model) / kl, rel=1e-5)
        errors.append(abs(kl - model) / kl)
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.05)


def test_states_of_the_trace_are_spread_evenly_and_halves_are_whole_environments() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy, n=40, num_envs=4)
    observations = problem.batch.observations.view(10, 4, 3)
    observations[:, :2] *= 3
    estimate = trace_estimate(problem, states=20)
    assert estimate.states == 20
    per_half = [
        torch.stack([dense_fisher(one_state(problem, t, n)).trace() for t in (0, 2, 4, 7, 9) for n in half])
        for half in ((0, 1), (2, 3))
    ]
    assert estimate.mean == pytest.approx(float(torch.cat(per_half).mean()), rel=1e-10)
    assert estimate.standard_error == pytest.approx(float(torch.cat(per_half).std() / math.sqrt(20)), rel=1e-10)
    assert estimate.split == pytest.approx(math.log(per_half[0].mean() / per_half[1].mean()), rel=1e-10)
    assert trace_estimate(make_problem(policy, n=8, num_envs=1), 4).split is None


def one_state(problem: Surrogate, t: int, n: int) -> Surrogate:
    single = make_problem(problem.policy, n=1, num_envs=1)
    single.batch.observations[0] = problem.batch.observations.view(10, 4, 3)[t, n]
    return single


@pytest.mark.parametrize(
    "outcome", [Outcome.REJECTED, Outcome.ZERO_GRADIENT, Outcome.NEGATIVE_CURVATURE, Outcome.NON_FINITE]
)
def test_updates_that_did_not_step_have_kl_0_and_no_errors(outcome: Outcome) -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    row = measure(problem, Update(outcome), CONFIG, 0)
    assert (row["kl"], row["alignment_error"], row["quadratic_error"]) == (0.0, None, None)
    assert row["step_accepted"] is (outcome is not Outcome.REJECTED)
    assert isinstance(row["fisher_trace"], float)


def test_a_zero_gradient_has_no_natural_gradient_to_compare_with() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    problem.batch.advantages.zero_()
    row = measure(problem, Update(Outcome.ZERO_GRADIENT), CONFIG, 0)
    assert row["alignment_error"] is None
    assert row["gradient_norm"] == 0.0


def test_steps_below_the_smallest_divergence_have_no_quadratic_error() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta + 1e-9)
    row = measure(problem, STEPPED, CONFIG, 0)
    assert isinstance(row["kl"], float)
    assert 0 < row["kl"] < 1e-12
    assert row["quadratic_error"] is None


@both
def test_the_divergence_of_a_float32_policy_agrees_with_float64_networks(distribution: Distribution) -> None:
    policy = make_policy(distribution).float()
    problem = make_problem(policy)
    v = torch.randn(len(problem.theta), generator=torch.Generator().manual_seed(0))
    for size in (1e-1, 1e-3):
        assign(policy, problem.theta + size * v)
        row = measure(problem, STEPPED, DiagnosticsConfig(), 1)
        assert row["kl"] == pytest.approx(problem.evaluate(flatten(policy))[1], rel=1e-6 / size)


def test_nan_parameters_are_measured_as_nan() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta * math.nan)
    row = measure(problem, STEPPED, CONFIG, 0)
    for column in ("kl", "alignment_error", "quadratic_error", "step_norm"):
        assert isinstance(row[column], float), column
        assert math.isnan(row[column]), column  # type: ignore[arg-type]


def test_between_measurements_the_geometry_is_null_and_measuring_changes_nothing() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta + 0.05)
    before = flatten(policy)
    config = DiagnosticsConfig(interval=6, trace_interval=2)
    measured = [measure(problem, STEPPED, config, i) for i in range(7)]
    assert [row["alignment_error"] is not None for row in measured] == [i in (0, 6) for i in range(7)]
    assert [row["fisher_trace"] is not None for row in measured] == [i in (0, 2, 4, 6) for i in range(7)]
    assert len({row["kl"] for row in measured}) == 1
    assert torch.equal(flatten(policy), before)

"""KPIs against dense truth, exact cases and the degenerate updates."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from algorithms.fisher.distributions import Distribution
from algorithms.fisher.parameters import assign, flatten
from algorithms.parts.algorithm import Outcome, Update
from algorithms.parts.alignment import RHOS, Row, alignment_curve, alignment_error
from algorithms.parts.batch import Batch
from algorithms.parts.diagnostics import measure
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.states import TraceEstimate, trace_estimate
from algorithms.parts.surrogate import Surrogate
from tests.algorithms.problems import (
    DISTRIBUTIONS,
    dense_fisher,
    make_policy,
    make_problem,
    random_vectors,
    reference,
)
from tests.settings import compose
from training.learner import build

both = pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
CONFIG = DiagnosticsConfig(interval=1, states=24, rho=0.1, tolerance=1e-12, max_iterations=1000)
STEPPED = Update(Outcome.STEPPED, damping=0.3)


def measured(problem: Surrogate, update: Update = STEPPED, config: DiagnosticsConfig = CONFIG, index: int = 0) -> Row:
    return measure(problem, update, config, index, np.random.default_rng(0))


def curve(problem: Surrogate, update: Update = STEPPED, config: DiagnosticsConfig = CONFIG) -> list[Row]:
    return alignment_curve(problem, update, config, np.random.default_rng(0))


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
        assert measured(problem)["alignment_error"] == pytest.approx(expected, abs=1e-9)


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
        row = measured(problem)
        assert row["alignment_error"] == pytest.approx(1 - float(cosine), abs=1e-7)
        assert row["alignment_outcome"] == "converged"


@both
def test_the_curve_of_a_step_along_one_natural_gradient_is_0_at_its_damping_alone(distribution: Distribution) -> None:
    """Against dense solves at every damping, where the curve is 0 and where it is not."""
    policy = make_policy(distribution)
    problem = make_problem(policy)
    metrics = {rho: damped(problem, rho) for rho in RHOS}
    naturals = {rho: torch.linalg.solve(g, problem.gradient) for rho, g in metrics.items()}
    for own in RHOS:
        assign(policy, problem.theta + 1e-3 * naturals[own])
        for row, (rho, g), n in zip(curve(problem), metrics.items(), naturals.values(), strict=True):
            cosine = (naturals[own] @ g @ n) / ((naturals[own] @ g @ naturals[own]) * (n @ g @ n)).sqrt()
            assert row["rho"] == rho
            assert row["alignment_error"] == pytest.approx(1 - float(cosine), abs=1e-8)
            assert (rho == own) == (row["alignment_error"] < 1e-8)  # type: ignore[operator]
            assert row["outcome"] == "converged"


@both
def test_the_curve_holds_the_alignment_error_that_is_measured_between_snapshots(distribution: Distribution) -> None:
    policy = make_policy(distribution)
    problem = make_problem(policy)
    assign(policy, problem.theta + 0.05)
    row = measured(problem)
    [point] = [point for point in curve(problem) if point["rho"] == row["alignment_rho"]]
    assert point["alignment_error"] == pytest.approx(row["alignment_error"], abs=1e-9)
    assert point["damping"] == pytest.approx(row["alignment_damping"], rel=1e-13)
    assert point["rho_own"] == pytest.approx(row["rho_own"], rel=1e-13)


def test_snapshots_are_solved_more_closely_than_the_alignment_error_between_them() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    config = DiagnosticsConfig(interval=1, states=24)
    assert 1e-3 < measured(problem, config=config)["alignment_residual"] <= 1e-2  # type: ignore[operator]
    assert all(point["residual"] <= 1e-3 for point in curve(problem, config=config))  # type: ignore[operator]


def test_the_curve_counts_what_a_capped_solve_took() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    points = curve(problem, config=replace(CONFIG, max_iterations=3))
    assert {(point["outcome"], point["iterations"]) for point in points} == {("capped", 3)}
    residuals = [point["residual"] for point in points]
    assert residuals == sorted(residuals)  # type: ignore[type-var]
    assert 0 < residuals[0] < residuals[-1]  # type: ignore[operator]


def test_without_a_step_the_curve_has_solves_and_without_a_gradient_nothing() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    for point in curve(problem, Update(Outcome.REJECTED)):
        assert point["alignment_error"] is None
        assert point["rho_own"] is None
        assert point["outcome"] == "converged"
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    problem.batch.advantages.zero_()
    assert curve(problem, Update(Outcome.ZERO_GRADIENT)) == [{"rho": rho} for rho in RHOS]


def test_geometry_on_some_states_is_that_of_these_states_and_the_gradient_that_of_the_batch() -> None:
    """Dense truth on the states at the first, a middle and the last time, of every environment."""
    policy = make_policy(DISTRIBUTIONS[1])
    problem = make_problem(policy)  # 6 steps of 4 environments
    local = problem.on(torch.tensor([*range(4), *range(8, 12), *range(20, 24)]))
    change = random_vectors(problem)
    assign(policy, problem.theta + 1e-2 * change)
    row = measured(problem, config=replace(CONFIG, geometry_states=12))
    f = dense_fisher(local)
    g = f + row["alignment_damping"] * torch.eye(len(f), dtype=f.dtype)  # type: ignore[operator]
    natural = torch.linalg.solve(g, problem.gradient)
    cosine = (change @ g @ natural) / ((change @ g @ change) * (natural @ g @ natural)).sqrt()
    kl = local.evaluate(flatten(policy))[1]
    assert row["geometry_states"] == 12
    assert row["alignment_error"] == pytest.approx(1 - float(cosine), abs=1e-7)
    assert row["quadratic_error"] == pytest.approx(abs(kl - 0.5e-4 * float(change @ f @ change)) / kl, rel=1e-6)
    assert row["kl"] == pytest.approx(problem.evaluate(flatten(policy))[1], rel=1e-9)
    point = curve(problem, config=replace(CONFIG, geometry_states=12))[RHOS.index(0.1)]
    assert point["alignment_error"] == pytest.approx(row["alignment_error"], abs=1e-8)


def test_as_many_geometry_states_as_the_batch_has_are_the_whole_batch() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta + 0.05)
    assert measured(problem, config=replace(CONFIG, geometry_states=24)) == measured(problem)
    assert measured(problem, config=replace(CONFIG, geometry_states=500)) == measured(problem)


def test_snapshots_are_spread_from_the_first_update_to_the_last() -> None:
    def snapshots(number: int, updates: int) -> list[int]:
        return sorted(DiagnosticsConfig(snapshots=number).snapshot_updates(updates))

    assert snapshots(0, 100) == []
    assert snapshots(1, 100) == [0]
    assert snapshots(2, 100) == [0, 99]
    assert snapshots(5, 101) == [0, 25, 50, 75, 100]
    assert snapshots(5, 3) == [0, 1, 2]


@pytest.mark.parametrize(
    ("setting", "value"), [("trace_samples", 0), ("snapshots", -1), ("states", 0), ("geometry_states", 0), ("rho", 0.0)]
)
def test_impossible_settings_are_named(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^diagnostics\.{setting}={value}: must"):
        DiagnosticsConfig(**{setting: value})  # type: ignore[arg-type]


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
    row = measured(problem)
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
        row = measured(problem)
        kl, model = row["kl"], 0.5 * size**2 * float(v @ dense_fisher(problem) @ v)
        assert isinstance(kl, float)
        assert row["quadratic_error"] == pytest.approx(abs(kl - model) / kl, rel=1e-5)
        errors.append(abs(kl - model) / kl)
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.05)


def estimate(problem: Surrogate, states: int, samples: int | None = None, seed: int = 0) -> TraceEstimate:
    config = DiagnosticsConfig(states=states, trace_samples=samples)
    return trace_estimate(problem, config, np.random.default_rng(seed))


def test_states_of_the_trace_are_spread_evenly_and_environments_stay_whole() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy, n=40, num_envs=4)
    observations = problem.batch.observations.view(10, 4, 3)
    observations[:, :2] *= 3
    found = estimate(problem, states=20)
    assert found.states == 20
    per_env = [
        torch.stack([dense_fisher(one_state(problem, t, n)).trace() for t in (0, 2, 4, 7, 9)]).mean() for n in range(4)
    ]
    assert found.mean == pytest.approx(float(torch.stack(per_env).mean()), rel=1e-10)
    assert found.standard_error == pytest.approx(float(torch.stack(per_env).std() / 2), rel=1e-10)
    ratio = float((per_env[0] + per_env[1]) / (per_env[2] + per_env[3]))
    assert found.split == pytest.approx(math.log(ratio), rel=1e-10)


def test_one_environment_alone_says_nothing_of_the_sampling_error() -> None:
    found = estimate(make_problem(make_policy(DISTRIBUTIONS[0]), n=8, num_envs=1), states=4)
    assert (found.standard_error, found.split) == (None, None)
    assert found.mean > 0


REPEATS, ENVS, TIMES = 200, 16, 8


def stated_over_spread(estimates: list[TraceEstimate]) -> float:
    """Root mean square of the stated standard errors, over the standard deviation of what they are stated of."""
    errors = [e.standard_error for e in estimates if e.standard_error is not None]
    return float(np.sqrt(np.mean(np.square(errors))) / np.std([e.mean for e in estimates], ddof=1))


@pytest.mark.parametrize("samples", [None, 1, 4], ids=lambda samples: f"{samples or 'no'} samples")
@pytest.mark.parametrize("alike", [False, True], ids=["independent states", "states alike within an environment"])
@both
def test_the_stated_error_of_the_trace_is_its_spread_over_200_repeats(
    distribution: Distribution, alike: bool, samples: int | None
) -> None:
    """Every repeat draws states from one population, and actions, anew; 200 repeats give the spread to 5 %."""
    policy = make_policy(distribution)
    population = torch.from_numpy(1.5 * np.random.default_rng(5).standard_normal((500, 3)))
    rng = np.random.default_rng(6)
    found = []
    for repeat in range(REPEATS):
        problem = make_problem(policy, n=ENVS * TIMES, num_envs=ENVS)
        drawn = rng.integers(500, size=ENVS if alike else (TIMES, ENVS))
        problem.batch.observations.view(TIMES, ENVS, 3)[:] = population[torch.from_numpy(drawn)]
        found.append(estimate(problem, ENVS * TIMES, samples, seed=repeat))
    assert stated_over_spread(found) == pytest.approx(1, abs=0.15)
    # Two traces that differ by sampling alone differ by the noise floor of sigma_tau, docs/diagnostics.md.
    floor = math.sqrt(0.5) * float(np.std([e.split for e in found if e.split is not None], ddof=1))
    difference = math.sqrt(2) * float(np.std(np.log([e.mean for e in found]), ddof=1))
    assert floor == pytest.approx(difference, rel=0.2)


def test_the_stated_error_of_the_trace_holds_on_real_rollouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """60 batches of Hopper by one policy. States follow each other: an error that ignores it is half of this."""
    learner = build(compose("algorithm=npg", "env=hopper", "seed=1"))
    policy, collector = learner.policy, learner.collector
    monkeypatch.setattr(collector.observation_normaliser, "update", lambda _: None)
    found = []
    for batch in range(70):
        observations = collector.collect(policy.actor(), policy.distribution.noise, 32).observations.reshape(
            32 * 16, -1
        )
        nothing = torch.zeros(len(observations))
        problem = Surrogate(policy, Batch(torch.from_numpy(observations), nothing, nothing, nothing, nothing, 16))
        if batch >= 10:  # the first ones all lie in first episodes
            found.append(estimate(problem, states=512))
    assert stated_over_spread(found) == pytest.approx(1, abs=0.3)


def test_sampled_actions_give_another_trace_and_draw_from_the_given_stream() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    exact, one, again, other = (estimate(problem, 24, *args).mean for args in ((None,), (1, 0), (1, 0), (1, 1)))
    assert one == again
    assert len({exact, one, other}) == 3


def one_state(problem: Surrogate, t: int, n: int) -> Surrogate:
    single = make_problem(problem.policy, n=1, num_envs=1)
    single.batch.observations[0] = problem.batch.observations.view(10, 4, 3)[t, n]
    return single


@pytest.mark.parametrize(
    "outcome", [Outcome.REJECTED, Outcome.ZERO_GRADIENT, Outcome.NEGATIVE_CURVATURE, Outcome.NON_FINITE]
)
def test_updates_that_did_not_step_have_kl_0_and_no_errors(outcome: Outcome) -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    row = measured(problem, Update(outcome))
    assert (row["kl"], row["alignment_error"], row["quadratic_error"]) == (0.0, None, None)
    assert row["step_accepted"] is (outcome is not Outcome.REJECTED)
    assert isinstance(row["fisher_trace"], float)


def test_a_zero_gradient_has_no_natural_gradient_to_compare_with() -> None:
    problem = make_problem(make_policy(DISTRIBUTIONS[0]))
    problem.batch.advantages.zero_()
    row = measured(problem, Update(Outcome.ZERO_GRADIENT))
    assert row["alignment_error"] is None
    assert row["gradient_norm"] == 0.0


def test_steps_below_the_smallest_divergence_have_no_quadratic_error() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta + 1e-9)
    row = measured(problem)
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
        row = measured(problem, config=DiagnosticsConfig(), index=1)
        assert row["kl"] == pytest.approx(problem.evaluate(flatten(policy))[1], rel=1e-6 / size)


@both
def test_the_total_divergence_holds_the_move_of_the_normaliser_too(distribution: Distribution) -> None:
    """Against torch.distributions, with a step and without one; without a move it is the divergence itself."""
    policy = make_policy(distribution)
    problem = make_problem(policy)
    moved = 0.9 * problem.batch.observations + 0.1
    old = reference(distribution, problem.z)
    for step, update in ((0.05, STEPPED), (0.0, Update(Outcome.REJECTED))):
        assign(policy, problem.theta + step)
        row = measure(problem, update, CONFIG, 1, np.random.default_rng(0), moved)
        expected = torch.distributions.kl_divergence(old, reference(distribution, policy.z(moved))).mean()
        assert row["kl_total"] == pytest.approx(float(expected), rel=1e-10)
        unmoved = measured(problem, update, index=1)
        assert unmoved["kl_total"] == unmoved["kl"] == row["kl"] != row["kl_total"]


def test_nan_parameters_are_measured_as_nan() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta * math.nan)
    row = measured(problem)
    for column in ("kl", "alignment_error", "quadratic_error", "step_norm"):
        assert isinstance(row[column], float), column
        assert math.isnan(row[column]), column  # type: ignore[arg-type]


def test_between_measurements_the_geometry_is_null_and_measuring_changes_nothing() -> None:
    policy = make_policy(DISTRIBUTIONS[0])
    problem = make_problem(policy)
    assign(policy, problem.theta + 0.05)
    before = flatten(policy)
    config = DiagnosticsConfig(interval=6, trace_interval=2)
    rows = [measured(problem, config=config, index=i) for i in range(7)]
    assert [row["alignment_error"] is not None for row in rows] == [i in (0, 6) for i in range(7)]
    assert [row["fisher_trace"] is not None for row in rows] == [i in (0, 2, 4, 6) for i in range(7)]
    assert len({row["kl"] for row in rows}) == 1
    assert torch.equal(flatten(policy), before)

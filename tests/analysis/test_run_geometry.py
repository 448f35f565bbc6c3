import math

import numpy as np
import pytest

from analysis.curves import Column, Floats
from analysis.geometry import (
    kl_per_env_step,
    kl_summary,
    noise_floor,
    run_counts,
    run_geometry,
    trace_stability,
    trace_summary,
)
from analysis.progress import COLUMNS, Progress

NAN = float("nan")


def column(values: list[float | None]) -> Column:
    measured = np.array([value is not None for value in values])
    return Column(np.array([NAN if value is None else value for value in values]), measured)


def every(spacing: float, n: int) -> Floats:
    """n multiples of `spacing`, from the first on."""
    return spacing * np.arange(1, n + 1, dtype=np.float64)


def test_kl_by_hand() -> None:
    kl = np.array([0.01, 0.02, 0.03, 0.04])
    summary = kl_summary(kl, delta_ref=0.02)
    assert summary["kl_median"] == pytest.approx(0.025)
    assert summary["kl_p95"] == pytest.approx(0.03 + 0.85 * 0.01)
    assert summary["kl_max"] == 0.04
    assert summary["kl_share_above"] == 0.5  # strictly above
    assert summary["kl_cv"] == pytest.approx(np.sqrt(5e-4 / 3) / 0.025)


def test_constant_speed_has_no_variation() -> None:
    assert kl_summary(np.full(5, 0.01), 0.02)["kl_cv"] == pytest.approx(0)
    assert set(kl_summary(np.empty(0), 0.02).values()) == {None}


def test_rejected_updates_are_counted_and_do_not_count() -> None:
    outcome = np.array(["stepped", "rejected", "zero_gradient", "stepped", "non_finite"])
    columns = {name: column([1.0] * 5) for name in COLUMNS}
    columns["kl"] = column([0.01, 0.0, 0.0, 0.03, NAN])
    columns["alignment_error"] = column([0.2, None, None, 0.4, NAN])
    columns["quadratic_error"] = column([0.1, None, None, NAN, None])
    solves = np.array(["converged", "", "", "capped", "negative_curvature"])
    progress = Progress(every(2_000, 5), outcome, solves, columns)
    run = run_geometry(progress, delta_ref=0.02)
    assert run["kl_median"] == pytest.approx(0.02)  # zeros of updates that made no step would give 0.005
    assert run["alignment_error"] == pytest.approx(0.3)
    assert run["quadratic_error"] == pytest.approx(0.1)
    assert run["rejection_rate"] == pytest.approx(0.2)
    assert run["kl_per_env_step"] == pytest.approx(0.04 / 10_000)
    counts = run_counts(progress)
    assert [counts[name] for name in ("updates", "stepped", "rejected", "zero_gradient", "non_finite")] == [
        5,
        2,
        1,
        1,
        1,
    ]
    assert (counts["quadratic_error_measured"], counts["quadratic_error_nan"]) == (2, 1)
    assert (counts["alignment_error_measured"], counts["alignment_error_nan"]) == (3, 1)
    assert counts["alignment_error_unsolved"] == 1  # the NaN belongs to no step
    assert (counts["kl_nan"], counts["fisher_trace_nan"]) == (1, 0)


def test_kl_per_env_step_leaves_the_warm_up_out() -> None:
    """Three updates of 1,000 steps after a warm-up of 500: 0.06 nats over 3,000 steps."""
    assert kl_per_env_step(np.array([1_500.0, 2_500.0, 3_500.0]), np.array([0.02, 0.04])) == pytest.approx(2e-5)
    assert kl_per_env_step(np.array([1_500.0, 2_500.0]), np.empty(0)) == 0
    assert kl_per_env_step(np.array([1_500.0]), np.array([0.02])) is None  # its batch is not known


def test_stability_of_a_random_walk() -> None:
    """Steps of variance s² per measurement: log τ(t+L)/τ(t) over k measurements has standard deviation s√k."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 0.1, 20_000))
    sigma, lag = trace_stability(every(2_000, 20_000), walk, lag=20_000)
    assert lag == 20_000
    assert sigma == pytest.approx(0.1 * np.sqrt(10), rel=0.1)


def test_a_steady_trend_is_stable() -> None:
    sigma, _ = trace_stability(every(2_000, 100), every(0.05, 100))
    assert sigma == pytest.approx(0, abs=1e-12)


def test_pure_sampling_noise_sits_on_its_floor() -> None:
    """A constant trace measured through two halves: σ_τ is all noise, and the floor says so."""
    rng = np.random.default_rng(0)
    halves = 50 * np.exp(rng.normal(0, 0.05, (20_000, 2)))
    sigma, _ = trace_stability(every(2_000, 20_000), np.log(halves.mean(axis=1)))
    floor = noise_floor(np.log(halves[:, 0] / halves[:, 1]))
    assert floor == pytest.approx(0.05, rel=0.03)
    assert sigma == pytest.approx(floor, rel=0.03)


def test_drift_of_a_known_size_is_what_sigma_has_above_its_floor() -> None:
    """log τ drifts by a random walk of 0.02 per update and is measured with 5 % noise in each half: variances add."""
    rng = np.random.default_rng(0)
    drift = np.cumsum(rng.normal(0, 0.02, 20_000))
    halves = 50 * np.exp(drift[:, None] + rng.normal(0, 0.05, (20_000, 2)))
    trace, split = column(list(halves.mean(axis=1))), column(list(np.log(halves[:, 0] / halves[:, 1])))
    summary = trace_summary(every(2_000, 20_000), trace, split)
    sigma, floor = summary["trace_stability"], summary["trace_noise_floor"]
    assert sigma is not None
    assert floor is not None
    assert summary["trace_lag"] == 20_000
    assert np.sqrt(sigma**2 - floor**2) == pytest.approx(0.02 * np.sqrt(10), rel=0.1)


def test_the_number_of_measurements_per_lag_does_not_matter() -> None:
    """The same run measured at every update, every second, every fifth and every tenth: σ_τ belongs to the lag."""
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.02, 20_000))
    steps = every(2_000, 20_000)
    sigmas = [trace_stability(steps[::k], walk[::k])[0] for k in (1, 2, 5, 10)]
    assert sigmas == pytest.approx([0.02 * np.sqrt(10)] * 4, rel=0.1)


def test_traces_that_have_no_logarithm_are_left_out() -> None:
    """Measured as 0 or NaN, or not measured: the pairs are made of the others."""
    values: list[float | None] = [math.e ** (k % 3) for k in range(40)]
    odd = {5: 0.0, 11: NAN, 17: None}
    broken = [odd.get(k, value) for k, value in enumerate(values)]
    kept = [k for k in range(40) if k not in odd]
    steps = every(2_000, 40)
    summary = trace_summary(steps, column(broken), column([0.1, None, NAN, 0.3]))
    sigma, lag = trace_stability(steps[kept], np.array([k % 3 for k in kept], dtype=np.float64))
    assert (summary["trace_stability"], summary["trace_lag"]) == (sigma, lag)
    assert summary["trace"] == pytest.approx(math.exp(np.mean([k % 3 for k in kept])))
    assert summary["trace_noise_floor"] == pytest.approx(np.sqrt(0.5) * np.std([0.1, 0.3], ddof=1))


@pytest.mark.parametrize(
    ("spacing", "expected_lag"),
    [(20_480, 20_480), (16_384, 16_384), (4_096, 20_480), (2_048, 20_480), (65_536, 65_536)],
)
def test_nearest_pair_of_measurements(spacing: int, expected_lag: int) -> None:
    n = 40
    sigma, lag = trace_stability(every(spacing, n), np.random.default_rng(0).normal(size=n))
    assert lag == expected_lag
    assert sigma is not None


def test_end_of_the_run_makes_no_short_pairs() -> None:
    """With a jump in the last measurement only, the pairs that end there are few: exactly the one a lag before."""
    log_trace = np.zeros(41)
    log_trace[-1] = 1.0
    sigma, _ = trace_stability(every(2_000, 41), log_trace)
    changes = np.zeros(31)  # starts 0 … 30, the last of them 20k steps before the end
    changes[-1] = 1.0
    assert sigma == pytest.approx(changes.std(ddof=1))


def test_too_few_measurements_have_no_stability() -> None:
    assert trace_stability(np.array([1.0, 2.0]), np.zeros(2)) == (None, None)
    assert noise_floor(np.array([0.1])) is None

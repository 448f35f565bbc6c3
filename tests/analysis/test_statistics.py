import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.curves import Floats
from analysis.statistics import (
    Estimate,
    bootstrap_interval,
    estimate,
    generator,
    holm,
    iqm,
    optimality_gap,
    p_value,
    percentile_interval,
    performance_profile,
    probability_of_improvement,
    resample,
    resample_runs,
    resampled_iqm,
    small_sample_tail,
    student_cdf,
    student_quantile,
)

ORACLE = json.loads((Path(__file__).parent / "data" / "rliable_oracle.json").read_text())
ALGORITHMS = ("adam_pg", "npg", "ppo")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_iqm_equals_rliable(algorithm: str) -> None:
    scores = np.array(ORACLE["scores"][algorithm])
    expected = ORACLE["point"][algorithm][ORACLE["aggregates"].index("iqm")]
    assert iqm(scores.reshape(-1)) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("aggregate", "statistic"),
    [("iqm", iqm), ("mean", lambda x: x.mean(axis=-1)), ("median", None), ("optimality_gap", optimality_gap)],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_stratified_interval_agrees_with_rliable(
    algorithm: str, aggregate: str, statistic: Callable[[Floats], Floats] | None
) -> None:
    """The ends agree within 10 % of the interval's width, about three Monte-Carlo standard errors."""
    scores = np.array(ORACLE["scores"][algorithm])
    runs, tasks = scores.shape

    def median_of_task_means(pooled: Floats) -> Floats:  # rliable's median: over tasks, of the mean over runs
        return np.asarray(np.median(pooled.reshape(-1, runs, tasks).mean(axis=1), axis=-1))

    statistic = statistic or median_of_task_means
    low, high = bootstrap_interval(scores, np.random.default_rng(1), statistic, 20_000, widened=False)
    index = ORACLE["aggregates"].index(aggregate)
    expected_low, expected_high = (end[index] for end in ORACLE["ci"][algorithm])
    tolerance = 0.1 * (expected_high - expected_low)
    assert low == pytest.approx(expected_low, abs=tolerance)
    assert high == pytest.approx(expected_high, abs=tolerance)


def test_resampling_is_within_tasks() -> None:
    """Tasks whose runs agree with each other leave nothing to resample; pooled runs would."""
    scores = np.tile([0.0, 10.0], (5, 1))
    assert bootstrap_interval(scores, np.random.default_rng(0), lambda x: x.mean(axis=-1)) == (5.0, 5.0)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 2.0, 9.0], 4.0),  # fewer than four: nothing is cut
        ([9.0, 1.0, 2.0, 100.0], 5.5),
        ([0.0, 1.0, 2.0, 3.0, 100.0], 2.0),
        (list(range(10)), 4.5),
        ([-1e9, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 1e9], 2.0),
    ],
)
def test_iqm_by_hand(scores: list[float], expected: float) -> None:
    assert iqm(np.array(scores, dtype=float)) == expected


def test_iqm_does_not_cut_a_nan_away() -> None:
    assert np.isnan(iqm(np.array([1.0, 2.0, 3.0, np.nan])))


def test_same_generator_same_interval_and_another_name_another() -> None:
    scores = np.random.default_rng(0).normal(size=10)
    one, again = (bootstrap_interval(scores, generator("hopper", "trpo")) for _ in range(2))
    assert one == again
    assert one != bootstrap_interval(scores, generator("hopper", "npg"))


def test_resampled_curves_are_the_iqm_of_whole_runs() -> None:
    curves = np.random.default_rng(0).normal(size=(5, 7))
    draws = resample_runs(5, np.random.default_rng(1), 11)
    expected = np.array([[iqm(curves[draw, k]) for k in range(7)] for draw in draws])
    np.testing.assert_array_equal(resampled_iqm(curves, draws), expected)


def test_interval_admits_infinite_samples() -> None:
    samples = np.concatenate([np.full(30, -np.inf), np.linspace(0, 1, 970)])
    low, high = percentile_interval(samples)
    assert low == -np.inf
    assert high == pytest.approx(0.975, abs=0.01)


def test_interval_covers_the_mean_about_as_often_as_it_says() -> None:
    """95 % intervals of 30 normal scores hold the true mean in 90 to 97 % of 400 repetitions."""
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = bootstrap_interval(rng.normal(size=30), rng, lambda x: x.mean(axis=-1), 500)
        held += low <= 0 <= high
    assert 0.90 <= held / 400 <= 0.97


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_optimality_gap_and_profile_equal_rliable(algorithm: str) -> None:
    scores = np.array(ORACLE["scores"][algorithm]).reshape(-1)
    expected = ORACLE["point"][algorithm][ORACLE["aggregates"].index("optimality_gap")]
    assert optimality_gap(scores) == pytest.approx(expected, rel=1e-14)
    profile = performance_profile(scores, np.array(ORACLE["taus"]))
    np.testing.assert_allclose(profile, ORACLE["performance_profile"][algorithm], rtol=1e-14)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_intervals_of_the_profile_agree_with_rliable(algorithm: str) -> None:
    scores = np.array(ORACLE["scores"][algorithm])
    lows, highs = (np.array(end) for end in ORACLE["performance_profile_ci"][algorithm])
    for tau, low, high in zip(ORACLE["taus"][1:6], lows[1:6], highs[1:6], strict=True):
        above = lambda pooled, tau=tau: performance_profile(pooled, np.array([tau]))[..., 0]  # noqa: E731
        found = bootstrap_interval(scores, np.random.default_rng(1), above, 5_000, widened=False)
        assert found == pytest.approx((low, high), abs=1.01 / scores.size)  # one run of sixty


@pytest.mark.parametrize("pair", ["npg,adam_pg", "ppo,npg"])
def test_probability_of_improvement_equals_rliable(pair: str) -> None:
    x, y = (list(np.array(ORACLE["scores"][name]).T) for name in pair.split(","))
    assert probability_of_improvement(x, y) == pytest.approx(ORACLE["probability_of_improvement"][pair], rel=1e-14)


@pytest.mark.parametrize(
    ("p", "degrees", "expected"),  # from tables of Student's distribution
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 4, 2.77645), (0.975, 9, 2.26216), (0.95, 36, 1.68830)],
)
def test_quantiles_of_student(p: float, degrees: int, expected: float) -> None:
    assert student_quantile(p, degrees) == pytest.approx(expected, rel=1e-5)
    assert student_cdf(expected, degrees) == pytest.approx(p, abs=1e-6)
    assert student_cdf(-expected, degrees) == pytest.approx(1 - p, abs=1e-6)


def test_tails_are_wider_for_few_runs_and_those_of_the_percentile_for_many() -> None:
    tails = [small_sample_tail([runs]) for runs in (1, 3, 5, 10, 1000)]
    assert tails == sorted(tails)
    assert tails[0] == 0
    assert tails[-1] == pytest.approx(0.025, rel=0.01)
    assert small_sample_tail([5] * 9) > small_sample_tail([5])


def test_the_widened_interval_covers_at_five_runs_where_the_percentile_does_not() -> None:
    """`benchmarks/coverage.py` in small: the centre of a normal distribution, in 500 samples of five."""
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(500):
        scores = rng.normal(size=5)
        samples = iqm(scores[resample_runs(5, rng, 1_000)])
        for i, runs in enumerate(([], [5])):
            low, high = percentile_interval(samples, runs)
            held[i] += low <= 0 <= high
    plain, widened = held / 500
    assert plain < 0.92
    assert widened >= 0.91
    assert widened > plain


def test_p_values_agree_with_the_interval() -> None:
    """Twice the smaller one-sided p-value is below 0.05 just where the 95 % interval leaves 0 out."""
    rng = np.random.default_rng(1)
    decided = []
    for shift in np.linspace(0, 1.2, 25):
        x, y = rng.normal(shift, 0.5, (2, 10)), rng.normal(0, 0.5, (2, 10))
        draws = [resample_runs(10, rng, 4_000) for _ in range(2)]
        samples = iqm(resample(list(x), draws)) - iqm(resample(list(y), draws))
        low, high = percentile_interval(samples, [10, 10])
        p = 2 * min(p_value(samples, [10, 10]))
        if abs(p - 0.05) > 0.005:  # at 0.05 the rounding of the ends decides
            assert (p < 0.05) == (not low <= 0 <= high)
            decided.append(p < 0.05)
    assert len(set(decided)) == 2


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01, 0.04, 0.03], tests=8) == pytest.approx([0.08, 0.24, 0.21])  # five of them not yet there


def test_below_five_runs_an_estimate_is_the_mean_and_the_range() -> None:
    scores = np.array([1.0, 2.0, 3.0, 10.0])
    assert estimate([scores], [resample_runs(4, np.random.default_rng(0), 100)]) == Estimate(4.0, 1.0, 10.0, False)
    five = np.append(scores, 4.0)
    found = estimate([five], [resample_runs(5, np.random.default_rng(0), 1_000)])
    assert (found.value, found.is_interval) == (3.0, True)
    assert found.low <= 3 <= found.high

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from analysis.curves import Floats
from analysis.statistics import (
    bootstrap_interval,
    generator,
    iqm,
    percentile_interval,
    resample_runs,
    resampled_iqm,
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
    [("iqm", iqm), ("mean", lambda x: x.mean(axis=-1)), ("median", None)],
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

    low, high = bootstrap_interval(scores, np.random.default_rng(1), statistic or median_of_task_means, 20_000)
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

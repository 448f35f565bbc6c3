import numpy as np
import pytest

from analysis.curves import Floats
from analysis.sample_efficiency import (
    Resampled,
    first_crossing,
    gain_over,
    last_crossing,
    threshold,
    within_noise_of_random,
)
from analysis.statistics import iqm, resample_runs, resampled_iqm

STEPS = np.linspace(10_000, 100_000, 10)


def resampled(scores: Floats, seed: int = 0, resamples: int = 500) -> Resampled:
    """What analysis makes of the curves (runs, 10) of a variant."""
    draws = resample_runs(len(scores), np.random.default_rng(seed), resamples)
    finals = scores[:, -1]
    return Resampled(
        steps=STEPS,
        curve=iqm(scores, axis=0),
        curves=resampled_iqm(scores, draws),
        final=float(iqm(finals)),
        finals=iqm(finals[draws]),
        runs=len(scores),
    )


def line(slope: float, runs: int = 5) -> Floats:
    """Runs that all score `slope` more at each of ten grid points."""
    return np.tile(slope * np.arange(1.0, 11.0), (runs, 1))


def noisy(rng: np.random.Generator, runs: int, speed: float = 1.0) -> Floats:
    """Saturating curves of runs that differ in speed."""
    rate = speed * rng.uniform(0.7, 1.3, (runs, 1)) / 3
    return np.asarray(100 * (1 - np.exp(-rate * np.arange(1, 11))) + rng.normal(0, 2, (runs, 10)))


ZEROS = np.zeros(500)


def test_threshold_by_hand() -> None:
    assert threshold(0.75, np.asarray(-40.0), np.asarray(0.0)) == -10.0  # Reacher's returns are negative
    assert threshold(0.9, np.asarray(20.0), np.asarray(120.0)) == 110.0


def test_first_crossing_is_at_or_above_and_infinite_when_never() -> None:
    curves = np.array([[np.nan, 1.0, 2.0, 3.0], [0.0, 5.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    crossings = first_crossing(curves, np.array([2.0, 4.0, 1.0]), np.array([10.0, 20.0, 30.0, 40.0]))
    assert crossings.tolist() == [30.0, 20.0, np.inf]


def test_last_crossing_is_where_a_curve_stays() -> None:
    steps = np.array([10.0, 20.0, 30.0, 40.0])
    assert last_crossing(np.array([np.nan, 1.0, 2.0, 3.0]), 2.0, steps) == 30.0  # the first is the last
    assert last_crossing(np.array([np.nan, 3.0, 1.0, 2.0]), 2.0, steps) == 40.0  # a touch at 20
    assert last_crossing(np.array([np.nan, 3.0, 3.0, 3.0]), 2.0, steps) == 20.0  # no score yet is not below
    assert last_crossing(np.array([np.nan, 3.0, 3.0, 1.0]), 2.0, steps) == np.inf  # ends below


def test_gain_by_hand() -> None:
    """Baseline reaches 75 of 100 at the 8th point, x, twice as fast, at the 4th (80)."""
    gain = gain_over(resampled(line(10)), resampled(line(20)), 0.0, ZEROS, 0.75)
    assert (gain.baseline_steps, gain.steps) == (80_000, 40_000)
    assert gain.gain == gain.low == gain.high == 0.5
    assert gain.censored_share == 0
    assert gain_over(resampled(line(10)), resampled(line(20)), 0.0, ZEROS, 0.9).gain == pytest.approx(1 - 5 / 9)


def test_baseline_against_itself_gains_nothing() -> None:
    baseline = resampled(noisy(np.random.default_rng(0), 10))
    gain = gain_over(baseline, baseline, 0.0, ZEROS, 0.75)
    assert gain.gain == gain.low == gain.high == 0


def test_loss_is_negative() -> None:
    gain = gain_over(resampled(line(10)), resampled(line(7.5)), 0.0, ZEROS, 0.75)
    assert gain.gain == pytest.approx(1 - 10 / 8)


def test_never_reached_is_a_bound() -> None:
    gain = gain_over(resampled(line(10)), resampled(line(5)), 0.0, ZEROS, 0.75)
    assert gain.steps == np.inf
    assert gain.gain == -np.inf
    assert gain.bound == pytest.approx(1 - 100_000 / 80_000)
    assert gain.low == -np.inf
    assert gain.high == pytest.approx(gain.bound)
    assert gain.censored_share == 1


def test_some_censored_resamples_open_the_lower_end_only() -> None:
    """Three of five runs reach 75, two stay at 0: a resample's IQM reaches it only with enough of the three."""
    scores = line(10)
    scores[:2] = 0.0
    variant = resampled(scores, seed=3)
    gain = gain_over(resampled(line(10), seed=4), variant, 0.0, ZEROS, 0.75)
    assert 0.025 < gain.censored_share < 0.975
    assert gain.low == -np.inf
    assert gain.high == 0


def test_threshold_is_recomputed_in_every_resample() -> None:
    """Fixed curves of x, a baseline of two kinds of runs: the interval of the gain is not a point."""
    baseline = np.concatenate([line(10, 5), line(14, 5)])
    gain = gain_over(resampled(baseline), resampled(line(20)), 0.0, ZEROS, 0.75)
    assert gain.low < gain.gain < gain.high


def test_random_policy_is_recomputed_in_every_resample() -> None:
    randoms = np.linspace(-100, 100, 500)
    gain = gain_over(resampled(line(10)), resampled(line(20)), 0.0, randoms, 0.75)
    assert gain.low < gain.high


def test_resampled_baseline_below_random_tells_nothing() -> None:
    """Where the baseline itself misses its threshold the gain may be anything below 1."""
    randoms = np.where(np.arange(500) < 50, 1_000.0, 0.0)
    gain = gain_over(resampled(line(10)), resampled(line(20)), 0.0, randoms, 0.75)
    assert (gain.low, gain.high) == (-np.inf, 1.0)


def test_two_sets_of_baseline_seeds_differ_by_nothing() -> None:
    """Disjoint sets of ten seeds of one distribution: the 95 % interval of the gain holds 0 in at least 18 of 20."""
    held = 0
    for repetition in range(20):
        rng = np.random.default_rng(repetition)
        one, other = resampled(noisy(rng, 10), 1), resampled(noisy(rng, 10), 2)
        gain = gain_over(one, other, 0.0, ZEROS, 0.75)
        held += gain.low <= 0 <= gain.high
    assert held >= 18


def test_clearly_faster_is_clearly_a_gain() -> None:
    rng = np.random.default_rng(0)
    gain = gain_over(resampled(noisy(rng, 10), 1), resampled(noisy(rng, 10, speed=2.5), 2), 0.0, ZEROS, 0.75)
    assert 0 < gain.low <= gain.gain <= gain.high < 1


def test_baseline_within_noise_of_random() -> None:
    rng = np.random.default_rng(0)
    randoms = rng.normal(0, 1, 500)
    near = resampled(np.tile(rng.normal(0, 5, (6, 1)), (1, 10)))
    assert within_noise_of_random(near.finals, randoms)
    assert not within_noise_of_random(resampled(line(10)).finals, randoms)


def test_baseline_without_a_crossing_is_refused() -> None:
    with pytest.raises(ValueError, match="never reaches the threshold"):
        gain_over(resampled(line(10)), resampled(line(20)), 1_000.0, ZEROS, 0.75)

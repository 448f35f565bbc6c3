"""Point estimates over seeds and tasks, their intervals and tests.

One data shape throughout: a variant's `Runs` are one array per task, of its runs, (runs,) or on the grid (runs, K).
From `MIN_RUNS` runs on the aggregate is the interquartile mean over the runs of all tasks, resampled within each, as
Agarwal et al. (2021, *Deep RL at the Edge of the Statistical Precipice*, arXiv 2108.13264) recommend; unlike their
library, every draw comes from an explicit generator, and the percentile interval's tails are widened for few runs.
With fewer runs it is the mean, and no interval is claimed.
"""

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Floats

RESAMPLES = 2_000
"""Bootstrap resamples behind every published interval."""
CONFIDENCE = 0.95
MIN_RUNS = 5
"""Fewest runs of a task for which an interval is given; below it every run, their mean and their range are shown."""
SEED = 0

Draws = NDArray[np.int64]
Runs = Sequence[Floats]
Statistic = Callable[[Floats], Floats]


def generator(*names: str) -> np.random.Generator:
    """The generator of one named sample, such as ``generator("hopper", "trpo")``.

    It depends on the names only: adding a variant or an environment to a suite leaves the intervals of the
    others as they were.
    """
    return np.random.default_rng([SEED, zlib.crc32("/".join(names).encode())])


def iqm(scores: Floats, axis: int = -1) -> Floats:
    """Interquartile mean: the mean without the lowest and the highest ⌊n/4⌋ of the n values along `axis`.

    With fewer than four values it is the mean. A NaN among the values gives NaN.
    """
    values = np.moveaxis(scores, axis, -1)
    n = values.shape[-1]
    cut = n // 4
    if cut == 0:
        return np.asarray(values.mean(axis=-1))
    kept = np.sort(values, axis=-1)[..., cut : n - cut]  # sorts NaN last
    mean = kept.mean(axis=-1)
    return np.where(np.isnan(values).any(axis=-1), np.nan, mean)


def resample_runs(runs: int, rng: np.random.Generator, resamples: int = RESAMPLES) -> Draws:
    """Indices of `resamples` samples of `runs` runs with replacement, (resamples, runs)."""
    return rng.integers(runs, size=(resamples, runs))


def resampled_iqm(curves: Floats, draws: Draws) -> Floats:
    """`centre` over the drawn runs at every point, (resamples, K).

    Args:
        curves: (runs, K).
        draws: indices of runs, (resamples, runs).

    A run is drawn whole, with all its points, so that the curve of a resample is a curve.
    """
    return centre(curves.T[:, draws]).T


def centre(values: Floats, axis: int = -1) -> Floats:
    """What stands for runs: their IQM from `MIN_RUNS` on, the mean of fewer."""
    return iqm(values, axis) if values.shape[axis] >= MIN_RUNS else np.asarray(values.mean(axis=axis))


def optimality_gap(scores: Floats) -> Floats:
    """Mean over the last axis of how far normalised scores stay below 1; above it counts as 1."""
    return np.asarray(np.maximum(1 - scores, 0).mean(axis=-1))


def performance_profile(scores: Floats, thresholds: Floats) -> Floats:
    """Share of the scores on the last axis above each threshold, (…, thresholds)."""
    return np.asarray((scores[..., None, :] > thresholds[:, None]).mean(axis=-1))


def probability_of_improvement(x: Runs, y: Runs) -> float:
    """Probability that a run of x beats one of y, ties as half: the mean over tasks of the Mann–Whitney statistic."""
    wins = [(one[:, None] > other).mean() + (one[:, None] == other).mean() / 2 for one, other in zip(x, y, strict=True)]
    return float(np.mean(wins))


@cache
def student_quantile(p: float, degrees: int) -> float:
    """Quantile of Student's t at `p` > ½, by bisection."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, degrees) < p else (low, middle)
    return high


def student_cdf(t: float, degrees: int) -> float:
    """Distribution function of Student's t, in its closed form for whole degrees of freedom."""
    angle = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(angle), math.sin(angle)
    term, total = (1.0, 0.0) if degrees % 2 == 0 else (cosine, 0.0)
    for k in range(2 if degrees % 2 == 0 else 3, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (k - 1) / k
    share = sine * total if degrees % 2 == 0 else 2 / math.pi * (angle + sine * total)
    return (1 + share) / 2


def small_sample_tail(runs: Sequence[int], confidence: float = CONFIDENCE) -> float:
    """Share of the resamples left out at either end of an interval over tasks of that many `runs` each.

    Hesterberg's expanded percentile: Φ(−√(n/(n − 1)) t), t the quantile of Student's distribution with Σ(n − 1)
    degrees of freedom, n the mean number of runs of a task; (1 − confidence)/2 as runs become many.
    `benchmarks/coverage.py` measures what it is worth.
    """
    degrees, n = sum(runs) - len(runs), sum(runs) / len(runs)
    if degrees < 1:
        return 0.0
    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * student_quantile((1 + confidence) / 2, degrees))


def percentile_interval(
    samples: Floats, runs: Sequence[int] = (), confidence: float = CONFIDENCE
) -> tuple[Floats, Floats]:
    """Ends of the percentile interval over axis 0 of bootstrap `samples` (resamples, …).

    With `runs`, the number of each task that was resampled, the tails are those of `small_sample_tail`. The ends are
    order statistics, the lower one rounded down and the upper one up, so that infinite samples (censored resamples) are
    admissible and the interval is never too narrow by interpolation.
    """
    tail = small_sample_tail(runs, confidence) if runs else (1 - confidence) / 2
    low = np.quantile(samples, tail, axis=0, method="lower")
    high = np.quantile(samples, 1 - tail, axis=0, method="higher")
    return np.asarray(low), np.asarray(high)


def p_value(differences: Floats, runs: Sequence[int], at: float = 0.0) -> tuple[float, float]:
    """One-sided p-values of bootstrapped `differences` (resamples,): that the true one is ≤ `at`, and that it is ≥.

    Twice the smaller is that of no difference, and below 0.05 where the interval of `percentile_interval` leaves `at`
    out. A resample at `at` counts against both.
    """
    degrees, n = sum(runs) - len(runs), sum(runs) / len(runs)

    def one_sided(contrary: int) -> float:
        share = (contrary + 1) / (len(differences) + 1)
        z = NormalDist().inv_cdf(min(share, 1 - 0.5 / (len(differences) + 1)))
        return student_cdf(z / math.sqrt(n / (n - 1)), degrees)

    return one_sided(int((differences <= at).sum())), one_sided(int((differences >= at).sum()))


def holm(p_values: Sequence[float], tests: int = 0) -> list[float]:
    """p-values adjusted by Holm's method: rejecting those below α keeps the chance of any false rejection below α.

    Where fewer are there than the `tests` that were planned, they count as the smallest of as many.
    """
    tests = max(tests, len(p_values))
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        running = max(running, min(1.0, (tests - rank) * p_values[i]))
        adjusted[i] = running
    return adjusted


@dataclass(frozen=True)
class Estimate:
    """A value with the ends of its interval: 95 % where `is_interval`, else the smallest and largest run."""

    value: float
    low: float
    high: float
    is_interval: bool


def resample(runs: Runs, draws: Sequence[Draws]) -> Floats:
    """The runs of all tasks in every resample, (resamples, Σ runs); `draws` are one per task."""
    return np.concatenate([values[drawn] for values, drawn in zip(runs, draws, strict=True)], axis=1)


def estimate(runs: Runs, draws: Sequence[Draws], statistic: Statistic = centre) -> Estimate:
    """`statistic` over the runs of all tasks, with its interval where every task has `MIN_RUNS`.

    Args:
        runs: by task, each (runs,).
        draws: resamples of each, (resamples, runs).
        statistic: reduces the last axis.
    """
    pooled = np.concatenate(list(runs))
    sizes = [len(values) for values in runs]
    value = float(statistic(pooled) if min(sizes) >= MIN_RUNS or statistic is not centre else pooled.mean())
    if min(sizes) < MIN_RUNS:
        return Estimate(value, float(pooled.min()), float(pooled.max()), False)
    low, high = percentile_interval(statistic(resample(runs, draws)), sizes)
    return Estimate(value, float(low), float(high), True)


def bootstrap_interval(
    scores: Floats,
    rng: np.random.Generator,
    statistic: Statistic = iqm,
    resamples: int = RESAMPLES,
    widened: bool = True,
) -> tuple[float, float]:
    """Stratified 95 % percentile bootstrap interval of `statistic` over `scores`.

    Args:
        scores: (runs,) or (runs, tasks); each task's runs are resampled independently of the others'.
        rng: the only source of randomness.
        statistic: reduces the last axis; it receives (resamples, runs × tasks).
        resamples: number of bootstrap resamples.
        widened: by `small_sample_tail`; without it the ends hold the statistic in 95 % of the resamples.
    """
    table = scores[:, None] if scores.ndim == 1 else scores
    runs, tasks = table.shape
    draws = rng.integers(runs, size=(resamples, runs, tasks))
    pooled = table[draws, np.arange(tasks)].reshape(resamples, runs * tasks)
    low, high = percentile_interval(statistic(pooled), [runs] * tasks if widened else ())
    return float(low), float(high)

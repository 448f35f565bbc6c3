"""Point estimates over seeds and their intervals.

One data shape throughout: the last axis of a sample is the runs. The aggregate is the interquartile mean and
the interval the percentile bootstrap over runs, as Agarwal et al. (2021, *Deep RL at the Edge of the
Statistical Precipice*, arXiv 2108.13264) recommend; unlike their library, every draw comes from an explicit
generator.
"""

import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Floats

RESAMPLES = 2_000
"""Bootstrap resamples behind every published interval."""
CONFIDENCE = 0.95
MIN_RUNS = 3
"""Fewest runs for which an interval is given; below it the individual runs are shown instead."""
SEED = 0

Draws = NDArray[np.int64]


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
    """IQM over the drawn runs at every point, (resamples, K).

    Args:
        curves: (runs, K).
        draws: indices of runs, (resamples, runs).

    A run is drawn whole, with all its points, so that the curve of a resample is a curve.
    """
    return iqm(curves.T[:, draws]).T


def percentile_interval(samples: Floats) -> tuple[Floats, Floats]:
    """Ends of the 95 % percentile interval over axis 0 of bootstrap `samples` (resamples, …).

    The ends are order statistics, the lower one rounded down and the upper one up, so that infinite samples
    (censored resamples) are admissible and the interval is never too narrow by interpolation.
    """
    tail = (1 - CONFIDENCE) / 2
    low = np.quantile(samples, tail, axis=0, method="lower")
    high = np.quantile(samples, 1 - tail, axis=0, method="higher")
    return np.asarray(low), np.asarray(high)


def bootstrap_interval(
    scores: Floats,
    rng: np.random.Generator,
    statistic: Callable[[Floats], Floats] = iqm,
    resamples: int = RESAMPLES,
) -> tuple[float, float]:
    """Stratified 95 % percentile bootstrap interval of `statistic` over `scores`.

    Args:
        scores: (runs,) or (runs, tasks); each task's runs are resampled independently of the others'.
        rng: the only source of randomness.
        statistic: reduces the last axis; it receives (resamples, runs × tasks).
        resamples: number of bootstrap resamples.

    Returns:
        The ends, between which the statistic lies in 95 % of the resamples.
    """
    table = scores[:, None] if scores.ndim == 1 else scores
    runs, tasks = table.shape
    draws = rng.integers(runs, size=(resamples, runs, tasks))
    pooled = table[draws, np.arange(tasks)].reshape(resamples, runs * tasks)
    low, high = percentile_interval(statistic(pooled))
    return float(low), float(high)

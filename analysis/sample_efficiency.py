"""How many environment steps a variant needs to reach a score the baseline reaches.

Threshold: random + level × (IQM of the baseline's final scores − random). Gain of x over the baseline:
1 − N_x / N_baseline, in (−∞, 1), where N is the first grid point at which the seed-aggregated (IQM) curve
reaches the threshold. For the interval the baseline's runs, x's runs and the random policy's episodes are
resampled, and threshold, curves and crossings are recomputed in every resample.

Censoring. A curve that never reaches the threshold has N = ∞, and its gain is known only to lie in
(−∞, 1 − T/N_baseline) with T the budget. A censored resample therefore counts as −∞ for the lower end of the
interval and as its own bound for the upper end; the share of censored resamples is stored. (A resample in
which the baseline falls below random, so that its own curve may miss the threshold, counts as −∞ and as 1.)
"""

from dataclasses import dataclass

import numpy as np

from analysis.curves import Floats
from analysis.statistics import percentile_interval

LEVELS = (0.75, 0.9)
"""Shares of the way from random to the baseline's final score; the first is the headline."""


def threshold(level: float, random: Floats, final: Floats) -> Floats:
    """Score to reach: random + level · (final − random)."""
    return random + level * (final - random)


def first_crossing(curves: Floats, thresholds: Floats, steps: Floats) -> Floats:
    """Steps of the first grid point where a curve is at or above its threshold; ∞ where it never is.

    Args:
        curves: (…, K); a NaN (no score yet) does not cross.
        thresholds: (…).
        steps: grid, (K,) or (…, K).
    """
    crossed = curves >= np.asarray(thresholds)[..., None]
    first = np.take_along_axis(np.broadcast_to(steps, curves.shape), crossed.argmax(-1)[..., None], -1)[..., 0]
    return np.where(crossed.any(axis=-1), first, np.inf)


def last_crossing(curve: Floats, goal: float, steps: Floats) -> float:
    """Steps of the first grid point from which a curve is at or above `goal` for good; ∞ where it ends below.

    Beyond the first crossing where that was a fluctuation.

    Args:
        curve: (K,); a NaN (no score yet) is neither above nor below.
        goal: score to reach.
        steps: grid, (K,).
    """
    below = steps[curve < goal].max(initial=-np.inf)
    return float(first_crossing(np.where(steps > below, curve, np.nan), np.asarray(goal), steps))


@dataclass(frozen=True)
class Resampled:
    """One variant's runs, aggregated over seeds, and the same in every bootstrap resample.

    `steps` (K,), `curve` (K,), `curves` (R, K), `final` scalar, `finals` (R,), `runs` their number.
    """

    steps: Floats
    curve: Floats
    curves: Floats
    final: float
    finals: Floats
    runs: int

    @property
    def budget(self) -> float:
        """Steps at the last point of the aggregated curve (0 where it has none)."""
        scored = np.flatnonzero(np.isfinite(self.curve))
        return float(self.steps[scored[-1]]) if scored.size else 0.0


@dataclass(frozen=True)
class Gain:
    """Sample-efficiency gain of one variant over the baseline at one level.

    `gain` is −∞ when the variant never reaches the threshold: then the gain lies below `bound`.
    """

    steps: float
    baseline_steps: float
    gain: float
    bound: float
    low: float
    high: float
    censored_share: float


def within_noise_of_random(finals: Floats, random: Floats) -> bool:
    """Whether the 95 % interval of (IQM of the baseline's final scores − random) does not lie above 0.

    Args:
        finals: IQM of the baseline's final scores in every resample, (R,).
        random: the random policy's mean return in every resample, (R,).
    """
    low, _ = percentile_interval(finals - random)
    return not low > 0


def gain_over(baseline: Resampled, variant: Resampled, random: float, randoms: Floats, level: float) -> Gain:
    """Gain of `variant` over `baseline`; see the module for the definition and the treatment of censoring.

    Args:
        baseline: the baseline's runs.
        variant: the runs of x.
        random: the random policy's mean return.
        randoms: the same in every resample, (R,).
        level: share of the way from random to the baseline's final score.

    Raises:
        ValueError: the baseline's own curve never reaches the threshold.
    """
    goal = threshold(level, np.asarray(random), np.asarray(baseline.final))
    n_baseline = float(first_crossing(baseline.curve, goal, baseline.steps))
    n_variant = float(first_crossing(variant.curve, goal, variant.steps))
    if np.isinf(n_baseline):
        raise ValueError("the baseline's curve never reaches the threshold")
    goals = threshold(level, randoms, baseline.finals)
    n_baselines = first_crossing(baseline.curves, goals, baseline.steps)
    n_variants = first_crossing(variant.curves, goals, variant.steps)
    censored = np.isinf(n_variants)
    unknown = np.isinf(n_baselines)  # a resampled baseline below random: the gain may be anything below 1
    finite = np.where(unknown, 1.0, n_baselines)
    lowest = np.where(unknown | censored, -np.inf, 1 - n_variants / finite)
    runs = (baseline.runs, variant.runs)
    highest = np.where(unknown, 1.0, 1 - np.where(censored, variant.budget, n_variants) / finite)
    return Gain(
        steps=n_variant,
        baseline_steps=n_baseline,
        gain=1 - n_variant / n_baseline,
        bound=1 - variant.budget / n_baseline,
        low=float(percentile_interval(lowest, runs)[0]),
        high=float(percentile_interval(highest, runs)[1]),
        censored_share=float(censored.mean()),
    )

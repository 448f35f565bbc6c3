"""How often intervals hold the truth, by simulation: runs of known distributions, and the interval of each.

    python benchmarks/coverage.py [--repeats 2000]

A row per number of tasks × runs and distribution, a column per method: the share of 95 % intervals of the interquartile
mean that hold that of the population, and the mean width over that of the percentile's. Then the false positives of the
sample-efficiency gain: two variants of one distribution of learning curves, and how often the interval leaves 0 out.
docs/protocol.md has the tables.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.curves import Floats
from analysis.sample_efficiency import Resampled, gain_over, within_noise_of_random
from analysis.statistics import iqm, percentile_interval, resample_runs, resampled_iqm

DESIGNS = ((1, 3), (1, 5), (1, 10), (2, 3), (2, 5), (7, 5), (9, 10))
"""Tasks × runs."""
RESAMPLES = 1_000
GAIN_RUNS = (3, 5, 10)
Ends = tuple[float, float]


def normal(rng: np.random.Generator, runs: int) -> Floats:
    """Of mean 0 and deviation 1."""
    return rng.normal(0, 1, runs)


def lognormal(rng: np.random.Generator, runs: int) -> Floats:
    """Whose logarithm has mean 0 and deviation ¾."""
    return rng.lognormal(0, 0.75, runs)


def bimodal(rng: np.random.Generator, runs: int) -> Floats:
    """Three runs of ten stay at the bottom."""
    return np.where(rng.random(runs) < 0.3, rng.normal(0, 0.3, runs), rng.normal(2, 0.3, runs))


DISTRIBUTIONS = (normal, lognormal, bimodal)


def table_of(
    draw: Callable[[np.random.Generator, int], Floats], rng: np.random.Generator, tasks: int, n: int
) -> Floats:
    """Scores of `n` runs on `tasks` tasks that lie 0.3 apart, (n, tasks)."""
    return np.stack([draw(rng, n) + 0.3 * task for task in range(tasks)], axis=1)


def standard_errors(pooled: Floats, tasks: int) -> Floats:
    """Of the IQM of pooled scores (…, runs × tasks): that of a trimmed mean, deviations taken within tasks."""
    n = pooled.shape[-1]
    ordered = np.sort(pooled, axis=-1)
    clipped = np.clip(pooled, ordered[..., [n // 4]], ordered[..., [n - n // 4 - 1]])
    by_task = clipped.reshape(*pooled.shape[:-1], n // tasks, tasks)
    variance = by_task.var(axis=-2, ddof=1).mean(axis=-1)
    return np.asarray(np.sqrt(variance * n) / (n - 2 * (n // 4)))


def intervals(scores: Floats, rng: np.random.Generator) -> dict[str, Ends]:
    """The interval by every method."""
    runs, tasks = scores.shape
    draws = rng.integers(runs, size=(RESAMPLES, runs, tasks))
    pooled = scores[draws, np.arange(tasks)].reshape(RESAMPLES, -1)
    samples, value = iqm(pooled), float(iqm(scores.reshape(-1)))
    errors, error = standard_errors(pooled, tasks), float(standard_errors(scores.reshape(-1), tasks))
    pivots = (samples - value) / np.where(errors > 0, errors, np.nan)
    low, high = np.nanquantile(pivots, (0.025, 0.975)) if error > 0 else (0.0, 0.0)
    return {
        "percentile": _ends(percentile_interval(samples)),
        "bias-corrected": _bias_corrected(scores, samples, value),
        "studentised": (value - float(high) * error, value - float(low) * error),
        "expanded": _ends(percentile_interval(samples, [runs] * tasks)),
    }


def _ends(found: tuple[Floats, Floats]) -> Ends:
    return float(found[0]), float(found[1])


def _bias_corrected(scores: Floats, samples: Floats, value: float) -> Ends:
    """BCa, its acceleration from the runs left out one at a time."""
    flat = scores.reshape(-1)
    left = np.array([iqm(np.delete(flat, i)) for i in range(len(flat))])
    deviations = left.mean() - left
    spread = float((deviations**2).sum())
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5) if spread > 0 else 0.0
    share = ((samples < value).sum() + (samples == value).sum() / 2) / len(samples)
    bias = NormalDist().inv_cdf(min(max(float(share), 1e-3), 1 - 1e-3))
    tails = []
    for p in (0.025, 0.975):
        z = bias + NormalDist().inv_cdf(p)
        tails.append(NormalDist().cdf(bias + z / max(1 - acceleration * z, 1e-3)))
    low, high = np.quantile(samples, tails)
    return float(low), float(high)


def coverage(repeats: int) -> None:
    """Print the table of coverage."""
    print("| tasks × runs | distribution | percentile | bias-corrected | studentised | expanded | width |")
    print("|---|---|--:|--:|--:|--:|--:|")
    for tasks, runs in DESIGNS:
        for draw in DISTRIBUTIONS:
            rng = np.random.default_rng([tasks, runs])
            truth = float(iqm(table_of(draw, rng, tasks, 400_000).reshape(-1)))
            held: dict[str, int] = {}
            widths: dict[str, float] = {}
            for _ in range(repeats):
                for name, (low, high) in intervals(table_of(draw, rng, tasks, runs), rng).items():
                    held[name] = held.get(name, 0) + (low <= truth <= high)
                    widths[name] = widths.get(name, 0.0) + high - low
            shares = " | ".join(f"{100 * count / repeats:.1f}" for count in held.values())
            print(
                f"| {tasks} × {runs} | {draw.__name__} | {shares} | {widths['expanded'] / widths['percentile']:.2f} |"
            )


def learner(rng: np.random.Generator, runs: int) -> Resampled:
    """Saturating curves of runs that differ in speed and height, to a million steps, and their resamples."""
    steps: Floats = np.arange(1, 101, dtype=np.float64) * 10_000
    speed = 3e-6 * rng.lognormal(0, 0.4, (runs, 1))
    height = 1000 * rng.lognormal(0, 0.25, (runs, 1))
    curves = height * (1 - np.exp(-speed * steps)) + rng.normal(0, 20, (runs, len(steps)))
    draws = resample_runs(runs, rng, RESAMPLES)
    finals = curves[:, -1]
    return Resampled(
        steps, iqm(curves, axis=0), resampled_iqm(curves, draws), float(iqm(finals)), iqm(finals[draws]), runs
    )


def false_positives(repeats: int) -> None:
    """Print how often the interval of a gain that is none leaves 0 out."""
    print("| runs | gain at 0.75 | gain at 0.9 |")
    print("|--:|--:|--:|")
    for runs in GAIN_RUNS:
        rng = np.random.default_rng(runs)
        wrong = np.zeros(2)
        for _ in range(repeats):
            baseline, variant = learner(rng, runs), learner(rng, runs)
            randoms = rng.normal(0, 5, RESAMPLES)
            if within_noise_of_random(baseline.finals, randoms):
                continue
            gains = [gain_over(baseline, variant, 0.0, randoms, level) for level in (0.75, 0.9)]
            wrong += [not gain.low <= 0 <= gain.high for gain in gains]
        print(f"| {runs} | {' | '.join(f'{100 * share:.1f}' for share in wrong / repeats)} |")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=1_000, help="simulated experiments of each row")
    repeats: int = parser.parse_args().repeats
    print(f"In %, of {repeats:,} experiments (standard error at 95 %: {math.sqrt(4.75 * 95 / repeats):.1f}).\n")
    coverage(repeats)
    print()
    false_positives(max(1, repeats // 2))


if __name__ == "__main__":
    main()

"""Table of sample efficiency: steps to the thresholds, and the gain over the baseline."""

from typing import Any

import numpy as np

from analysis.condensed import SCORE
from analysis.curves import Curve
from analysis.groups import Group, Results
from analysis.sample_efficiency import (
    LEVELS,
    Gain,
    first_crossing,
    gain_over,
    last_crossing,
    threshold,
    within_noise_of_random,
)
from analysis.statistics import MIN_RUNS
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, thousands
from analysis.tables.words import aggregate_words, closing_words, unscored

MEASURED = (
    "random",
    "baseline_final",
    "threshold",
    "reached",
    "steps_mean_restricted_to_T",
    "steps_by_run",
    "crossing",
    "last_crossing",
    "baseline_crossing",
    "baseline_last_crossing",
    "gain",
    "gain_bound",
    "gain_low",
    "gain_high",
    "gain_censored_share",
    "time_gain",
    "time_gain_low",
    "time_gain_high",
)
"""Columns that are null where the threshold is undefined, or nothing was measured."""


def sample_efficiency(results: Results) -> Table:
    """Per environment, variant and level: runs that reached the threshold, their steps, and the gain.

    Steps of a run: first grid point at which `episode_return` reaches the threshold; a run that never does is
    right-censored at its end T. The mean restricted to T is the mean of min(steps, T), a lower bound of the
    mean where a run is censored. Definitions of threshold, gain and interval: `analysis.sample_efficiency`.
    """
    records = [_record(results, group, level) for group in results.groups for level in LEVELS]
    by_group = [records[i : i + len(LEVELS)] for i in range(0, len(records), len(LEVELS))]
    undefined = dict.fromkeys(
        f"{environment_name(str(record['env']))}: {record['undefined']}" for record in records if record["undefined"]
    )
    baseline = algorithm_name(results.suite.baseline)
    caption = (
        f"Sample efficiency in suite {results.suite.name}. Threshold at 0.75 (0.9): the score 75 % (90 %) "
        f"of the way from the random policy to {baseline}'s final scores. Reached: runs that "
        "reached it / finished. Steps: mean over runs of the first 10k grid point there, restricted to T, "
        "the end of the run; with ≥ where runs that never reached it (right-censored) count as T, so that "
        f"the mean is a lower bound. Gain: 1 − N/N({baseline}), N the first crossing of the curve over runs. "
        f"{aggregate_words(results, 'each in the CSV file')}; an interval needs {MIN_RUNS} on either side; threshold, "
        "curves and crossings are recomputed in every resample. “<”: the curve never reaches the threshold and the "
        "gain lies below the bound 1 − T/N; resamples in which it does not count as -∞ for the lower end "
        f"and as their bound for the upper end. {closing_words(results)}"
    )
    if touches := _first_touches(records):
        caption += f" †: the curve falls below the threshold again; at {LEVELS[0]}: {'; '.join(touches)}."
    if undefined:
        caption += f" Undefined: {'; '.join(undefined)}."
    header = ["Environment", "Algorithm"]
    for level in LEVELS:
        header += [f"Reached {level}", f"Steps to {level}", f"Gain at {level}"]
    rows = [_row(levels) for levels in by_group]
    return Table("sample_efficiency", "Sample efficiency", caption, records, header, rows, results.source)


def _record(results: Results, group: Group, level: float) -> dict[str, Any]:
    baseline = results.group(group.env, results.suite.baseline)
    undefined = _undefined(results, group.env, baseline)
    record: dict[str, Any] = {
        "env": group.env,
        "variant": group.variant,
        "algorithm": group.cells[0].algorithm,
        "is_baseline": group.variant == results.suite.baseline,
        "level": level,
        "runs_planned": len(group.cells),
        "runs_finished": len(group.finished),
        **dict.fromkeys(MEASURED),
        "undefined": undefined,
        "note": unscored(group),
    }
    if undefined or baseline is None:
        return record
    random, final = results.random[group.env], baseline.final
    goal = float(threshold(level, np.asarray(random), np.asarray(final)))
    record |= {"random": random, "baseline_final": final, "threshold": goal}
    record |= _steps(group, goal)
    if not np.isfinite(first_crossing(baseline.curve, np.asarray(goal), baseline.scores.steps)):
        record["undefined"] = f"{algorithm_name(baseline.variant)}'s curve never reaches the threshold"
        return record
    if not group.runs:
        record["undefined"] = f"{algorithm_name(group.variant)} has no run that finished with a score"
        return record
    for name, crosses in (("baseline_last_crossing", baseline), ("last_crossing", group)):
        record[name] = last_crossing(crosses.curve, goal, crosses.scores.steps)
    gain = gain_over(baseline.resampled, group.resampled, random, results.resampled_random(group.env), level)
    with_interval = min(len(group.runs), len(baseline.runs)) >= MIN_RUNS
    record |= _gain(gain, with_interval and not record["is_baseline"])
    return record | _time_gain(record, group, baseline)


def _time_gain(record: Record, group: Group, baseline: Group) -> dict[str, Any]:
    """The gain in processor time: each N times the seconds per step of its runs; null without these of every run."""
    costs = []
    for runs in (group.runs, baseline.runs):
        known = [cell.run.cpu_time / cell.run.env_steps for cell in runs if cell.run and cell.run.cpu_time]
        costs.append(np.mean(known) if len(known) == len(runs) else np.nan)
    dearer = float(costs[0] / costs[1])
    if not np.isfinite(dearer):
        return {}
    return {
        f"time_{name}": None if record[name] is None else 1 - (1 - record[name]) * dearer
        for name in ("gain", "gain_low", "gain_high")
    }


def _first_touches(records: list[dict[str, Any]]) -> list[str]:
    """Where N at the headline level is a first touch, which the curve falls back from; from where it stays."""
    words = []
    for record in records:
        if record["level"] == LEVELS[0] and _is_touch(record):
            last = record["last_crossing"]
            stays = f"at or above it for good from {thousands(last)}" if np.isfinite(last) else "ends below it"
            whose = f"{environment_name(str(record['env']))}, {algorithm_name(str(record['variant']))}"
            words.append(f"{whose}, N = {thousands(record['crossing'])}, {stays}")
    return words


def _is_touch(record: Record) -> bool:
    return record["crossing"] is not None and record["last_crossing"] > record["crossing"]


def _undefined(results: Results, env: str, baseline: Group | None) -> str:
    """Why there is no threshold on `env`; empty where there is one."""
    name = algorithm_name(results.suite.baseline)
    if baseline is None:
        return f"{name}, the baseline, is not planned"
    if not baseline.runs:
        return f"{name} has no run that finished with a score"
    if env not in results.random_returns:
        return "the random policy was not evaluated"
    if not np.isfinite(results.random[env]):
        return "the random policy's returns are not finite"
    if within_noise_of_random(baseline.resampled_finals, results.resampled_random(env)):
        return f"{name}'s final scores are within noise of the random policy's"
    return ""


def _steps(group: Group, goal: float) -> dict[str, Any]:
    """Steps of every finished run to the score `goal`, and their mean restricted to T."""
    runs = {cell.seed: cell.run for cell in group.finished if cell.run is not None}
    steps = {seed: _first_steps(run.curves[SCORE], goal) for seed, run in runs.items()}
    ends = {seed: float(run.env_steps) for seed, run in runs.items()}
    restricted = [min(steps[seed], ends[seed]) for seed in steps]
    words = (f"{s}:{n:.0f}" if np.isfinite(n) else f"{s}:>{ends[s]:.0f}" for s, n in steps.items())
    return {
        "reached": sum(bool(np.isfinite(n)) for n in steps.values()),
        "steps_mean_restricted_to_T": float(np.mean(restricted)) if restricted else None,
        "steps_by_run": " ".join(words),
    }


def _first_steps(curve: Curve, goal: float) -> float:
    return float(first_crossing(curve.values, np.asarray(goal), curve.steps))


def _gain(gain: Gain, with_interval: bool) -> dict[str, Any]:
    reached = np.isfinite(gain.gain)
    record: dict[str, Any] = {
        "crossing": gain.steps if reached else None,
        "baseline_crossing": gain.baseline_steps,
        "gain": gain.gain if reached else None,
        "gain_bound": None if reached else gain.bound,
    }
    if with_interval:
        record |= {"gain_low": gain.low, "gain_high": gain.high, "gain_censored_share": gain.censored_share}
    return record


def _row(levels: list[dict[str, Any]]) -> list[str]:
    row = [environment_name(str(levels[0]["env"])), algorithm_name(str(levels[0]["variant"]))]
    for record in levels:
        reached, finished = record["reached"], record["runs_finished"]
        steps = thousands(record["steps_mean_restricted_to_T"])
        row.append("–" if reached is None else f"{reached}/{finished}")
        row.append(f"≥{steps}" if reached is not None and finished and reached < finished else steps)
        row.append(_gain_words(record))
    return row


def _gain_words(record: Record) -> str:
    if record["undefined"]:
        return "undefined"
    low, high = record["gain_low"], record["gain_high"]
    touch = "†" if _is_touch(record) else ""
    if record["is_baseline"]:
        return f"0 (baseline){touch}"
    if record["gain"] is not None:
        return interval(record["gain"], low, high) + touch
    return f"< {interval(record['gain_bound'], low, high)}"

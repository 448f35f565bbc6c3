"""Tables of outcomes on the scale of the tasks: by task, over all tasks, by threshold, and the plan's contrasts."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analysis.contrasts import MARGIN, PLANNED, SMALLEST, Contrast, Part, contrasts, split
from analysis.contrasts import RESAMPLES as MANY
from analysis.curves import GRID, Floats
from analysis.groups import Results
from analysis.outcomes import LEVELS, Achieved, all_achieved, draws_of
from analysis.statistics import (
    MIN_RUNS,
    Estimate,
    estimate,
    optimality_gap,
    percentile_interval,
    performance_profile,
    probability_of_improvement,
)
from analysis.style import algorithm_name, environment_name, ordered
from analysis.tables.formats import Record, Table, ends, number, percent, spread, thousands
from analysis.tables.words import aggregate_words, closing_words, statistic

Found = Mapping[tuple[str, str], Achieved]
INFLUENTIAL = 0.05
"""Change of the normalised final score by one episode that is marked."""
THRESHOLDS = np.round(np.linspace(0, 1.5, 31), 2)
"""Normalised scores of the performance profile."""
SHOWN_THRESHOLDS = (0.25, 0.5, 0.75, 1.0)
SCALE = "scale from random actions, 0, to the best published at a million steps, 1 (of games to a human tester)"
RANGE = "with their range"


def outcomes(results: Results) -> Table:
    """By environment and variant: normalised area and final score, sustained steps to thresholds, processor time."""
    found = all_achieved(results)
    records = [_record(results, one, found) for one in found.values()]
    caption = (
        f"Outcomes in suite {results.suite.name}, on the {SCALE}. Area: mean of the score over the grid of 10k steps, "
        f"the primary outcome. {aggregate_words(results, RANGE)}. Steps to 50 % and 90 %: runs that reached it for "
        "good, and the mean restricted to the end of the run, ≥ where runs that never did count as that; known to the "
        f"grid of {GRID:,} steps{_pauses(records)}. A failed run "
        "counts with its last score held; runs: that count / planned. "
        f"†: leaving out one episode moves a run's final score by more than {INFLUENTIAL:g}. Processor time: "
        "seconds for a million steps, "
        f"measuring included. {closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "Runs", "Area", "Final score", "Steps to 50 %", "Steps to 90 %", "Time"]
    rows = [_row(record) for record in records]
    return Table("outcomes", "Outcomes", caption, records, header, rows, results.source)


def _pauses(records: Sequence[Record]) -> str:
    """Where episodes end together, so that a score stands still for longer than the grid is fine."""
    long = [record for record in records if record["pause"] is not None and record["pause"] > GRID]
    words = {environment_name(str(record["env"])): thousands(record["pause"]) for record in long}
    said = ", ".join(f"{env} every {steps}" for env, steps in words.items())
    return f", and on tasks whose episodes end together to the steps between ends ({said})" if said else ""


def _record(results: Results, one: Achieved, found: Found) -> dict[str, Any]:
    draws = [draws_of(one, results.resamples)]
    influences = [run.influence for run in one.runs if run.influence is not None]
    times = [run.cpu_time for run in one.runs if run.cpu_time is not None]
    clean = one.without_failed()
    record: dict[str, Any] = {
        "env": one.env,
        "variant": one.variant,
        "runs_planned": one.planned,
        "runs": len(one.runs),
        "runs_failed": one.failed,
        "statistic": statistic(len(one.runs)),
        **ends(estimate([one.values("area")], draws), "area"),
        **ends(estimate([one.values("final")], draws), "final"),
        "area_without_failed": float(np.mean(clean.values("area"))) if clean.runs else None,
        "area_by_run": " ".join(f"{run.seed}:{run.area:.6g}" for run in one.runs),
        **ends(estimate([one.values("drawdown")], draws), "drawdown"),
        "pause": max((run.pause for run in one.runs if run.pause is not None), default=None),
        "largest_influence": max(influences) if influences else None,
        "seconds_per_million_steps": 1e6 * float(np.mean(times)) if len(times) == len(one.runs) else None,
        "time_over_baseline": None,
    }
    baseline = found.get((one.env, results.suite.baseline))
    others = [run.cpu_time for run in baseline.runs if run.cpu_time is not None] if baseline else []
    if times and others:
        record["time_over_baseline"] = float(np.mean(times) / np.mean(others))
    for level in LEVELS:
        record |= _steps(one, level)
    return record


def _steps(one: Achieved, level: float) -> dict[str, Any]:
    """How many runs reached a threshold, at first and for good, when, and the mean restricted to the end."""
    name = f"{100 * level:.0f}"
    first, sustained = (np.array([reach(level) for reach in (run.first for run in one.runs)]), _sustained(one, level))
    budget = np.array([run.steps[-1] for run in one.runs])
    return {
        f"touched_{name}": int(np.isfinite(first).sum()),
        f"reached_{name}": int(np.isfinite(sustained).sum()),
        f"unsteady_{name}": int((first < sustained).sum()),
        f"first_steps_{name}": float(np.minimum(first, budget).mean()),
        f"steps_{name}": float(np.minimum(sustained, budget).mean()),
    }


def _sustained(one: Achieved, level: float) -> Floats:
    return np.array([run.sustained(level) for run in one.runs])


def _row(record: Record) -> list[str]:
    influence = record["largest_influence"]
    return [
        environment_name(str(record["env"])),
        algorithm_name(str(record["variant"])),
        f"{record['runs']}/{record['runs_planned']}" + (f", {n} failed" if (n := record["runs_failed"]) else ""),
        spread(record, "area"),
        spread(record, "final") + ("†" if influence is not None and influence > INFLUENTIAL else ""),
        *(_steps_words(record, name) for name in ("50", "90")),
        number(record["seconds_per_million_steps"]),
    ]


def _steps_words(record: Record, name: str) -> str:
    reached, runs = record[f"reached_{name}"], record["runs"]
    return f"{'≥' if reached < runs else ''}{thousands(record[f'steps_{name}'])} ({reached}/{runs})"


def aggregates(results: Results) -> Table:
    """By variant over all tasks: IQM, mean and optimality gap of the area, probability of improvement, and a profile.

    The aggregates of Agarwal et al. (2021), over the tasks that every variant has runs on.
    """
    found = all_achieved(results)
    variants = ordered({variant for _, variant in found})
    envs = [env for env in results.suite.envs if all((env, variant) in found for variant in variants)]
    baseline = results.suite.baseline
    records = [_aggregate(results, found, envs, variant) for variant in variants] if envs else []
    caption = (
        f"All {len(envs)} tasks of suite {results.suite.name} together, on the {SCALE}. Each run counts once, runs are "
        f"resampled within tasks. {aggregate_words(results, RANGE)}. Gap: mean of what the area lacks of 1. Better: "
        f"probability that a run beats one of {algorithm_name(baseline)} by the area, mean over tasks. Above 0.5: "
        "share of the runs with a larger final score; the CSV file has the whole profile. "
        f"{closing_words(results)}"
    )
    header = ["Algorithm", "Runs", "Area", "Mean area", "Gap", "Better", "Final score", "Above 0.5"]
    rows = [
        [
            algorithm_name(str(record["variant"])),
            str(record["runs"]),
            *(spread(record, name) for name in ("area", "mean_area", "optimality_gap", "better", "final")),
            percent(record["above_0.5"]),
        ]
        for record in records
    ]
    return Table("aggregates", "All tasks", caption, records, header, rows, results.source)


def _aggregate(results: Results, found: Found, envs: Sequence[str], variant: str) -> dict[str, Any]:
    mine = [found[env, variant] for env in envs]
    draws = [draws_of(one, results.resamples) for one in mine]
    areas, finals = ([one.values(name) for one in mine] for name in ("area", "final"))
    sizes = [len(one.runs) for one in mine]
    mean, gap = (estimate(areas, draws, of) for of in (_mean, optimality_gap))
    baseline = results.suite.baseline
    better = None
    if variant != baseline and all((env, baseline) in found for env in envs):
        better = _better(mine, [found[env, baseline] for env in envs], results.resamples)
    profile = performance_profile(np.concatenate(finals), THRESHOLDS)
    return {
        "variant": variant,
        "tasks": " ".join(envs),
        "runs": sum(sizes),
        "statistic": statistic(min(sizes)),
        **ends(estimate(areas, draws), "area"),
        **ends(mean, "mean_area"),
        **ends(gap if gap.is_interval else None, "optimality_gap"),
        "optimality_gap": gap.value,
        **ends(better, "better"),
        **ends(estimate(finals, draws), "final"),
        **{f"above_{threshold:g}": float(share) for threshold, share in zip(THRESHOLDS, profile, strict=True)},
    }


def _mean(values: Floats) -> Floats:
    return np.asarray(values.mean(axis=-1))


def _better(x: Sequence[Achieved], y: Sequence[Achieved], resamples: int) -> Estimate | None:
    """Probability of improvement by the area, with its interval; None where runs are too few for one."""
    mine, other = ([one.values("area") for one in some] for some in (x, y))
    sizes = [len(one.runs) for one in (*x, *y)]
    value = probability_of_improvement(mine, other)
    if min(sizes) < MIN_RUNS:
        return None
    samples = np.zeros(resamples)
    for one, two in zip(x, y, strict=True):
        a, b = one.values("area"), two.values("area")
        wins = (a[:, None] > b) + (a[:, None] == b) / 2
        drawn = wins[draws_of(one, resamples)[:, :, None], draws_of(two, resamples)[:, None, :]]
        samples += drawn.mean(axis=(1, 2)) / len(x)
    low, high = percentile_interval(samples, sizes)
    return Estimate(value, float(low), float(high), True)


def thresholds(results: Results) -> Table:
    """By variant over all tasks: runs that reached each threshold for good, and their steps, censored at the end."""
    found = all_achieved(results)
    records = []
    for variant in ordered({variant for _, variant in found}):
        runs = [run for one in found.values() if one.variant == variant for run in one.runs]
        for level in np.round(np.arange(0.05, 1.001, 0.05), 2):
            reached = np.array([run.sustained(level) for run in runs])
            first = np.array([run.first(level) for run in runs])
            budget = np.array([run.steps[-1] for run in runs])
            records.append(
                {
                    "variant": variant,
                    "level": float(level),
                    "runs": len(runs),
                    "touched": int(np.isfinite(first).sum()),
                    "reached": int(np.isfinite(reached).sum()),
                    "first_steps_restricted": float(np.minimum(first, budget).mean()),
                    "steps_restricted": float(np.minimum(reached, budget).mean()),
                }
            )
    by_key = {(record["variant"], record["level"]): record for record in records}
    caption = (
        f"Steps against threshold in suite {results.suite.name}, over the runs of all tasks, on the {SCALE}. Each "
        "entry: steps to the first point after which the score never falls below the threshold again, mean restricted "
        "to the end of the run (runs that reached it for good / touched it / all). The CSV file has a threshold every "
        f"5 %, and first touches beside. {closing_words(results)}"
    )
    header = ["Algorithm", *(percent(level) for level in SHOWN_THRESHOLDS)]
    rows = [
        [algorithm_name(variant), *(_threshold(by_key[variant, level]) for level in SHOWN_THRESHOLDS)]
        for variant in dict.fromkeys(str(record["variant"]) for record in records)
    ]
    return Table("thresholds", "Steps against threshold", caption, records, header, rows, results.source)


def _threshold(record: Record) -> str:
    censored = "≥" if record["reached"] < record["runs"] else ""
    return (
        f"{censored}{thousands(record['steps_restricted'])} ({record['reached']}/{record['touched']}/{record['runs']})"
    )


def planned_contrasts(results: Results) -> Table:
    """The plan's contrasts that a suite has, and the split of the factorial's gain where it has its pairs."""
    found = all_achieved(results)
    made = contrasts(found)
    parts = split(found)
    with_interval = any(one.low is not None for one in made)
    tests = (
        f"with 95 % and 90 % bootstrap intervals ({MANY:,} resamples of runs within tasks, seeds that both have drawn "
        f"together). p: corrected by Holm's method for the plan's {len(PLANNED)} contrasts. Equal: the 90 % interval "
        f"lies within ±{MARGIN:g}; real and small: the 95 % interval excludes 0 and lies below {SMALLEST:g}."
    )
    few = f"Contrasts with fewer than {MIN_RUNS} runs of a task are differences of means, without an interval."
    caption = (
        f"The plan's contrasts in suite {results.suite.name}: difference of the area's aggregates over the tasks that "
        f"both have{f', {tests}' if with_interval else '.'}{'' if with_interval else f' {few}'} Without failed: of the "
        f"runs that did not fail. {'Parts of the factorial: docs/plan.md. ' if parts else ''}{closing_words(results)}"
    )
    records = [_contrast(one) for one in made] + [_part(one) for one in parts]
    header = ["Contrast", "Tasks", "Difference", "90 %", "p", "Without failed", "Verdict"]
    rows = [
        [
            str(record["contrast"]),
            str(len(str(record["tasks"]).split())) + (f", {out} left out" if (out := record["left_out"]) else ""),
            spread(record, "difference"),
            "–"
            if record["narrow_low"] is None
            else f"[{number(record['narrow_low'])}, {number(record['narrow_high'])}]",
            number(record["p_holm"], 2),
            number(record["without_failed"]),
            str(record["verdict"]),
        ]
        for record in records
    ]
    words = ("Contrast", "Verdict")
    return Table("contrasts", "Contrasts of the plan", caption, records, header, rows, results.source, words)


def _contrast(one: Contrast) -> Record:
    interval = None if one.low is None or one.high is None else Estimate(one.value, one.low, one.high, True)
    return {
        "contrast": f"{algorithm_name(one.x)} − {algorithm_name(one.y)}",
        "x": one.x,
        "y": one.y,
        "tasks": " ".join(one.envs),
        "left_out": " ".join(one.left_out),
        **ends(interval, "difference"),
        "difference": one.value,
        "narrow_low": one.narrow[0] if one.narrow else None,
        "narrow_high": one.narrow[1] if one.narrow else None,
        "p": one.p,
        "p_holm": one.p_holm,
        "p_equal": one.p_equal,
        "without_failed": one.without_failed,
        "verdict": one.verdict,
    }


def _part(one: Part) -> Record:
    none = dict.fromkeys(("left_out", "narrow_low", "narrow_high", "p", "p_holm", "p_equal", "without_failed"))
    return {
        "contrast": f"factorial: {one.name}",
        "x": None,
        "y": None,
        "tasks": " ".join(one.envs),
        **none,
        **ends(one.estimate, "difference"),
        "difference": one.value,
        "verdict": "–",
    }

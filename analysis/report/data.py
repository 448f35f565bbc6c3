"""What the interactive plots of a report draw, as plain lists: rounded, null where there is no value."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.aggregate import Aggregate, over_all_tasks
from analysis.curves import Curve, Floats
from analysis.external import External
from analysis.groups import Group, Results
from analysis.outcomes import scale_of
from analysis.statistics import MIN_RUNS, centre, percentile_interval, resampled_iqm
from analysis.style import Styles, algorithm_name, environment_name, external_styles, line_styles

SCORE, NORMALISED = "score", "normalised"
QUANTITIES = {
    SCORE: "episode return",
    NORMALISED: "normalised score",
    "kl": "KL per step D (nats)",
    "fisher_trace": "Fisher trace tr F",
    "alignment_error": "alignment error e",
}
"""What curves there are of, and their axes."""
LOGARITHMIC = ("kl", "fisher_trace")
POINTS = ("alignment_error",)
"""Measured too seldom for a line: drawn as points."""
DIGITS = 5
DASHES = {"trpo": "dash", "ppo": "dot", "acktr": "dashdot"}
ALL = "all tasks"


def plot_data(results: Results, external: Sequence[External]) -> dict[str, Any]:
    """Everything that ``page.js`` draws from: variants with their styles, tasks, and the curves."""
    variants = list(dict.fromkeys(group.variant for group in results.groups))
    styles: Styles = line_styles(variants) | external_styles(one.variant for one in external)
    over_all = over_all_tasks(results)
    curves = [curve for group in results.groups if group.runs for curve in _curves(group)]
    curves += [_over_all(one) for one in over_all] + [_external(one) for one in external]
    envs = [{"name": env, "label": environment_name(env)} for env in results.suite.envs]
    return {
        "suite": results.suite.name,
        "budget": results.suite.total_steps,
        "variants": [
            {"name": v, "label": algorithm_name(v), "color": style["color"], "dash": DASHES.get(v, "solid")}
            for v, style in styles.items()
        ],
        "tasks": [*envs, *([{"name": ALL, "label": f"All {over_all[0].tasks} tasks"}] if over_all else [])],
        "quantities": [
            {"name": name, "label": label, "log": name in LOGARITHMIC, "points": name in POINTS}
            for name, label in QUANTITIES.items()
            if any(curve["quantity"] == name for curve in curves)
        ],
        "interval": f"95 % interval over runs, from {MIN_RUNS} runs on; the range of the runs where they are fewer",
        "random": {env: _number(value) for env, value in results.random.items()},
        "curves": curves,
        "headline": [_headline(one) for one in over_all],
    }


def _headline(one: Aggregate) -> dict[str, Any]:
    return {
        "variant": one.variant,
        "value": _number(one.area.value),
        "low": _number(one.area.low) if one.area.is_interval else None,
        "high": _number(one.area.high) if one.area.is_interval else None,
    }


def _curves(group: Group) -> list[dict[str, Any]]:
    scores = group.scores
    found = [_curve(group, SCORE, scores, with_runs=True)]
    if scale := scale_of(group):
        found.append(_curve(group, NORMALISED, scores._replace(values=scale.normalise(scores.values)), with_runs=True))
    for name in list(QUANTITIES)[2:]:
        kpi = group.kpi(name)
        if kpi.steps.size:
            found.append(_curve(group, name, kpi, with_runs=False))
    return found


def _curve(group: Group, quantity: str, curve: Curve, with_runs: bool) -> dict[str, Any]:
    runs = [cell.run for cell in group.runs if cell.run]
    times = [run.cpu_time for run in runs]
    low, high = _ends(group, curve.values)
    return {
        "task": group.env,
        "variant": group.variant,
        "quantity": quantity,
        "steps": _list(curve.steps),
        "values": _list(centre(curve.values, axis=0)),
        "low": _list(low),
        "high": _list(high),
        "runs": [_list(values) for values in curve.values] if with_runs else [],
        "seeds": [cell.seed for cell in group.runs],
        "updates_per_step": float(np.median([run.counts["updates"] / run.env_steps for run in runs])),
        "minutes_per_step": None
        if None in times
        else float(np.median([run.cpu_time / 60 / run.env_steps for run in runs if run.cpu_time is not None])),
    }


def _ends(group: Group, values: Floats) -> tuple[Floats, Floats]:
    if len(values) < MIN_RUNS:
        return values.min(axis=0), values.max(axis=0)
    return percentile_interval(resampled_iqm(values, group.draws), [len(values)])


def _over_all(one: Aggregate) -> dict[str, Any]:
    low, high = one.band or (np.full(len(one.steps), np.nan),) * 2
    known = _elsewhere(ALL, one.variant, NORMALISED, one.steps, one.curve)
    return known | {"low": _list(low), "high": _list(high)}


def _external(one: External) -> dict[str, Any]:
    return _elsewhere(one.env, one.variant, SCORE, one.steps, centre(one.values, axis=0)) | {
        "runs": [_list(values) for values in one.values],
        "seeds": list(one.seeds),
    }


def _elsewhere(task: str, variant: str, quantity: str, steps: Floats, values: Floats) -> dict[str, Any]:
    """A curve that knows environment steps alone, without ends."""
    none: list[None] = [None] * len(steps)
    known = {"task": task, "variant": variant, "quantity": quantity, "steps": _list(steps), "values": _list(values)}
    return (
        known
        | dict.fromkeys(("low", "high"), none)
        | dict.fromkeys(("updates_per_step", "minutes_per_step"))
        | {
            "runs": [],
            "seeds": [],
        }
    )


def _list(values: Floats) -> list[float | None]:
    return [_number(value) for value in np.asarray(values, dtype=np.float64).tolist()]


def _number(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else float(f"{value:.{DIGITS}g}")

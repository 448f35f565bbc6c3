"""What the KPIs have to do with the outcome: rank correlations by task and algorithm, and one model of all runs."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.groups import Results
from analysis.kpis import EARLY, KPIS, MIN_RANKED, early_kl, mixed_model, rank_correlation, steady
from analysis.outcomes import all_achieved
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, number
from analysis.tables.words import closing_words

NAMES = {"kl_per_env_step": "log KL per step", "alignment_error": "e", "trace_excess": "σ_τ"}
PAIRS = (*((name, "area") for name in KPIS), ("early_kl", "late_drawdown"))
"""What is ranked against what."""


def runs_of(results: Results) -> list[dict[str, Any]]:
    """KPIs and outcome of every run that has both, by name of `KPIS`; None where a KPI was not measured."""
    rows = []
    for (env, variant), found in all_achieved(results).items():
        group = results.group(env, variant)
        cells = {cell.seed: cell for cell in group.finished} if group else {}
        for one in found.runs:
            run = cells[one.seed].run if one.seed in cells else None
            if run is None:
                continue
            kl, known = run.geometry.get("kl_per_env_step"), steady(run)
            rows.append(
                {
                    "env": env,
                    "variant": variant,
                    "area": one.area,
                    "late_drawdown": one.drawdown_after(EARLY),
                    "kl_per_env_step": math.log(kl) if kl is not None and kl > 0 else None,
                    "alignment_error": known["alignment_error"],
                    "trace_excess": known["trace_excess"],
                    "early_kl": early_kl(run),
                }
            )
    return rows


def correlations(results: Results) -> Table:
    """Spearman's rank correlation of each KPI with the area over the runs of a task and algorithm, and of an early KPI.

    With the 95 % interval of Bonett and Wright (2000); none over fewer than `MIN_RANKED` runs.
    """
    rows = runs_of(results)
    records = []
    for env, variant in dict.fromkeys((row["env"], row["variant"]) for row in rows):
        mine = [row for row in rows if (row["env"], row["variant"]) == (env, variant)]
        record: dict[str, Any] = {"env": env, "variant": variant, "runs": len(mine)}
        for x, y in PAIRS:
            record |= _correlation(f"{x}_{y}", [(row[x], row[y]) for row in mine if row[x] is not None])
        records.append(record)
    if all(record[f"{x}_{y}"] is None for record in records for x, y in PAIRS):
        records = []
    caption = (
        f"KPIs against outcomes in suite {results.suite.name}: Spearman's rank correlation over the runs of an "
        f"algorithm on a task, with its 95 % interval; – with fewer than {MIN_RANKED} runs, or without variation. KL: "
        "per environment step; e and σ_τ as in the table of the alignment error; all with the normalised area. Early "
        f"KL: per step in the first {100 * EARLY:.0f} % of the steps, with the largest relative drawdown after them. "
        f"{closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "Runs", "KL", "e", "σ_τ", "Early KL"]
    shown = [
        [
            environment_name(str(record["env"])),
            algorithm_name(str(record["variant"])),
            str(record["runs"]),
            *(_shown(record, f"{x}_{y}") for x, y in PAIRS),
        ]
        for record in records
    ]
    return Table("kpi_correlations", "KPIs against outcomes", caption, records, header, shown, results.source)


def _correlation(name: str, pairs: Sequence[tuple[float, float]]) -> dict[str, Any]:
    found = rank_correlation([x for x, _ in pairs], [y for _, y in pairs])
    if found is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"))
    middle = math.atanh(min(max(found, -0.999999), 0.999999))
    reach = 1.96 * math.sqrt((1 + found**2 / 2) / (len(pairs) - 3))
    return {name: found, f"{name}_low": math.tanh(middle - reach), f"{name}_high": math.tanh(middle + reach)}


def _shown(record: Record, name: str) -> str:
    return interval(record[name], record[f"{name}_low"], record[f"{name}_high"])


def model(results: Results) -> Table:
    """A linear model of the area on the three KPIs, in standard deviations, with a random intercept of each task."""
    rows = [row for row in runs_of(results) if all(row[name] is not None for name in KPIS)]
    columns = np.array([[row[name] for name in KPIS] for row in rows], dtype=np.float64).reshape(len(rows), len(KPIS))
    deviations = columns.std(axis=0, ddof=1) if len(rows) > 1 else np.zeros(len(KPIS))
    tasks = [str(row["env"]) for row in rows]
    fitted = None
    if (deviations > 0).all():
        x = np.column_stack([np.ones(len(rows)), (columns - columns.mean(axis=0)) / deviations])
        fitted = mixed_model(x, np.array([row["area"] for row in rows], dtype=np.float64), tasks)
    records: list[dict[str, Any]] = []
    if fitted is not None:
        for i, name in enumerate(("intercept", *KPIS)):
            records.append(
                {
                    "predictor": name,
                    "coefficient": float(fitted.coefficients[i]),
                    "error": float(fitted.errors[i]),
                    "low": float(fitted.low[i]),
                    "high": float(fitted.high[i]),
                    "deviation": float(deviations[i - 1]) if i else None,
                    "runs": len(rows),
                    "tasks": len(set(tasks)),
                    "task_deviation": fitted.task_deviation,
                    "residual_deviation": fitted.residual_deviation,
                }
            )
    spread = f"{number(fitted.task_deviation)} and {number(fitted.residual_deviation)}" if fitted else "unknown"
    caption = (
        f"The normalised area in suite {results.suite.name} by three KPIs of a run: linear model over {len(rows)} runs "
        f"of all algorithms on {len(set(tasks))} tasks, fitted by restricted maximum likelihood, with a random "
        f"intercept of each task (standard deviations of tasks and of what remains: {spread}). Coefficient: area per "
        "standard deviation of the KPI, with its 95 % interval. Algorithms differ in more than these KPIs, so it "
        f"describes and explains nothing. {closing_words(results)}"
    )
    header = ["KPI", "Coefficient", "Deviation of the KPI"]
    shown = [
        [
            NAMES.get(record["predictor"], record["predictor"]),
            interval(record["coefficient"], record["low"], record["high"]),
            number(record["deviation"]),
        ]
        for record in records
    ]
    return Table("kpi_model", "A model of the area", caption, records, header, shown, results.source, ("KPI",))

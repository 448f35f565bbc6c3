"""Table of the geometry of the updates: run-level KPIs, aggregated over the finished runs of a variant."""

from collections.abc import Callable
from typing import Any

import numpy as np

from analysis import geometry as kpis
from analysis.geometry import DEGENERATE, KPIS, STABILITY_LAG
from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS, bootstrap_interval, generator, iqm
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, number, percent
from analysis.tables.words import closing_words, damping_words, unscored

Columns = dict[str, tuple[str, Callable[[float | None], str]]]
SHOWN: Columns = {
    "kl_median": ("KL median", number),
    "kl_p95": ("p95", number),
    "kl_max": ("max", number),
    "kl_share_above": ("> δ", percent),
    "kl_cv": ("CV", number),
    "alignment_error": ("Alignment e", number),
    "alignment_error_heldout": ("held out", number),
    "alignment_noise": ("noise", number),
    "quadratic_error": ("Quadratic q", number),
    "trace": ("Trace τ", number),
    "trace_stability": ("σ_τ", number),
    "trace_noise_floor": ("σ_τ floor", number),
    "rejection_rate": ("Rejected", percent),
}
"""Run-level KPIs of the table: header and format. One of `kpis.LATER` is shown where a run has it."""


def geometry(results: Results) -> Table:
    """Per environment and variant: IQM over runs of every run-level KPI, and sums of the updates by outcome.

    The CSV has for each KPI the 95 % percentile bootstrap interval over runs (`_low`, `_high`; from three
    runs on), the counts per outcome, and per KPI how often it was measured and how often it came out NaN. One of
    `kpis.LATER` is in it where a run of the suite has it, and null for a variant of which not every run does.
    """
    records = [_record(results, group) for group in results.groups]
    caption = (
        f"Geometry of the updates in suite {results.suite.name}. Each entry: IQM over the finished runs of "
        "a run-level figure (95 % percentile bootstrap intervals over runs are in the CSV file). KL per "
        f"step, alignment error (λ = ρ tr F/d{damping_words(results)}) and quadratic error: over accepted updates; "
        f"> δ: share of them above δ = {results.suite.delta_ref:g}; CV: standard deviation / mean. *: a natural "
        "gradient behind e was not solved to the tolerance. Trace τ: geometric mean of tr F over "
        f"a run; σ_τ: standard deviation of log τ(t+L)/τ(t), L = {STABILITY_LAG // 1000}k steps; its "
        "floor: √½ × standard deviation of log(τ₁/τ₂), what sampling noise alone would give. Rejected: "
        "share of all updates; other outcomes than stepped and rejected, and NaN values of the KPIs, are "
        f"counted over all runs. {closing_words(results)}"
    )
    shown = {
        name: entry
        for name, entry in SHOWN.items()
        if name not in kpis.LATER or any(record.get(name) is not None for record in records)
    }
    if "alignment_error_heldout" in shown:
        caption += " Held out: e against a second batch of the old policy; noise: e between the halves of that."
    header = ["Environment", "Algorithm", "Runs", *(title for title, _ in shown.values()), "Other", "NaN"]
    rows = [_row(record, shown) for record in records]
    return Table("geometry", "Geometry", caption, records, header, rows, results.source)


def _record(results: Results, group: Group) -> dict[str, Any]:
    runs = [cell.run for cell in group.finished if cell.run is not None]
    record: dict[str, Any] = {
        "env": group.env,
        "variant": group.variant,
        "algorithm": group.cells[0].algorithm,
        "runs_planned": len(group.cells),
        "runs_finished": len(group.finished),
    }
    for name in _run_level(results):
        known = [value for run in runs if (value := run.geometry.get(name)) is not None]
        values = np.array([] if name in kpis.LATER and len(known) < len(runs) else known)
        record[name] = float(iqm(values)) if values.size else None
        record[f"{name}_low"], record[f"{name}_high"] = _interval(values, group, results.resamples)
    for name in kpis.COUNTS:
        record[name] = sum(run.counts[name] for run in runs)
    record["nan"] = sum(run.counts[f"{name}_nan"] for run in runs for name in KPIS)
    record["note"] = unscored(group)
    return record


def _run_level(results: Results) -> list[str]:
    runs = [cell.run for cell in results.suite.cells if cell.run is not None]
    return [name for name in kpis.RUN_LEVEL if name not in kpis.LATER or any(name in run.geometry for run in runs)]


def _interval(values: np.ndarray, group: Group, resamples: int) -> tuple[float | None, float | None]:
    if len(values) < MIN_RUNS:
        return None, None
    return bootstrap_interval(values, generator(group.env, group.variant), resamples=resamples)


def _row(record: Record, columns: Columns) -> list[str]:
    other = [f"{record[name]} {name.replace('_', ' ')}" for name in DEGENERATE[1:] if record[name]]
    shown = {name: show(record[name]) for name, (_, show) in columns.items()}
    shown["alignment_error"] += "*" if record["alignment_error_unsolved"] else ""
    return [
        environment_name(str(record["env"])),
        algorithm_name(str(record["variant"])),
        f"{record['runs_finished']}/{record['runs_planned']}",
        *shown.values(),
        ", ".join(other) or "–",
        str(record["nan"]),
    ]

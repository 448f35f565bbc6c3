"""Tables of the geometry of the updates: KL per step, and alignment and trace, over the finished runs of a variant."""

from typing import Any

import numpy as np

from analysis import geometry as kpis
from analysis.geometry import DEGENERATE, KPIS, STABILITY_LAG
from analysis.groups import Group, Results
from analysis.kpis import BURN_IN, ERRORS, FEWEST, delta_of, steady
from analysis.statistics import MIN_RUNS, bootstrap_interval, centre, generator
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, number, percent
from analysis.tables.words import aggregate_words, closing_words, damping_words, statistic, unscored

SINGLE = "single ones in cells.csv"
STEADY = (*ERRORS, "trace_floor", "trace_excess")


def geometry(results: Results) -> Table:
    """KL per step by environment and variant: every run-level KPI over runs, and sums of the updates by outcome.

    The CSV has for each KPI the 95 % percentile bootstrap interval over runs (`_low`, `_high`; from `MIN_RUNS`
    runs on), the counts per outcome, and per KPI how often it was measured and how often it came out NaN. One of
    `kpis.LATER` is in it where a run of the suite has it, and null for a variant of which not every run does.
    """
    records = [_record(results, group) for group in results.groups]
    caption = (
        f"KL per step in suite {results.suite.name}, over accepted updates. Each entry: a run-level figure. "
        f"{aggregate_words(results, SINGLE)}. Own δ: the KL per step that the algorithm aims at or stays below; –: it "
        "has none. Per 1k steps: sum of KL over a thousand environment steps, which batches of all sizes share. "
        f"Above {results.suite.delta_ref:g}: share of accepted updates with more KL, the same bound for all. CV: "
        "standard deviation / mean. Other updates: share of those rejected, and other outcomes and NaN values of KPIs "
        f"counted over all runs. {closing_words(results)}"
    )
    above = f"Above {results.suite.delta_ref:g}"
    header = ["Environment", "Algorithm", "Own δ", "KL median", "Per 1k steps", above, "CV", "Other updates"]
    rows = [_row(record) for record in records]
    return Table("geometry", "KL per step", caption, records, header, rows, results.source)


def alignment(results: Results) -> Table:
    """Alignment error and Fisher trace by environment and variant, as `analysis.kpis.steady` has them."""
    records = [_steady_record(results, group) for group in results.groups]
    caption = (
        f"Alignment error and Fisher trace in suite {results.suite.name}. Each entry: a run-level figure. "
        f"{aggregate_words(results, SINGLE)}. e (λ = ρ tr F/d{damping_words(results)}): mean over the accepted updates "
        f"after the first one, with the number of measurements over all runs; – with fewer than {FEWEST} in a run. *: "
        "a natural gradient behind e was not solved to the tolerance. Held out: e against a second batch; noise: "
        "e between the halves of that, what two batches alone differ by. Quadratic q: error of the quadratic model. "
        f"σ_τ: √(σ² − floor²), σ the standard deviation of log τ(t+L)/τ(t), L = {STABILITY_LAG // 1000}k steps, after "
        f"the first {100 * BURN_IN:.0f} % of the steps, its floor √½ × standard deviation of log(τ₁/τ₂), what sampling "
        f"noise alone would give; “at the floor” where σ does not exceed it. {closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "e", "Measured", "Held out", "Noise", "Quadratic q", "σ_τ"]
    rows = [_steady_row(record) for record in records]
    return Table("alignment", "Alignment error and Fisher trace", caption, records, header, rows, results.source)


def _of(group: Group) -> dict[str, Any]:
    return {
        "env": group.env,
        "variant": group.variant,
        "algorithm": group.cells[0].algorithm,
        "runs_planned": len(group.cells),
        "runs_finished": len(group.finished),
        "statistic": statistic(len(group.finished)),
    }


def _record(results: Results, group: Group) -> dict[str, Any]:
    runs = [cell.run for cell in group.finished if cell.run is not None]
    record = _of(group) | {"delta": delta_of(group.finished)}
    for name in _run_level(results):
        known = [value for run in runs if (value := run.geometry.get(name)) is not None]
        values = np.array([] if name in kpis.LATER and len(known) < len(runs) else known)
        record |= _aggregate(name, values, group, results.resamples)
    for name in kpis.COUNTS:
        record[name] = sum(run.counts[name] for run in runs)
    record["nan"] = sum(run.counts[f"{name}_nan"] for run in runs for name in KPIS)
    record["note"] = unscored(group)
    return record


def _steady_record(results: Results, group: Group) -> dict[str, Any]:
    runs = [cell.run for cell in group.finished if cell.run is not None]
    measured = [steady(run) for run in runs]
    record = _of(group)
    for name in STEADY:
        values = [value for one in measured if (value := one[name]) is not None]
        record |= _aggregate(name, np.array(values if len(values) == len(runs) else []), group, results.resamples)
    for name in ERRORS:
        record[f"{name}_measurements"] = sum(int(one[f"{name}_measurements"] or 0) for one in measured)
    quadratic = [value for run in runs if (value := run.geometry["quadratic_error"]) is not None]
    record |= _aggregate("quadratic_error", np.array(quadratic), group, results.resamples)
    record["alignment_error_unsolved"] = sum(int(one["alignment_error_unsolved"] or 0) for one in measured)
    record["note"] = unscored(group)
    return record


def _run_level(results: Results) -> list[str]:
    runs = [cell.run for cell in results.suite.cells if cell.run is not None]
    return [name for name in kpis.RUN_LEVEL if name not in kpis.LATER or any(name in run.geometry for run in runs)]


def _aggregate(name: str, values: np.ndarray, group: Group, resamples: int) -> dict[str, float | None]:
    """A KPI over runs, with its interval from `MIN_RUNS` runs on."""
    low = high = None
    if len(values) >= MIN_RUNS:
        low, high = bootstrap_interval(values, generator(group.env, group.variant), resamples=resamples)
    return {name: float(centre(values)) if values.size else None, f"{name}_low": low, f"{name}_high": high}


def _shown(record: Record, name: str, times: float = 1) -> str:
    """A KPI with its interval, `times` as large; – where no run of the suite has it."""
    value, *interval_ends = (record.get(f"{name}{end}") for end in ("", "_low", "_high"))
    return interval(*(None if entry is None else times * entry for entry in (value, *interval_ends)))


def _row(record: Record) -> list[str]:
    other = [f"{percent(record['rejection_rate'])} rejected"] if record["rejection_rate"] else []
    other += [f"{record[name]} {name.replace('_', ' ')}" for name in DEGENERATE[1:] if record[name]]
    other += [f"{record['nan']} NaN"] if record["nan"] else []
    return [
        environment_name(str(record["env"])),
        algorithm_name(str(record["variant"])),
        number(record["delta"]),
        _shown(record, "kl_median"),
        _shown(record, "kl_per_env_step", 1_000),
        percent(record["kl_share_above"]),
        _shown(record, "kl_cv"),
        ", ".join(other) or "–",
    ]


def _steady_row(record: Record) -> list[str]:
    error = _shown(record, "alignment_error")
    trace = record["trace_excess"]
    return [
        environment_name(str(record["env"])),
        algorithm_name(str(record["variant"])),
        error + ("*" if record["alignment_error_unsolved"] and record["alignment_error"] is not None else ""),
        str(record["alignment_error_measurements"]),
        _shown(record, "alignment_error_heldout"),
        _shown(record, "alignment_noise"),
        _shown(record, "quadratic_error"),
        "at the floor" if trace == 0 else _shown(record, "trace_excess"),
    ]

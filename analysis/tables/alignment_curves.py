"""Table of the alignment error against the damping it is measured with, from the snapshots of the runs."""

import numpy as np

from analysis.alignment import AlignmentCurves
from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS, centre, percentile_interval, resampled_iqm
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, number
from analysis.tables.words import aggregate_words, closing_words, statistic

SHOWN = 4
"""Dampings that a table on paper has."""


def alignment_curves(results: Results) -> Table:
    """Per environment and variant with snapshots: the alignment error at every damping ρ over runs.

    The CSV has a row per ρ, with the 95 % percentile bootstrap interval over runs (from `MIN_RUNS` on), the error at
    the first snapshot, and whether every solve behind an entry converged.
    """
    drawn = [(group, curves) for group in results.groups if (curves := group.alignment)]
    rhos = sorted({float(rho) for _, curves in drawn for rho in curves.rhos}, reverse=True)
    caption = (
        f"Manifold alignment error e(ρ) in suite {results.suite.name}: 0 along the natural gradient of F + λI with "
        "λ = ρ tr F/d, 1 orthogonal to it, 2 against it. Each entry: the mean over a run's snapshots after the "
        f"first one. {aggregate_words(results, 'every run in the figure')}. The CSV file has more ρ. *: a natural "
        "gradient behind it was not solved to the tolerance. Own ρ: of the algorithm's own damping. "
        f"{closing_words(results)}"
    )
    shown = rhos[:: -(-len(rhos) // SHOWN)] if rhos else []
    header = ["Environment", "Algorithm", "Runs", "Own ρ", *(f"ρ = {rho:g}" for rho in shown)]
    by_group = [_records(group, curves) for group, curves in drawn]
    records = [record for made in by_group for record in made]
    rows = [_row(group, curves, shown, made) for (group, curves), made in zip(drawn, by_group, strict=True)]
    return Table("alignment_curves", "Alignment error against damping", caption, records, header, rows, results.source)


def _records(group: Group, curves: AlignmentCurves) -> list[Record]:
    runs = len(curves.errors)
    errors, first = centre(curves.errors, axis=0), centre(curves.first, axis=0)
    low, high = percentile_interval(resampled_iqm(curves.errors, group.draws_of(runs)), [runs])
    return [
        {
            "env": group.env,
            "variant": group.variant,
            "algorithm": group.cells[0].algorithm,
            "rho": float(rho),
            "runs": runs,
            "snapshots": curves.snapshots,
            "statistic": statistic(runs),
            "alignment_error": float(errors[i]),
            "alignment_error_low": float(low[i]) if runs >= MIN_RUNS else None,
            "alignment_error_high": float(high[i]) if runs >= MIN_RUNS else None,
            "alignment_error_first": None if np.isnan(first[i]) else float(first[i]),
            "rho_own": curves.rho_own,
            "converged": bool(curves.converged[i]),
        }
        for i, rho in enumerate(curves.rhos)
    ]


def _row(group: Group, curves: AlignmentCurves, rhos: list[float], made: list[Record]) -> list[str]:
    by_rho = {record["rho"]: record for record in made}
    return [
        environment_name(group.env),
        algorithm_name(group.variant),
        f"{len(curves.errors)}/{len(group.cells)}",
        number(curves.rho_own),
        *(_entry(by_rho[rho]) if rho in by_rho else "–" for rho in rhos),
    ]


def _entry(record: Record) -> str:
    ends = (record["alignment_error_low"], record["alignment_error_high"])
    return interval(record["alignment_error"], *ends) + ("" if record["converged"] else "*")

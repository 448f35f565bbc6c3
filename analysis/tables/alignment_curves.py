"""Table of the alignment error against the damping it is measured with, from the snapshots of the runs."""

from typing import Any

import numpy as np

from analysis.alignment import AlignmentCurves
from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS, iqm, percentile_interval, resampled_iqm
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, number
from analysis.tables.words import closing_words


def alignment_curves(results: Results) -> Table:
    """Per environment and variant with snapshots: IQM over runs of the alignment error at every damping ρ.

    The CSV has a row per ρ, with the 95 % percentile bootstrap interval over runs (from three runs on), the error at
    the first snapshot, and whether every solve behind an entry converged.
    """
    drawn = [(group, curves) for group in results.groups if (curves := group.alignment)]
    rhos = sorted({float(rho) for _, curves in drawn for rho in curves.rhos}, reverse=True)
    caption = (
        f"Manifold alignment error e(ρ) in suite {results.suite.name}: 0 along the natural gradient of F + λI with "
        "λ = ρ tr F/d, 1 orthogonal to it, 2 against it. Each entry: IQM over runs of the mean over a run's snapshots "
        "after the first one (95 % percentile bootstrap intervals over runs are in the CSV file); *: a natural "
        f"gradient behind it was not solved to the tolerance. Own ρ: of the algorithm's own damping. "
        f"{closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "Runs", "Own ρ", *(f"ρ = {rho:g}" for rho in rhos)]
    records = [record for group, curves in drawn for record in _records(group, curves)]
    rows = [_row(group, curves, rhos) for group, curves in drawn]
    return Table("alignment_curves", "Alignment error against damping", caption, records, header, rows, results.source)


def _records(group: Group, curves: AlignmentCurves) -> list[Record]:
    runs = len(curves.errors)
    errors, first = iqm(curves.errors, axis=0), iqm(curves.first, axis=0)
    low, high = percentile_interval(resampled_iqm(curves.errors, group.draws_of(runs)))
    return [
        {
            "env": group.env,
            "variant": group.variant,
            "algorithm": group.cells[0].algorithm,
            "rho": float(rho),
            "runs": runs,
            "snapshots": curves.snapshots,
            "alignment_error": float(errors[i]),
            "alignment_error_low": float(low[i]) if runs >= MIN_RUNS else None,
            "alignment_error_high": float(high[i]) if runs >= MIN_RUNS else None,
            "alignment_error_first": None if np.isnan(first[i]) else float(first[i]),
            "rho_own": curves.rho_own,
            "converged": bool(curves.converged[i]),
        }
        for i, rho in enumerate(curves.rhos)
    ]


def _row(group: Group, curves: AlignmentCurves, rhos: list[float]) -> list[str]:
    mean: dict[float, Any] = dict(zip(curves.rhos, iqm(curves.errors, axis=0), strict=True))
    capped = set(curves.rhos[~curves.converged])
    return [
        environment_name(group.env),
        algorithm_name(group.variant),
        f"{len(curves.errors)}/{len(group.cells)}",
        number(curves.rho_own),
        *(number(mean.get(rho)) + ("*" if rho in capped else "") for rho in rhos),
    ]

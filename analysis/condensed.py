"""A run condensed to what tables and figures are made of: its curves on the grid, and one value each of the rest.

A run directory is condensed when it is read, and a published cell holds what came of that. Tables and figures see
nothing else, so that both give the same.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from analysis.alignment import Snapshots
from analysis.curves import Column, Curve, Floats, grid_points, kpi_curve, score_curve
from analysis.geometry import KPIS, Record, run_counts, run_geometry
from analysis.progress import column, read_progress
from tracking.published import digest, dumps
from tracking.record import ALIGNMENT, PROGRESS, RunRecord
from tracking.tables import read_arrow

SCORE = "episode_return"
CURVES = (SCORE, *KPIS)
"""Curves of a run, in the order of the columns of a published cell."""
TIMING = ("wall_time",)
"""Entries that differ between equal runs."""

_MEASUREMENTS = "_measurements"


@dataclass(frozen=True)
class Condensed:
    """What the analysis knows of a run with at least one update.

    Attributes:
        env_steps: steps at the end of the last update.
        wall_time: seconds of training.
        final_score: `episode_return` of the last row; None (null) if no score was reached, NaN if it came out NaN.
        curves: by name of `CURVES`. KPIs are of float32 precision. The score is not: steps to a threshold come from it.
        geometry: `analysis.geometry.run_geometry`.
        counts: `analysis.geometry.run_counts`.
        evaluation: returns of the evaluation episodes by mode: deterministic, stochastic, random.
        snapshots: of the alignment error; None without any.
    """

    env_steps: int
    wall_time: float
    final_score: float | None
    curves: dict[str, Curve]
    geometry: Record
    counts: dict[str, int]
    evaluation: dict[str, Floats]
    snapshots: Snapshots | None

    def header(self) -> dict[str, Any]:
        """All but the curves, as plain lists and numbers."""
        snapshots = self.snapshots
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name != "curves"},
            "evaluation": {mode: returns.tolist() for mode, returns in self.evaluation.items()},
            "snapshots": None
            if snapshots is None
            else {
                "env_steps": snapshots.env_steps.tolist(),
                "rho": snapshots.rho.tolist(),
                "error": _nullable(snapshots.error),
                "rho_own": _nullable(snapshots.rho_own),
                "converged": snapshots.converged.tolist(),
            },
        }

    def table(self) -> pa.Table:
        """The curves: a row per point of the grid, null where unmeasured, and the counts of measurements."""
        columns: dict[str, pa.Array] = {"env_steps": pa.array(self.curves[SCORE].steps.astype(np.int64))}
        for name, curve in self.curves.items():
            precision = pa.float64() if name == SCORE else pa.float32()
            unmeasured = curve.measurements == 0
            columns[name] = pa.array(curve.values, mask=unmeasured, from_pandas=False).cast(precision)
            columns[name + _MEASUREMENTS] = pa.array(curve.measurements.astype(np.int32))
        return pa.table(columns)

    def content(self) -> str:
        """SHA-256 of everything here but the timing."""
        measured = {name: entry for name, entry in self.header().items() if name not in TIMING}
        return digest(dumps(measured), self.table())


def condense(record: RunRecord, total_steps: int, delta_ref: float) -> Condensed | None:
    """Condense a run directory; None before its first update.

    Args:
        record: the run directory, as `tracking.record.load_run` reads it.
        total_steps: budget that the grid spans.
        delta_ref: KL per step, nats, above which a step counts in `kl_share_above`.

    Raises:
        ValueError: a table is damaged or lacks a column.
    """
    progress = read_progress(record.run_dir / PROGRESS) if record.progress is not None else None
    if progress is None:
        return None
    points = grid_points(total_steps)
    score = progress.columns[SCORE]
    curves = {SCORE: score_curve(progress.env_steps, score, points)}
    for name in KPIS:
        kpi = progress.columns[name]
        if name != "fisher_trace":  # which belongs to the policy, and not to an accepted update
            kpi = kpi.where(progress.outcome == "stepped")
        curves[name] = _single_precision(kpi_curve(progress.env_steps, kpi, points))
    return Condensed(
        env_steps=int(progress.env_steps[-1]),
        wall_time=float(progress.wall_time[-1]),
        final_score=float(score.values[-1]) if score.measured[-1] else None,
        curves=curves,
        geometry=run_geometry(progress, delta_ref),
        counts=run_counts(progress),
        evaluation=_evaluation(record),
        snapshots=_snapshots(record) if record.alignment is not None else None,
    )


def from_published(header: Mapping[str, Any], table: pa.Table) -> Condensed:
    """What `header()` and `table()` of a condensed run were written from."""
    steps = column(table, "env_steps").values
    curves = {}
    for name in CURVES:
        counts = np.array(table[name + _MEASUREMENTS].to_numpy(), dtype=np.int64)
        curves[name] = Curve(steps, column(table, name).values, counts)
    plain = {f.name: header[f.name] for f in fields(Condensed) if f.name != "curves"}
    snapshots = plain["snapshots"]
    if snapshots is not None:
        snapshots = Snapshots(
            env_steps=np.array(snapshots["env_steps"], dtype=np.float64),
            rho=np.array(snapshots["rho"], dtype=np.float64),
            error=_column(snapshots["error"]),
            rho_own=_column(snapshots["rho_own"]),
            converged=np.array(snapshots["converged"], dtype=bool),
        )
    evaluation = {mode: np.array(returns, dtype=np.float64) for mode, returns in plain["evaluation"].items()}
    return Condensed(**plain | {"curves": curves, "evaluation": evaluation, "snapshots": snapshots})


def _single_precision(curve: Curve) -> Curve:
    return curve._replace(values=curve.values.astype(np.float32).astype(np.float64))


def _evaluation(record: RunRecord) -> dict[str, Floats]:
    if record.evaluation is None:
        return {}
    modes = record.evaluation.groupby("mode")["episode_return"]
    return {str(mode): returns.to_numpy(dtype=np.float64) for mode, returns in modes}


def _snapshots(record: RunRecord) -> Snapshots:
    table = read_arrow(record.run_dir / ALIGNMENT)
    return Snapshots(
        env_steps=column(table, "env_steps").values,
        rho=column(table, "rho").values,
        error=column(table, "alignment_error"),
        rho_own=column(table, "rho_own"),
        converged=np.array([outcome == "converged" for outcome in table["outcome"].to_pylist()]),
    )


def _nullable(values: Column) -> list[float | None]:
    pairs = zip(values.values.tolist(), values.measured, strict=True)
    return [value if measured else None for value, measured in pairs]


def _column(values: list[float | None]) -> Column:
    measured = np.array([value is not None for value in values], dtype=bool)
    return Column(np.array([np.nan if value is None else value for value in values], dtype=np.float64), measured)

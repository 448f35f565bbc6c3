"""A run condensed to what tables and figures are made of: its curves on the grid, and one value each of the rest.

A run directory is condensed when it is read, and a published cell holds what came of that. Tables and figures see
nothing else, so that both give the same. Updates and episodes go with it, in float32, for the same to be computed again
(`analysis.recompute`); no table or figure reads them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from analysis.alignment import Snapshots
from analysis.curves import Column, Curve, Floats, grid_points, kpi_curve, score_curve
from analysis.episodes import Episodes, read_episodes
from analysis.geometry import COUNTS, KPIS, LATER, LATER_KPIS, RUN_LEVEL, Record, run_counts, run_geometry
from analysis.progress import PUBLISHED, Progress, column, read_progress
from tracking.published import digest, dumps
from tracking.record import ALIGNMENT, EPISODES, EVALUATION, PROGRESS, RunRecord
from tracking.schema import require
from tracking.tables import read_arrow

SCORE = "episode_return"
CURVES = (SCORE, *KPIS, *LATER_KPIS)
"""Curves of a run, in the order of the columns of a published cell; one of format 2 lacks `LATER_KPIS`."""
TIMING = ("wall_time", "cpu_time")
"""Entries that differ between equal runs."""
PART, CURVE, UPDATE, EPISODE = "part", "curve", "update", "episode"
"""The column of a published cell that says what a row is, and what it says."""

_MEASUREMENTS = "_measurements"
_ROWS = ("curves", "updates", "episodes")
_HEADER = {
    "env_steps": int,
    "wall_time": float,
    "cpu_time?": (float, None),
    "final_score": (float, None),
    "geometry": {name if name not in LATER else f"{name}?": (float, None) for name in RUN_LEVEL},
    "counts": dict.fromkeys(COUNTS, int),
    "evaluation": {str: [float]},
    "snapshots": (
        {
            "env_steps": [float],
            "rho": [float],
            "error": [(float, None)],
            "rho_own": [(float, None)],
            "converged": [bool],
        },
        None,
    ),
}
"""Schema of `Condensed.header()`."""


@dataclass(frozen=True)
class Condensed:
    """What the analysis knows of a run with at least one update.

    Attributes:
        env_steps: steps at the end of the last update.
        wall_time: seconds of training.
        cpu_time: processor seconds of the same; None for a run that did not record them.
        final_score: `episode_return` of the last row; None (null) if no score was reached, NaN if it came out NaN.
        curves: by name of `CURVES`. KPIs are of float32 precision. The score is not: steps to a threshold come from it.
            A published cell of format 2 lacks `LATER_KPIS`.
        geometry: `analysis.geometry.run_geometry`; of a cell of format 2 without `analysis.geometry.LATER`.
        counts: `analysis.geometry.run_counts`.
        evaluation: returns of the evaluation episodes by mode: deterministic, stochastic, random.
        snapshots: of the alignment error; None without any.
        updates: `analysis.progress.Progress.published`; None for a cell of format 2.
        episodes: all of the training; None for a cell of format 2.
    """

    env_steps: int
    wall_time: float
    cpu_time: float | None
    final_score: float | None
    curves: dict[str, Curve]
    geometry: Record
    counts: dict[str, int]
    evaluation: dict[str, Floats]
    snapshots: Snapshots | None
    updates: Progress | None
    episodes: Episodes | None

    def header(self) -> dict[str, Any]:
        """All but curves, updates and episodes, as plain lists and numbers."""
        snapshots = self.snapshots
        return {
            **{f.name: getattr(self, f.name) for f in fields(self) if f.name not in _ROWS},
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
        """Curves, updates and episodes one under the other, `part` saying which; null where unmeasured or no column of
        the part. Of a cell of format 2 the curves alone, without `part`.
        """
        if self.updates is None or self.episodes is None:
            return self._curve_table()
        parts = {CURVE: self._curve_table(), UPDATE: self.updates.table(), EPISODE: self.episodes.table()}
        named = [
            rows.add_column(0, PART, pa.array([part] * rows.num_rows, pa.string())) for part, rows in parts.items()
        ]
        return pa.concat_tables(named, promote_options="default").combine_chunks()

    def _curve_table(self) -> pa.Table:
        """A row per point of the grid, null where unmeasured, and the counts of measurements."""
        columns: dict[str, pa.Array] = {"env_steps": pa.array(self.curves[SCORE].steps.astype(np.int64))}
        for name, curve in self.curves.items():
            values = Column(curve.values, curve.measurements > 0)
            columns[name] = values.array(pa.float64() if name == SCORE else pa.float32())
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
    if record.progress is None or (progress := read_progress(record.run_dir / PROGRESS)) is None:
        return None
    return Condensed(
        **summary(progress, total_steps, delta_ref),
        wall_time=float(record.progress["wall_time"].iloc[-1]),
        cpu_time=float(record.progress["cpu_time"].iloc[-1]) if "cpu_time" in record.progress else None,
        evaluation=_evaluation(record),
        snapshots=_snapshots(record) if record.alignment is not None else None,
        updates=progress.published(),
        episodes=read_episodes(record.run_dir / EPISODES),
    )


def summary(progress: Progress, total_steps: int, delta_ref: float) -> dict[str, Any]:
    """What of a condensed run follows from its updates, by name of `Condensed`; arguments as `condense`."""
    points = grid_points(total_steps)
    score = progress.columns[SCORE]
    curves = {SCORE: score_curve(progress.env_steps, score, points)}
    for name in (*KPIS, *LATER_KPIS):
        kpi = progress.columns[name]
        if name != "fisher_trace":  # which belongs to the policy, and not to an accepted update
            kpi = kpi.where(progress.outcome == "stepped")
        curves[name] = _single_precision(kpi_curve(progress.env_steps, kpi, points))
    return {
        "env_steps": int(progress.env_steps[-1]),
        "final_score": float(score.values[-1]) if score.measured[-1] else None,
        "curves": curves,
        "geometry": run_geometry(progress, delta_ref),
        "counts": run_counts(progress),
    }


def from_published(header: Mapping[str, Any], table: pa.Table) -> Condensed:
    """What `header()` and `table()` of a condensed run were written from. ValueError where they were from nothing."""
    try:
        require(header, _HEADER)
        run = _from_published(header, table)
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no condensed run ({type(error).__name__}: {error})") from error
    if run.env_steps < 1 or run.counts["updates"] < 1:
        raise ValueError("no condensed run: it has no update")
    if run.snapshots is not None and len({len(entry) for entry in header["snapshots"].values()}) > 1:
        raise ValueError("no condensed run: its snapshots are not of one length")
    return run


def _from_published(header: Mapping[str, Any], table: pa.Table) -> Condensed:
    parts = _parts(table)
    steps = column(parts[CURVE], "env_steps").values
    curves = {}
    for name in (name for name in CURVES if name in table.column_names):
        counts = np.array(parts[CURVE][name + _MEASUREMENTS].to_numpy(), dtype=np.int64)
        curves[name] = Curve(steps, column(parts[CURVE], name).values, counts)
    known = {"cpu_time": None, **header}  # which format 2 does not have
    plain = {f.name: known[f.name] for f in fields(Condensed) if f.name not in _ROWS}
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
    rows = {
        "curves": curves,
        "updates": Progress.of(parts[UPDATE], PUBLISHED) if UPDATE in parts else None,
        "episodes": Episodes.of(parts[EPISODE]) if EPISODE in parts else None,
    }
    return Condensed(**plain | rows | {"evaluation": evaluation, "snapshots": snapshots})


def _parts(table: pa.Table) -> dict[str, pa.Table]:
    """The rows of a published cell by part; of one of format 2, which has curves alone, these."""
    if PART not in table.column_names:
        return {CURVE: table}
    return {part: table.filter(pc.equal(table[PART], part)) for part in (CURVE, UPDATE, EPISODE)}


def _single_precision(curve: Curve) -> Curve:
    return curve._replace(values=curve.values.astype(np.float32).astype(np.float64))


def _evaluation(record: RunRecord) -> dict[str, Floats]:
    if record.evaluation is None:
        return {}
    if absent := {"mode", "episode_return"} - set(record.evaluation):
        raise ValueError(f"{record.run_dir / EVALUATION}: without the columns {', '.join(sorted(absent))}")
    modes = record.evaluation.groupby("mode")["episode_return"]
    return {str(mode): returns.to_numpy(dtype=np.float64) for mode, returns in modes}


def _snapshots(record: RunRecord) -> Snapshots:
    table = read_arrow(record.run_dir / ALIGNMENT, ["env_steps", "rho", "rho_own", "alignment_error", "outcome"])
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

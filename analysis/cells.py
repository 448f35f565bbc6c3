"""The planned cells of a suite and what is on disk for each: `suite.json` and the run directories.

Every planned cell is kept. A cell without a finished run carries its state and the reason, and both reach the
tables.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.alignment import Snapshots
from analysis.curves import Column, Curve, Floats, kpi_curve, score_curve
from tracking.record import ALIGNMENT, PROGRESS, load_run
from tracking.tables import read_arrow

COLUMNS = (
    "episode_return",
    "kl",
    "fisher_trace",
    "alignment_error",
    "quadratic_error",
    "fisher_trace_split",
)
"""Columns of ``progress.parquet`` that are analysed, beside env_steps, wall_time and outcome."""
STATES = ("finished", "running", "killed", "failed", "unreadable", "missing")
REASONS = {
    "missing": "not started",
    "running": "still running",
    "killed": "killed or stopped; it starts again when the suite is run again",
}
"""What is said of a cell whose run gave no reason itself."""


@dataclass(frozen=True)
class Progress:
    """The analysed columns of one run, one entry per update; env_steps and wall_time (s) are never null."""

    env_steps: Floats
    wall_time: Floats
    outcome: NDArray[np.str_]
    columns: dict[str, Column]


@dataclass(frozen=True)
class Cell:
    """One planned run: (variant, environment, seed), its state, and its data as far as it has any."""

    env: str
    variant: str
    algorithm: str
    seed: int
    run_dir: str
    state: str = "missing"
    reason: str = ""
    identity: str = ""
    progress: Progress | None = None
    snapshots: Snapshots | None = None
    evaluation: dict[str, Floats] = field(default_factory=dict)
    """Returns of the evaluation episodes by mode: deterministic, stochastic, random."""

    @property
    def env_steps(self) -> int | None:
        return int(self.progress.env_steps[-1]) if self.progress else None

    @property
    def wall_time(self) -> float | None:
        """Seconds of training."""
        return float(self.progress.wall_time[-1]) if self.progress else None

    @property
    def steps_per_second(self) -> float | None:
        return self.env_steps / self.wall_time if self.env_steps and self.wall_time else None

    @property
    def final_score(self) -> float | None:
        """`episode_return` of the last row; None (null) if no score was reached, NaN if it came out NaN."""
        if self.progress is None:
            return None
        score = self.progress.columns["episode_return"]
        return float(score.values[-1]) if score.measured[-1] else None

    @property
    def remark(self) -> str:
        """What is to be said of the cell: the reason of its state, or why a finished run has no score."""
        if self.state != "finished" or self.scored:
            return self.reason
        return "no episode ended, so it has no score" if self.final_score is None else "its final score is not finite"

    @property
    def scored(self) -> bool:
        """Whether the run finished with a finite final score, and so enters the aggregates of scores."""
        return self.state == "finished" and self.final_score is not None and bool(np.isfinite(self.final_score))

    def score_curve(self, points: Floats) -> Curve:
        progress = self._require_progress()
        return score_curve(progress.env_steps, progress.columns["episode_return"], points)

    def kpi_curve(self, name: str, points: Floats) -> Curve:
        """KPI `name` on the grid: over accepted updates only, but for the trace, which belongs to the policy."""
        progress = self._require_progress()
        column = progress.columns[name]
        if name != "fisher_trace":
            column = column.where(progress.outcome == "stepped")
        return kpi_curve(progress.env_steps, column, points)

    def _require_progress(self) -> Progress:
        if self.progress is None:
            raise ValueError(f"{self.run_dir}: {self.state}, it has no progress to draw")
        return self.progress


@dataclass(frozen=True)
class Suite:
    """A suite's plan and its cells, in the order of ``suite.json``."""

    name: str
    baseline: str
    delta_ref: float
    total_steps: int
    cells: tuple[Cell, ...]

    @property
    def envs(self) -> list[str]:
        """Environments in the order of the plan."""
        return list(dict.fromkeys(cell.env for cell in self.cells))

    @property
    def variants(self) -> list[str]:
        """Variants in the order of the plan."""
        return list(dict.fromkeys(cell.variant for cell in self.cells))


def load_suite(suite_dir: Path) -> Suite:
    """Read a suite's plan and every run directory it names (relative to the working directory).

    Raises:
        ValueError: ``suite.json`` is absent or lacks an entry.
    """
    path = suite_dir / "suite.json"
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the pipeline writes it, so run the suite first")
    plan = json.loads(path.read_text(encoding="utf-8"))
    missing = {"suite", "baseline", "delta_ref", "total_steps", "cells"} - plan.keys()
    if missing:
        raise ValueError(f"{path}: without {', '.join(sorted(missing))}; let the pipeline write it again")
    if not plan["cells"]:
        raise ValueError(f"{path}: plans no cell; a suite needs at least one")
    cells = tuple(_load_cell(entry) for entry in plan["cells"])
    return Suite(plan["suite"], plan["baseline"], plan["delta_ref"], plan["total_steps"], cells)


def _load_cell(entry: dict[str, Any]) -> Cell:
    planned = {name: entry[name] for name in ("env", "variant", "algorithm", "seed", "run_dir")}
    try:
        run = load_run(Path(entry["run_dir"]))
        progress = _load_progress(run.run_dir / PROGRESS) if run.progress is not None else None
        snapshots = _load_snapshots(run.run_dir / ALIGNMENT) if run.alignment is not None else None
    except (OSError, ValueError) as error:  # a damaged run is named, and the others go on
        return Cell(**planned, state="unreadable", reason=str(error))
    evaluation = {}
    if run.evaluation is not None:
        modes = run.evaluation.groupby("mode")["episode_return"]
        evaluation = {str(mode): returns.to_numpy(dtype=np.float64) for mode, returns in modes}
    return Cell(
        **planned,
        state=run.status,
        reason=run.reason or REASONS.get(run.status, ""),
        identity=run.manifest["identity"]["hash"] if run.manifest else "",
        progress=progress,
        snapshots=snapshots,
        evaluation=evaluation,
    )


def _load_progress(path: Path) -> Progress | None:
    """The analysed columns of a run; None before its first update.

    Read as an Arrow table, since a pandas column cannot tell null from NaN.
    """
    table = read_arrow(path)
    if table.num_rows == 0:
        return None
    absent = {"env_steps", "wall_time", "outcome", *COLUMNS} - set(table.column_names)
    if absent:
        raise ValueError(f"{path}: without the columns {', '.join(sorted(absent))}")
    return Progress(
        env_steps=_column(table, "env_steps").values,
        wall_time=_column(table, "wall_time").values,
        outcome=np.array(table["outcome"].to_pylist(), dtype=np.str_),
        columns={name: _column(table, name) for name in COLUMNS},
    )


def _load_snapshots(path: Path) -> Snapshots:
    table = read_arrow(path)
    return Snapshots(
        env_steps=_column(table, "env_steps").values,
        rho=_column(table, "rho").values,
        error=_column(table, "alignment_error"),
        rho_own=_column(table, "rho_own"),
        converged=np.array([outcome == "converged" for outcome in table["outcome"].to_pylist()]),
    )


def _column(table: pa.Table, name: str) -> Column:
    column = table[name].cast(pa.float64())
    return Column(np.array(column.to_numpy()), ~np.array(column.is_null().to_numpy()))

"""The planned cells of a suite and what is known of each, from its run directory or its published cell.

Every planned cell is kept. A cell without a finished run carries its state and the reason, and both reach the
tables.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from analysis.condensed import SCORE, Condensed, condense, from_published
from analysis.curves import Floats, grid_points
from analysis.plan import Plan, load_plan
from analysis.text import shortened
from tracking.manifest import recorded_identity
from tracking.published import read_published
from tracking.record import load_run
from tracking.schema import require

RUN = "runs/{env}/{variant}/seed-{seed}"
"""A run directory in the folder of its suite."""
PUBLISHED_CELL = "cells/{env}/{variant}/seed-{seed}.parquet"
"""A published cell in the folder of its suite."""
STATES = ("finished", "mixed", "running", "killed", "failed", "damaged", "unreadable", "missing")
"""`mixed` is a finished run whose group was not all made alike (`analysis.groups`)."""
REASONS = {
    "missing": "not started",
    "running": "still running",
    "killed": "killed or stopped; it goes on when the suite is run again",
}
"""What is said of a cell whose run gave no reason itself."""

SETTINGS = {
    "diagnostics.rho?": float,
    "env.frame_skip?": int,
    "env.game?": str,
    "env.id?": str,
    "rollout.num_envs?": int,
}
"""Types of the settings that the analysis reads."""
PARTS = {"config": SETTINGS, "code": {str: str}, "versions": {str: (str, None)}, "device": str}
"""Schema of the parts of an identity."""
KNOWN = {"state?": frozenset(STATES) - {"mixed"}, "reason": str, "identity?": str, "parts?": PARTS}
"""Schema of what is read of a cell, its run aside."""
MOST_STEPS = 2.0**53


@dataclass(frozen=True)
class Cell:
    """One planned run: (variant, environment, seed), its state, and its data as far as it has any.

    `run_dir` is where its run directory is, seen from the repository; `parts` are those of the run's identity.
    """

    env: str
    variant: str
    algorithm: str
    seed: int
    run_dir: str
    state: str = "missing"
    reason: str = ""
    identity: str = ""
    parts: Mapping[str, Any] = field(default_factory=dict)
    run: Condensed | None = None

    @property
    def name(self) -> str:
        return f"{self.env}/{self.variant}/seed-{self.seed}"

    @property
    def settings(self) -> Mapping[str, Any]:
        """The resolved ones by dotted name, as the run's identity has them."""
        settings: Mapping[str, Any] = self.parts.get("config", {})
        return settings

    @property
    def env_steps(self) -> int | None:
        return self.run.env_steps if self.run else None

    @property
    def wall_time(self) -> float | None:
        """Seconds of training."""
        return self.run.wall_time if self.run else None

    @property
    def steps_per_second(self) -> float | None:
        return self.env_steps / self.wall_time if self.env_steps and self.wall_time else None

    @property
    def final_score(self) -> float | None:
        """`episode_return` of the last row; None (null) if no score was reached, NaN if it came out NaN."""
        return self.run.final_score if self.run else None

    @property
    def evaluation(self) -> Mapping[str, Floats]:
        """Returns of the evaluation episodes by mode: deterministic, stochastic, random."""
        return self.run.evaluation if self.run else {}

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

    @cached_property
    def content(self) -> str:
        """SHA-256 of what was measured, timing aside; empty without a run."""
        return self.run.content() if self.run else ""


def values_of(setting: str, cells: Iterable[Cell]) -> tuple[Any, ...]:
    """The values that a setting has in these runs, in order; empty where no run has it, or none has begun."""
    values = {repr(cell.settings[setting]): cell.settings[setting] for cell in cells if setting in cell.settings}
    return tuple(sorted(values.values(), key=_order))


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by their size, and then everything else, which may be of any kinds."""
    number = isinstance(value, int | float)
    return not number, value if number else 0.0, repr(value)


@dataclass(frozen=True)
class Suite:
    """A suite's plan and its cells, in the order of ``suite.json``."""

    name: str
    baseline: str
    delta_ref: float
    total_steps: int
    cells: tuple[Cell, ...]
    exceptions: Mapping[str, Sequence[str]]
    """Environment -> settings that runs have on it alone."""
    configurations: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Variant that a search drew -> its settings, the algorithm first; none of a suite that is no search."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Variant -> its display name, of those that have one."""

    @property
    def envs(self) -> list[str]:
        """Environments in the order of the plan."""
        return list(dict.fromkeys(cell.env for cell in self.cells))

    @property
    def variants(self) -> list[str]:
        """Variants in the order of the plan."""
        return list(dict.fromkeys(cell.variant for cell in self.cells))


def load_suite(suite_dir: Path) -> Suite:
    """Read a suite's plan, and of every planned cell the run directory or published cell in the suite's folder.

    Files are found by the names of the cells, whatever paths the plan has. Published cells that stand in for runs are
    in the folder ``published`` beside the suite's.

    Raises:
        ValueError: ``suite.json`` is absent or no plan.
    """
    plan = load_plan(suite_dir)
    cells = tuple(load_cell(entry, plan, suite_dir) for entry in plan["cells"])
    read = {name: plan[name] for name in ("baseline", "delta_ref", "total_steps", "exceptions")}
    named = {name: plan.get(name, {}) for name in ("configurations", "labels")}
    return Suite(plan["suite"], cells=cells, **read, **named)


def load_cell(entry: Plan, plan: Plan, suite_dir: Path) -> Cell:
    """Read the cell of one entry of the plan; what cannot be read is named, and the others go on."""
    cell = {name: entry[name] for name in ("env", "variant", "algorithm", "seed")}
    path = _published(entry, plan, suite_dir) if "published" in entry else suite_dir / RUN.format(**entry)
    try:
        known = _load_published(path, entry, plan) if "published" in entry else _load_run(path, plan)
        _check(known, plan["total_steps"])
    except Exception as error:  # whatever is wrong with files that anybody may have written, the other cells go on
        said = str(error) if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: {error}"
        known = {"state": "unreadable", "reason": said if str(path) in said else f"{path}: {said}"}
    known["reason"] = shortened(known["reason"])
    run_dir = (Path("results") / suite_dir.absolute().name / RUN.format(**entry)).as_posix()
    return Cell(**cell | known, run_dir=run_dir)


def _check(known: Mapping[str, Any], total_steps: int) -> None:
    """ValueError where what was read of a cell is not what tables and figures can be made of."""
    require({name: entry for name, entry in known.items() if name != "parts" or entry}, KNOWN)
    run: Condensed | None = known.get("run")
    if run is None and known.get("state") == "finished":
        raise ValueError("finished without an update")
    if run is not None:
        steps = run.curves[SCORE].steps
        if len(steps) != len(grid_points(total_steps)):
            raise ValueError(f"its curves are not on the grid of {total_steps:,} steps")
        if not (steps[0] > 0 and (np.diff(steps) > 0).all() and steps[-1] < MOST_STEPS):
            raise ValueError("its environment steps do not increase from above 0")


def _load_run(run_dir: Path, plan: Plan) -> dict[str, Any]:
    record = load_run(run_dir)
    return {
        "state": record.status,
        "reason": record.reason or REASONS.get(record.status, ""),
        "identity": record.manifest["identity"]["hash"] if record.manifest else "",
        "parts": recorded_identity(record.manifest).parts if record.manifest else {},
        "run": condense(record, plan["total_steps"], plan["delta_ref"]),
    }


def _published(entry: Plan, plan: Plan, suite_dir: Path) -> Path:
    own = suite_dir / "cells"
    folder = suite_dir if own.is_dir() else suite_dir.absolute().parent / "published" / plan["suite"]
    return folder / PUBLISHED_CELL.format(**entry)


def _load_published(path: Path, entry: Plan, plan: Plan) -> dict[str, Any]:
    """A published cell, if it is of the plan: of the identity that the entry names, if any, and of the plan's δ."""
    if not path.is_file():
        return {"reason": "not published"}
    header, curves = read_published(path)
    if any(header[name] != entry[name] for name in ("env", "variant", "seed")):
        raise ValueError(f"{path}: holds {header['env']}/{header['variant']}/seed-{header['seed']}")
    if entry.get("identity", header["identity"]) != header["identity"]:
        return {"reason": "published from other code or settings"}
    if header["delta_ref"] != plan["delta_ref"]:
        return {"reason": f"published for delta_ref {header['delta_ref']:g}; publish it again"}
    run = None
    if header["run"] is not None:
        try:
            run = from_published(header["run"], curves)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        if len(run.curves[SCORE].steps) != len(grid_points(plan["total_steps"])):
            raise ValueError(f"{path}: its curves are not on the grid of {plan['total_steps']:,} steps")
    return {
        **{name: header[name] for name in ("state", "reason", "identity")},
        "parts": header["provenance"]["identity"],
        "run": run,
    }

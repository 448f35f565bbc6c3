"""Reading a run directory, whatever has become of the run. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tracking.files import sha256
from tracking.lock import is_locked
from tracking.manifest import MANIFEST, finite_or_none, read_manifest, read_status
from tracking.schema import require
from tracking.tables import nan_counts, read_arrow, read_table

if TYPE_CHECKING:
    import pandas as pd

PROGRESS = "progress.parquet"
EPISODES = "episodes.parquet"
ALIGNMENT = "alignment.parquet"
EVALUATION = "evaluation.parquet"
CHECKPOINT = "checkpoint"
PREVIOUS = "checkpoint.previous"

State = Literal["missing", "running", "killed", "finished", "failed", "damaged"]

_TABLES = (PROGRESS, EPISODES, ALIGNMENT, EVALUATION)
_NEEDED = (PROGRESS, EVALUATION)
"""Tables that every finished run has."""


@dataclass(frozen=True)
class Damage:
    """What is wrong with a file of a run that has ended."""

    file: str
    fault: str

    def __str__(self) -> str:
        return f"{self.file}: {self.fault}"


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds; tables that are not there are None, and all of them where the run is damaged."""

    run_dir: Path
    status: State
    reason: str | None = None  # of a failure or of damage
    manifest: dict[str, Any] | None = None
    progress: pd.DataFrame | None = None
    episodes: pd.DataFrame | None = None
    alignment: pd.DataFrame | None = None
    evaluation: pd.DataFrame | None = None
    nan_counts: dict[str, int] = field(default_factory=dict)  # progress column -> values that came out NaN


def load_run(run_dir: Path) -> RunRecord:
    """Read a run directory; ValueError names a file of it that cannot be read.

    A run is `missing` when nothing says it ever started, `running` while its process lives and `killed` when
    that died without a word; `failed`, with the reason, when it said so itself or the pipeline did for it; `damaged`
    when it had ended and its files are no longer those that it left.
    """
    manifest = read_manifest(run_dir)
    status, reason = _state(run_dir, manifest)
    if status == "damaged":
        return RunRecord(run_dir, status, reason, manifest)
    progress = run_dir / PROGRESS
    return RunRecord(
        run_dir=run_dir,
        status=status,
        reason=reason,
        manifest=manifest,
        progress=_read(progress),
        episodes=_read(run_dir / EPISODES),
        alignment=_read(run_dir / ALIGNMENT),
        evaluation=_read(run_dir / EVALUATION),
        nan_counts=nan_counts(progress) if progress.is_file() else {},
    )


def files_of(run_dir: Path) -> dict[str, dict[str, Any]]:
    """What the manifest of a run that ends records of its tables and its checkpoint: size in bytes and SHA-256."""
    paths = [run_dir / name for name in (*_TABLES, CHECKPOINT) if (run_dir / name).is_file()]
    return {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in paths}


def damage(run_dir: Path, manifest: Mapping[str, Any], whole: bool = False) -> Damage | None:
    """The first file of a run, as its manifest has it, that is missing, cut or not what it was; None if it is sound.

    A run that has not ended has no damage. Tables come before the checkpoint, whose SHA-256 is compared only with
    `whole`, since it may be large. What a finished run says of steps and score must be in its last row. A run of an
    earlier version, which recorded nothing of its files, is checked as far as that goes. OSError for a file that cannot
    be opened.
    """
    if manifest["state"] == "running":
        return None
    finished, files = manifest["state"] == "finished", manifest["files"] or {}
    for name in (*_TABLES, CHECKPOINT):
        path, recorded = run_dir / name, files.get(name)
        if not path.is_file():
            if recorded or (finished and name in _NEEDED):
                return Damage(name, "no file" if path.exists() else "missing")
        elif recorded is None:
            if files:
                return Damage(name, "not there when the run ended")
        elif path.stat().st_size != recorded["size"]:
            return Damage(name, f"{path.stat().st_size:,} bytes, of {recorded['size']:,} when the run ended")
        elif (whole or name != CHECKPOINT) and sha256(path) != recorded["sha256"]:
            return Damage(name, "not what it was when the run ended")
    return _contradiction(run_dir, manifest) if finished else None


def _contradiction(run_dir: Path, manifest: Mapping[str, Any]) -> Damage | None:
    """Where the manifest of a finished run and the last row of its updates differ."""
    if manifest["env_steps"] is None:
        return None
    try:
        table = read_arrow(run_dir / PROGRESS, ["env_steps", "episode_return"])
        if not table.num_rows:
            return Damage(PROGRESS, "no row")
        [last] = table.slice(table.num_rows - 1).to_pylist()
        require(last, {"env_steps": int, "episode_return": (float, None)})
    except ValueError as error:
        return Damage(PROGRESS, str(error).removeprefix(f"{run_dir / PROGRESS}: "))
    for name, value in {**last, "episode_return": finite_or_none(last["episode_return"])}.items():
        if value != manifest[name]:
            return Damage(PROGRESS, f"ends with {name} {value}, and {MANIFEST} says {manifest[name]}")
    return None


def _state(run_dir: Path, manifest: dict[str, Any] | None) -> tuple[State, str | None]:
    if manifest is not None and manifest["state"] != "running":
        found = damage(run_dir, manifest)
        return ("damaged", str(found)) if found else (manifest["state"], manifest["reason"])
    if manifest is not None and is_locked(run_dir):
        return "running", None
    # A run that dies writes no status; the pipeline may have written one for it afterwards.
    status = read_status(run_dir)
    if status is not None and status["status"] == "failed":
        return "failed", status["reason"]
    return ("missing" if manifest is None else "killed"), None


def _read(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.is_file() else None

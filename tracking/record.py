"""Reading a run directory, whatever has become of the run. Needs no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tracking.lock import is_locked
from tracking.manifest import read_manifest, read_status
from tracking.tables import nan_counts, read_table

if TYPE_CHECKING:
    import pandas as pd

PROGRESS = "progress.parquet"
EPISODES = "episodes.parquet"
ALIGNMENT = "alignment.parquet"
EVALUATION = "evaluation.parquet"
CHECKPOINT = "checkpoint"
PREVIOUS = "checkpoint.previous"

State = Literal["missing", "running", "killed", "finished", "failed"]


@dataclass(frozen=True)
class RunRecord:
    """What a run directory holds; tables that are not there are None."""

    run_dir: Path
    status: State
    reason: str | None = None  # of a failure
    manifest: dict[str, Any] | None = None
    progress: pd.DataFrame | None = None
    episodes: pd.DataFrame | None = None
    alignment: pd.DataFrame | None = None
    evaluation: pd.DataFrame | None = None
    nan_counts: dict[str, int] = field(default_factory=dict)  # progress column -> values that came out NaN


def load_run(run_dir: Path) -> RunRecord:
    """Read a run directory; ValueError when its manifest or status is damaged.

    A run is `missing` when nothing says it ever started, `running` while its process lives and `killed` when
    that died without a word; `failed`, with the reason, when it said so itself or the pipeline did for it.
    """
    manifest = read_manifest(run_dir)
    status, reason = _state(run_dir, manifest)
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


def _state(run_dir: Path, manifest: dict[str, Any] | None) -> tuple[State, str | None]:
    if manifest is not None and manifest["state"] != "running":
        return manifest["state"], manifest["reason"]
    if manifest is not None and is_locked(run_dir):
        return "running", None
    # A run that dies writes no status; the pipeline may have written one for it afterwards.
    status = read_status(run_dir)
    if status is not None and status["status"] == "failed":
        return "failed", status["reason"]
    return ("missing" if manifest is None else "killed"), None


def _read(path: Path) -> pd.DataFrame | None:
    return read_table(path) if path.is_file() else None

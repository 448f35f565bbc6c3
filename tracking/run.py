"""One run writing its directory: what train.py talks to."""

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracking import checkpoint, lock
from tracking.files import remove_leftovers
from tracking.identity import CellIdentity, difference
from tracking.manifest import (
    STATUS,
    build_manifest,
    finite_or_none,
    read_manifest,
    recorded_identity,
    write_manifest,
    write_status,
)
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PROGRESS
from tracking.tables import Table
from tracking.wandb_tracker import TrackerConfig, WandbTracker

log = logging.getLogger(__name__)

PROGRESS_COLUMNS: dict[str, type] = {
    "env_steps": int,
    "wall_time": float,
    "episode_return": float,
    "kl": float,
    "fisher_trace": float,
    "alignment_error": float,
    "quadratic_error": float,
    "step_accepted": bool,
}
EPISODE_COLUMNS: dict[str, type] = {
    "env_steps": int,
    "episode_return": float,
    "episode_length": int,
    "env_index": int,
}
ALIGNMENT_COLUMNS: dict[str, type] = {
    "env_steps": int,
    "rho": float,
    "damping": float,
    "rho_own": float,
    "alignment_error": float,
    "outcome": str,
    "residual": float,
    "iterations": int,
}
EVALUATION_COLUMNS: dict[str, type] = {"mode": str, "episode_return": float, "episode_length": int}


class IdentityMismatch(RuntimeError):
    """The run directory holds a run of another identity."""


class Run:
    """A run directory held for writing; use it as a context manager, which releases its lock.

    After `open`, a run that is `finished` already takes nothing but `write_status`. Otherwise: `log`,
    `log_episodes` and `log_alignment` as training goes, `flush` now and then, and one of `finish`, `fail` and
    `stopped` to end.
    """

    def __init__(self, run_dir: Path, manifest: dict[str, Any], descriptor: int) -> None:
        self.run_dir = run_dir
        self.manifest = manifest
        self._lock: int | None = descriptor
        self._tracker: WandbTracker | None = None
        self._progress = Table(run_dir / PROGRESS, PROGRESS_COLUMNS)
        self._episodes = Table(run_dir / EPISODES, EPISODE_COLUMNS)
        self._alignment = Table(run_dir / ALIGNMENT, ALIGNMENT_COLUMNS)

    @classmethod
    def open(
        cls,
        run_dir: Path,
        config: Mapping[str, Any],
        identity: CellIdentity,
        *,
        threads: int,
        gpu: str | None = None,
        tracker: TrackerConfig | None = None,
    ) -> Self:
        """Lock `run_dir`, creating it if need be, and start a run there unless the same one has finished.

        A failed or killed run is started again from step 0. ValueError when the directory cannot be used,
        lock.RunLocked when another process trains there, IdentityMismatch when it holds another run.
        """
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor = lock.acquire(run_dir)
        except OSError as error:
            raise ValueError(
                f"run_dir {run_dir}: cannot be written ({error.strerror}); choose a writable directory"
            ) from error
        try:
            manifest = read_manifest(run_dir)
            if manifest is not None:
                _require_identity(run_dir, identity, manifest)
            if manifest is not None and manifest["state"] == "finished":
                return cls(run_dir, manifest, descriptor)
            if manifest is not None:
                log.warning("%s: %s; it starts again from step 0", run_dir, _past(manifest))
            manifest = build_manifest(config, identity, threads, gpu)
            _clear(run_dir)
            write_manifest(run_dir, manifest)
            run = cls(run_dir, manifest, descriptor)
            run.flush(None)
            if tracker is not None and tracker.name == "wandb":
                run._tracker = WandbTracker(tracker, run_dir, config)
            return run
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def finished(self) -> bool:
        """Whether the run has finished, now or earlier."""
        return bool(self.manifest["state"] == "finished")

    def log(self, row: Mapping[str, Any]) -> None:
        """Take the row of one update; it needs `env_steps`, and None stands for what was not measured."""
        self._progress.append(row)
        if self._tracker is not None:
            self._tracker.log(row)

    def log_episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take a row for every training episode that ended."""
        for row in rows:
            self._episodes.append(row)

    def log_alignment(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the rows of a snapshot, one per damping; a run without any has no such table."""
        for row in rows:
            self._alignment.append(row)

    def flush(self, state: Any | None) -> None:
        """Bring the tables up to date on disk, then the checkpoint if a state is given.

        In this order a checkpoint never knows more steps than the tables do.
        """
        self._progress.flush()
        self._episodes.flush()
        if len(self._alignment):
            self._alignment.flush()
        if state is not None:
            checkpoint.save(self.run_dir / CHECKPOINT, state)

    def finish(
        self, episode_return: float | None, env_steps: int, evaluation_rows: Iterable[Mapping[str, Any]]
    ) -> None:
        """End a run that did all its steps; flush the last state before."""
        evaluation = Table(self.run_dir / EVALUATION, EVALUATION_COLUMNS)
        for row in evaluation_rows:
            evaluation.append(row)
        evaluation.flush()
        self.flush(None)
        self._end("finished", None, env_steps, episode_return)

    def fail(self, reason: str, env_steps: int) -> None:
        """End a run that cannot go on, keeping what it logged; the reason becomes one line."""
        try:
            self.flush(None)
        finally:
            self._end("failed", " ".join(reason.split()), env_steps, None)

    def stopped(self) -> None:
        """End a run that the user stopped: rows are kept, the state stays `running`, no status appears."""
        self.flush(None)
        self._close_tracker({})

    def write_status(self) -> None:
        """Write status.json from what the manifest of an ended run records."""
        manifest = self.manifest
        write_status(
            self.run_dir,
            manifest["state"],
            manifest["reason"],
            manifest["identity"]["hash"],
            manifest["env_steps"],
            manifest["episode_return"],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close_tracker({})
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _end(self, state: str, reason: str | None, env_steps: int, episode_return: float | None) -> None:
        self.manifest |= {
            "state": state,
            "reason": reason,
            "env_steps": env_steps,
            "episode_return": finite_or_none(episode_return),
        }
        write_manifest(self.run_dir, self.manifest)
        self._close_tracker({key: self.manifest[key] for key in ("state", "reason", "env_steps", "episode_return")})
        self.write_status()

    def _close_tracker(self, summary: Mapping[str, Any]) -> None:
        if self._tracker is not None:
            self._tracker.finish(summary, succeeded=self.finished)
            self._tracker = None


def _require_identity(run_dir: Path, identity: CellIdentity, manifest: Mapping[str, Any]) -> None:
    recorded = recorded_identity(manifest)
    if recorded.hash != identity.hash:
        raise IdentityMismatch(
            f"run_dir {run_dir} holds another run ({difference(identity, recorded)}); "
            "choose another run_dir or remove it"
        )


def _past(manifest: Mapping[str, Any]) -> str:
    if manifest["state"] == "failed":
        return f"an earlier run failed here ({manifest['reason']})"
    return "an earlier run was killed or stopped here"


def _clear(run_dir: Path) -> None:
    """Remove what an unfinished run left, the status first: it must never claim what is no longer there."""
    for name in (STATUS, EVALUATION, CHECKPOINT, PROGRESS, EPISODES, ALIGNMENT):
        (run_dir / name).unlink(missing_ok=True)
    remove_leftovers(run_dir)

"""One run writing its directory: what train.py talks to."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
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
    now,
    read_manifest,
    recorded_identity,
    write_manifest,
    write_status,
)
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PREVIOUS, PROGRESS
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
    "kl_total": float,
    "cpu_time": float,
    "alignment_error_heldout": float,
    "alignment_noise": float,
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
TABLES = {PROGRESS: PROGRESS_COLUMNS, EPISODES: EPISODE_COLUMNS, ALIGNMENT: ALIGNMENT_COLUMNS}
"""Tables that grow while a run trains."""
EVALUATION_COLUMNS: dict[str, type] = {"mode": str, "episode_return": float, "episode_length": int}


class IdentityMismatch(RuntimeError):
    """The run directory holds a run of another identity."""


class Run:
    """A run directory held for writing; use it as a context manager, which releases its lock.

    After `open`, a run that is `finished` already takes nothing but `write_status`. Otherwise it goes on from `state`,
    what the last `flush` was given (None: from the beginning): `log`, `log_episodes` and `log_alignment` as training
    goes, `flush` now and then, and one of `finish`, `fail` and `stopped` to end.

    Attributes:
        saved_updates: updates that the checkpoint on disk has behind it; 0 without one.
    """

    def __init__(self, run_dir: Path, manifest: dict[str, Any], descriptor: int) -> None:
        self.run_dir = run_dir
        self.manifest = manifest
        self.state: Any | None = None
        self.saved_updates = 0
        self._lock: int | None = descriptor
        self._tracker: WandbTracker | None = None
        self._tables = {name: Table(run_dir / name, columns) for name, columns in TABLES.items()}

    @classmethod
    def open(
        cls,
        run_dir: Path,
        config: Mapping[str, Any],
        identity: CellIdentity,
        *,
        threads: int,
        gpu: str | None = None,
        conf: Sequence[str] = ("conf",),
        tracker: TrackerConfig | None = None,
    ) -> Self:
        """Lock `run_dir`, creating it if need be, and start a run there or go on with it, unless it has finished.

        A run that failed, was stopped or killed goes on from its newest sound checkpoint, and without one from step 0.
        ValueError when the directory cannot be used, lock.RunLocked when another process trains there,
        IdentityMismatch when it or its checkpoint holds another run, checkpoint.FormatError when that is of another
        format.
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
            run = cls(run_dir, build_manifest(config, identity, threads, gpu, conf), descriptor)
            if manifest is not None:
                run._go_on(manifest, identity, str(config.get("device", "cpu")))
            _clear(run_dir, whole=run.state is None)
            write_manifest(run_dir, run.manifest)
            run.flush(None)
            if tracker is not None and tracker.name == "wandb":
                run._tracker = WandbTracker(tracker, run_dir, config, identity.short)
            return run
        except BaseException:
            os.close(descriptor)
            raise

    @property
    def finished(self) -> bool:
        """Whether the run has finished, now or earlier."""
        return bool(self.manifest["state"] == "finished")

    @property
    def env_steps(self) -> int:
        """Environment steps at the end of the last update logged; 0 before the first."""
        return int(self._tables[PROGRESS].last("env_steps") or 0)

    @property
    def wall_time(self) -> float:
        """Seconds of training up to there."""
        return float(self._tables[PROGRESS].last("wall_time") or 0.0)

    def log(self, row: Mapping[str, Any]) -> None:
        """Take the row of one update; it needs `env_steps`, and None stands for what was not measured."""
        self._tables[PROGRESS].append(row)
        if self._tracker is not None:
            self._tracker.log(row)

    def log_episodes(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take a row for every training episode that ended."""
        for row in rows:
            self._tables[EPISODES].append(row)

    def log_alignment(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take the rows of a snapshot, one per damping; a run without any has no such table."""
        for row in rows:
            self._tables[ALIGNMENT].append(row)

    def flush(self, state: Any | None) -> None:
        """Bring the tables up to date on disk, then the checkpoint if a state is given.

        In this order a checkpoint never knows more steps than the tables do.
        """
        for name, table in self._tables.items():
            if len(table) or name != ALIGNMENT:
                table.flush()
        if state is not None:
            rows = {name: len(table) for name, table in self._tables.items()}
            content = {"identity": self.manifest["identity"]["parts"], "rows": rows, "state": state}
            checkpoint.save(self.run_dir / CHECKPOINT, content, self.run_dir / PREVIOUS)
            self.saved_updates = rows[PROGRESS]

    def finish(
        self, episode_return: float | None, env_steps: int, evaluation_rows: Iterable[Mapping[str, Any]]
    ) -> None:
        """End a run that did all its steps; flush the last state before."""
        evaluation = Table(self.run_dir / EVALUATION, EVALUATION_COLUMNS)
        for row in evaluation_rows:
            evaluation.append(row)
        evaluation.flush()
        self.flush(None)
        (self.run_dir / PREVIOUS).unlink(missing_ok=True)  # only a run that goes on needs it
        self._end("finished", None, env_steps, episode_return)

    def fail(self, reason: str) -> None:
        """End a run that cannot go on, keeping what it logged; the reason becomes one line.

        Where that cannot be written, what was written before stays, and the next reader calls the run killed.
        """
        reason = " ".join(reason.split())
        for step in (partial(self.flush, None), partial(self._end, "failed", reason, self.env_steps, None)):
            try:
                step()
            except OSError as error:
                log.error("%s: cannot record the failure (%s); what was saved before is intact", self.run_dir, error)

    def stopped(self) -> None:
        """End a run that the user stopped: rows are kept, the state stays `running`, no status appears."""
        self.flush(None)
        self._close_tracker({})

    def _go_on(self, manifest: Mapping[str, Any], identity: CellIdentity, device: str) -> None:
        """Take over state and tables from the newest sound checkpoint of the run that `manifest` describes."""
        past = _past(manifest)
        self.manifest["started"] = manifest["started"]
        for path in filter(Path.exists, (self.run_dir / CHECKPOINT, self.run_dir / PREVIOUS)):
            try:
                content = checkpoint.load(path, device)
                theirs = CellIdentity(content["identity"])
                if theirs.hash != identity.hash:
                    raise IdentityMismatch(
                        f"{path} is of another run ({difference(identity, theirs)}); "
                        "remove it, or choose another run_dir"
                    )
                rows = content["rows"]
                tables = {
                    name: Table.resume(self.run_dir / name, columns, rows[name]) if rows[name] else self._tables[name]
                    for name, columns in TABLES.items()
                }
            except checkpoint.FormatError:
                raise
            except (checkpoint.CheckpointError, ValueError, OSError) as error:  # a damaged table is a ValueError
                log.warning("%s cannot be used (%s)", path, error)
                continue
            self.state, self._tables, self.saved_updates = content["state"], tables, rows[PROGRESS]
            for name in (name for name in TABLES if not rows[name]):
                (self.run_dir / name).unlink(missing_ok=True)
            self.manifest["resumed"] = [*manifest.get("resumed", []), {"at": now(), "updates": rows[PROGRESS]}]
            log.warning("%s: %s; it goes on after update %d", self.run_dir, past, rows[PROGRESS])
            return
        log.warning("%s: %s; it starts again from step 0", self.run_dir, past)

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


def _clear(run_dir: Path, whole: bool) -> None:
    """Remove how an unfinished run ended, or the whole of it; the status first: it must never claim what is gone."""
    for name in (STATUS, EVALUATION, *((CHECKPOINT, PREVIOUS, *TABLES) if whole else ())):
        (run_dir / name).unlink(missing_ok=True)
    remove_leftovers(run_dir)

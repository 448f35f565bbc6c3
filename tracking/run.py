"""One run writing its directory: what train.py talks to."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracking import checkpoint, lock
from tracking.files import remove, remove_leftovers
from tracking.identity import CellIdentity, difference
from tracking.manifest import (
    PARTS,
    STATUS,
    build_manifest,
    finite_or_none,
    now,
    read_manifest,
    recorded_identity,
    write_manifest,
    write_status,
)
from tracking.record import (
    ALIGNMENT,
    CHECKPOINT,
    EPISODES,
    EVALUATION,
    PREVIOUS,
    PROGRESS,
    Damage,
    damage,
    files_of,
)
from tracking.schema import ANY, require
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
        self._tables = self._empty_tables()
        self._checkpoints: list[Path] = []  # those to go on from, newest first; the first one is behind `state`
        self._resumed: list[dict[str, Any]] = []  # the continuations before this one

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

        A run that failed, was stopped or killed goes on from its newest sound checkpoint, and without one from step 0;
        so does one that finished and whose evaluation is damaged. Where other files of it are, it starts again.
        ValueError when the directory cannot be used, lock.RunLocked when another process trains there,
        IdentityMismatch when it or its checkpoint holds another run or one that cannot be read, checkpoint.FormatError
        when that is of another format.
        """
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            descriptor = lock.acquire(run_dir)
        except OSError as error:
            raise ValueError(
                f"run_dir {run_dir}: cannot be written ({error.strerror}); choose a writable directory"
            ) from error
        try:
            manifest = _manifest_of(run_dir, identity)
            harm = None if manifest is None else damage(run_dir, manifest, whole=True)
            if manifest is not None and manifest["state"] == "finished" and harm is None:
                return cls(run_dir, manifest, descriptor)
            run = cls(run_dir, build_manifest(config, identity, threads, gpu, conf), descriptor)
            if manifest is not None:
                run._go_on(manifest, harm)
            run._begin()
            if tracker is not None and tracker.name == "wandb":
                run._tracker = WandbTracker(tracker, run_dir, config, identity.short)
            return run
        except BaseException as error:
            os.close(descriptor)
            if isinstance(error, OSError):
                raise ValueError(f"run_dir {run_dir}: cannot be used ({error})") from error
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

    @property
    def cpu_time(self) -> float:
        """Processor seconds of training up to there."""
        return float(self._tables[PROGRESS].last("cpu_time") or 0.0)

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

    def fall_back(self, error: Exception) -> None:
        """Give up the checkpoint behind `state`, which `error` refused, and go on from the next older sound one.

        Without one `state` is None, and the run starts again from step 0.
        """
        refused = self._checkpoints.pop(0)
        self._resume(any_fault=True)
        self._begin()
        log.warning("%s cannot be used (%s); %s", refused, _one_line(error), self._where())

    def _go_on(self, manifest: Mapping[str, Any], harm: Damage | None) -> None:
        """Take over state and tables from the newest sound checkpoint of the run that `manifest` describes."""
        self.manifest["started"], self._resumed = manifest["started"], manifest["resumed"] or []
        if harm is None or harm.file in (EVALUATION, CHECKPOINT):
            paths = (self.run_dir / CHECKPOINT, self.run_dir / PREVIOUS)
            self._checkpoints = [path for path in paths if path.exists() and (harm is None or path.name != harm.file)]
        # Otherwise a table is damaged, and the rows behind a checkpoint are not known.
        self._resume()
        past = _past(manifest) if harm is None else f"a run that {manifest['state']} here is damaged ({harm})"
        log.warning("%s: %s; %s", self.run_dir, past, self._where())

    def _resume(self, any_fault: bool = False) -> None:
        """Take over the newest sound one of `_checkpoints`, and drop those before it; nothing where none is sound.

        IdentityMismatch and checkpoint.FormatError as `open`, unless `any_fault` lets an older one take its place.
        """
        while self._checkpoints:
            path = self._checkpoints[0]
            try:
                content, tables = self._read_checkpoint(path)
            except (checkpoint.CheckpointError, IdentityMismatch, ValueError, TypeError, FileNotFoundError) as error:
                if isinstance(error, checkpoint.FormatError | IdentityMismatch) and not any_fault:
                    raise
                log.warning("%s cannot be used (%s)", path, _one_line(error))
                del self._checkpoints[0]
                continue
            self.state, self._tables, self.saved_updates = content["state"], tables, content["rows"][PROGRESS]
            self.manifest["resumed"] = [*self._resumed, {"at": now(), "updates": self.saved_updates}]
            return
        self.state, self._tables, self.saved_updates = None, self._empty_tables(), 0
        self.manifest["resumed"] = []

    def _read_checkpoint(self, path: Path) -> tuple[dict[str, Any], dict[str, Table]]:
        """What a checkpoint of this run holds, and the tables as they were then."""
        content = checkpoint.load(path, str(self.manifest["config"].get("device", "cpu")))
        require(content, {"identity": PARTS, "rows": dict.fromkeys(TABLES, int), "state": ANY})
        mine, theirs = recorded_identity(self.manifest), CellIdentity(content["identity"])
        if theirs.hash != mine.hash:
            raise IdentityMismatch(
                f"{path} is of another run ({difference(mine, theirs)}); remove it, or choose another run_dir"
            )
        rows, tables = content["rows"], self._empty_tables()
        for name, columns in TABLES.items():
            if rows[name] < 0:
                raise ValueError(f"rows of {name}: {rows[name]} is negative")
            if rows[name]:
                tables[name] = Table.resume(self.run_dir / name, columns, rows[name])
        return content, tables

    def _begin(self) -> None:
        """Bring the directory to where `_resume` left the run, or to its start."""
        checkpoints = [name for name in (CHECKPOINT, PREVIOUS) if self.run_dir / name not in self._checkpoints]
        gone = [name for name in TABLES if not len(self._tables[name])]
        # The status first, which must never claim what is gone, and the manifest of what was before what it speaks of.
        for name in (STATUS, *checkpoints):
            remove(self.run_dir / name)
        write_manifest(self.run_dir, self.manifest)
        for name in (EVALUATION, *gone):
            remove(self.run_dir / name)
        remove_leftovers(self.run_dir)
        self.flush(None)

    def _where(self) -> str:
        return (
            f"it goes on after update {self.saved_updates}" if self.state is not None else "it starts again from step 0"
        )

    def _empty_tables(self) -> dict[str, Table]:
        return {name: Table(self.run_dir / name, columns) for name, columns in TABLES.items()}

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
            "files": files_of(self.run_dir),
        }
        write_manifest(self.run_dir, self.manifest)
        self._close_tracker({key: self.manifest[key] for key in ("state", "reason", "env_steps", "episode_return")})
        self.write_status()

    def _close_tracker(self, summary: Mapping[str, Any]) -> None:
        if self._tracker is not None:
            self._tracker.finish(summary, succeeded=self.finished)
            self._tracker = None


def _manifest_of(run_dir: Path, identity: CellIdentity) -> dict[str, Any] | None:
    """The manifest of the run in a directory; IdentityMismatch when that is another one, or cannot be told."""
    try:
        manifest = read_manifest(run_dir)
    except ValueError as error:
        raise IdentityMismatch(
            f"run_dir {run_dir} holds a run that cannot be read ({error}); choose another run_dir or remove it"
        ) from error
    if manifest is not None and (recorded := recorded_identity(manifest)).hash != identity.hash:
        raise IdentityMismatch(
            f"run_dir {run_dir} holds another run ({difference(identity, recorded)}); "
            "choose another run_dir or remove it"
        )
    return manifest


def _past(manifest: Mapping[str, Any]) -> str:
    if manifest["state"] == "failed":
        return f"an earlier run failed here ({manifest['reason']})"
    return "an earlier run was killed or stopped here"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Weights & Biases beside the files of a run: the same rows, and never a reason for a run to fail."""

import hashlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@dataclass
class TrackerConfig:
    """Where a run is tracked beside its own files (`tracker=files` or `tracker=wandb`).

    ValueError names the setting that is wrong.
    """

    name: str = "files"  # files: nothing beside the run directory; wandb: W&B as well
    mode: str = "offline"  # online, or offline: kept under run_dir/wandb for a later `wandb sync`
    project: str = "fisherbench"
    entity: str | None = None  # W&B user or team; null: the default of the account
    group: str | None = None  # null: environment and variant, from run_dir, so that W&B averages over seeds
    timeout: float = 20.0  # s that W&B may hold a run up, at its start and again at its end

    def __post_init__(self) -> None:
        if self.name not in ("files", "wandb"):
            raise ValueError(f"tracker.name: {self.name!r} is unknown; choose files or wandb")
        if self.mode not in ("online", "offline"):
            raise ValueError(f"tracker.mode: {self.mode!r} is unknown; choose online or offline")
        if not 0 < self.timeout < math.inf:
            raise ValueError(f"tracker.timeout: {self.timeout} is no time to wait; give seconds above 0")


class WandbTracker:
    """A W&B run that logs rows against `env_steps`; if W&B fails, one warning, and silence from then on."""

    def __init__(self, settings: TrackerConfig, run_dir: Path, config: Mapping[str, Any], identity: str) -> None:
        self._run: Any = None
        self._guard("start", lambda: self._start(settings, run_dir.absolute(), config, identity))

    def log(self, row: Mapping[str, Any]) -> None:
        """Log what was measured in a row; null would hide the last measured value in W&B's summary."""
        if self._run is not None:
            self._guard("log", lambda: self._run.log(_measured(row), step=row["env_steps"]))

    def finish(self, summary: Mapping[str, Any], succeeded: bool) -> None:
        """End the W&B run with these values in its summary."""
        if self._run is not None:
            self._guard("finish", lambda: self._finish(_measured(summary), succeeded))
            self._run = None

    def _start(self, settings: TrackerConfig, run_dir: Path, config: Mapping[str, Any], identity: str) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # it would wait at exit for a server that hangs
        import wandb  # here: it may be missing, and takes its time to import

        if settings.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key; run `wandb login`, or choose tracker.mode=offline")
        *group, seed = run_dir.parts[-3:]  # environment, variant, seed
        self._run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            group=settings.group or "/".join(group),
            name="/".join([*group, seed]),
            id=hashlib.sha256(f"{identity} {run_dir}".encode()).hexdigest()[:16],  # a resumed run goes on in its own
            resume="allow",
            dir=run_dir,
            config=dict(config),
            settings={
                "mode": settings.mode,
                "console": "off",
                "init_timeout": settings.timeout,
                "finish_timeout": settings.timeout,
                "finish_timeout_raises": True,
            },
        )
        if self._run.url:
            log.info("W&B: %s", self._run.url)

    def _finish(self, summary: Mapping[str, Any], succeeded: bool) -> None:
        self._run.summary.update(summary)
        self._run.finish(exit_code=0 if succeeded else 1)

    def _guard(self, step: str, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:  # whatever W&B raises, the run must not care
            self._run = None
            reason = " ".join(str(error).split()) or type(error).__name__
            log.warning("W&B failed to %s (%s); the run goes on without it", step, reason)


def _measured(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if value is not None}

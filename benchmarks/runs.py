"""What the benchmarks share: one real run of train.py, and the machine it runs on."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pipeline.suites import find_algorithms
from tracking.identity import REPOSITORY
from tracking.manifest import cpu_model
from tracking.record import load_run

IDLE = 0.5
"""1-minute load average up to which a machine counts as idle."""


class RunFailed(RuntimeError):
    """A run did not finish; the message is the reason in one line."""


def train(run_dir: Path, overrides: Sequence[str]) -> None:
    """Run train.py in a process of its own; a run that finished there before is not repeated.

    It has one thread unless `threads=` is among the overrides. The run ends with this process, and logs to
    run_dir/train.log. Raises RunFailed.
    """
    cell = ["-m", "pipeline.run_cell", str(run_dir.resolve()), "--pipeline-pid", str(os.getpid())]
    command = [sys.executable, *cell, "--", sys.executable, "train.py", *overrides]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(last_line(done.stderr) or f"stopped with exit code {done.returncode}")
    record = load_run(run_dir)
    if record.status != "finished":
        raise RunFailed(record.reason or record.status)


def progress_of(run_dir: Path) -> pd.DataFrame:
    """The table with one row per update of a finished run."""
    progress = load_run(run_dir).progress
    assert progress is not None
    return progress


def last_line(text: str) -> str:
    """The last line that holds anything."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def chosen(only: Sequence[str] | None) -> list[str]:
    """All algorithms found, or those of the option --only. Raises ValueError for an unknown one."""
    known = find_algorithms()
    for name in only or ():
        if name not in known:
            raise ValueError(f"--only {name}: unknown; choose from {', '.join(known)}")
    return list(dict.fromkeys(only)) if only else known


def machine() -> str:
    """Processor and load in one line; warns on stderr when others are using the machine."""
    load = os.getloadavg()[0]
    if load > IDLE:
        print(f"warning: 1-minute load {load:.2f}, above {IDLE}: these times mean little", file=sys.stderr)
    return f"{cpu_model()}, {os.cpu_count()} logical cores; 1-minute load at the start {load:.2f}"

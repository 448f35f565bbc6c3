"""What the benchmarks share: one real run of train.py and what it cost, and the machine it runs on."""

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import TypeVar

import pandas as pd

from pipeline.suites import find_algorithms
from tracking.identity import REPOSITORY
from tracking.manifest import cpu_model
from tracking.record import load_run

T = TypeVar("T")

IDLE = 0.5
"""1-minute load average up to which a machine counts as idle."""
PHASES = {
    "Rollout": "rollout_time",
    "Policy": "update_time",
    "Critic": "critic_time",
    "Diagnostics": "diagnostics_time",
}
"""Of an update, and the column of progress.parquet that has the seconds of each."""
SKIPPED = 3
"""First updates of a short run that do not count."""
UNMEASURED = (
    "evaluation.episodes=0", "diagnostics.interval=1000000", "diagnostics.trace_interval=1000000",
    "diagnostics.geometry_states=16", "diagnostics.max_iterations=1",
)  # fmt: skip
"""Settings of a short run, of whose diagnostics only what every update has should weigh."""


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


def steps_per_second(progress: pd.DataFrame) -> float:
    """Of the updates that count. Raises ValueError where there is none."""
    if len(progress) <= SKIPPED:
        raise ValueError(f"--steps: must make more than {SKIPPED} updates, not {len(progress)}")
    counted = progress.iloc[SKIPPED:]
    steps = progress["env_steps"].iloc[-1] - progress["env_steps"].iloc[SKIPPED - 1]
    return float(steps / counted[list(PHASES.values())].sum().sum())


def alone(function: Callable[..., T], *arguments: object) -> T:
    """function(*arguments) in a process of its own, so that what its children used is what one run did."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def peak_memory() -> float:
    """Largest resident set of any child that has ended, GB (10^9 bytes).

    Of a run that is train.py's: it loads more than its parents, whose own size counts for their children too.
    """
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit / 1e9


def spread(values: Sequence[float]) -> str:
    """Median and range: ``1.52 [1.47, 1.60]``."""
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


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

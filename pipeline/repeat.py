"""Runs trained again, wholly or in part: what `verify` and `carry` share."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from analysis.condensed import Condensed
from analysis.curves import GRID
from pipeline.run_cell import process_environment
from tracking.identity import PACKAGES, REPOSITORY

LEAST_UPDATES = 3
LEAST_POINTS = 2
"""Fewest updates, and points of the grid, in a part of a run that is to say something of the rest."""


def first_part(run: Condensed) -> int:
    """The fewest environment steps of a run that say something: two points of the grid and three updates."""
    return int(max(LEAST_POINTS * GRID, np.ceil(LEAST_UPDATES * run.env_steps / run.counts["updates"])))


def train(overrides: Sequence[str], run_dir: Path, root: Path = REPOSITORY, **settings: object) -> str:
    """Run train.py of the repository at `root` on one thread; returns the last line it said."""
    more = [f"{name}={value}" for name, value in settings.items() if value is not None]
    command = [sys.executable, "train.py", *overrides, f"run_dir={run_dir.resolve()}", *more]
    done = subprocess.run(command, cwd=root, env=process_environment(), capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {done.returncode}")


def machine(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What decides whether two runs can be equal to the last bit: platform, processor, threads, versions."""
    parts = {name: provenance.get(name) for name in ("platform", "cpu", "gpu", "threads")}
    packages = provenance.get("packages") or {}
    return parts | {name: packages.get(name) for name in PACKAGES}


@contextmanager
def checkout(commit: str, folder: Path, root: Path = REPOSITORY) -> Iterator[Path]:
    """The files of a commit in a folder of their own, which is gone afterwards.

    Raises:
        ValueError: git does not know the commit.
    """
    git = ["git", "-C", str(root), "worktree"]
    path = folder / commit[:12]
    subprocess.run([*git, "prune"], check=False, capture_output=True)
    added = subprocess.run(
        [*git, "add", "--detach", "--force", str(path), commit],
        check=False,
        capture_output=True,
        text=True,
    )
    if added.returncode:
        raise ValueError(f"commit {commit[:12]} cannot be checked out ({' '.join(added.stderr.split())[-120:]})")
    try:
        yield path
    finally:
        subprocess.run([*git, "remove", "--force", str(path)], check=False, capture_output=True)

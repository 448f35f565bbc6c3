"""A suite with runs as training leaves them, ready to be published."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cell import Contents
from pipeline.suites import Cell, Suite, load_suite
from tests.analysis.synthetic import settings_of, write_alignment, write_run
from tracking.identity import CellIdentity
from tracking.manifest import write_status

SUITE = "envs: [hopper]\nalgorithms: [adam_pg, trpo]\nseeds: 2\ntotal_steps: 60000\n"


def identity(cell: Cell) -> CellIdentity:
    """What stands in for the identity that train.py gives a cell."""
    config = {"cell": str(Path(cell.run_dir).parent), "seed": cell.seed, **settings_of(Path(cell.run_dir))}
    return CellIdentity({"config": config, "code": {}, "versions": {}, "device": "cpu"})


def draw_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the figures out, which take most of the time."""
    monkeypatch.setattr("analysis.__main__.write_figures", lambda results, folder, external=(): folder.mkdir())


def write_suite(repository: Path, monkeypatch: pytest.MonkeyPatch, text: str = SUITE) -> Suite:
    """The suite `tiny` of the repository, which becomes the working directory, with every cell finished."""
    monkeypatch.chdir(repository)
    monkeypatch.setattr(Contents, "identity", lambda self, cell: identity(cell))
    (repository / "conf/suite/tiny.yaml").write_text(text)
    suite = load_suite("tiny", repository)
    for cell in suite.cells:
        train(repository, cell)
    return suite


def train(repository: Path, cell: Cell, **manifest: Any) -> Path:
    """Leave what a finished run does; `manifest` changes entries of that."""
    run_dir = repository / cell.run_dir
    rng = np.random.default_rng([cell.seed, len(cell.variant)])
    write_run(run_dir, cell.env, cell.variant, cell.seed, 60_000, 2048, 10, rng)
    write_alignment(run_dir, cell.variant, 60_000, 3, rng)
    parts = identity(cell)
    entries = {
        "state": "finished",
        "reason": None,
        "identity": {"hash": parts.hash, "parts": parts.parts},
        "git": {"commit": "c" * 40, "dirty": False},
        "packages": {"torch": "2.13.0+cpu", "numpy": "2.4.6"},
        "started": "2026-11-21T12:05:23+00:00",
        "platform": "Linux",
        "cpu": "a model",
        "threads": 1,
        **manifest,
    }
    (run_dir / "manifest.json").write_text(json.dumps(entries))
    write_status(run_dir, entries["state"], entries["reason"], entries["identity"]["hash"])
    return run_dir

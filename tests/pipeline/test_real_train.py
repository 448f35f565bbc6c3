"""The wrapper and the real train.py: that the exit codes mean on one side what they mean on the other."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ["algorithm=adam_pg", "evaluation.episodes=1"]


# A task that breaks in the middle of a run.
BREAKING = """
import gymnasium
import numpy as np


class Breaking(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    steps = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.steps += 1
        if self.steps == 100:
            raise RuntimeError("the simulator\\nbroke")
        return np.zeros(2, np.float32), 0.0, False, False, {}


gymnasium.register("Breaking-v0", Breaking)
"""


def start(run_dir: Path, *settings: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipeline.run_cell", str(run_dir), "--", sys.executable, "train.py"]
    return subprocess.Popen([*command, *SETTINGS, *settings], cwd=ROOT, stderr=subprocess.PIPE, text=True)


def run(run_dir: Path, *settings: str) -> tuple[int, str]:
    process = start(run_dir, *settings)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def status(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "status.json").read_text())
    return found


def test_a_run_finishes_and_another_in_its_place_moves_it_away(tmp_path: Path) -> None:
    run_dir = tmp_path / "seed-0"
    assert run(run_dir, "env=inverted_pendulum", "total_steps=1024") == (0, "")
    first = status(run_dir)
    assert first["status"] == "finished"

    code, said = run(run_dir, "env=inverted_pendulum", "total_steps=2048")
    assert code == 0
    old = tmp_path / f"seed-0.old-{first['identity'][:12]}"
    assert str(old) in said
    assert json.loads((old / "manifest.json").read_text())["identity"]["hash"] == first["identity"]
    assert (old / "progress.parquet").exists()
    assert (old / "checkpoint").exists()
    assert status(run_dir)["status"] == "finished"
    assert status(run_dir)["env_steps"] > first["env_steps"]


def test_refused_settings_are_recorded_with_the_line_that_names_them(tmp_path: Path) -> None:
    code, said = run(tmp_path / "seed-0", "env=inverted_pendulum", "total_steps=5")
    assert code == 0
    assert status(tmp_path / "seed-0")["status"] == "failed"
    assert status(tmp_path / "seed-0")["reason"].startswith("refused: ")
    assert "total_steps=5" in status(tmp_path / "seed-0")["reason"]
    assert "total_steps=5" in said


def test_a_failure_in_the_middle_of_a_run_is_a_finished_cell_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BREAKING)  # which Python imports as it starts
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, said = run(tmp_path / "seed-0", "total_steps=4096", "env=gym", "env.id=Breaking-v0")
    assert code == 0
    assert status(tmp_path / "seed-0")["status"] == "failed"
    assert status(tmp_path / "seed-0")["reason"] == "RuntimeError: the simulator broke"
    assert "failed: RuntimeError: the simulator broke" in said


def test_a_stopped_run_leaves_no_status_and_can_be_started_again(tmp_path: Path) -> None:
    run_dir = tmp_path / "seed-0"
    wrapper = start(run_dir, "env=inverted_pendulum", "total_steps=100000000", "checkpoint.updates=1")
    end = time.monotonic() + 60
    while not (run_dir / "checkpoint").exists():  # before the first update a library may swallow the signal
        assert time.monotonic() < end, "the run does not start"
        time.sleep(0.1)
    wrapper.terminate()
    wrapper.communicate(timeout=60)
    assert wrapper.returncode == 143
    assert not (run_dir / "status.json").exists()
    assert json.loads((run_dir / "manifest.json").read_text())["state"] == "running"
    assert "is saved, and the same command goes on after it" in (run_dir / "train.log").read_text()

"""The command: what it writes, refuses and leaves alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import analyse
from tests.analysis.synthetic import write_suite

ROOT = Path(__file__).parents[2]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MPLBACKEND": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "analysis", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_command_writes_every_file(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper", "atari_pong"], ["adam_pg", "npg"], seeds=2, total_steps=60_000)
    done = command(str(suite_dir))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("synthetic: 8 of 8 planned runs finished")
    tables = {path.name for path in (suite_dir / "tables").iterdir()}
    names = (
        "outcomes", "aggregates", "contrasts", "thresholds", "final_scores", "human_normalised", "sample_efficiency",
        "geometry", "alignment", "claims", "literature", "cells",
    )  # fmt: skip
    formats = {f"{name}.{kind}" for name in names for kind in ("csv", "md", "tex")}
    assert tables == formats | {"index.md", "curves.csv", "provenance.json"}
    figures = {path.name for path in (suite_dir / "figures").iterdir()}
    stems = (
        "learning_curves",
        "learning_curves_updates",
        "literature",
        "geometry_hopper",
        "geometry_atari_pong",
    )
    assert figures == {f"{stem}.{kind}" for stem in stems for kind in ("png", "pdf")}
    assert "60,000 environment steps, on Pong 240,000 frames: " in (suite_dir / "tables" / "index.md").read_text()
    assert {path.name for path in suite_dir.iterdir()} == {"suite.json", "runs", "tables", "figures", "report.html"}


def test_analysis_needs_no_torch(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg"], seeds=1, total_steps=20_480)
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from analysis.__main__ import analyse\n"
        f"analyse(Path({str(suite_dir)!r}), 50)\n"
        "assert not [m for m in sys.modules if m.startswith(('torch.', 'gymnasium', 'mujoco', 'wandb'))]\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_twice_is_equal_and_stale_files_go(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper", "reacher"], ["adam_pg", "npg"], seeds=3, total_steps=40_960)
    analyse(suite_dir, 50)
    folders = [suite_dir / "tables", suite_dir / "figures"]
    first = {path: path.read_bytes() for folder in folders for path in folder.iterdir()}
    plan = json.loads((suite_dir / "suite.json").read_text())
    analyse(suite_dir, 50)
    assert {path: path.read_bytes() for folder in folders for path in folder.iterdir()} == first
    plan["cells"] = [cell for cell in plan["cells"] if cell["env"] == "hopper"]
    (suite_dir / "suite.json").write_text(json.dumps(plan))
    analyse(suite_dir, 50)
    assert not (suite_dir / "figures" / "geometry_reacher.png").exists()
    assert (suite_dir / "figures" / "geometry_hopper.png").exists()


def test_a_failure_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg"], seeds=1, total_steps=20_480)
    analyse(suite_dir, 50)
    old = (suite_dir / "tables" / "index.md").read_bytes()
    plan = json.loads((suite_dir / "suite.json").read_text())
    (suite_dir / "suite.json").write_text(json.dumps(plan | {"suite": "renamed"}))

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("analysis.__main__.save_figure", fail)
    with pytest.raises(OSError, match="disk full"):
        analyse(suite_dir, 50)
    assert (suite_dir / "tables" / "index.md").read_bytes() == old
    assert {path.name for path in suite_dir.iterdir()} == {"suite.json", "runs", "tables", "figures", "report.html"}


@pytest.mark.parametrize(
    ("plan", "complaint"),
    [
        (None, "no such file"),
        ({"suite": "x"}, "suite.json: baseline: missing; let the pipeline write it again"),
        (
            {"suite": "x", "baseline": "a", "delta_ref": 0.02, "total_steps": 1, "exceptions": {}, "cells": []},
            "plans no cell",
        ),
    ],
)
def test_a_bad_plan_is_refused_in_one_line(tmp_path: Path, plan: dict[str, object] | None, complaint: str) -> None:
    if plan is not None:
        (tmp_path / "suite.json").write_text(json.dumps(plan))
    done = command(str(tmp_path))
    assert done.returncode == 2
    assert complaint in done.stderr
    assert str(tmp_path / "suite.json") in done.stderr
    assert len(done.stderr.splitlines()) == 1

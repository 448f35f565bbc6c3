"""manifest.json and status.json: strict JSON that says what ran on what."""

import json
import math
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from tracking.identity import CellIdentity
from tracking.manifest import (
    build_manifest,
    cpu_model,
    git_state,
    read_manifest,
    read_status,
    recorded_identity,
    uncommitted,
    write_manifest,
    write_status,
)

IDENTITY = CellIdentity({"config": {"seed": 0}, "code": {"train.py": "ab"}, "versions": {}, "device": "cpu"})


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false"]
    command = ["git", *identity, "-C", str(root), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_manifest_comes_back_from_its_file(tmp_path: Path) -> None:
    config = {"seed": 0, "algorithm": {"name": "trpo", "delta": 0.02}, "group": None}
    manifest = build_manifest(config, IDENTITY, threads=2, gpu="NVIDIA H200", root=tmp_path)
    write_manifest(tmp_path, manifest)
    back = strict((tmp_path / "manifest.json").read_text())
    assert back == manifest == read_manifest(tmp_path)
    assert back["state"] == "running"
    assert back["config"] == config
    assert recorded_identity(back) == IDENTITY
    assert back["identity"]["hash"] == IDENTITY.hash
    assert (back["threads"], back["gpu"], back["git"]) == (2, "NVIDIA H200", None)
    assert back["packages"]["torch"] == metadata.version("torch")
    assert back["python"] == platform.python_version()
    assert back["started"].endswith("+00:00")


def test_what_json_cannot_say_is_an_error(tmp_path: Path) -> None:
    manifest = build_manifest({}, IDENTITY, threads=1, root=tmp_path)
    write_manifest(tmp_path, manifest)
    with pytest.raises(ValueError, match="JSON"):
        write_manifest(tmp_path, {"x": math.nan})
    assert read_manifest(tmp_path) == manifest


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"state": ')
    with pytest.raises(ValueError, match=r"manifest\.json is not readable"):
        read_manifest(tmp_path)
    assert read_manifest(tmp_path / "nowhere") is None


@pytest.mark.parametrize(("given", "recorded"), [(3.5, 3.5), (None, None), (math.nan, None), (-math.inf, None)])
def test_status(tmp_path: Path, given: float | None, recorded: float | None) -> None:
    write_status(tmp_path, "finished", None, "ab", 10, given)
    expected = {
        "status": "finished",
        "reason": None,
        "identity": "ab",
        "env_steps": 10,
        "episode_return": recorded,
    }
    assert strict((tmp_path / "status.json").read_text()) == expected == read_status(tmp_path)


MADE_FROM = ["training/loop.py", "envs/tasks.py", "conf/a.yaml", "conf/new.yaml"]


def test_git_state_is_that_of_the_files_a_run_is_made_from(tmp_path: Path) -> None:
    assert git_state(MADE_FROM, tmp_path) is None
    git(tmp_path, "init")
    assert git_state(MADE_FROM, tmp_path) is None  # no commit yet
    for name in ("training/loop.py", "conf/a.yaml", "conf/b.yaml", "README.md", "envs/tasks.py", "envs/other.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "one")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD").strip(), "dirty": False}
    assert git_state(MADE_FROM, tmp_path) == clean
    for name in ("README.md", "envs/other.py", "conf/b.yaml", "notes.txt", "envs/new.py"):
        (tmp_path / name).write_text("y")
    assert git_state(MADE_FROM, tmp_path) == clean
    assert git_state(["conf"], tmp_path) == {**clean, "dirty": True}  # a whole folder
    assert git_state(MADE_FROM, tmp_path / "conf") is None  # inside somebody else's repository
    for name in ("envs/tasks.py", "conf/a.yaml", "conf/new.yaml"):
        before = (tmp_path / name).read_text() if (tmp_path / name).exists() else None
        (tmp_path / name).write_text("y")
        assert git_state(MADE_FROM, tmp_path) == {**clean, "dirty": True}, name
        assert uncommitted(MADE_FROM, tmp_path) == [name]
        if before is None:
            (tmp_path / name).unlink()
        else:
            (tmp_path / name).write_text(before)
    assert git_state(MADE_FROM, tmp_path) == clean


def test_no_git_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(MADE_FROM, tmp_path) is None


def test_the_processor_has_a_name() -> None:
    assert cpu_model()

"""What W&B was given, decoded from the file it wrote; and that no failure of W&B reaches a run."""

import importlib
import json
import logging
import math
import os
import re
import struct
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tracking.identity import REPOSITORY, CellIdentity
from tracking.record import load_run
from tracking.run import Run
from tracking.wandb_tracker import TrackerConfig

CONFIG = {"seed": 3, "algorithm": {"name": "trpo", "delta": 0.02}}
IDENTITY = CellIdentity({"config": {}, "code": {}, "versions": {}, "device": "cpu"})
ROWS: list[dict[str, Any]] = [
    {"env_steps": 100, "kl": 0.1 + 0.2, "fisher_trace": 7.5, "step_accepted": True, "outcome": "stepped"},
    {"env_steps": 200, "kl": 0.02, "fisher_trace": None, "step_accepted": False, "outcome": "rejected"},
    {"env_steps": 300, "kl": math.nan, "episode_return": 2.5, "step_accepted": True, "outcome": "stepped"},
]


def train(run_dir: Path, tracker: TrackerConfig) -> None:
    with Run.open(run_dir, CONFIG, IDENTITY, threads=1, tracker=tracker) as run:
        for row in ROWS:
            run.log(row)
        run.finish(2.5, 300, [])
    record = load_run(run_dir)
    assert record.status == "finished"
    assert record.progress is not None
    assert record.progress["env_steps"].tolist() == [100, 200, 300]


def records(path: Path) -> Iterator[Any]:
    """Decode a .wandb file: a LevelDB log (32 KiB blocks of checksum, length, type, data) of protobufs."""
    protobuf: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")  # has no types
    data = path.read_bytes()
    assert data[:4] == b":W&B"
    place, message = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        message += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = protobuf.Record()
            record.ParseFromString(message)
            yield record
            message = b""


def test_offline_rows_config_and_summary_are_what_was_logged(tmp_path: Path) -> None:
    run_dir = tmp_path / "halfcheetah" / "trpo" / "seed-3"
    train(run_dir, TrackerConfig(name="wandb"))
    [path] = run_dir.glob("wandb/offline-run-*/*.wandb")
    rows: list[dict[str, Any]] = []
    config: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    runs = []
    for record in records(path):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            values = {i.key or i.nested_key[0]: json.loads(i.value_json) for i in record.history.item}
            assert values.pop("_step") == record.history.step.num == values["env_steps"]
            rows.append({key: value for key, value in values.items() if not key.startswith("_")})
        elif kind == "run":
            runs.append(record.run)
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "summary":
            summary |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.summary.update}

    def comparable(row: dict[str, Any]) -> dict[str, Any]:
        return {key: "NaN" if value != value else value for key, value in row.items()}

    measured = [{key: value for key, value in row.items() if value is not None} for row in ROWS]
    assert [comparable(row) for row in rows] == [comparable(row) for row in measured]
    assert {key: config[key] for key in CONFIG} == CONFIG
    assert {key: summary[key] for key in ("state", "env_steps", "episode_return")} == {
        "state": "finished",
        "env_steps": 300,
        "episode_return": 2.5,
    }
    assert runs[0].project == "fisherbench"
    assert runs[0].run_group == "halfcheetah/trpo"
    assert runs[0].display_name == "halfcheetah/trpo/seed-3"


class Broken:
    """A wandb whose run raises in one of its methods."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.calls: list[str] = []
        self.url = None
        self.summary: dict[str, Any] = {}

    def _call(self, step: str) -> "Broken":
        self.calls.append(step)
        if step == self.step:
            raise RuntimeError(f"the server\nsaid no to {step}")
        return self

    def init(self, **_: Any) -> "Broken":
        return self._call("init")

    def log(self, row: dict[str, Any], step: int) -> None:
        self._call("log")

    def finish(self, exit_code: int) -> None:
        self._call("finish")


@pytest.mark.parametrize(
    ("step", "calls"),
    [("init", ["init"]), ("log", ["init", "log"]), ("finish", ["init", "log", "log", "log", "finish"])],
)
def test_a_wandb_that_raises_costs_one_warning(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    step: str,
    calls: list[str],
) -> None:
    broken = Broken(step)
    module = types.ModuleType("wandb")
    module.init = broken.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(tmp_path, TrackerConfig(name="wandb"))
    assert broken.calls == calls
    [warning] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.getMessage().endswith(f"(the server said no to {step}); the run goes on without it")


def test_a_missing_wandb_costs_one_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(tmp_path, TrackerConfig(name="wandb"))
    [warning] = caplog.records
    assert warning.getMessage().startswith("W&B failed to start (import of wandb halted")


ONLINE = """
import pathlib, sys, time
from tracking.identity import CellIdentity
from tracking.run import Run
from tracking.wandb_tracker import TrackerConfig
tracker = TrackerConfig(name="wandb", mode="online", timeout=2.0)
identity = CellIdentity({"config": {}, "code": {}, "versions": {}, "device": "cpu"})
start = time.monotonic()
with Run.open(pathlib.Path(sys.argv[1]), {}, identity, threads=1, tracker=tracker) as run:
    run.log({"env_steps": 1})
    run.finish(None, 1, [])
print(time.monotonic() - start)
"""


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("0" * 40, "connection refused"),  # nobody listens at the address below
        ("", "no API key; run `wandb login`, or choose tracker.mode=offline"),
    ],
)
def test_an_online_run_that_cannot_be_costs_one_line_and_little_time(tmp_path: Path, key: str, reason: str) -> None:
    surroundings = {
        **{name: value for name, value in os.environ.items() if not name.startswith("WANDB")},
        "WANDB_BASE_URL": "http://127.0.0.1:1",
        "HOME": str(tmp_path),
        **({"WANDB_API_KEY": key} if key else {}),
    }
    command = [sys.executable, "-c", ONLINE, str(tmp_path / "run")]
    done = subprocess.run(
        command, cwd=REPOSITORY, env=surroundings, capture_output=True, text=True, check=True, timeout=60
    )
    [warning] = done.stderr.splitlines()
    assert warning.startswith("W&B failed to start")
    assert reason in warning
    assert warning.endswith("the run goes on without it")
    assert float(done.stdout) < 15
    assert load_run(tmp_path / "run").status == "finished"


def test_files_alone_never_touch_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken("init")
    module = types.ModuleType("wandb")
    module.init = broken.init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    train(tmp_path, TrackerConfig(name="files"))
    assert broken.calls == []
    assert not (tmp_path / "wandb").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "wandbb"}, "tracker.name: 'wandbb' is unknown; choose files or wandb"),
        ({"mode": "on"}, "tracker.mode: 'on' is unknown; choose online or offline"),
        ({"timeout": 0.0}, "tracker.timeout: 0.0 is no time to wait; give seconds above 0"),
        ({"timeout": math.inf}, "tracker.timeout: inf is no time to wait; give seconds above 0"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        TrackerConfig(**settings)


@pytest.mark.parametrize("name", ["files", "wandb"])
def test_the_configuration_files_fit_the_dataclass(name: str) -> None:
    values = yaml.safe_load((REPOSITORY / "conf" / "tracker" / f"{name}.yaml").read_text())
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrackerConfig), values))
    assert isinstance(config, TrackerConfig)
    assert config.name == name

"""The life of a run directory: started, refused, failed, stopped, killed, finished."""

import json
import logging
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tracking import checkpoint
from tracking.identity import REPOSITORY, CellIdentity
from tracking.lock import RunLocked
from tracking.manifest import write_status
from tracking.record import load_run
from tracking.run import IdentityMismatch, Run
from tracking.tables import first_difference, read_arrow

CONFIG = {"seed": 0, "total_steps": 300}
FILES = {"manifest.json", "progress.parquet", "episodes.parquet", "lock"}


def identity(**config: Any) -> CellIdentity:
    return CellIdentity({"config": {**CONFIG, **config}, "code": {}, "versions": {}, "device": "cpu"})


def open_run(run_dir: Path, **config: Any) -> Run:
    return Run.open(run_dir, {**CONFIG, **config}, identity(**config), threads=1)


def row(update: int) -> dict[str, Any]:
    return {
        "env_steps": 100 * update,
        "wall_time": 0.1,
        "episode_return": float(update),
        "kl": math.nan if update == 2 else 0.01,
        "fisher_trace": None,
    }


EPISODE = {"env_steps": 150, "episode_return": 3.0, "episode_length": 50, "env_index": 1}
EVALUATION = [{"mode": "deterministic", "episode_return": 9.0, "episode_length": 10}]


def names(run_dir: Path) -> set[str]:
    return {path.name for path in run_dir.iterdir()}


def finished(run_dir: Path) -> None:
    with open_run(run_dir) as run:
        for update in (1, 2, 3):
            run.log(row(update))
        run.log_episodes([EPISODE])
        run.flush({"weights": torch.ones(2)})
        run.finish(3.0, 300, EVALUATION)


def test_a_finished_run(tmp_path: Path) -> None:
    run_dir = tmp_path / "runs" / "seed-0"
    finished(run_dir)
    assert names(run_dir) == FILES | {"evaluation.parquet", "checkpoint", "status.json"}
    record = load_run(run_dir)
    assert (record.status, record.reason) == ("finished", None)
    assert record.manifest is not None
    assert record.manifest["config"] == CONFIG
    assert record.progress is not None
    assert list(record.progress)[:8] == [
        "env_steps", "wall_time", "episode_return", "kl",
        "fisher_trace", "alignment_error", "quadratic_error", "step_accepted",
    ]  # fmt: skip
    assert record.progress["env_steps"].tolist() == [100, 200, 300]
    assert record.nan_counts["kl"] == 1
    assert record.nan_counts["fisher_trace"] == 0
    assert record.episodes is not None
    assert record.episodes.to_dict("records") == [EPISODE]
    assert record.evaluation is not None
    assert record.evaluation.to_dict("records") == EVALUATION
    assert checkpoint.load(run_dir / "checkpoint")["state"]["weights"].tolist() == [1, 1]
    assert json.loads((run_dir / "status.json").read_text()) == {
        "status": "finished",
        "reason": None,
        "identity": identity().hash,
        "env_steps": 300,
        "episode_return": 3.0,
    }


def test_a_finished_run_only_rewrites_its_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    finished(tmp_path)
    status = (tmp_path / "status.json").read_bytes()
    (tmp_path / "status.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    with open_run(tmp_path) as run:
        assert run.finished
        run.write_status()
    assert (tmp_path / "status.json").read_bytes() == status
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not caplog.records


def test_tables_are_there_from_the_start_even_if_no_episode_ends(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        assert not run.finished
        record = load_run(tmp_path)
    assert record.status == "running"
    assert record.episodes is not None
    assert list(record.episodes) == ["env_steps", "episode_return", "episode_length", "env_index"]
    assert len(record.episodes) == 0


def test_a_table_of_snapshots_is_there_from_the_first_one_on(tmp_path: Path) -> None:
    snapshot = [
        {"env_steps": 100, "rho": rho, "alignment_error": error} for rho, error in ((1.0, math.nan), (0.1, None))
    ]
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.log_alignment([])
        run.flush(None)
        assert load_run(tmp_path).alignment is None
        run.log_alignment(snapshot)
        run.stopped()
    assert names(tmp_path) == FILES | {"alignment.parquet"}
    alignment = load_run(tmp_path).alignment
    assert alignment is not None
    assert list(alignment) == [
        "env_steps", "rho", "damping", "rho_own", "alignment_error", "outcome", "residual", "iterations",
    ]  # fmt: skip
    assert alignment["rho"].tolist() == [1.0, 0.1]
    column = read_arrow(tmp_path / "alignment.parquet")["alignment_error"]
    assert (column.null_count, math.isnan(column[0].as_py())) == (1, True)
    with open_run(tmp_path):
        assert names(tmp_path) == FILES  # it starts again


@pytest.mark.parametrize("run_dir", ["file/below", "file"])
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path, run_dir: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"^run_dir .*file.*: cannot be written \(.*\); choose a writable directory$"):
        open_run(tmp_path / run_dir)
    assert names(tmp_path) == {"file"}


def test_another_identity_is_refused_with_the_difference(tmp_path: Path) -> None:
    finished(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(IdentityMismatch) as refusal:
        open_run(tmp_path, total_steps=1000)
    assert str(refusal.value) == (
        f"run_dir {tmp_path} holds another run (total_steps: 1000 here, 300 there); choose another run_dir or remove it"
    )
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    open_run(tmp_path).__exit__(None, None, None)  # the refusal let go of the lock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]


def test_a_failed_run_keeps_its_rows_and_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(tmp_path) as run:
        assert run.state is None
        run.log(row(1))
        run.flush({"weights": torch.ones(2)})
        run.log(row(2))
        run.fail("FloatingPointError:\n  the critic's loss is nan")
    record = load_run(tmp_path)
    assert (record.status, record.reason) == ("failed", "FloatingPointError: the critic's loss is nan")
    assert record.progress is not None
    assert len(record.progress) == 2
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["reason"], status["env_steps"]) == ("failed", record.reason, 200)

    with open_run(tmp_path) as run:
        assert names(tmp_path) == FILES | {"checkpoint"}
        assert warnings(caplog) == [
            f"{tmp_path}: an earlier run failed here ({record.reason}); it goes on after update 1"
        ]
        assert run.state is not None
        assert run.state["weights"].tolist() == [1, 1]
        run.log(row(2))
        run.finish(2.0, 200, [])
    record = load_run(tmp_path)
    assert record.status == "finished"
    assert record.progress is not None
    assert record.progress["env_steps"].tolist() == [100, 200]
    assert record.manifest is not None
    assert [resumed["updates"] for resumed in record.manifest["resumed"]] == [1]


def test_without_a_checkpoint_a_run_starts_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.log_alignment([{"env_steps": 100, "rho": 1.0}])
        run.stopped()
    with open_run(tmp_path) as run:
        assert run.state is None
        assert names(tmp_path) == FILES
        assert warnings(caplog) == [
            f"{tmp_path}: an earlier run was killed or stopped here; it starts again from step 0"
        ]


def test_a_resumed_table_is_the_one_that_was_never_left(tmp_path: Path) -> None:
    """Columns that come late, nulls, NaN and rows past the checkpoint included."""
    rows = [row(1), row(2), row(3) | {"fisher_trace": 2.0}, row(4) | {"outcome": "stepped", "late": 1}]
    points = [{"env_steps": 300, "rho": 1.0, "outcome": "capped", "iterations": 3}]

    def log(run: Run, first: int, last: int, saved: int | None = None) -> None:
        for n in range(first, last + 1):
            run.log(rows[n - 1])
            run.log_episodes([EPISODE | {"env_steps": 100 * n}])
            run.log_alignment(points if n == 3 else [])
            if n == saved:
                run.flush({"n": n})

    for saved, logged in ((1, 1), (1, 4), (2, 2), (2, 3), (3, 4), (4, 4)):
        run_dir = tmp_path / f"{saved}-{logged}"
        with open_run(run_dir) as run:
            log(run, 1, logged, saved)
            run.stopped()
        with open_run(run_dir) as run:
            assert run.state == {"n": saved}
            assert (run_dir / "alignment.parquet").exists() == (saved >= 3)
            log(run, saved + 1, 4)
            run.stopped()
    with open_run(tmp_path / "whole") as run:
        log(run, 1, 4)
        run.stopped()
    for run_dir in tmp_path.glob("[1-4]-*"):
        for table in ("progress", "episodes", "alignment"):
            assert first_difference(tmp_path / "whole" / f"{table}.parquet", run_dir / f"{table}.parquet") is None


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(tmp_path) as run:
        for n in (1, 2, 3):
            run.log(row(n))
            run.flush({"n": n})
        run.stopped()
    newest, before = tmp_path / "checkpoint", tmp_path / "checkpoint.previous"
    sound = newest.read_bytes()
    for damage in (sound[:-100], sound[: len(sound) // 2], b"", sound.replace(b"float", b"flaot")):
        caplog.clear()
        newest.write_bytes(damage)
        with open_run(tmp_path) as run:
            assert run.state == {"n": 2}
            run.stopped()
        assert f"{newest} cannot be used" in warnings(caplog)[0]
        assert warnings(caplog)[1].endswith("it goes on after update 2")
    before.write_bytes(b"")
    with open_run(tmp_path) as run:
        assert run.state is None
    assert warnings(caplog)[-1].endswith("it starts again from step 0")


def test_a_state_that_is_refused_gives_way_to_the_one_before(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What only the training loop can tell of a checkpoint: that its parts do not take the state."""
    with open_run(tmp_path) as run:
        for n in (1, 2, 3):
            run.log(row(n))
            run.flush({"n": n})
        run.stopped()
    with open_run(tmp_path) as run:
        assert (run.state, run.saved_updates) == ({"n": 3}, 3)
        caplog.clear()
        run.fall_back(RuntimeError("size mismatch\n  for weights"))
        assert (run.state, run.saved_updates, run.env_steps) == ({"n": 2}, 2, 200)
        assert names(tmp_path) == FILES | {"checkpoint.previous"}
        assert [entry["updates"] for entry in run.manifest["resumed"]] == [2]
        run.fall_back(KeyError("policy"))
        assert (run.state, run.saved_updates, run.env_steps) == (None, 0, 0)
        assert names(tmp_path) == FILES
        assert run.manifest["resumed"] == []
        run.log(row(1))
        run.stopped()
    assert warnings(caplog) == [
        f"{tmp_path}/checkpoint cannot be used (size mismatch for weights); it goes on after update 2",
        f"{tmp_path}/checkpoint.previous cannot be used ('policy'); it starts again from step 0",
    ]
    progress = load_run(tmp_path).progress
    assert progress is not None
    assert progress["env_steps"].tolist() == [100]


def test_a_damaged_table_is_not_gone_on_with(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.flush({"n": 1})
        run.stopped()
    (tmp_path / "progress.parquet").write_bytes(b"PAR1")
    with open_run(tmp_path) as run:
        assert run.state is None
    assert warnings(caplog)[-1].endswith("it starts again from step 0")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"rows": {"progress.parquet": -5, "episodes.parquet": 0, "alignment.parquet": 0}}, "-5 is negative"),
        ({"rows": {"progress.parquet": 2.0, "episodes.parquet": 0, "alignment.parquet": 0}}, "2.0 is not an integer"),
        ({"rows": {"progress.parquet": 9, "episodes.parquet": 0, "alignment.parquet": 0}}, "has 2 rows, of 9"),
        ({"rows": {"progress.parquet": 2}}, "rows.episodes.parquet: missing"),
        ({"rows": None}, "rows: None is not an object"),
        ({"identity": None}, "identity: None is not an object"),
        ({"identity": {"config": []}}, r"identity.config: \[\] is not an object"),
        ({"identity": identity(x=torch.ones(1)).parts}, "Tensor is not JSON serializable"),
    ],
)
def test_a_checkpoint_that_contradicts_itself_gives_way_to_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any], fault: str
) -> None:
    with open_run(tmp_path) as run:
        for n in (1, 2):
            run.log(row(n))
            run.flush({"updates": n})
        run.stopped()
    newest = tmp_path / "checkpoint"
    checkpoint.save(newest, checkpoint.load(newest) | changes)
    with open_run(tmp_path) as run:
        assert (run.state, run.saved_updates) == ({"updates": 1}, 1)
    assert re.search(rf"^{newest} cannot be used \(.*{fault}", warnings(caplog)[0])


def test_a_table_of_other_types_is_not_gone_on_with(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.flush({"n": 1})
        run.stopped()
    pq.write_table(pa.table({"env_steps": ["a hundred"]}), tmp_path / "progress.parquet")
    with open_run(tmp_path) as run:
        assert (run.state, run.env_steps) == (None, 0)


def test_a_checkpoint_of_another_run_or_format_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, config in (("mine", {}), ("theirs", {"seed": 1})):
        with open_run(tmp_path / name, **config) as run:
            run.flush({"n": 1})
            run.stopped()
    mine = tmp_path / "mine" / "checkpoint"
    sound = mine.read_bytes()
    mine.write_bytes((tmp_path / "theirs" / "checkpoint").read_bytes())
    with pytest.raises(IdentityMismatch, match=r"checkpoint is of another run \(seed: 0 here, 1 there\)"):
        open_run(tmp_path / "mine")
    mine.write_bytes(sound)
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT - 1)
    with pytest.raises(checkpoint.FormatError, match="is newer than format"):
        open_run(tmp_path / "mine")


def test_a_failure_that_cannot_be_recorded_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def disk_full(*_: Any) -> None:
        raise OSError("No space left on device")

    with open_run(tmp_path) as run:
        run.log(row(1))
        run.flush({"n": 1})
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", disk_full)
            run.fail("the reason")
    assert "cannot record the failure (No space left on device); what was saved before is intact" in caplog.text
    assert load_run(tmp_path).status == "killed"
    with open_run(tmp_path) as run:
        assert run.state == {"n": 1}


def test_a_stopped_run_leaves_rows_but_no_status(tmp_path: Path) -> None:
    with open_run(tmp_path) as run:
        run.log(row(1))
        run.stopped()
    assert names(tmp_path) == FILES
    record = load_run(tmp_path)
    assert record.status == "killed"
    assert record.progress is not None
    assert record.progress["env_steps"].tolist() == [100]


def test_the_checkpoint_is_never_ahead_of_the_tables_and_the_status_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced: list[str] = []
    replace = os.replace

    def recorded(temporary: Path, path: Path) -> None:
        replaced.append(path.name)
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", recorded)
    with open_run(tmp_path) as run:
        replaced.clear()
        run.flush({"n": 1})
        assert replaced == ["progress.parquet", "episodes.parquet", "checkpoint"]
        replaced.clear()
        run.finish(1.0, 300, EVALUATION)
        assert replaced[-2:] == ["manifest.json", "status.json"]
        assert set(replaced[:-2]) == {"evaluation.parquet", "progress.parquet", "episodes.parquet"}


def test_wherever_a_run_dies_its_directory_stays_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(BaseException):
        pass

    replace = os.replace
    for life in range(20):
        run_dir = tmp_path / str(life)
        left = life

        def dying(a: Path, b: Path) -> None:
            nonlocal left
            if left == 0:
                raise Died
            left -= 1
            replace(a, b)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying)
            try:
                finished(run_dir)
                assert life > 8  # otherwise too few deaths were tried
                return
            except Died:
                pass
        record = load_run(run_dir)
        assert record.status in ("missing", "killed", "finished")
        assert (run_dir / "status.json").exists() is False
        finished_before = record.status == "finished"
        with open_run(run_dir) as run:
            assert run.finished is finished_before
            if finished_before:
                run.write_status()
            else:
                for update in range(run.saved_updates + 1, 4):
                    run.log(row(update))
                run.finish(3.0, 300, EVALUATION)
        assert load_run(run_dir).status == "finished"
        assert json.loads((run_dir / "status.json").read_text())["status"] == "finished"
    pytest.fail("the run never got to its end")


CHILD = """
import pathlib, sys
from tracking.identity import CellIdentity
from tracking.run import Run
config = {"seed": 0, "total_steps": 300}
identity = CellIdentity({"config": config, "code": {}, "versions": {}, "device": "cpu"})
with Run.open(pathlib.Path(sys.argv[1]), config, identity, threads=1) as run:
    steps = 0
    while True:
        steps += 1
        run.log({"env_steps": steps, "kl": 0.5})
        run.log_episodes([{"env_steps": steps, "episode_return": 1.0, "episode_length": 1, "env_index": 0}])
        run.flush({"steps": steps, "filler": list(range(500))})
        print(steps, flush=True)
"""


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that trains in tmp_path and has flushed at least three times."""
    command = [sys.executable, "-c", CHILD, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "3":
            assert process.poll() is None
        yield process
        process.kill()


def test_a_killed_run(tmp_path: Path, child: subprocess.Popen[str], caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):  # readable at any instant, while it is being written
        record = load_run(tmp_path)
        assert record.status == "running"
        assert record.progress is not None
        assert len(record.progress) >= 3
    with pytest.raises(RunLocked, match=f"^run_dir {tmp_path} is locked: another process is training there$"):
        open_run(tmp_path)

    child.send_signal(signal.SIGKILL)
    child.wait()
    record = load_run(tmp_path)
    assert record.status == "killed"
    assert record.progress is not None
    newest = tmp_path / "checkpoint"
    saved = checkpoint.load(newest if newest.exists() else tmp_path / "checkpoint.previous")["state"]["steps"]
    assert saved <= len(record.progress) <= saved + 1
    (tmp_path / "checkpoint.tmp").write_bytes(b"half a file")

    with open_run(tmp_path) as run:
        assert names(tmp_path) - {"checkpoint"} == FILES | {"checkpoint.previous"}
        assert f"{tmp_path}: an earlier run was killed or stopped here; it goes on after update {saved}" in caplog.text
        assert run.state is not None
        assert run.state["steps"] == saved
        assert load_run(tmp_path).status == "running"
        run.finish(1.0, 300, [])


def test_the_pipeline_speaks_for_runs_that_could_not(tmp_path: Path) -> None:
    assert load_run(tmp_path / "nowhere").status == "missing"
    assert load_run(tmp_path).status == "missing"
    write_status(tmp_path, "failed", "exit code 137: killed for memory")
    assert load_run(tmp_path).status == "failed"
    with open_run(tmp_path) as run:
        assert not (tmp_path / "status.json").exists()
        run.stopped()
    assert load_run(tmp_path).status == "killed"
    write_status(tmp_path, "failed", "killed for memory")
    record = load_run(tmp_path)
    assert (record.status, record.reason) == ("failed", "killed for memory")

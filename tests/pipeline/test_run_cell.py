"""The wrapper against a stand-in for train.py (conftest.py), each in a process of its own as in a grid."""

import json
import math
import os
import platform
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.run_cell import _move_away, _time_left, process_environment
from tracking.lock import acquire

IDENTITY = "b" * 64
DEADLINE = 20.0  # s, for what should take one


class Cell:
    """One cell of the repository: starts wrappers for it and reads what they leave."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.run_dir = repository / "results" / "seed-0"

    def command(
        self,
        *settings: str,
        attempt: int = 1,
        attempts: int = 3,
        pid: int | None = None,
        identity: str | None = None,
        more: Sequence[str] = (),
    ) -> list[str]:
        wrapper = [sys.executable, "-m", "pipeline.run_cell", "results/seed-0"]
        wrapper += ["--attempt", str(attempt), "--attempts", str(attempts)]
        wrapper += [] if identity is None else ["--identity", identity]
        wrapper += [] if pid is None else ["--pipeline-pid", str(pid)]
        return [*wrapper, *more, "--", sys.executable, "train.py", *settings]

    def start(self, *settings: str, **options: Any) -> subprocess.Popen[str]:
        command = self.command(*settings, **options)
        return subprocess.Popen(command, cwd=self.repository, stderr=subprocess.PIPE, text=True)

    def run(self, *settings: str, **options: Any) -> tuple[int, str]:
        """Exit code and what the wrapper said."""
        process = self.start(*settings, **options)
        _, said = process.communicate(timeout=DEADLINE)
        return process.returncode, said

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run_dir / "status.json").read_text())
        return found

    @property
    def recorded(self) -> bool:
        return (self.run_dir / "status.json").exists()

    @property
    def log(self) -> str:
        return (self.run_dir / "train.log").read_text()

    def wait_for_training(self) -> psutil.Process:
        """The training process, once it says that it handles signals."""
        pid = self.run_dir / "pid"
        wait_until(lambda: pid.exists() and pid.read_text())
        return psutil.Process(int(pid.read_text()))


def wait_until(condition: Callable[[], object], seconds: float = DEADLINE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def cell(repository: Path) -> Iterator[Cell]:
    inherited = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # where the tests run under nohup, it is ignored
    yield Cell(repository)
    signal.signal(signal.SIGHUP, inherited)


def test_a_finished_run_is_a_finished_cell_on_one_thread(cell: Cell) -> None:
    assert cell.run() == (0, "")
    assert cell.status["status"] == "finished"
    assert "threads 1 1" in cell.log


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries know no such settings")
def test_memory_that_a_run_frees_is_not_fetched_from_the_kernel_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    size, passes = 64 * 2**20, 20
    script = f"import resource\nfor _ in range({passes}):\n    b'x' * {size}\n"
    script += "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt * resource.getpagesize())"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=process_environment(), capture_output=True, text=True, check=True)
    assert int(done.stdout) < 2 * size


@pytest.mark.parametrize("own", ["", "glibc.malloc.tcache_count=7"])
def test_settings_of_the_allocator_that_are_there_already_stay(monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    monkeypatch.setenv("GLIBC_TUNABLES", own)
    assert process_environment()["GLIBC_TUNABLES"] == own


def test_the_log_is_appended_to(cell: Cell) -> None:
    cell.run("mode=import_error")
    cell.run(attempt=2)
    assert cell.log.count("attempt 1 of 3") == cell.log.count("attempt 2 of 3") == 1
    assert "ModuleNotFoundError" in cell.log


def test_a_recorded_failure_is_a_finished_cell_at_once(cell: Cell) -> None:
    code, said = cell.run("mode=fail", attempt=1)
    assert code == 0
    assert "failed: parameters are not finite" in said
    assert cell.status["reason"] == "parameters are not finite"
    assert cell.status["env_steps"] == 2048


@pytest.mark.parametrize(
    ("mode", "code", "reason"),
    [
        ("import_error", 1, "ModuleNotFoundError: No module named 'a_module_that_is_not_there'"),
        ("kill", 137, "killed by signal 9 (out of memory?)"),
        ("shortage_unrecorded", 5, "no disk or memory left: checkpoint: No space left on device"),
    ],
)
def test_an_end_without_status_is_tried_again_and_recorded_at_the_last_attempt(
    cell: Cell, mode: str, code: int, reason: str
) -> None:
    for attempt in (1, 2):
        got, said = cell.run(f"mode={mode}", attempt=attempt)
        assert got == code
        assert f"attempt {attempt} of 3: {reason}" in said
        assert not cell.recorded
    assert cell.run(f"mode={mode}", attempt=3)[0] == 0
    assert cell.status == {
        "status": "failed",
        "reason": reason,
        "identity": None,
        "env_steps": None,
        "episode_return": None,
    }


def test_what_is_refused_is_recorded_at_once_since_it_would_be_refused_again(cell: Cell) -> None:
    code, said = cell.run("mode=refuse", attempt=1, identity=IDENTITY)
    assert code == 0
    assert "failed: refused: total_steps: 5 is too few" in said
    assert (cell.status["status"], cell.status["identity"]) == ("failed", IDENTITY)


def test_a_wrapper_that_nobody_hears_ends_as_ever(cell: Cell) -> None:
    """Its last words go to a pipe that is closed, as those of a terminal that is gone."""
    process = cell.start("mode=fail")
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=DEADLINE) == 0
    assert cell.status["reason"] == "parameters are not finite"


def test_a_shortage_is_tried_again_and_its_status_stays_at_the_last_attempt(cell: Cell) -> None:
    for attempt in (1, 2):
        code, said = cell.run("mode=shortage", attempt=attempt)
        assert code == 5
        assert f"attempt {attempt} of 3: OSError: No space left on device" in said
        assert not cell.recorded
    code, said = cell.run("mode=shortage", attempt=3)
    assert code == 0
    assert "failed: OSError: No space left on device" in said
    assert cell.status["reason"] == "OSError: No space left on device"
    assert cell.status["identity"] == "a" * 64  # as train.py wrote it
    assert (cell.run_dir / "attempts").stat().st_size == 3


def test_a_place_that_cannot_be_written_is_named_in_one_line(cell: Cell) -> None:
    cell.run_dir.parent.mkdir()
    cell.run_dir.write_text("a file where the directory should be")
    code, said = cell.run(attempt=3)
    assert code == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("results/seed-0: the cell cannot be run: ")


def test_a_full_disk_ends_the_wrapper_in_one_line_and_starts_nothing(cell: Cell) -> None:
    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))

    command = cell.command(attempt=3)
    done = subprocess.run(command, cwd=cell.repository, capture_output=True, text=True, preexec_fn=no_room)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["results/seed-0: the cell cannot be run: [Errno 27] File too large"]
    assert not (cell.run_dir / "attempts").exists()


def test_a_log_that_is_a_link_or_a_pipe_is_not_written_through(cell: Cell) -> None:
    cell.run_dir.mkdir(parents=True)
    log, mine = cell.run_dir / "train.log", cell.repository / "mine.txt"
    mine.write_text("mine")
    log.symlink_to(mine)
    code, said = cell.run(attempt=3)
    assert (code, said) == (
        1,
        "results/seed-0: the cell cannot be run: results/seed-0/train.log: a symbolic link, through which nothing is "
        "written; remove it\n",
    )
    assert mine.read_text() == "mine"
    log.unlink()
    os.mkfifo(log)
    code, said = cell.run(attempt=3)
    assert (code, said) == (
        1,
        "results/seed-0: the cell cannot be run: results/seed-0/train.log: not a regular file\n",
    )
    assert not (cell.run_dir / "attempts").exists()


def test_a_run_that_cannot_be_read_is_moved_away(cell: Cell) -> None:
    """As train.py says with 3 of a manifest that is damaged, or whose hash would lead elsewhere."""
    for number, hash in enumerate(["b" * 64, "../../elsewhere"]):
        cell.run_dir.mkdir(parents=True)
        (cell.run_dir / "manifest.json").write_text(json.dumps({"identity": {"hash": hash}}))
        assert _move_away(cell.run_dir).name == f"seed-0.old-unknown{'-2' * number}"


def test_success_without_a_status_is_no_success(cell: Cell) -> None:
    assert cell.run("mode=silent")[0] == 1
    assert not cell.recorded


def test_the_status_of_an_earlier_attempt_does_not_count(cell: Cell) -> None:
    cell.run("mode=fail")
    assert cell.run("mode=import_error")[0] == 1
    assert not cell.recorded


def test_a_run_of_another_identity_is_moved_away_whole_and_the_cell_trained(cell: Cell) -> None:
    cell.run("identity=" + "b" * 64)
    (cell.run_dir / "progress.parquet").write_text("rows")
    code, said = cell.run()
    assert code == 0
    assert "seed-0.old-bbbbbbbbbbbb" in said
    old = cell.run_dir.with_name("seed-0.old-bbbbbbbbbbbb")
    assert (old / "progress.parquet").read_text() == "rows"
    assert cell.status["identity"] == "a" * 64
    assert not (cell.run_dir / "progress.parquet").exists()

    cell.run("identity=" + "b" * 64)  # moves a's, trains b again
    cell.run()  # and b's second directory must not land on its first
    assert cell.run_dir.with_name("seed-0.old-bbbbbbbbbbbb-2").is_dir()
    assert (old / "progress.parquet").read_text() == "rows"


def test_a_directory_in_use_is_left_alone(cell: Cell) -> None:
    cell.run_dir.mkdir(parents=True)
    lock = acquire(cell.run_dir)
    code, said = cell.run(attempt=3)
    os.close(lock)
    assert code == 4
    assert "another process trains there" in said
    assert not cell.recorded


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_stop_by_the_user_stops_the_run_and_records_nothing(cell: Cell, number: int, code: int) -> None:
    wrapper = cell.start("mode=sleep", attempt=3)
    training = cell.wait_for_training()
    wrapper.send_signal(number)
    wrapper.communicate(timeout=DEADLINE)
    assert wrapper.returncode == code
    assert is_gone(training)
    assert not cell.recorded
    assert cell.log.endswith("saved\n")  # it got SIGTERM and the time to save


def test_a_run_that_was_terminated_by_itself_counts_as_stopped(cell: Cell) -> None:
    assert cell.run("mode=terminated", attempt=3)[0] == 143
    assert not cell.recorded


def test_a_signal_that_the_caller_ignores_stays_ignored(cell: Cell) -> None:
    wrapper = subprocess.Popen(["nohup", *cell.command("mode=slow")], cwd=cell.repository, stderr=subprocess.PIPE)
    cell.wait_for_training()
    wrapper.send_signal(signal.SIGHUP)
    wrapper.communicate(timeout=DEADLINE)
    assert wrapper.returncode == 0
    assert cell.status["status"] == "finished"


def test_the_run_dies_with_its_wrapper(cell: Cell) -> None:
    wrapper = cell.start("mode=sleep")
    training = cell.wait_for_training()
    wrapper.kill()
    wrapper.communicate()
    if sys.platform == "linux":
        wait_until(lambda: is_gone(training), 5.0)


def test_the_run_dies_with_the_pipeline_even_behind_a_shell(cell: Cell, repository: Path) -> None:
    # The pipeline starts a shell that starts the wrapper, as Snakemake does, and is killed without warning.
    command = " ".join(f"'{word}'" for word in cell.command("mode=sleep")).replace(
        "'--attempt'", "--pipeline-pid $PPID '--attempt'"
    )
    script = f"import subprocess; subprocess.run(['bash', '-c', {'true; ' + command + '; true'!r}])"
    pipeline = subprocess.Popen([sys.executable, "-c", script], cwd=repository)
    training = cell.wait_for_training()
    wrapper = training.parent()
    assert wrapper is not None
    pipeline.kill()  # and not waited for: a zombie is gone, too
    wait_until(lambda: is_gone(training) and is_gone(wrapper), 10.0)
    pipeline.wait()
    assert not cell.recorded
    assert cell.log.endswith("saved\n")


def test_nothing_starts_for_a_pipeline_that_is_gone_already(cell: Cell) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    assert cell.run("mode=sleep", pid=gone.pid)[0] == 143
    assert not cell.run_dir.exists()


def test_a_run_is_told_what_it_must_be_and_nothing_is_recorded_of_one_that_is_not(cell: Cell) -> None:
    code, said = cell.run("mode=replaced", attempt=3, identity=IDENTITY)
    assert code == 6
    assert "settings or code have changed since it was planned" in said
    assert not cell.recorded
    assert cell.run("mode=finish", identity=IDENTITY) == (0, "")
    assert cell.status["identity"] == IDENTITY


def test_a_failure_that_the_wrapper_records_has_the_identity_of_the_plan(cell: Cell) -> None:
    assert cell.run("mode=kill", attempt=3, identity=IDENTITY)[0] == 0
    assert (cell.status["status"], cell.status["identity"]) == ("failed", IDENTITY)


def test_a_run_on_a_gpu_sees_the_one_that_it_was_handed_and_another_waits_for_it(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    more = ["--gpus", "GPU-a", "--runs-per-gpu", "1"]
    first = cell.start("mode=sleep", "device=cuda", more=more)
    training = cell.wait_for_training()
    assert training.environ()["CUDA_VISIBLE_DEVICES"] == "GPU-a"
    assert "attempt 1 of 3 on GPU-a: " in cell.log

    def start(name: str, *settings: str) -> subprocess.Popen[str]:
        command = cell.command(*settings, more=more)
        command[command.index("results/seed-0")] = f"results/{name}"
        return subprocess.Popen(command, cwd=cell.repository, text=True)

    assert start("cpu").wait(DEADLINE) == 0  # needs no GPU
    waiting = start("gpu", "device=cuda")
    time.sleep(1)
    assert waiting.poll() is None
    assert not (cell.repository / "results" / "gpu").exists()
    first.kill()  # its run ends by the signal that it then gets
    assert waiting.wait(DEADLINE) == 0
    assert is_gone(training)
    first.communicate()


def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> Path:
    """Put a squeue that says what time is left, and a scontrol that notes what it is told, first on the PATH."""
    told = tmp_path / "told"
    for name, line in (("squeue", f"echo {left}"), ("scontrol", f"echo $* >> '{told}'")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return told


@pytest.mark.parametrize("saves", [True, False])
def test_a_job_is_queued_again_ahead_of_its_limit_once_its_run_is_saved(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, saves: bool
) -> None:
    told = slurm(tmp_path, monkeypatch, "2:01")
    cell.run_dir.mkdir(parents=True)
    (cell.run_dir / "checkpoint").write_text("before")
    if saves:
        train = cell.repository / "train.py"
        train.write_text(train.read_text().replace('print("saved")', '(run_dir / "checkpoint").write_text("saved")'))
    code, said = cell.run("mode=sleep", more=["--slurm-job", "17"])
    assert code == 143
    assert not cell.recorded
    assert (told.read_text() if told.exists() else "") == ("requeue 17\n" if saves else "")
    assert ("job 17 is queued again" in said) == saves


@pytest.mark.parametrize("left", ["UNLIMITED", "1:59", ""])
def test_a_job_without_a_limit_that_is_known_and_long_enough_is_not_stopped_by_the_clock(
    cell: Cell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    told = slurm(tmp_path, monkeypatch, left)
    assert cell.run(more=["--slurm-job", "17"])[0] == 0
    assert not told.exists()


def test_the_time_that_squeue_names_is_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for left, seconds in (("1-02:03:04", 93784), ("2:03:04", 7384), ("3:04", 184), ("INVALID", math.inf)):
        slurm(tmp_path, monkeypatch, left)
        assert _time_left("17") == seconds

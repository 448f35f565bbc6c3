"""The lock of a run directory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tracking.identity import REPOSITORY
from tracking.lock import RunLocked, acquire, is_locked


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nowhere")
    descriptor = acquire(tmp_path)
    assert is_locked(tmp_path)
    with pytest.raises(RunLocked, match="is locked"):
        acquire(tmp_path)
    os.close(descriptor)
    assert not is_locked(tmp_path)
    os.close(acquire(tmp_path))


def test_programs_started_by_the_holder_do_not_keep_the_lock(tmp_path: Path) -> None:
    descriptor = acquire(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False) as child:
        os.close(descriptor)
        os.close(acquire(tmp_path))  # it is free once the child has come up
        child.communicate(b"\n")


def test_readers_do_not_turn_a_run_away(tmp_path: Path) -> None:
    """A reader holds the lock for an instant; whoever opens the run meanwhile waits rather than gives up."""
    prober = "import pathlib, sys; from tracking.lock import is_locked\nprint(flush=True)\n"
    prober += "while True: is_locked(pathlib.Path(sys.argv[1]))"
    os.close(acquire(tmp_path))
    command = [sys.executable, "-c", prober, str(tmp_path)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            for _ in range(200):
                os.close(acquire(tmp_path))
        finally:
            process.kill()

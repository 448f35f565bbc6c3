"""Signals: none is lost, and the first one lets an update end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from command.interrupt import Interrupt, Interrupted
from tracking.identity import REPOSITORY


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    """Armed, as while a run is open."""
    before = [signal.getsignal(number) for number in Interrupt.SIGNALS]
    found = Interrupt()
    with found.armed():
        yield found
    assert [signal.getsignal(number) for number in Interrupt.SIGNALS] == before


def send(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


def update(interrupt: Interrupt, reached: list[int], *signals: int) -> None:
    """Receive signals in the middle of an update, which notes those that it outlives."""
    with interrupt.deferred():
        for number in signals:
            send(number)
            reached.append(number)


def test_a_signal_between_updates_is_raised_by_name(interrupt: Interrupt) -> None:
    with pytest.raises(Interrupted) as stop:
        send(signal.SIGINT)
    assert stop.value.signal is signal.SIGINT


def test_the_first_signal_waits_for_the_end_of_an_update(interrupt: Interrupt) -> None:
    reached: list[int] = []
    with pytest.raises(Interrupted):
        update(interrupt, reached, signal.SIGTERM)
    assert reached == [signal.SIGTERM]


def test_a_second_signal_ends_an_update_half_way_and_the_first_gives_the_name(interrupt: Interrupt) -> None:
    reached: list[int] = []
    with pytest.raises(Interrupted) as stop:
        update(interrupt, reached, signal.SIGTERM, signal.SIGINT)
    assert reached == [signal.SIGTERM]
    assert interrupt.signal == signal.SIGTERM
    assert stop.value.signal is signal.SIGINT


def test_one_that_a_library_swallows_is_raised_before_the_next_update(interrupt: Interrupt) -> None:
    with pytest.raises(Interrupted):
        send()
    # As where an exception is raised in a callback of C code: it is printed and forgotten.
    with pytest.raises(Interrupted), interrupt.deferred():
        pytest.fail("the update was begun")


@pytest.mark.parametrize("number", Interrupt.SIGNALS)
def test_a_signal_while_libraries_load_ends_the_command_and_leaves_nothing(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "train.py", "algorithm=ppo", "env=hopper", f"run_dir={tmp_path}/run"]
    process = subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while signal.SIGTERM not in _caught(process.pid):  # which has no handler before
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(number)
    assert process.wait(timeout=10) == 128 + number
    assert not list(tmp_path.iterdir())


def _caught(pid: int) -> set[int]:
    """The signals that a process has handlers for."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigCgt")]
    mask = int(line.split()[1], 16)
    return {number for number in range(1, 65) if mask >> (number - 1) & 1}

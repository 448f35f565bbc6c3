"""`train.py -m`: which runs it stands for, and what becomes of them."""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from command import sweep as module
from command.cli import as_text, cli
from command.interrupt import Interrupt
from command.sweep import combinations, sweep
from tracking.identity import REPOSITORY


def test_every_combination_is_the_command_line_of_one_run() -> None:
    assert combinations(["algorithm=ppo,trpo", "env=hopper", "seed=range(2)", "network.hidden=[8,8]"]) == [
        [f"algorithm={name}", "env=hopper", f"seed={seed}", "network.hidden=[8,8]"]
        for name in ("ppo", "trpo")
        for seed in (0, 1)
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("algorithm=ppo,trop env=hopper", "algorithm=trop: unknown; did you mean trpo?"),
        ("algorithm=ppo,trpo env=hopper algorithm.clip=0.1,0.2", "algorithm.clip: no such setting"),
        ("algorithm=ppo,trpo", "env: must be given"),
        (
            "algorithm=ppo env=hopper seed=0,1 hydra/launcher=joblib",
            "several at a time are a suite, conf/suite/NAME.yaml",
        ),
        (
            "algorithm=trpo,npg env=hopper algorithm.delta=0.1,0.2",
            "run_dir=results/adhoc/runs/hopper/trpo/seed-0: 2 of these runs would share it; add "
            "'run_dir=results/adhoc/runs/${env.name}/${algorithm.name}/${algorithm.delta}/seed-${seed}'",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_in_one_line_before_its_first_run(
    arguments: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(arguments.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("train.py: ")
    assert message in said
    assert said.count("\n") == 1


def test_the_run_dir_that_is_advised_is_accepted() -> None:
    place = as_text("run_dir=results/adhoc/runs/${env.name}/${algorithm.name}/${algorithm.delta}/seed-${seed}")
    assert len(combinations(["algorithm=trpo,npg", "env=hopper", "algorithm.delta=0.1,0.2", place])) == 4


def test_one_failing_run_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    codes, commands = iter([0, 5, 1]), []

    def run(self: object, command: Sequence[str]) -> int:
        commands.append(command[1:])
        return next(codes)

    monkeypatch.setattr(module._Child, "run", run)
    assert sweep(["algorithm=ppo,trpo,npg", "env=hopper"]) == 5
    script = str(REPOSITORY / "train.py")
    assert commands == [[script, f"algorithm={name}", "env=hopper"] for name in ("ppo", "trpo", "npg")]
    assert capsys.readouterr().err.splitlines()[-1] == (
        "train.py: 1 of 3 runs have ended well; 1 with exit code 1, 1 with exit code 5"
    )


def test_a_signal_reaches_the_run_that_trains_and_no_other_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = module._Child.run
    started = tmp_path / "started"

    def stand_in(self: module._Child, _command: Sequence[str]) -> int:
        code = (
            "import signal, sys, time; signal.signal(signal.SIGTERM, lambda n, f: sys.exit(143)); "
            f"open({str(started)!r}, 'a').write('x'); time.sleep(30)"
        )
        return run(self, [sys.executable, "-c", code])

    def stop() -> None:
        while not started.exists() or not started.stat().st_size:
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(module._Child, "run", stand_in)
    before = signal.getsignal(signal.SIGTERM)
    threading.Thread(target=stop, daemon=True).start()
    assert sweep(["algorithm=ppo,trpo", "env=hopper"]) == 143
    assert started.read_text() == "x"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("flag", ["-m", "--multirun", "--multi"])
def test_train_py_sweeps_when_it_is_asked_to(monkeypatch: pytest.MonkeyPatch, flag: str) -> None:
    asked: list[Sequence[str]] = []

    def stand_in(overrides: Sequence[str]) -> int:
        asked.append(overrides)
        return 7

    monkeypatch.setattr("command.cli.sweep", stand_in)
    monkeypatch.setattr(sys, "argv", ["train.py", "algorithm=ppo,trpo", flag, "env=hopper"])
    with pytest.raises(SystemExit) as stop:
        cli(Interrupt())
    assert stop.value.code == 7
    assert asked == [["algorithm=ppo,trpo", "env=hopper"]]

"""A run that is cut off and goes on ends with the bits of one that was left alone, and every fault ends by name."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import psutil
import pytest
import torch

from algorithms.critics.adam import AdamCritic
from benchmarks.kill_stress import start
from envs.rollout import Collector
from envs.snapshot import GENERATOR
from envs.tasks import check_simulation
from pipeline.suites import find_algorithms
from tests.settings import CONF, PONG, SMALL, run
from tracking import checkpoint
from tracking.compare import differences
from tracking.record import CHECKPOINT, load_run

ENVS = sorted({path.stem for path in (CONF / "env").glob("*.yaml")} - {"atari", "gym"})
TASKS: dict[str, tuple[str, ...]] = {env: (f"env={env}",) for env in ENVS} | {"pong": PONG}
CARTPOLE = ("env=gym", "env.id=CartPole-v1")
ALONE = "diagnostics.heldout_states=null"
"""Without held-out batches, where steps or batches are counted."""
LONG = ("total_steps=1280", "diagnostics.trace_samples=1", "diagnostics.snapshots=2")


def check_resumed(tmp_path: Path, *settings: str) -> None:
    """Compare a run of five updates with one that stopped after two of them."""
    assert run(tmp_path / "whole", *LONG, *settings) == 0
    assert run(tmp_path / "parts", *LONG, *settings, "stop_after=576") == 0
    stopped = load_run(tmp_path / "parts")
    assert stopped.status == "killed"
    assert stopped.progress is not None
    assert stopped.progress["env_steps"].tolist() == [320, 576]
    assert run(tmp_path / "parts", *LONG, *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.parametrize("task", [TASKS["inverted_double_pendulum"], CARTPOLE], ids=["mujoco", "cartpole"])
@pytest.mark.parametrize("name", find_algorithms())
def test_every_algorithm_goes_on_bit_for_bit(tmp_path: Path, name: str, task: tuple[str, ...]) -> None:
    check_resumed(tmp_path, f"algorithm={name}", *task)


@pytest.mark.parametrize("name", ["acktr", "ppo"])  # what keeps factors of convolutions, and what fits in minibatches
def test_images_go_on_bit_for_bit(tmp_path: Path, name: str) -> None:
    check_resumed(tmp_path, f"algorithm={name}", *PONG)


def test_a_task_in_wrappers_that_keep_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    sticky, stack = "StickyAction, repeat_action_probability: 0.3", "FrameStackObservation, stack_size: 3"
    wrappers = ",".join(
        f"{{class: gymnasium.wrappers:{wrapper}}}" for wrapper in (sticky, "NormalizeObservation", stack)
    )
    check_resumed(tmp_path, "algorithm=ppo", *CARTPOLE, f"env.wrappers=[{wrappers}]", "workers=2")


@pytest.mark.parametrize("env", sorted(TASKS.keys() - {"inverted_double_pendulum", "pong"}))  # those are above
def test_every_task_goes_on_bit_for_bit(tmp_path: Path, env: str) -> None:
    check_resumed(tmp_path, "algorithm=trpo", *TASKS[env])


@pytest.mark.parametrize(
    "settings",
    [
        ("algorithm=npg", "fisher=mc", "fisher.states=64"),
        ("algorithm=npg", "direction=rmsprop", "step_rule=kl"),
        ("algorithm=acktr", "critic=adam", "algorithm.momentum=0.5", "algorithm.inverse_interval=3"),
        ("algorithm=ppo", "critic=kfac", "learning_rate_schedule=linear"),
        ("algorithm=adam_pg", "rollout.normalise_observations=false", "rollout.rewards=raw"),
        ("algorithm=trpo", "rollout.stagger=false"),
    ],
    ids=" ".join,
)
def test_other_settings_go_on_bit_for_bit(tmp_path: Path, settings: tuple[str, ...]) -> None:
    check_resumed(tmp_path, "env=hopper", *settings)


@contextmanager
def killed(run_dir: Path, *settings: str) -> Iterator[list[psutil.Process]]:
    """A run in a process of its own, from the first of its checkpoints on, which come after every update.

    SIGKILL is its end, and with it that of the processes it started, which are given.
    """
    with start(run_dir, *SMALL, *settings) as process:
        while not (run_dir / CHECKPOINT).exists():
            assert process.poll() is None
            time.sleep(0.01)
        children = psutil.Process(process.pid).children()
        yield children
        process.kill()
    assert process.returncode == -signal.SIGKILL
    _, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert load_run(run_dir).status == "killed"


KILLED = {"npg": "ant", "adam_pg": "humanoid", "trpo": "hopper", "acktr": "inverted_pendulum", "ppo": "pong"}


@pytest.mark.parametrize("name", find_algorithms())
def test_a_killed_run_goes_on_bit_for_bit_in_another_process(tmp_path: Path, name: str) -> None:
    """Killed anywhere in one of the updates after the first, every algorithm on one of the tasks."""
    env = KILLED[name]
    steps = 1280 if env == "pong" else 2560  # the run is to last longer than it is waited for, also where it is fast
    settings = (f"algorithm={name}", *TASKS[env], f"total_steps={steps}")
    with killed(tmp_path / "parts", *settings):
        time.sleep(random.Random(env).uniform(0, 0.3))
    assert run(tmp_path / "parts", *settings) == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


@pytest.mark.parametrize("task", [TASKS["hopper"], PONG], ids=["mujoco", "pong"])
def test_a_killed_run_takes_its_processes_along_and_goes_on_with_another_number(
    tmp_path: Path, task: tuple[str, ...]
) -> None:
    settings = ("algorithm=npg", *task, "rollout.num_envs=4", "total_steps=1280")
    with killed(tmp_path / "parts", *settings, "workers=3") as children:
        assert len(children) == (3 if task is PONG else 6)  # as many again for held-out batches
    assert run(tmp_path / "parts", *settings, "workers=2") == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_what_is_compared_shows_a_random_state_that_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison fails when it should: here action noise starts again after the stop."""
    load = Collector.load_state_dict

    def forgetful(self: Collector, state: dict[str, Any]) -> None:
        load(self, state | {"noise_streams": [np.random.default_rng(1).bit_generator.state] * 16})

    monkeypatch.setattr(Collector, "load_state_dict", forgetful)
    with pytest.raises(AssertionError, match="progress"):
        check_resumed(tmp_path, "algorithm=npg", "env=hopper")


@pytest.fixture
def signals_in_the_third_batch(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Signals that the process gets while it collects its third batch, where none is held out."""
    signals: list[int] = []
    collect, calls = Collector.collect, []

    def interrupted(self: Collector, *arguments: Any) -> Any:
        calls.append(1)
        rollout = collect(self, *arguments)
        if len(calls) == 3:
            for number in signals:
                os.kill(os.getpid(), number)
        return rollout

    monkeypatch.setattr(Collector, "collect", interrupted)
    return signals


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_after_its_update_and_it_goes_on(
    tmp_path: Path, signals_in_the_third_batch: list[int], number: int, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("algorithm=acktr", "env=hopper", *LONG, ALONE)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    signals_in_the_third_batch.append(number)
    assert run(tmp_path / "parts", *settings) == code
    said = f"stopped by {signal.Signals(number).name}; update 3 is saved, and the same command goes on after it"
    assert said in capsys.readouterr().err
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert not (tmp_path / "parts" / "status.json").exists()
    assert run(tmp_path / "parts", *settings) == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_a_second_signal_ends_a_run_at_once_and_the_update_before_is_saved(
    tmp_path: Path, signals_in_the_third_batch: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("algorithm=npg", "env=hopper", *LONG, "checkpoint.updates=1", ALONE)
    signals_in_the_third_batch += [signal.SIGTERM, signal.SIGINT]
    assert run(tmp_path, *settings) == 130
    assert "stopped by SIGINT; update 2 is saved" in capsys.readouterr().err
    progress = load_run(tmp_path).progress
    assert progress is not None
    assert len(progress) == 2


class Hidden(gym.Env[np.ndarray, Any]):
    """A task whose state is nowhere among its attributes."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self._state: Iterator[int] = iter(range(10**9))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = iter(range(10**9))
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        n = next(self._state)
        return np.full(1, n, np.float32), float(n % 7 == action), n % 50 == 49, False, {}


gym.register("Hidden-v0", lambda **_: Hidden())


def test_a_task_that_cannot_be_saved_is_named_and_starts_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ("algorithm=npg", "env=gym", "env.id=Hidden-v0", *LONG, "checkpoint.updates=1")
    assert run(tmp_path / "parts", *settings, "stop_after=576") == 0
    assert "keeps state that its attributes do not show" in caplog.text
    assert not (tmp_path / "parts" / "checkpoint").exists()
    assert run(tmp_path / "parts", *settings) == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def failure(run_dir: Path) -> str:
    status = json.loads((run_dir / "status.json").read_text())
    assert status["status"] == "failed"
    return str(status["reason"])


def test_a_loss_that_is_not_finite_ends_the_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit = AdamCritic.fit

    def poisoned(self: AdamCritic, *arguments: Any) -> dict[str, float]:
        with torch.no_grad():
            next(self.network.parameters()).fill_(np.nan)
        return fit(self, *arguments)

    monkeypatch.setattr(AdamCritic, "fit", poisoned)
    assert run(tmp_path, "algorithm=ppo", *CARTPOLE) == 1
    assert failure(tmp_path) == "FloatingPointError: critic_loss is nan in update 1"


MISFITS: dict[str, tuple[list[Any], Any, str]] = {
    "another shape": (["policy", "log_std.values"], torch.zeros(3), "has shape (3,) where (1,) is due"),
    "another type": (["collector", "episodes", "env_steps"], "many", "is 'many' where a int is due"),
    "another key": (["critic", "rng"], {"state": 0}, "holds ['state'] where"),
    "code": (["collector", "envs", 0, -1, "_np_random"], {GENERATOR: {"bit_generator": "test"}}, "PCG64"),
}


@pytest.mark.parametrize("case", MISFITS)
def test_a_state_that_does_not_fit_gives_way_to_the_one_before(
    tmp_path: Path, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint may be sound as a file and hold what no run saved; other people's are read too."""
    place, value, said = MISFITS[case]
    settings = ("algorithm=npg", "env=gym", "env.id=Pendulum-v1", ALONE, "total_steps=768", "checkpoint.updates=1")
    assert run(tmp_path / "whole", *settings) == 0
    assert run(tmp_path / "parts", *settings, "stop_after=576") == 0
    content = checkpoint.load(tmp_path / "parts" / CHECKPOINT)
    node = content["state"]["learner"]
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    checkpoint.save(tmp_path / "parts" / CHECKPOINT, content)
    assert run(tmp_path / "parts", *settings) == 0
    assert said in caplog.text
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_a_simulation_that_diverges_ends_the_run_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MuJoCo itself would put it back to its initial state and go on."""
    step = mujoco.mj_step
    calls = []

    def unstable(model: mujoco.MjModel, data: mujoco.MjData, nstep: int) -> None:
        calls.append(1)
        if len(calls) == 500:
            data.qvel[:] = 1e9
        step(model, data, nstep=nstep)

    monkeypatch.setattr(mujoco, "mj_step", unstable)
    assert run(tmp_path, "algorithm=npg", "env=halfcheetah", ALONE) == 1
    assert failure(tmp_path).startswith("FloatingPointError: the simulation diverged (MuJoCo: Nan, Inf or huge value")
    check_simulation()  # it was said once


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (RuntimeError("the robot\nfell over"), 1, "RuntimeError: the robot fell over"),
        (OSError(28, "No space left on device"), 5, "OSError: [Errno 28] No space left on device"),
        (MemoryError(), 5, "MemoryError:"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 5, "RuntimeError: DefaultCPUAllocator: can't"),
    ],
    ids=["environment", "disk", "memory", "torch"],
)
def test_an_error_ends_the_run_by_name_and_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, reason: str
) -> None:
    settings = ("algorithm=npg", *CARTPOLE, *LONG, "checkpoint.updates=1")
    step, calls = gym.wrappers.TimeLimit.step, []

    def failing(self: Any, action: Any) -> Any:
        calls.append(1)
        if len(calls) == 1000:
            raise error
        return step(self, action)

    with monkeypatch.context() as patch:
        patch.setattr(gym.wrappers.TimeLimit, "step", failing)
        assert run(tmp_path / "parts", *settings) == code
    assert failure(tmp_path / "parts").startswith(reason)
    assert run(tmp_path / "parts", *settings) == 0
    assert run(tmp_path / "whole", *settings) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_a_file_that_cannot_grow_loses_nothing(tmp_path: Path) -> None:
    """A limit on file sizes, as a full disk, for real: another process, since the limit is the process's own."""
    command = [
        sys.executable, "train.py", "algorithm=npg", *CARTPOLE, "total_steps=20480", "algorithm.batch_size=512",
        "checkpoint.updates=1", "evaluation.episodes=1", "rollout.warmup_steps=0",
    ]  # fmt: skip

    def train(name: str, limit: int) -> subprocess.CompletedProcess[str]:
        def limited() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

        return subprocess.run(
            [*command, f"run_dir={tmp_path / name}"],
            cwd=CONF.parent, preexec_fn=limited, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    reference = train("whole", resource.RLIM_INFINITY)
    assert reference.returncode == 0, reference.stderr
    size = max(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    full = train("parts", size - 2000)
    assert full.returncode == 5
    assert "File too large" in full.stderr.splitlines()[-1]
    assert "the same command goes on from the last checkpoint" in full.stderr.splitlines()[-1]
    kept = load_run(tmp_path / "parts").progress
    assert kept is not None
    assert len(kept) > 0
    assert train("parts", resource.RLIM_INFINITY).returncode == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []

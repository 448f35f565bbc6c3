"""Environments stepped by several processes: the same bits, the same failures, and no process left behind."""

import os
import signal
from multiprocessing import get_context
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

from envs import workers
from envs.tasks import EnvConfig, Envs, random_actions, to_action_space
from tests.settings import compose

TASKS = {
    "atari": ("env=atari", "env.game=breakout", "env.max_frames=300", "env.life_loss=true"),
    "mujoco": ("env=hopper",),
    "cartpole": ("env=gym", "env.id=CartPole-v1"),
}
SEEDS = [1, 2, 3, 4, 5]


def task(name: str) -> EnvConfig:
    return compose("algorithm=ppo", *TASKS[name]).env


def play(envs: Envs, steps: int, seed: int) -> list[Any]:
    """Copies of what every step returned."""
    rng = np.random.default_rng(seed)
    played = []
    for _ in range(steps):
        observation, *rest, info = envs.step(to_action_space(envs, random_actions(envs, rng)))
        played.append((observation.copy(), *(value.copy() for value in rest), info))
    return played


def assert_equal(a: list[Any], b: list[Any]) -> None:
    for (*arrays, info), (*others, other_info) in zip(a, b, strict=True):
        for array, other in zip(arrays, others, strict=True):
            assert array.dtype == other.dtype
            np.testing.assert_array_equal(array, other)
        assert info.keys() == other_info.keys()
        assert np.all(info.get("life_lost", False) == other_info.get("life_lost", False))
        for n in np.flatnonzero(info.get("_final_obs", [])):
            np.testing.assert_array_equal(info["final_obs"][n], other_info["final_obs"][n])


@pytest.mark.parametrize("name", TASKS)
def test_any_number_of_processes_gives_the_same_bits_and_takes_over_from_any_other(name: str) -> None:
    one, three = workers.make_in(1, task(name), 5), workers.make_in(3, task(name), 5)
    np.testing.assert_array_equal(one.reset(seed=SEEDS)[0], three.reset(seed=SEEDS)[0])  # type: ignore[arg-type]
    first = play(one, 100, 0)
    assert any(terminated.any() or truncated.any() for _, _, terminated, truncated, _ in first)
    assert_equal(first, play(three, 100, 0))

    two = workers.make_in(2, task(name), 5)
    two.reset(seed=SEEDS[::-1])  # type: ignore[arg-type]
    workers.restore(two, workers.save(three))
    further = play(one, 60, 1)
    assert_equal(further, play(two, 60, 1))
    workers.restore(one, workers.save(two))
    assert_equal(play(one, 20, 2), play(two, 20, 2))
    for envs in (one, two, three):
        envs.close()


def test_some_environments_are_reset_alone_wherever_they_are() -> None:
    one, three = workers.make_in(1, task("mujoco"), 5), workers.make_in(3, task("mujoco"), 5)
    mask = np.array([False, True, True, False, False])
    shown = []
    for envs in (one, three):
        envs.reset(seed=SEEDS)  # type: ignore[arg-type]
        before = play(envs, 4, 0)[-1][0]
        after = envs.reset(options={"reset_mask": mask})[0].copy()
        np.testing.assert_array_equal(after[~mask], before[~mask])
        assert (after[mask] != before[mask]).any(1).all()
        shown.append([(after, {}), *play(envs, 30, 1)])
    assert_equal(*shown)
    three.close()


def test_processor_time_is_that_of_the_processes() -> None:
    assert workers.cpu_time(workers.make_in(1, task("cartpole"), 2)) == 0
    envs = workers.make_in(2, task("mujoco"), 2)
    envs.reset(seed=SEEDS[:2])  # type: ignore[arg-type]
    before = workers.cpu_time(envs)
    play(envs, 200, 0)
    assert 0 < before < workers.cpu_time(envs)
    envs.close()


def test_more_processes_than_environments_are_not_made() -> None:
    envs = workers.make_in(8, task("cartpole"), 2)
    assert isinstance(envs, workers.WorkerEnvs)
    assert len(envs._processes) == 2
    envs.close()


class Failing(gym.Env[np.ndarray, Any]):
    observation_space = gym.spaces.Box(-1, 1, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        raise RuntimeError("the robot fell over")


gym.register("Failing-v0", lambda **_: Failing())


def test_an_exception_in_a_process_is_raised_here_with_where_it_came_from() -> None:
    envs = workers.make_in(2, compose("algorithm=ppo", "env=gym", "env.id=Failing-v0").env, 2)
    envs.reset()
    with pytest.raises(RuntimeError, match="the robot fell over") as failure:
        envs.step(np.zeros(2, np.int64))
    assert "in step" in failure.value.__notes__[0]
    envs.close()


def test_a_simulation_that_diverges_in_a_process_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    step = mujoco.mj_step

    def unstable(model: mujoco.MjModel, data: mujoco.MjData, nstep: int) -> None:
        data.qvel[:] = 1e9
        step(model, data, nstep=nstep)

    monkeypatch.setattr(mujoco, "mj_step", unstable)
    envs = workers.make_in(2, task("mujoco"), 2)
    envs.reset(seed=[0, 1])  # type: ignore[arg-type]
    with pytest.raises(FloatingPointError, match="the simulation diverged"):
        envs.step(np.zeros((2, 3)))
    envs.close()


def test_processes_outlive_signals_to_their_group_and_a_dead_one_is_named() -> None:
    envs = workers.make_in(2, task("cartpole"), 4)
    assert isinstance(envs, workers.WorkerEnvs)
    envs.reset(seed=SEEDS[:4])
    pids = [process.pid for process in envs._processes]
    for pid in pids:
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    envs.step(np.zeros(4, np.int64))
    assert pids[0] is not None
    os.kill(pids[0], signal.SIGKILL)
    envs._processes[0].join()
    with pytest.raises(ChildProcessError, match=r"has died .*; lower workers to have fewer"):
        envs.step(np.zeros(4, np.int64))
    envs.close()
    assert not any(process.is_alive() for process in envs._processes)


def test_processes_that_start_anew_give_the_same_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems where forking is not safe."""
    monkeypatch.setattr(workers, "_CONTEXT", get_context("spawn"))
    monkeypatch.setattr(workers, "_IS_FORKED", False)
    one, two = workers.make_in(1, task("cartpole"), 5), workers.make_in(2, task("cartpole"), 5)
    np.testing.assert_array_equal(one.reset(seed=SEEDS)[0], two.reset(seed=SEEDS)[0])  # type: ignore[arg-type]
    assert_equal(play(one, 50, 0), play(two, 50, 0))
    two.close()

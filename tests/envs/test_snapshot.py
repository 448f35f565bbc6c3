"""Snapshots of environments: what goes into them, and that they are told from what cannot be restored."""

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import snapshot
from envs.tasks import EnvConfig, make
from tests.settings import CONF, compose
from tracking import checkpoint

TASKS = sorted(path.stem for path in (CONF / "env").glob("*.yaml") if path.stem not in ("gym", "atari"))


def task(*settings: str) -> EnvConfig:
    return compose("algorithm=npg", *settings).env


@pytest.mark.parametrize("env", TASKS)
def test_every_task_of_the_suites_can_be_restored(env: str) -> None:
    assert snapshot.unresumable(task(f"env={env}")) is None


@pytest.mark.parametrize("name", ["CartPole-v1", "Pendulum-v1", "Acrobot-v1", "MountainCarContinuous-v0"])
def test_classic_tasks_can_be_restored(name: str) -> None:
    assert snapshot.unresumable(task("env=gym", f"env.id={name}")) is None


@pytest.mark.parametrize("env", ["ant", "humanoid"])
def test_a_position_that_lags_behind_is_part_of_the_state(env: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The integration state alone does not do: rewards at the first step differ."""
    monkeypatch.setattr(snapshot, "LAGGED", ())
    assert snapshot.unresumable(task(f"env={env}")) == (
        f"{env} keeps state that its attributes do not show: a copy went another way at step 0"
    )


class Counter(gym.Env[np.ndarray, Any]):
    """Keeps its state in nested attributes, a view of an array and a second generator."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(2)

    def __init__(self) -> None:
        self.memory: dict[str, Any] = {"last": [0, (1.5, None)]}
        self.lazy: np.random.Generator | None = None
        self.unsaved = object()

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.memory["last"] = [int(self.np_random.integers(100)), (1.5, None)]
        self.lazy = self.np_random
        return self._see(), {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.lazy is not None
        self.memory["last"][0] += int(action) + int(self.lazy.integers(5))
        return self._see(), 0.0, False, False, {}

    def _see(self) -> np.ndarray:
        return np.array([self.memory["last"][0], self.memory["last"][1][0]])


gym.register("Counter-v0", lambda **_: Counter(), max_episode_steps=20)


def test_nested_data_and_shared_generators_are_restored_through_a_checkpoint(tmp_path: Path) -> None:
    counter = task("env=gym", "env.id=Counter-v0")
    assert snapshot.unresumable(counter) is None
    envs, fresh = make(counter, 2), make(counter, 2)
    envs.reset(seed=[3, 4])
    state = snapshot.save(envs)
    checkpoint.save(tmp_path / "state", state)
    seen = [envs.step(np.array([1, 0]))[0].copy() for _ in range(30)]
    fresh.reset()
    snapshot.restore(fresh, checkpoint.load(tmp_path / "state"))
    assert all(np.array_equal(fresh.step(np.array([1, 0]))[0], expected) for expected in seen)


def test_a_snapshot_is_no_view_of_what_goes_on() -> None:
    envs = make(task("env=gym", "env.id=CartPole-v1"), 1)
    envs.reset(seed=[0])
    state = snapshot.save(envs)
    before = state[0][-1]["state"].copy()
    envs.step(np.array([1]))
    assert np.array_equal(state[0][-1]["state"], before)
    snapshot.restore(envs, state)
    envs.step(np.array([1]))
    assert np.array_equal(state[0][-1]["state"], before)


def test_a_state_with_new_seeds_differs_in_its_generators_alone() -> None:
    envs = make(task("env=hopper"), 2)
    envs.reset(seed=[0, 1])
    state = snapshot.save(envs)
    one, again, other = (snapshot.reseed(state, np.random.SeedSequence(seed)) for seed in (0, 0, 1))

    def streams(saved: Any) -> list[int]:
        return [layers[-1]["_np_random"][snapshot.GENERATOR]["state"]["state"] for layers in saved]

    assert streams(one) == streams(again)
    assert len({*streams(state), *streams(one), *streams(other)}) == 6
    fresh = make(task("env=hopper"), 2)
    for saved in (one, state):
        fresh.reset()
        snapshot.restore(fresh, saved)
        envs.reset()
        snapshot.restore(envs, state)
        steps = [e.step(np.zeros((2, 3), np.float32))[0].copy() for e in (envs, fresh)]
        np.testing.assert_array_equal(*steps)  # no step draws; the next reset does
        starts = [e.reset()[0].copy() for e in (envs, fresh)]
        assert np.array_equal(*starts) == (saved is state)


HOSTILE: dict[str, tuple[str, Any, str]] = {
    "a function of numpy.random": ("lazy", {snapshot.GENERATOR: {"bit_generator": "test"}}, "no bit generator"),
    "a method": ("step", 5, "step is no state"),
    "a number for an array": ("state", 5, "state is a sequence here and a number"),
    "text for a generator": ("_np_random", "PCG64", "_np_random is Generator here and str"),
    "text for the length of a deque": ("queue", {snapshot.DEQUE: [1], "maxlen": "4"}, "integer"),
    "a list for a deque": ("queue", [1], "queue is deque here and a sequence"),
    "moments for a vector": ("state", {snapshot.MOMENTS: {"mean": 0.0, "var": 1.0, "count": 1}}, "state is a sequence"),
    "another simulator": ("state", {snapshot.MUJOCO: np.zeros(3)}, "."),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_state_runs_no_code_and_takes_the_place_of_its_like_alone(case: str) -> None:
    name, value, said = HOSTILE[case]
    envs = make(task("env=gym", "env.id=CartPole-v1"), 1)
    envs.reset(seed=[0])
    vars(envs.envs[0].unwrapped)["lazy"] = None  # a generator that is still to be made
    vars(envs.envs[0].unwrapped)["queue"] = deque([1.0], maxlen=4)
    state = snapshot.save(envs)
    state[0][-1][name] = value
    with pytest.raises((ValueError, TypeError, AttributeError), match=said):
        snapshot.restore(envs, state)
    if snapshot.GENERATOR in (value if isinstance(value, dict) else ()):
        with pytest.raises(ValueError, match=said):
            snapshot.reseed(state, np.random.SeedSequence(0))

"""What enters from a task: copied, and checked in every phase of a run."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs.evaluation import EvaluationConfig, evaluate
from envs.gym import GymConfig
from envs.normalisers import ObservationNormaliser
from envs.rollout import Collector, RolloutConfig
from envs.tasks import LARGEST, TaskRefused, make


class Walk(gym.Env[np.ndarray, np.ndarray]):
    """Drifts from 0 by 0.1 a step; what it shows and pays is what `broken` makes of it at step `at`."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space: gym.spaces.Space[Any] = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, shared: bool = False, reward: float = 1.0, observation: float = 0.0, at: int = 10**9) -> None:
        self.shared, self.reward, self.observation, self.at = shared, reward, observation, at
        self.state, self.t = np.zeros(2, np.float32), 0

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.state[:], self.t = 0, 0
        return self._show(), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.t += 1
        self.state += np.float32(0.1)
        return self._show(), self.reward if self.t == self.at else 1.0, False, False, {}

    def _show(self) -> np.ndarray:
        if self.t == self.at:
            self.state += np.float32(self.observation)
        return self.state if self.shared else self.state.copy()


class IntegerActions(Walk):
    action_space = gym.spaces.Box(0, 255, (2,), np.uint8)


class Broken(Walk):
    def __init__(self, level: int = 9) -> None:
        assert level < 5, "level must be\nbelow 5"


gym.register("Walk-v0", f"{__name__}:Walk", max_episode_steps=20)
gym.register("IntegerActions-v0", f"{__name__}:IntegerActions")
gym.register("BrokenMaker-v0", f"{__name__}:Broken")

RAW = RolloutConfig(num_envs=2, warmup_steps=0, normalise_observations=False, rewards="raw", clip=100.0)


def walk(**kwargs: Any) -> GymConfig:
    return GymConfig("walk", 0.9, id="Walk-v0", kwargs=kwargs)


def collector(config: RolloutConfig = RAW, **kwargs: Any) -> Collector:
    return Collector(walk(**kwargs), config, np.random.SeedSequence(1), np.random.SeedSequence(2))


def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    assert np.isfinite(observations).all(), "a policy is shown nothing that is not checked"
    return np.zeros((len(observations), 1), dtype=np.float32)


def draw(rng: np.random.Generator, steps: int) -> np.ndarray:
    return rng.standard_normal((steps, 1), dtype=np.float32)


def test_an_array_that_a_task_writes_to_again_is_copied() -> None:
    own, shared = (collector(shared=shared).collect(act, draw, 45) for shared in (False, True))
    np.testing.assert_allclose(shared.cut_off_observations, 2.0, rtol=1e-5)  # not the next episode's start, 0
    for name in ("observations", "last_observations", "cut_off_observations", "rewards"):
        np.testing.assert_array_equal(getattr(own, name), getattr(shared, name))
    warmed = RolloutConfig(num_envs=2, warmup_steps=64)
    own_mean, shared_mean = (warmed_mean(warmed, shared) for shared in (False, True))
    np.testing.assert_array_equal(own_mean, shared_mean)


def warmed_mean(config: RolloutConfig, shared: bool) -> np.ndarray:
    warmed = collector(config, shared=shared)
    warmed.warm_up(64, np.random.default_rng(0))
    return warmed.observation_normaliser.moments.mean


BROKEN = {
    "reward": ({"reward": float("nan"), "at": 5}, "reward is nan"),
    "huge reward": ({"reward": 1e300, "at": 5}, r"reward is 1e\+300"),
    "observation": ({"observation": float("inf"), "at": 5}, "observation is inf"),
    "final observation": ({"observation": float("nan"), "at": 20}, "observation is nan"),
}


def warm_up(**kwargs: Any) -> None:
    collector(**kwargs).warm_up(64, np.random.default_rng(0))


def train(**kwargs: Any) -> None:
    collector(**kwargs).collect(act, draw, 32)


def play(**kwargs: Any) -> None:
    normaliser = ObservationNormaliser((2,), False, 10.0)
    evaluate(walk(**kwargs), EvaluationConfig(episodes=2), act, draw, normaliser, np.random.SeedSequence(0))


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("phase", [warm_up, train, play], ids=["warm-up", "training", "evaluation"])
def test_numbers_that_break_sums_are_the_tasks_fault_in_every_phase(case: str, phase: Callable[..., None]) -> None:
    kwargs, said = BROKEN[case]
    name = {warm_up: "warm-up", train: "training", play: "evaluation"}[phase]
    with pytest.raises(FloatingPointError, match=rf"^env\.id=Walk-v0: the task's {said} in {name};"):
        phase(**kwargs)


def test_the_largest_numbers_are_fine() -> None:
    rollout = collector(reward=LARGEST, at=5).collect(act, draw, 8)
    assert rollout.rewards.max() == LARGEST


def test_integer_boxes_and_constructors_that_raise_are_refused_in_one_line() -> None:
    with pytest.raises(TaskRefused, match=r"^env\.id=IntegerActions-v0: actions are Box\(0, 255, \(2,\), uint8\)"):
        make(GymConfig("task", 0.9, id="IntegerActions-v0"), 1)
    with pytest.raises(
        TaskRefused, match=r"^env\.id=BrokenMaker-v0: cannot be made: AssertionError: level must be below"
    ):
        make(GymConfig("task", 0.9, id="BrokenMaker-v0"), 1)
    with pytest.raises(TaskRefused, match=r"^env\.id=Ant-v5: cannot be made: .*missing\.xml"):
        make(GymConfig("ant", 0.9, id="Ant-v5", kwargs={"xml_file": "./missing.xml"}), 1)

"""Wrappers of a user's around a task: put on as asked, refused by name, and saved with a run or named."""

from collections import deque
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs import gym as gym_tasks
from envs import snapshot
from envs.gym import GymConfig
from envs.tasks import make
from tests.settings import compose
from tracking import checkpoint

STACK = {"class": "gymnasium.wrappers:FrameStackObservation", "stack_size": 3}


class Rooms(gym.Env[dict[str, Any], np.ndarray]):
    """Shows a category, two bits and a picture; keeps what it did last in a nested deque."""

    observation_space = gym.spaces.Dict(
        room=gym.spaces.Discrete(3, start=1),
        bits=gym.spaces.MultiBinary(2),
        picture=gym.spaces.Box(0, 255, (4, 4, 3), np.uint8),
    )
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.memory = {"last": deque([0.0], maxlen=4)}

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self.memory["last"].clear()
        return self._see(), {}

    def step(self, action: np.ndarray) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        self.memory["last"].append(float(action[0]))
        return self._see(), sum(self.memory["last"]), False, False, {}

    def _see(self) -> dict[str, Any]:
        picture = self.np_random.integers(256, size=(4, 4, 3), dtype=np.uint8)
        return {"room": 1 + int(picture[0, 0, 0] % 3), "bits": picture[0, 1, :2] % 2, "picture": picture}

    def render(self) -> np.ndarray:
        return np.full((8, 8, 3), len(self.memory["last"]), np.uint8)


class Words(gym.Env[Any, int]):
    """Shows as many categories as it likes."""

    observation_space = gym.spaces.Sequence(gym.spaces.Discrete(3))
    action_space: gym.spaces.Space[Any] = gym.spaces.Discrete(2)


gym.register("Rooms-v0", f"{__name__}:Rooms", max_episode_steps=40)
gym.register("Words-v0", f"{__name__}:Words")


def task(task_id: str, *wrappers: Any, flatten: bool = False, **kwargs: Any) -> GymConfig:
    return GymConfig("task", 0.99, id=task_id, kwargs=kwargs, wrappers=list(wrappers), flatten=flatten)


def test_wrappers_go_around_the_task_in_the_order_of_the_command_line() -> None:
    time = "gymnasium.wrappers:TimeAwareObservation"
    stack = "{class: gymnasium.wrappers:FrameStackObservation, stack_size: 3}"
    seen = {}
    for order in ((time, stack), (stack, time)):
        config = compose("algorithm=ppo", "env=gym", "env.id=CartPole-v1", f"env.wrappers=[{','.join(order)}]").env
        envs = make(config, 2)
        envs.reset(seed=[1, 2])
        seen[order] = envs.step(np.array([0, 1]))[0][0]
    inner_time, outer_time = seen.values()
    assert inner_time.shape == (3 * 5,)
    assert outer_time.shape == (3 * 4 + 1,)
    assert inner_time.reshape(3, 5)[:, -1].tolist() == [0, 0, 1]
    np.testing.assert_array_equal(inner_time.reshape(3, 5)[:, :-1], outer_time[:-1].reshape(3, 4))


def test_a_mujoco_task_with_wrappers_is_stepped_through_them() -> None:
    plain, wrapped = (
        make(compose("algorithm=ppo", "env=hopper", *more).env, 1)
        for more in ((), ("+env.wrappers=[{class: gymnasium.wrappers:RepeatAction, num_repeats: 2}]",))
    )
    for envs in (plain, wrapped):
        envs.reset(seed=[3])
    action = np.zeros((1, 3), np.float32)
    plain.step(action)
    np.testing.assert_array_equal(plain.step(action)[0], wrapped.step(action)[0])


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("no_such:Noise", r"^env\.wrappers=no_such:Noise: Noise of module no_such cannot be imported \(ModuleNotFound"),
        ("gymnasium.wrappers:Nois", r"^env\.wrappers=gymnasium\.wrappers:Nois: Nois of .* cannot be imported"),
        ("subprocess:Popen", r"^env\.wrappers=subprocess:Popen: Popen must be a subclass of gymnasium\.Wrapper$"),
        ("FrameStackObservation", r"^env\.wrappers=FrameStackObservation: names no wrapper; give module:Class or"),
        ({"stack_size": 3}, r"^env\.wrappers=\{'stack_size': 3\}: names no wrapper"),
        (STACK | {"size": 3}, r"^env\.wrappers=gymnasium\.wrappers:FrameStackObservation: cannot be made: TypeError: "),
    ],
)
def test_what_is_no_wrapper_is_refused_in_one_line(entry: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        make(task("CartPole-v1", entry), 1)
    assert "\n" not in str(refused.value)


def test_no_wrapper_is_imported_from_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(gym_tasks, "RESULTS", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted_wrapper.py").write_text("raise SystemExit('executed')")
    with pytest.raises(ValueError, match=r"^env\.wrappers=planted_wrapper:W: module planted_wrapper lies in results/"):
        task("CartPole-v1", "planted_wrapper:W")


@pytest.mark.parametrize(
    ("task_id", "kind", "size"),
    [("Blackjack-v1", "Tuple", 32 + 11 + 2), ("FrozenLake-v1", "Discrete", 16), ("Rooms-v0", "Dict", 48 + 2 + 3)],
)
def test_other_observations_are_refused_by_what_makes_them_fit_which_does(task_id: str, kind: str, size: int) -> None:
    with pytest.raises(ValueError, match=rf"^env\.id={task_id}: observations are {kind}\(.*; set env\.flatten=true"):
        make(task(task_id), 1)
    envs = make(task(task_id, flatten=True), 2)
    envs.reset(seed=[0, 1])
    [original] = [envs.envs[0].unwrapped]
    for _ in range(3):
        observation = envs.step(np.zeros((2, *(envs.single_action_space.shape or ())), np.int64))[0]
        assert observation.shape == (2, size)
        restored = gym.spaces.unflatten(original.observation_space, observation[0])
        assert restored in original.observation_space
        if kind == "Discrete":
            assert restored == original.s  # type: ignore[attr-defined]


def test_observations_of_no_fixed_size_are_refused_by_name() -> None:
    for flatten in (False, True):
        with pytest.raises(ValueError, match=r"^env\.id=Words-v0: observations are Sequence.*only box"):
            make(task("Words-v0", flatten=flatten), 1)


W = "gymnasium.wrappers:"
TRIED: dict[str, GymConfig] = {
    "Autoreset": task("Pendulum-v1", f"{W}Autoreset"),
    "AddRenderObservation": task("Rooms-v0", f"{W}AddRenderObservation", render_mode="rgb_array"),
    "ClipAction": task("Pendulum-v1", f"{W}ClipAction"),
    "ClipReward": task("Pendulum-v1", {"class": f"{W}ClipReward", "min_reward": -1, "max_reward": 1}),
    "DelayObservation": task("Pendulum-v1", {"class": f"{W}DelayObservation", "delay": 3}),
    "DiscretizeAction": task("Pendulum-v1", {"class": f"{W}DiscretizeAction", "bins": 5, "multidiscrete": True}),
    "DiscretizeObservation": task(
        "MountainCar-v0", {"class": f"{W}DiscretizeObservation", "bins": 9, "multidiscrete": True}, flatten=True
    ),
    "DtypeObservation": task("Pendulum-v1", {"class": f"{W}DtypeObservation", "dtype": "float64"}),
    "FilterObservation": task(
        "Rooms-v0", {"class": f"{W}FilterObservation", "filter_keys": ["room", "bits"]}, flatten=True
    ),
    "FlattenObservation": task("Rooms-v0", f"{W}FlattenObservation"),
    "FrameStackObservation": task("Rooms-v0", STACK, flatten=True),
    "GrayscaleObservation": task(
        "Rooms-v0", f"{W}AddRenderObservation", f"{W}GrayscaleObservation", render_mode="rgb_array"
    ),
    "MaxAndSkipObservation": task("Pendulum-v1", {"class": f"{W}MaxAndSkipObservation", "skip": 3}),
    "NormalizeObservation": task("Pendulum-v1", f"{W}NormalizeObservation"),
    "NormalizeReward": task("Pendulum-v1", f"{W}NormalizeReward"),
    "OrderEnforcing": task("Pendulum-v1", f"{W}OrderEnforcing"),
    "PassiveEnvChecker": task("Pendulum-v1", f"{W}PassiveEnvChecker"),
    "RecordEpisodeStatistics": task("Pendulum-v1", f"{W}RecordEpisodeStatistics"),
    "RepeatAction": task("Pendulum-v1", {"class": f"{W}RepeatAction", "num_repeats": 2}),
    "RescaleAction": task("Pendulum-v1", {"class": f"{W}RescaleAction", "min_action": 0, "max_action": 1}),
    "RescaleObservation": task("MountainCar-v0", {"class": f"{W}RescaleObservation", "min_obs": 0, "max_obs": 1}),
    "ReshapeObservation": task("CartPole-v1", {"class": f"{W}ReshapeObservation", "shape": [2, 2]}),
    "ResizeObservation": task(
        "Rooms-v0",
        f"{W}AddRenderObservation",
        {"class": f"{W}ResizeObservation", "shape": [4, 4]},
        render_mode="rgb_array",
    ),
    "StickyAction": task("Pendulum-v1", {"class": f"{W}StickyAction", "repeat_action_probability": 0.5}),
    "TimeAwareObservation": task("Pendulum-v1", f"{W}TimeAwareObservation"),
    "TimeLimit": task("Pendulum-v1", {"class": f"{W}TimeLimit", "max_episode_steps": 17}),
}
# They take functions, change what is drawn alone, convert to other libraries' arrays, or are part of env=atari.
NO_STATE_OF_A_TASK = {
    "TransformAction", "TransformObservation", "TransformReward", "AddWhiteNoise", "HumanRendering", "ObstructView",
    "RecordVideo", "RenderCollection", "ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch", "vector",
    "AtariPreprocessing",
}  # fmt: skip


def test_every_wrapper_of_gymnasiums_is_tried() -> None:
    assert TRIED.keys() | NO_STATE_OF_A_TASK == set(gym.wrappers.__all__)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Gymnasium's, of what one step of a wrapper looks like
@pytest.mark.parametrize("name", TRIED)
def test_gymnasiums_wrappers_are_restored_bit_for_bit(name: str) -> None:
    assert snapshot.unresumable(TRIED[name]) is None


@pytest.mark.parametrize("name", ["FrameStackObservation", "DelayObservation", "NormalizeObservation"])
def test_what_stateful_wrappers_keep_goes_through_a_checkpoint(name: str, tmp_path: Path) -> None:
    envs, fresh = make(TRIED[name], 2), make(TRIED[name], 2)
    envs.reset(seed=[3, 4])
    actions = np.random.default_rng(0).uniform(-1, 1, (9, 2, *(envs.single_action_space.shape or ())))
    for action in actions:
        envs.step(action.astype(np.float32))
    checkpoint.save(tmp_path / "state", snapshot.save(envs))
    fresh.reset(seed=[5, 6])
    snapshot.restore(fresh, checkpoint.load(tmp_path / "state"))
    for action in actions:  # of which the longest queue holds fewer
        for mine, theirs in zip(envs.step(action)[:4], fresh.step(action)[:4], strict=True):
            np.testing.assert_array_equal(mine, theirs)


class Moody(gym.Wrapper[Any, Any, Any, Any]):
    """Keeps a set, which no snapshot holds, or a number that becomes text."""

    def __init__(self, env: gym.Env[Any, Any], kind: str) -> None:
        super().__init__(env)
        self.kind, self.seen, self.steps = kind, {0}, 0
        self.mood: Any = 0.5

    def step(self, action: Any) -> Any:
        observation, reward, *more = self.env.step(action)
        self.steps += 1
        self.seen.add(self.steps)
        if self.kind == "changes":
            self.mood = "sad"
        if self.kind == "breaks" and self.steps - 1 not in self.seen:
            raise LookupError("a step\nis missing")
        return observation, float(reward) + len(self.seen), *more


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("hides", "task keeps state that its attributes do not show: a copy went another way at step 0"),
        ("breaks", "task keeps state that its copy lacks, which broke at step 0 (LookupError: a step is missing)"),
        (
            "changes",
            "task keeps state that a copy does not take (TypeError: Moody.mood is a number here and str in the state)",
        ),
    ],
)
def test_a_wrapper_that_cannot_be_restored_is_named(kind: str, said: str) -> None:
    moody = task("CartPole-v1", {"class": f"{__name__}:Moody", "kind": kind})
    assert snapshot.unresumable(moody) == said

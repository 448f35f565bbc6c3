"""Tasks are made as asked or refused in one line."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml

from envs import gym as gym_tasks
from envs.gym import GymConfig
from envs.mujoco import MujocoConfig
from envs.tasks import make, random_actions, spaces, to_action_space
from settings import load_env

TASKS = sorted(path for path in Path("conf/env").glob("*.yaml") if path.stem not in ("gym", "atari"))


class ShiftedActions(gym.Env[np.ndarray, np.int64]):
    """A task whose actions are -1, 0 and 1 and whose observation is a 2x2 box."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2, 2))
    action_space = gym.spaces.Discrete(3, start=-1)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        return np.zeros((2, 2), dtype=np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        return np.zeros((2, 2), dtype=np.float32), float(action), False, False, {}


gym.register("Shifted-v0", f"{__name__}:ShiftedActions")


def task(task_id: str, **kwargs: object) -> GymConfig:
    return GymConfig("task", 0.99, id=task_id, kwargs=dict(kwargs))


@pytest.mark.parametrize("path", TASKS, ids=lambda p: p.stem)
def test_every_task_is_the_v5_task_of_its_name_and_can_be_played(path: Path) -> None:
    settings = yaml.safe_load(path.read_text())
    config = load_env(settings["kind"])(**settings)
    assert isinstance(config, MujocoConfig)
    assert config.name == path.stem
    assert config.id.removesuffix("-v5").lower() == path.stem.replace("_", "")
    envs = make(config, 2)
    envs.reset(seed=[1, 2])
    observations, rewards, *_ = envs.step(to_action_space(envs, random_actions(envs, np.random.default_rng(0))))
    assert observations.shape == (2, *spaces(envs).observation_shape)
    assert np.isfinite(rewards).all()
    envs.close()


def test_there_are_nine_mujoco_tasks() -> None:
    assert len(TASKS) == 9


def test_actions_are_clipped_to_the_box() -> None:
    envs = make(task("Pendulum-v1"), 2)
    np.testing.assert_array_equal(to_action_space(envs, np.array([[-5.0], [0.5]])), [[-2.0], [0.5]])


def test_discrete_actions_are_shifted_and_observations_flattened() -> None:
    envs = make(task("Shifted-v0"), 3)
    assert spaces(envs).observation_shape == (4,)
    np.testing.assert_array_equal(to_action_space(envs, np.array([0, 1, 2])), [-1, 0, 1])
    envs.reset()
    np.testing.assert_array_equal(envs.step(to_action_space(envs, np.array([0, 1, 2])))[1], [-1, 0, 1])


class Buttons(gym.Env[np.ndarray, np.ndarray]):
    """Takes any actions, and pays what they add up to."""

    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, action_space: gym.Space[Any]) -> None:
        self.action_space = action_space

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        return np.zeros(1, np.float32), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        assert action in self.action_space
        return np.zeros(1, np.float32), float(np.sum(action)), False, False, {}


gym.register("Buttons-v0", f"{__name__}:Buttons")
SEVERAL = {
    "MultiDiscrete": gym.spaces.MultiDiscrete(np.array([[3, 2], [1, 4]]), start=np.array([[-1, 0], [5, 2]])),
    "MultiBinary": gym.spaces.MultiBinary((2, 2)),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_choices_at_once_keep_to_their_space(kind: str) -> None:
    space = SEVERAL[kind]
    envs = make(task("Buttons-v0", action_space=space), 3)
    sizes = (3, 2, 1, 4) if kind == "MultiDiscrete" else (2, 2, 2, 2)
    assert spaces(envs).n_actions == sizes
    assert spaces(envs).discrete
    envs.reset()
    starts = getattr(space, "start", np.zeros((2, 2), int)).reshape(-1)
    rng, seen = np.random.default_rng(0), []
    for _ in range(300):
        seen.append(random_actions(envs, rng))
        rewards = envs.step(to_action_space(envs, seen[-1]))[1]  # of which the task sees that they are its own
        np.testing.assert_array_equal(rewards, seen[-1].sum(-1) + starts.sum())
    for choice, size in zip(np.concatenate(seen).T, sizes, strict=True):
        np.testing.assert_allclose(np.bincount(choice, minlength=size) / len(choice), 1 / size, atol=0.06)


@pytest.mark.parametrize("kind", ["Dict", "Tuple", "Text"])
def test_actions_that_no_family_gives_are_refused_by_name(kind: str) -> None:
    space = {
        "Dict": gym.spaces.Dict(a=gym.spaces.Discrete(2)),
        "Tuple": gym.spaces.Tuple([gym.spaces.Discrete(2)]),
        "Text": gym.spaces.Text(3),
    }[kind]
    with pytest.raises(ValueError, match=rf"^env\.id=Buttons-v0: actions are {kind}.*only Box, Discrete, MultiD"):
        make(task("Buttons-v0", action_space=space), 1)


@pytest.mark.parametrize("task_id", ["Pendulum-v1", "CartPole-v1", "Hopper-v5"])
def test_random_actions_are_uniform_over_the_space(task_id: str) -> None:
    envs = make(task(task_id), 2)
    rng = np.random.default_rng(0)
    actions = np.concatenate([to_action_space(envs, random_actions(envs, rng)) for _ in range(2000)])
    space = envs.single_action_space
    low, high = (space.low, space.high) if isinstance(space, gym.spaces.Box) else (0, 1)
    np.testing.assert_allclose(actions.mean(0), (low + high) / 2, atol=0.05 * np.max(high))
    np.testing.assert_allclose(actions.min(0), low, atol=0.01 * np.max(high))
    np.testing.assert_allclose(actions.max(0), high, atol=0.01 * np.max(high))


def test_unknown_and_unsupported_tasks_are_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"nearest of Gymnasium.s: HalfCheetah-v5") as unknown:
        task("HalfCheeta-v5")
    assert "\n" not in str(unknown.value)
    with pytest.raises(ValueError, match="module no_such_module cannot be imported"):
        task("no_such_module:Task-v0")
    with pytest.raises(ValueError, match=r"^env\.id=ALE/SpaceInvaders-v5: .*env=atari env\.game=space_invaders$"):
        task("ALE/SpaceInvaders-v5")
    with pytest.raises(ValueError, match=r"cannot be made.*no_such_argument"):
        make(task("CartPole-v1", no_such_argument=1), 1)
    with pytest.raises(ValueError, match=r"env\.gamma=1\.5"):
        GymConfig("task", 1.5, id="CartPole-v1")


def test_no_module_is_imported_from_results(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Runs come from other people: `results.x:Task` and a path into a run directory name nothing that is executed."""
    monkeypatch.setattr(gym_tasks, "RESULTS", tmp_path / "results")
    run_dir = tmp_path / "results" / "run"
    run_dir.mkdir(parents=True)
    (run_dir / "planted.py").write_text("raise SystemExit('executed')")
    for place in (tmp_path, run_dir):
        monkeypatch.syspath_prepend(place)
    for module in ("planted", "results.run.planted"):
        with pytest.raises(ValueError, match=rf"^env\.id={module}:Task-v0: module {module} lies in results/"):
            task(f"{module}:Task-v0")


def test_a_module_that_raises_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "raises.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"^env\.id=raises:Task-v0: .*\(ZeroDivisionError: division by zero\)$"):
        task("raises:Task-v0")


def test_the_kind_of_a_task_names_the_file_of_its_settings() -> None:
    assert load_env("gym") is GymConfig
    assert load_env("mujoco") is MujocoConfig
    assert load_env("atari").__module__ == "envs.atari"
    with pytest.raises(ValueError, match=r"^env\.kind=doom: there is no envs/doom\.py"):
        load_env("doom")
    with pytest.raises(ValueError, match=r"^env\.kind=tasks: envs/tasks\.py must define one EnvConfig, it defines 0"):
        load_env("tasks")


def test_tasks_of_other_kinds_do_not_load_the_atari_simulator() -> None:
    code = "import sys, envs.gym, envs.rollout; sys.exit(bool({'ale_py', 'cv2'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

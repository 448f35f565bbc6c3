"""Any task that Gymnasium has registered, by its id."""

import difflib
import re
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from omegaconf import MISSING

from envs.tasks import EnvConfig, RenderMode, TaskRefused

RESULTS = Path(__file__).resolve().parents[1] / "results"
"""Nothing is imported from there: runs and published cells come from other people."""


@dataclass
class GymConfig(EnvConfig):
    """A registered task; observations of several axes become vectors.

    Attributes:
        id: Gymnasium id, of a third-party task with its module: `module:Task-v0`.
        kwargs: arguments of `gymnasium.make`.
    """

    id: str = MISSING
    kwargs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        module, _, task = self.id.rpartition(":")
        if module:
            _import(module, self.setting)  # which registers its tasks
        if task.startswith("ALE/"):
            game = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", task.removeprefix("ALE/").partition("-")[0]).lower()
            raise TaskRefused(f"{self.setting}: games have settings of their own; choose env=atari env.game={game}")
        if task not in gym.registry:
            near = difflib.get_close_matches(task, gym.registry, n=3) or ["CartPole-v1"]
            raise TaskRefused(f"{self.setting}: no such task; nearest of Gymnasium's: {', '.join(near)}")

    @property
    def setting(self) -> str:
        return f"env.id={self.id}"

    @property
    def time_limit(self) -> int | None:
        limit = self.kwargs.get("max_episode_steps", gym.registry[self.id.rpartition(":")[2]].max_episode_steps)
        return limit if limit is not None and limit > 0 else None

    def make_one(self, render_mode: RenderMode | None = None) -> gym.Env[Any, Any]:
        rendered = {} if render_mode is None else {"render_mode": render_mode}  # which not every task knows
        env = gym.make(self.id, disable_env_checker=True, **self.kwargs | rendered)
        if isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) != 1:
            env = gym.wrappers.FlattenObservation(env)
        return _Detached(env)


def _import(module: str, setting: str) -> None:
    """Import a module that registers tasks. TaskRefused when that fails, or when it lies in `RESULTS`."""
    try:
        spec = find_spec(module.partition(".")[0])
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if not any(place and RESULTS in (Path(place).resolve(), *Path(place).resolve().parents) for place in places):
            import_module(module)
            return
    except Exception as error:  # a module may raise whatever it likes
        text = " ".join(str(error).split())
        raise TaskRefused(f"{setting}: module {module} cannot be imported ({type(error).__name__}: {text})") from error
    raise TaskRefused(f"{setting}: module {module} lies in results/, from where no code is run; move it elsewhere")


class _Detached(gym.Wrapper[Any, Any, Any, Any]):
    """What a task shows, as a copy: it may hand out an array that it writes to again.

    The info dictionary is thrown away, which nothing reads and vector environments spend time on merging.
    """

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return np.array(observation), reward, terminated, truncated, {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return np.array(self.env.reset(**kwargs)[0]), {}

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
        wrappers: put around the task in this order, the first innermost: `module:Class`, or with arguments
            `{class: module:Class, argument: value}`, where lists arrive as the tuples that Gymnasium's ask for.
        flatten: make one vector of whatever is observed, as `gymnasium.spaces.flatten`; categories one-hot.
    """

    id: str = MISSING
    kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: list[Any] = field(default_factory=list)
    flatten: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for entry in self.wrappers:
            _find_wrapper(entry)
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
        for entry in self.wrappers:
            env = _wrap(env, entry)
        space = env.observation_space
        is_box = isinstance(space, gym.spaces.Box)
        if self.flatten or (is_box and len(space.shape or ()) != 1):
            env = gym.wrappers.FlattenObservation(env)
        elif not is_box and space.is_np_flattenable:
            raise TaskRefused(
                f"{self.setting}: observations are {space}, and networks take vectors; set env.flatten=true to make "
                "one of them"
            )
        return _Detached(env)


def _find_wrapper(entry: Any) -> tuple[str, type[gym.Wrapper[Any, Any, Any, Any]], dict[str, Any]]:
    """Name, class and arguments of an entry of `wrappers`. TaskRefused where there are none such."""
    given = entry if isinstance(entry, dict) else {"class": entry}
    arguments = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    name = str(arguments.pop("class", ""))
    module, _, kind = name.rpartition(":")
    if not (module and kind):
        raise TaskRefused(
            f"env.wrappers={entry}: names no wrapper; give module:Class or {{class: module:Class, argument: value}}"
        )
    wrapper = _import(module, f"env.wrappers={name}", kind)
    if not (isinstance(wrapper, type) and issubclass(wrapper, gym.Wrapper)):
        raise TaskRefused(f"env.wrappers={name}: {kind} must be a subclass of gymnasium.Wrapper")
    return name, wrapper, arguments


def _wrap(env: gym.Env[Any, Any], entry: Any) -> gym.Env[Any, Any]:
    name, wrapper, arguments = _find_wrapper(entry)
    try:
        return wrapper(env, **arguments)
    except Exception as error:  # a constructor may raise whatever it likes
        text = " ".join(str(error).split())
        raise TaskRefused(f"env.wrappers={name}: cannot be made: {type(error).__name__}: {text}") from error


def _import(module: str, setting: str, name: str | None = None) -> Any:
    """Import a module, or what has that name in it. TaskRefused when that fails, or when it lies in `RESULTS`."""
    try:
        spec = find_spec(module.partition(".")[0])
        places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
        if not any(place and RESULTS in (Path(place).resolve(), *Path(place).resolve().parents) for place in places):
            imported = import_module(module)
            return imported if name is None else getattr(imported, name)
    except Exception as error:  # a module may raise whatever it likes
        text = " ".join(str(error).split())
        what = f"module {module}" if name is None else f"{name} of module {module}"
        raise TaskRefused(f"{setting}: {what} cannot be imported ({type(error).__name__}: {text})") from error
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

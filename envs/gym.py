"""Any task that Gymnasium has registered, by its id."""

import difflib
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import gymnasium as gym
from omegaconf import MISSING

from envs.tasks import EnvConfig


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
            try:
                import_module(module)  # registers its tasks
            except ImportError as error:
                raise ValueError(f"{self.setting}: module {module} cannot be imported ({error})") from error
        if task not in gym.registry:
            near = difflib.get_close_matches(task, gym.registry, n=3) or ["CartPole-v1"]
            raise ValueError(f"{self.setting}: no such task; nearest of Gymnasium's: {', '.join(near)}")

    @property
    def setting(self) -> str:
        return f"env.id={self.id}"

    @property
    def time_limit(self) -> int | None:
        limit = self.kwargs.get("max_episode_steps", gym.registry[self.id.rpartition(":")[2]].max_episode_steps)
        return limit if limit is not None and limit > 0 else None

    def make_one(self) -> gym.Env[Any, Any]:
        env = gym.make(self.id, disable_env_checker=True, **self.kwargs)
        if isinstance(env.observation_space, gym.spaces.Box) and len(env.observation_space.shape) != 1:
            env = gym.wrappers.FlattenObservation(env)
        return _DropInfo(env)


class _DropInfo(gym.Wrapper[Any, Any, Any, Any]):
    """Throws the info dictionary away, which nothing reads and vector environments spend time on merging."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, _ = self.env.step(action)
        return observation, reward, terminated, truncated, {}

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        return self.env.reset(**kwargs)[0], {}

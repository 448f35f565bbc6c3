"""Tasks by name: from settings to a Gymnasium vector environment whose observations are vectors or images."""

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, NamedTuple

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from omegaconf import MISSING

Envs = VectorEnv[Any, Any, Any]
"""Copies of one task, stepped together."""
RenderMode = Literal["human", "rgb_array"]
LIFE_LOST = "life_lost"
"""Key in a step's info: the step ends the episode for learning alone."""
LARGEST = 1e15
"""Observations and rewards beyond it count as broken: sums of their squares would leave float32."""


class TaskRefused(ValueError):
    """A task that cannot be trained on; the message names the setting."""


@dataclass
class EnvConfig(ABC):
    """What all tasks have. Those of a kind are made by the subclass in `envs/<kind>.py`.

    Attributes:
        name: its name in paths and tables.
        gamma: discount of the returns that agents maximise; scores are undiscounted.
        kind: the file.
    """

    name: str = MISSING
    gamma: float = MISSING
    kind: str = MISSING

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 1:
            raise ValueError(f"env.gamma={self.gamma}: must lie in [0, 1]")

    @property
    @abstractmethod
    def setting(self) -> str:
        """What a user set to get this task, `env.key=value`."""

    @property
    def hides_state(self) -> bool:
        """Whether it is known to keep state that no snapshot holds, though a short trial would not show it."""
        return False

    @property
    def time_limit(self) -> int | None:
        """Steps after which every episode is truncated; None where the task says none."""
        return None

    @abstractmethod
    def make_one(self, render_mode: RenderMode | None = None) -> gym.Env[Any, Any]:
        """One environment. Its steps' info is empty but for `LIFE_LOST`, since merging it takes time."""

    def make_all(self, num_envs: int) -> SyncVectorEnv:
        """num_envs of them, each reset within the step that ends its episode."""
        return SyncVectorEnv([self.make_one] * num_envs, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


@dataclass(frozen=True)
class Spaces:
    """Sizes of a task's spaces.

    Attributes:
        observation_shape: (n,), or (channels, height, width) of images, which are uint8.
        n_actions: length of the action vector, or number of actions if discrete; of several choices at once that of
            each.
        discrete: whether actions are finite choices.
    """

    observation_shape: tuple[int, ...]
    n_actions: int | tuple[int, ...]
    discrete: bool


@cache
def _log_mujoco_warning(message: str) -> None:
    logging.getLogger(__name__).warning("MuJoCo: %s", message)


_divergences: list[str] = []


def _receive_mujoco_warning(message: str) -> None:
    if "unstable" in message:
        _divergences.append(message)
    else:
        _log_mujoco_warning(message)


# MuJoCo would repeat its warnings for every environment made, on the terminal and in a file in the working directory.
mujoco.set_mju_user_warning(_receive_mujoco_warning)


def check_simulation() -> None:
    """See that no simulation has diverged since the last call.

    MuJoCo puts one that did back to its initial state and goes on; nothing that an agent sees would show it.

    Raises:
        FloatingPointError: one has.
    """
    if _divergences:
        message = " ".join(_divergences[0].split())
        _divergences.clear()
        raise FloatingPointError(f"the simulation diverged (MuJoCo: {message})")


def make(config: EnvConfig, num_envs: int) -> SyncVectorEnv:
    """num_envs copies of the task, each reset within the step that ends its episode (`final_obs` keeps the last state).

    Raises:
        TaskRefused: the task cannot be made, or its spaces are not supported: observations must be a box, actions
            finite choices or a box of floats.
    """
    try:
        envs = config.make_all(num_envs)
    except TaskRefused:
        raise
    except Exception as error:  # a constructor may raise whatever it likes
        text = " ".join(str(error).split())
        raise TaskRefused(f"{config.setting}: cannot be made: {type(error).__name__}: {text}") from error
    observation, action = envs.single_observation_space, envs.single_action_space
    if not isinstance(observation, gym.spaces.Box):
        raise TaskRefused(f"{config.setting}: observations are {observation}; only box observations are supported")
    if not isinstance(action, gym.spaces.Box | gym.spaces.Discrete | gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        raise TaskRefused(
            f"{config.setting}: actions are {action}; only Box, Discrete, MultiDiscrete and MultiBinary are supported"
        )
    if isinstance(action, gym.spaces.Box) and not np.issubdtype(action.dtype, np.floating):
        raise TaskRefused(
            f"{config.setting}: actions are {action}; a policy gives floats, and only boxes of these are supported: "
            "wrap the task so that it takes floats and rounds them itself"
        )
    return envs


def spaces(envs: Envs) -> Spaces:
    """Sizes of the spaces of one environment."""
    observation, action = envs.single_observation_space, envs.single_action_space
    assert observation.shape is not None
    if isinstance(action, gym.spaces.Discrete):
        return Spaces(observation.shape, int(action.n), True)
    if isinstance(action, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        return Spaces(observation.shape, tuple(_sizes(action).tolist()), True)
    assert action.shape is not None
    return Spaces(observation.shape, int(np.prod(action.shape)), False)


def _sizes(space: gym.spaces.MultiDiscrete | gym.spaces.MultiBinary) -> np.ndarray:
    """Number of actions of every choice, row by row of the space: (A,)."""
    if isinstance(space, gym.spaces.MultiDiscrete):
        return space.nvec.reshape(-1).astype(np.int64)
    return np.full(int(np.prod(space.shape)), 2)


def to_action_space(envs: Envs, actions: np.ndarray) -> np.ndarray:
    """What the environments execute: finite choices shifted to the space's start, vectors clipped to the box."""
    space = envs.single_action_space
    if isinstance(space, gym.spaces.Box):
        return np.asarray(np.clip(actions.reshape(-1, *space.shape), space.low, space.high))
    if isinstance(space, gym.spaces.Discrete):
        return np.asarray(actions + space.start)
    assert isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary)
    start = space.start if isinstance(space, gym.spaces.MultiDiscrete) else 0
    return np.asarray(actions.reshape(-1, *space.shape) + start, space.dtype)


class Transition(NamedTuple):
    """One step of N environments; copies, which no environment writes to again.

    Attributes:
        observations: what they show after it, (N, ...); of one whose episode ended, the first of the next.
        rewards: raw, (N,).
        terminated: the task ended, (N,).
        truncated: a limit cut the episode off, (N,).
        info: `final_obs` of the episodes that ended, and whether a life was lost.
    """

    observations: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    info: dict[str, Any]


def reset(envs: Envs, task: EnvConfig, phase: str, **arguments: Any) -> np.ndarray:
    """Reset environments of the task; returns a copy of what they show, (N, ...).

    Args:
        envs: the environments.
        task: whose they are.
        phase: of the run, for the message.
        arguments: of `VectorEnv.reset`.

    Raises:
        FloatingPointError: as `check_numbers`.
    """
    observations: np.ndarray = envs.reset(**arguments)[0].copy()
    check_numbers(task, phase, observation=observations)
    return observations


def step(envs: Envs, actions: np.ndarray, task: EnvConfig, phase: str) -> Transition:
    """Let every environment take an action of a policy, (N, ...). Arguments and errors as `reset`."""
    observations, rewards, terminated, truncated, info = envs.step(to_action_space(envs, actions))
    taken = Transition(observations.copy(), rewards.copy(), terminated.copy(), truncated.copy(), info)
    check_numbers(task, phase, observation=taken.observations, reward=taken.rewards)
    for n in np.flatnonzero(taken.truncated):  # which values are bootstrapped from
        check_numbers(task, phase, observation=np.asarray(info["final_obs"][n]))
    return taken


def check_numbers(task: EnvConfig, phase: str, **found: np.ndarray) -> None:
    """See that what a task returned is finite and within `LARGEST`.

    Raises:
        FloatingPointError: it is not, or the simulation diverged; names the task, the number and the phase.
    """
    for what, values in found.items():
        if values.dtype.kind != "f" or np.abs(values).max(initial=0.0) <= LARGEST:  # no NaN is
            continue
        check_simulation()
        worst = values[~(np.abs(values) <= LARGEST)][0]
        raise FloatingPointError(
            f"{task.setting}: the task's {what} is {worst:g} in {phase}; numbers must be finite and at most "
            f"{LARGEST:g} in size"
        )


def random_actions(envs: Envs, rng: np.random.Generator) -> np.ndarray:
    """Uniformly random actions, as a policy would give them; unbounded dimensions are standard normal."""
    space = envs.single_action_space
    if isinstance(space, gym.spaces.Discrete):
        return rng.integers(space.n, size=envs.num_envs)
    if isinstance(space, gym.spaces.MultiDiscrete | gym.spaces.MultiBinary):
        sizes = _sizes(space)
        return rng.integers(sizes, size=(envs.num_envs, len(sizes)))
    assert isinstance(space, gym.spaces.Box)
    shape = (envs.num_envs, int(np.prod(space.shape)))
    low, high = space.low.reshape(-1), space.high.reshape(-1)
    bounded = np.isfinite(low) & np.isfinite(high)
    uniform = rng.uniform(np.where(bounded, low, 0), np.where(bounded, high, 1), shape)
    return np.where(bounded, uniform, rng.standard_normal(shape)).astype(np.float32)

"""Gymnasium's MuJoCo v5 tasks, all copies of one stepped together: the same bits at nearly the speed of MuJoCo alone.

Of a step of HalfCheetah a third goes into Python, one copy after the other. Here a copy costs one call of MuJoCo, and
what follows from it is computed for all copies at once (`envs/mujoco_tasks.py`). The copies are Gymnasium's own
environments, which are made, reset, seeded and saved as ever.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from envs.gym import GymConfig
from envs.mujoco_tasks import TASKS, Step, Task

Sources = list[tuple[list[np.ndarray], np.ndarray]]
"""Views of one field of every copy's `MjData`, and the flat array that takes their values."""


@dataclass
class MujocoConfig(GymConfig):
    """One of `TASKS`. With arguments, wrappers, or another id, Gymnasium steps it, as under `env=gym`."""

    def make_all(self, num_envs: int) -> SyncVectorEnv:
        if self.kwargs or self.wrappers or self.id not in TASKS:
            return super().make_all(num_envs)
        return MujocoEnvs([self.make_one] * num_envs, TASKS[self.id])


class MujocoEnvs(SyncVectorEnv):
    """Copies of one task, reset within the step that ends their episode; the next step overwrites observations.

    Args:
        makers: of Gymnasium's environments, all alike and with a time limit.
        task: what is computed after a step.
    """

    def __init__(self, makers: Sequence[Callable[[], gym.Env[Any, Any]]], task: Task) -> None:
        super().__init__(makers, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)
        originals: list[Any] = [env.unwrapped for env in self.envs]
        self._task, self._limits = task, [_time_limit(env) for env in self.envs]
        self._model, self._frame_skip = originals[0].model, originals[0].frame_skip
        self._data = [original.data for original in originals]
        # An array of MjData shows memory that stays where it is as long as MjData does.
        self._ctrl = [data.ctrl for data in self._data]
        self._seen = [
            getattr(data, name)[start:].reshape(-1) for data in self._data for name, start in task.observed.items()
        ]
        self._before, before = self._fields(task.before)
        self._after, after = self._fields(task.after)
        self._step = Step(self._model, originals[0].dt, self._observations, np.empty(0), before, after)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As SyncVectorEnv; with `reset_mask` those alone, where that one would not know what the others show."""
        if options is None or "reset_mask" not in options:
            return super().reset(seed=seed, options=options)
        seeds = [seed] * self.num_envs if seed is None else seed
        for i in np.flatnonzero(options["reset_mask"]).tolist():
            self._step.observations[i] = self.envs[i].reset(seed=seeds[i])[0]
        return self._step.observations, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As SyncVectorEnv, whose info has the final observations alone."""
        step, task, observations = self._step, self._task, self._step.observations
        step.actions = np.ascontiguousarray(actions)  # sums over rows in memory round as those over single ones
        _gather(self._before)
        self._simulate(step.actions)
        _gather(self._after)
        if self._seen:
            np.concatenate(self._seen, out=observations.reshape(-1))
        rewards, terminated = task.outcome(step)
        if task.finish:
            task.finish(step)
        truncated = self._count_steps()
        infos: dict[str, Any] = {}
        for i in np.flatnonzero(terminated | truncated).tolist():
            infos = self._add_info(infos, {"final_obs": observations[i].copy(), "final_info": {}}, i)
            observations[i] = self.envs[i].reset()[0]
        return observations, rewards, terminated, truncated, infos

    def _simulate(self, actions: np.ndarray) -> None:
        mj_step, model, frame_skip = mujoco.mj_step, self._model, self._frame_skip
        for data, ctrl, action in zip(self._data, self._ctrl, actions.astype(np.float64), strict=True):
            ctrl[:] = action
            mj_step(model, data, nstep=frame_skip)
        if self._task.contacts:
            for data in self._data:
                mujoco.mj_rnePostConstraint(model, data)

    def _count_steps(self) -> np.ndarray:
        """Whether each copy is at its time limit, by the wrapper's own count, which is reset and saved with it."""
        for limit in self._limits:
            limit._elapsed_steps += 1
        return np.array([limit._elapsed_steps >= limit._max_episode_steps for limit in self._limits])

    def _fields(self, names: Iterable[str]) -> tuple[Sources, dict[str, np.ndarray]]:
        """Arrays for fields of all copies, (N, *shape) by name, and how `_gather` fills them."""
        sources, fields = [], {}
        for name in names:
            views = [getattr(data, name) for data in self._data]
            fields[name] = np.empty((len(views), *views[0].shape))
            sources.append(([view.reshape(-1) for view in views], fields[name].reshape(-1)))
        return sources, fields


def _gather(sources: Sources) -> None:
    for views, flat in sources:
        np.concatenate(views, out=flat)


def _time_limit(env: Any) -> Any:
    while not isinstance(env, TimeLimit):
        env = env.env
    return env

"""Finished training episodes and the score they give a run: the return of the stochastic policy while it learns."""

from typing import Any

import numpy as np


class EpisodeLog:
    """Follows every environment's current episode and keeps the returns of those that ended.

    Attributes:
        env_steps: environment steps so far, all environments together.
        uncounted: environments whose current episode does not count; it leaves no row and has no part in the score.
        lengths: steps of every environment's current episode so far.

    Args:
        num_envs: number of environments.
        skip_first: whether the first episode of each does not count.
    """

    def __init__(self, num_envs: int, skip_first: bool = False) -> None:
        self.env_steps = 0
        self.uncounted = np.full(num_envs, skip_first)
        self.lengths = np.zeros(num_envs, dtype=np.int64)
        self._returns = np.zeros(num_envs)
        self._ended_at: list[int] = []
        self._ended_return: list[float] = []
        self._unfinished_envs = np.ones(num_envs, dtype=bool)

    def step(self, rewards: np.ndarray, done: np.ndarray) -> list[dict[str, float | int]]:
        """One step of every environment, raw rewards; a row of `episodes.parquet` per episode that ended and counts."""
        self.env_steps += len(rewards)
        self._returns += rewards
        self.lengths += 1
        rows: list[dict[str, float | int]] = []
        for i in np.flatnonzero(done & ~self.uncounted):
            episode_return = float(self._returns[i])
            rows.append(
                {
                    "env_steps": self.env_steps,
                    "episode_return": episode_return,
                    "episode_length": int(self.lengths[i]),
                    "env_index": int(i),
                }
            )
            self._ended_at.append(self.env_steps)
            self._ended_return.append(episode_return)
        self._returns[done], self.lengths[done] = 0.0, 0
        self._unfinished_envs[done & ~self.uncounted] = False
        self.uncounted[done] = False
        return rows

    def score(self) -> float | None:
        """`episode_return`: mean over the last min(100, max(m, num_envs)) episodes, m of the last 10 % of steps.

        A fixed window of 100 would be an average over the whole run at small budgets. None until every environment
        has ended one that counts, since the first ones to end are the short ones.
        """
        if self._unfinished_envs.any():
            return None
        recent = len(self._ended_at) - int(np.searchsorted(self._ended_at, 0.9 * self.env_steps, side="right"))
        return float(np.mean(self._ended_return[-min(100, max(recent, len(self._returns))) :]))

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {
            "env_steps": self.env_steps,
            "returns": self._returns.copy(),
            "lengths": self.lengths.copy(),
            "ended_at": np.array(self._ended_at, dtype=np.int64),
            "ended_return": np.array(self._ended_return, dtype=np.float64),
            "unfinished_envs": self._unfinished_envs.copy(),
            "uncounted": self.uncounted.copy(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.env_steps = state["env_steps"]
        self._returns, self.lengths = state["returns"], state["lengths"]
        self._ended_at, self._ended_return = state["ended_at"].tolist(), state["ended_return"].tolist()
        self._unfinished_envs, self.uncounted = state["unfinished_envs"], state["uncounted"]

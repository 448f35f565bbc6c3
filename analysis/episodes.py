"""The training episodes of a run, and the score that follows from them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.curves import Column, Floats
from tracking.tables import read_arrow

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Episodes:
    """Training episodes in the order of their ends, each array (E,); returns in float32 precision.

    Attributes:
        env_steps: environment steps at the end.
        returns: undiscounted sums of the task's own rewards.
        lengths: steps.
        env_index: which of the environments, from 0.
    """

    env_steps: Integers
    returns: Floats
    lengths: Integers
    env_index: Integers

    def table(self) -> pa.Table:
        """A row per episode, with the names of ``episodes.parquet``."""
        return pa.table(
            {
                "env_steps": pa.array(self.env_steps),
                "episode_return": pa.array(self.returns, from_pandas=False),
                "episode_length": pa.array(self.lengths.astype(np.int32)),
                "env_index": pa.array(self.env_index.astype(np.int32)),
            }
        )

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """The episodes of a table with these columns."""
        integers = {name: np.array(table[name].to_numpy(), dtype=np.int64) for name in ("env_steps", "env_index")}
        return cls(
            env_steps=integers["env_steps"],
            returns=np.array(table["episode_return"].to_numpy(), dtype=np.float32).astype(np.float64),
            lengths=np.array(table["episode_length"].to_numpy(), dtype=np.int64),
            env_index=integers["env_index"],
        )

    def scores(self, env_steps: Floats, num_envs: int) -> Column:
        """The score at each of these steps, (n,): the rule of `envs.episodes`, from the episodes alone.

        The mean over the last min(100, max(m, num_envs)) episodes, m of which ended in the last 10 % of the steps;
        null until every environment has ended an episode.
        """
        _, first = np.unique(self.env_index, return_index=True)
        complete = self.env_steps[first].max() if len(first) == num_envs else np.inf
        ended = np.searchsorted(self.env_steps, env_steps, side="right")
        recent = ended - np.searchsorted(self.env_steps, 0.9 * env_steps, side="right")
        window = np.minimum(100, np.maximum(recent, num_envs))
        measured = env_steps >= complete
        means = [
            self.returns[max(0, end - width) : end].mean() if known else np.nan
            for end, width, known in zip(ended, window, measured, strict=True)
        ]
        return Column(np.array(means, dtype=np.float64), measured)


def read_episodes(path: Path) -> Episodes:
    """The episodes of a run directory; none where it has no such file. ValueError when a column is absent."""
    if not path.is_file():
        none = np.empty(0, dtype=np.int64)
        return Episodes(none, np.empty(0), none, none)
    try:
        return Episodes.of(read_arrow(path))
    except KeyError as error:
        raise ValueError(f"{path}: without a column ({error.args[0]})") from error

"""The columns of ``progress.parquet`` that are analysed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.curves import Column, Floats
from tracking.tables import read_arrow

COLUMNS = (
    "episode_return",
    "kl",
    "fisher_trace",
    "alignment_error",
    "quadratic_error",
    "fisher_trace_split",
)
"""Columns of ``progress.parquet`` that are analysed, beside env_steps, wall_time, outcome and alignment_outcome."""


@dataclass(frozen=True)
class Progress:
    """The analysed columns of one run, one entry per update; env_steps and wall_time (s) are never null.

    `solved`: whether the natural gradient behind the alignment error was solved to its tolerance; False where none was
    sought.
    """

    env_steps: Floats
    wall_time: Floats
    outcome: NDArray[np.str_]
    solved: NDArray[np.bool_]
    columns: dict[str, Column]


def read_progress(path: Path) -> Progress | None:
    """The analysed columns of a run; None before its first update. ValueError when one is absent.

    Read as an Arrow table, since a pandas column cannot tell null from NaN.
    """
    table = read_arrow(path)
    if table.num_rows == 0:
        return None
    absent = {"env_steps", "wall_time", "outcome", *COLUMNS} - set(table.column_names)
    if absent:
        raise ValueError(f"{path}: without the columns {', '.join(sorted(absent))}")
    return Progress(
        env_steps=column(table, "env_steps").values,
        wall_time=column(table, "wall_time").values,
        outcome=np.array(table["outcome"].to_pylist(), dtype=np.str_),
        solved=_solved(table),
        columns={name: column(table, name) for name in COLUMNS},
    )


def _solved(table: pa.Table) -> NDArray[np.bool_]:
    if "alignment_outcome" not in table.column_names:  # of a run that never had a gradient
        return np.zeros(table.num_rows, dtype=bool)
    return np.array([outcome == "converged" for outcome in table["alignment_outcome"].to_pylist()])


def column(table: pa.Table, name: str) -> Column:
    """A numeric column of a table, null and NaN apart."""
    cast = table[name].cast(pa.float64())
    return Column(np.array(cast.to_numpy()), ~np.array(cast.is_null().to_numpy()))

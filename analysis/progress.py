"""The columns of ``progress.parquet`` that are analysed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.curves import Column, Floats
from tracking.tables import read_arrow

PUBLISHED = (
    "kl",
    "kl_total",
    "fisher_trace",
    "fisher_trace_split",
    "alignment_error",
    "quadratic_error",
    "alignment_error_heldout",
    "alignment_noise",
)
"""Numbers of an update that a published cell keeps, in float32."""
COLUMNS = ("episode_return", *PUBLISHED)
"""Columns of ``progress.parquet`` that are analysed, beside env_steps, outcome and alignment_outcome."""
LATER = ("kl_total", "alignment_error_heldout", "alignment_noise")
"""Those of them that earlier runs do not have: all null then."""


@dataclass(frozen=True)
class Progress:
    """The analysed columns of one run, one entry per update.

    Attributes:
        env_steps: steps at the end of the update; never null.
        outcome: how the update ended.
        alignment_outcome: end of the solve for the natural gradient behind the alignment error; empty without one.
        columns: by name of `COLUMNS`; of a published cell by name of `PUBLISHED`.
    """

    env_steps: Floats
    outcome: NDArray[np.str_]
    alignment_outcome: NDArray[np.str_]
    columns: dict[str, Column]

    @property
    def solved(self) -> NDArray[np.bool_]:
        """Whether that natural gradient was solved to its tolerance; False where none was sought."""
        return np.asarray(self.alignment_outcome == "converged")

    def published(self) -> "Progress":
        """As a published cell keeps it: without the score, which follows from the episodes, and in float32."""
        return Progress(
            self.env_steps,
            self.outcome,
            self.alignment_outcome,
            {name: self.columns[name].single_precision() for name in PUBLISHED},
        )

    def table(self) -> pa.Table:
        """A row per update, of what `published()` keeps; null where unmeasured."""
        outcomes = [outcome or None for outcome in self.alignment_outcome.tolist()]
        return pa.table(
            {
                "env_steps": pa.array(self.env_steps.astype(np.int64)),
                "outcome": pa.array(self.outcome.tolist(), pa.string()),
                "alignment_outcome": pa.array(outcomes, pa.string()),
                **{name: self.columns[name].array(pa.float32()) for name in PUBLISHED},
            }
        )

    @classmethod
    def of(cls, table: pa.Table, names: tuple[str, ...]) -> Self:
        """The columns of these names of a table with a row per update; one of `LATER` that is absent is all null."""
        rows = table.num_rows
        null = Column(np.full(rows, np.nan), np.zeros(rows, dtype=bool))
        # A run that never had a gradient has no alignment_outcome.
        solves = table["alignment_outcome"].to_pylist() if "alignment_outcome" in table.column_names else [None] * rows
        return cls(
            env_steps=column(table, "env_steps").values,
            outcome=np.array(table["outcome"].to_pylist(), dtype=np.str_),
            alignment_outcome=np.array([outcome or "" for outcome in solves], dtype=np.str_),
            columns={name: column(table, name) if name in table.column_names else null for name in names},
        )


def read_progress(path: Path) -> Progress | None:
    """The analysed columns of a run; None before its first update. ValueError when one is absent.

    Read as an Arrow table, since a pandas column cannot tell null from NaN.
    """
    table = read_arrow(path)
    if table.num_rows == 0:
        return None
    absent = {"env_steps", "wall_time", "outcome", *COLUMNS} - set(table.column_names) - set(LATER)
    if absent:
        raise ValueError(f"{path}: without the columns {', '.join(sorted(absent))}")
    return Progress.of(table, COLUMNS)


def column(table: pa.Table, name: str) -> Column:
    """A numeric column of a table, null and NaN apart."""
    cast = table[name].cast(pa.float64())
    return Column(np.array(cast.to_numpy()), ~np.array(cast.is_null().to_numpy()))

"""A run on the common grid of environment steps.

Every column of ``progress.parquet`` has one row per update, and updates fall on different steps for different
algorithms. Curves are therefore read on a grid of 10,000 steps; the last point is the end of the run.
"""

from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

GRID = 10_000
"""Environment steps between two points of a curve."""

Floats = NDArray[np.float64]


class Column(NamedTuple):
    """One column of a run: `values` (n,), NaN where null, and `measured` (n,), false exactly where null.

    A NaN with `measured` true is a quantity that was computed and came out NaN.
    """

    values: Floats
    measured: NDArray[np.bool_]

    def where(self, rows: NDArray[np.bool_]) -> "Column":
        """The column with every row outside the mask `rows` made null."""
        measured = self.measured & rows
        return Column(np.where(measured, self.values, np.nan), measured)

    def single_precision(self) -> "Column":
        """The column rounded to float32."""
        return Column(self.values.astype(np.float32).astype(np.float64), self.measured)

    def array(self, kind: pa.DataType) -> pa.Array:
        """The column as Arrow has it, null and NaN apart."""
        return pa.array(self.values, mask=~self.measured, from_pandas=False).cast(kind)

    @property
    def usable(self) -> Floats:
        """The values that are neither null nor NaN."""
        return self.values[~np.isnan(self.values)]

    @property
    def nan(self) -> int:
        """How many values were measured and came out NaN."""
        return int(np.isnan(self.values[self.measured]).sum())


class Curve(NamedTuple):
    """One column on the grid: `steps`, `values`, `measurements`, each (K,).

    `measurements` is the number of measurements behind a value: 0 marks a point without any (value NaN), so
    that a NaN with a positive count is a measured NaN. Points after the end of a run have count 0.
    """

    steps: Floats
    values: Floats
    measurements: NDArray[np.int64]


def grid_points(total_steps: int) -> Floats:
    """Grid of a budget, (K,): 10k, 20k, … below `total_steps`, then `total_steps` itself."""
    return np.append(np.arange(GRID, total_steps, GRID), total_steps).astype(np.float64)


def score_curve(env_steps: Floats, score: Column, points: Floats) -> Curve:
    """Score on the grid: the last row at or before each point.

    Args:
        env_steps: steps at the end of each update, (n,), increasing.
        score: `episode_return` of each update; null until every environment has ended an episode.
        points: the grid, (K,). The point at or just after the end of the run is moved to the end of the run.
    """
    steps, last = _steps_of_run(env_steps, points)
    row = np.searchsorted(env_steps, steps, side="right") - 1
    seen = (row >= 0) & (np.arange(len(points)) <= last)
    count = np.where(seen, score.measured[row], False).astype(np.int64)
    return Curve(steps, np.where(count > 0, score.values[row], np.nan), count)


def kpi_curve(env_steps: Floats, kpi: Column, points: Floats) -> Curve:
    """KPI on the grid: the mean of the measurements in each bin (previous point, point].

    A measured NaN makes the mean of its bin NaN; a bin without a measurement has count 0.
    """
    steps, _ = _steps_of_run(env_steps, points)
    bins = np.searchsorted(steps, env_steps[kpi.measured], side="left")
    count = np.bincount(bins, minlength=len(points))
    total = np.bincount(bins, weights=kpi.values[kpi.measured], minlength=len(points))
    mean = np.divide(total, count, out=np.full(len(points), np.nan), where=count > 0)
    return Curve(steps, mean, count)


def bridged(curve: Curve) -> Floats:
    """Values with bins that lack a measurement on the straight line between their neighbours, as if drawn.

    Before the first and after the last measurement of a run the values stay null; measured NaNs stay NaN.
    """
    usable = np.flatnonzero(np.isfinite(curve.values))
    gap = np.flatnonzero(curve.measurements == 0)
    if usable.size:
        gap = gap[(gap > usable[0]) & (gap < usable[-1])]
    values = curve.values.copy()
    if usable.size and gap.size:
        values[gap] = np.interp(curve.steps[gap], curve.steps[usable], curve.values[usable])
    return values


def _steps_of_run(env_steps: Floats, points: Floats) -> tuple[Floats, int]:
    """The grid with its point at or just after the run's end moved there, and that point's index."""
    end = env_steps[-1]
    last = min(int(np.searchsorted(points, end)), len(points) - 1)
    steps = points.copy()
    steps[last] = end
    return steps, last

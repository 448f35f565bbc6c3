"""Normalised learning curves over all tasks of a suite.

The scale of a task is that of `analysis.mujoco_scores`. A point is the IQM of the normalised scores of all runs on all
tasks (their mean where a task has fewer than `MIN_RUNS`), in which a run without a score yet counts as random, 0. For
the interval the runs of each task are resampled among themselves. A variant has a curve where it has a run that counts
on every task.
"""

from dataclasses import dataclass

import numpy as np

from analysis.cells import values_of
from analysis.curves import Floats
from analysis.groups import Group, Results
from analysis.mujoco_scores import Scale, scales
from analysis.statistics import MIN_RUNS, iqm, percentile_interval
from analysis.style import ordered

RESAMPLES = 500
"""Of a pointwise band; tables have theirs."""


@dataclass(frozen=True)
class Aggregate:
    """One variant's normalised scores over `tasks` tasks.

    `steps`, `curve`, `low` and `high` are (K,), without ends where some task has too few runs for an interval; `areas`
    are the means over the grid of the curves of all runs on all tasks, (runs,), `area_low` and `area_high` the ends of
    the interval of their IQM.
    """

    variant: str
    tasks: int
    steps: Floats
    curve: Floats
    low: Floats | None
    high: Floats | None
    areas: Floats
    area_low: float | None
    area_high: float | None

    @property
    def area(self) -> float:
        """Aggregate over all runs of the normalised area under the learning curve."""
        return float(_centre(self.areas, self.low is None))

    @property
    def words(self) -> str:
        """What the curve is."""
        return f"{'mean' if self.low is None else 'IQM'} over all runs; 0: random actions, 1: best published"


def scale_of(group: Group) -> Scale | None:
    """The scale of the task that the runs of a group are of; None where it has none."""
    ids = values_of("env.id", group.cells)
    return scales().get(str(ids[0])) if len(ids) == 1 else None


def aggregates(results: Results) -> list[Aggregate]:
    """The curves of all variants that have one; none of a suite with fewer than two tasks on the scale."""
    envs = {group.env for group in results.groups if scale_of(group)}
    if len(envs) < 2 or envs != set(results.suite.envs):
        return []
    found = []
    for variant in ordered(results.suite.variants):
        groups = [group for group in results.groups if group.variant == variant and group.runs]
        if {group.env for group in groups} == envs:
            found.append(_aggregate(variant, groups))
    return found


def _centre(values: Floats, few: bool) -> Floats:
    """Over the first axis, the runs of all tasks: IQM, or the mean where a task has too few for an interval."""
    return np.asarray(values.mean(axis=0)) if few else iqm(values, axis=0)


def _aggregate(variant: str, groups: list[Group]) -> Aggregate:
    normalised = [_normalised(group) for group in groups]
    pooled = np.concatenate(normalised)
    low = high = area_low = area_high = None
    if min(len(group.runs) for group in groups) >= MIN_RUNS:
        pairs = [(scores, group.draws) for scores, group in zip(normalised, groups, strict=True)]
        sizes = [len(group.runs) for group in groups]
        ends = [
            percentile_interval(
                iqm(np.concatenate([scores[:, k][draws[:RESAMPLES]] for scores, draws in pairs], axis=1)), sizes
            )
            for k in range(pooled.shape[1])
        ]
        low, high = (np.array(end) for end in zip(*ends, strict=True))
        areas = iqm(np.concatenate([scores.mean(axis=1)[draws] for scores, draws in pairs], axis=1))
        area_low, area_high = map(float, percentile_interval(areas, sizes))
    steps = np.median([group.scores.steps for group in groups], axis=0)
    curve, areas = _centre(pooled, low is None), pooled.mean(axis=1)
    return Aggregate(variant, len(groups), steps, curve, low, high, areas, area_low, area_high)


def _normalised(group: Group) -> Floats:
    """Normalised scores on the grid, (runs, K), 0 before the first."""
    scale = scale_of(group)
    assert scale is not None
    scores = group.scores
    return np.where(scores.measurements > 0, scale.normalise(scores.values), 0.0)

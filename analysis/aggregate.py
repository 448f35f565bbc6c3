"""Normalised learning curves over all tasks of a suite: the runs that outcomes are made of (`analysis.outcomes`).

A point aggregates the normalised scores of all runs on all tasks, and the runs of each task are resampled among
themselves (`analysis.statistics.estimate`). A variant has a curve where it has a run that counts on every task.
"""

from dataclasses import dataclass

import numpy as np

from analysis.curves import Floats
from analysis.groups import Results
from analysis.outcomes import Achieved, all_achieved, draws_of
from analysis.statistics import Estimate, estimate
from analysis.style import ordered

RESAMPLES = 500
"""Of a pointwise band; tables have theirs."""


@dataclass(frozen=True)
class Aggregate:
    """One variant's normalised scores over `tasks` tasks.

    Attributes:
        steps: the grid, (K,).
        points: aggregate at every point of it, with its interval or range.
        area: of the normalised area under the learning curve, as the tables have it.
        words: what the curve is.
    """

    variant: str
    tasks: int
    steps: Floats
    points: tuple[Estimate, ...]
    area: Estimate
    words: str

    @property
    def curve(self) -> Floats:
        return np.array([point.value for point in self.points])

    @property
    def band(self) -> tuple[Floats, Floats] | None:
        """Ends of the pointwise interval, (K,) each; None where a task has too few runs for one."""
        if not self.area.is_interval:
            return None
        return np.array([point.low for point in self.points]), np.array([point.high for point in self.points])


def over_all_tasks(results: Results) -> list[Aggregate]:
    """The curves of all variants that have one; none of a suite with fewer than two tasks, or one without a scale."""
    found, envs = all_achieved(results), results.suite.envs
    if len(envs) < 2:
        return []
    of_games = {True: "a human tester", False: "best published"}
    goal = " or ".join(dict.fromkeys(of_games[env in results.references] for env in envs))
    return [
        _aggregate(variant, [found[env, variant] for env in envs], results.resamples, goal)
        for variant in ordered(results.suite.variants)
        if all((env, variant) in found for env in envs)
    ]


def _aggregate(variant: str, tasks: list[Achieved], resamples: int, goal: str) -> Aggregate:
    draws = [draws_of(one, resamples) for one in tasks]
    curves = [np.stack([run.curve for run in one.runs]) for one in tasks]
    few = [drawn[:RESAMPLES] for drawn in draws]
    points = tuple(estimate([runs[:, k] for runs in curves], few) for k in range(curves[0].shape[1]))
    area = estimate([one.values("area") for one in tasks], draws)
    steps = np.median([run.steps for one in tasks for run in one.runs], axis=0)
    aggregated = "IQM" if area.is_interval else "mean"
    words = f"{aggregated} over all runs; 0: random actions, 1: {goal}"
    return Aggregate(variant, len(tasks), steps, points, area, words)

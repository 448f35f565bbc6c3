"""A search for settings: every configuration's score over tasks, ranked within its algorithm.

A configuration's score is the mean over tasks of the normalised final score (`analysis.mujoco_scores`), each the mean
over seeds. One of which a run failed, or ended without a score, has none, and comes last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.groups import Results
from analysis.outcomes import scale_of
from analysis.style import ordered

DEFAULTS = 0
"""Number of the configuration that an algorithm's own file has."""


@dataclass(frozen=True)
class Trial:
    """One configuration of one algorithm.

    Attributes:
        algorithm: whose.
        number: of the draw; 0: the defaults.
        settings: what it changes of the defaults.
        normalised: by environment the normalised final score, mean over seeds; None where a run has none.
        runs: how many finished with a score, and how many were planned.
        rank: 1 for the best of the algorithm; None without a score.
    """

    algorithm: str
    number: int
    settings: tuple[str, ...]
    normalised: dict[str, float | None]
    runs: tuple[int, int]
    rank: int | None = None

    @property
    def score(self) -> float | None:
        """Mean over tasks; None where one is missing."""
        found = [value for value in self.normalised.values() if value is not None]
        return float(np.mean(found)) if len(found) == len(self.normalised) else None


def trials(results: Results) -> list[Trial]:
    """The configurations of a search, by algorithm and rank; those without a score last."""
    suite = results.suite
    found = []
    for variant, settings in suite.configurations.items():
        algorithm, _, number = variant.rpartition("-")
        groups = [group for group in results.groups if group.variant == variant]
        normalised: dict[str, float | None] = {}
        for group in groups:
            scale = scale_of(group)
            complete = len(group.runs) == len(group.cells)
            normalised[group.env] = float(scale.normalise(group.finals).mean()) if scale and complete else None
        runs = sum(len(group.runs) for group in groups), sum(len(group.cells) for group in groups)
        found.append(Trial(algorithm, int(number), tuple(settings[1:]), normalised, runs))
    return [ranked for algorithm in ordered(t.algorithm for t in found) for ranked in _rank(found, algorithm)]


def _rank(found: Sequence[Trial], algorithm: str) -> list[Trial]:
    mine = [trial for trial in found if trial.algorithm == algorithm]
    scores = [trial.score for trial in mine if trial.score is not None]
    ranked = [
        Trial(t.algorithm, t.number, t.settings, t.normalised, t.runs, None if t.score is None else _place(t, scores))
        for t in mine
    ]
    return sorted(ranked, key=lambda trial: (trial.rank is None, trial.rank, trial.number))


def _place(trial: Trial, scores: Sequence[float]) -> int:
    assert trial.score is not None
    return 1 + sum(score > trial.score for score in scores)

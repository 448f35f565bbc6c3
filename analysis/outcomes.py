"""What a run achieved, as docs/plan.md has it: area, final score, steps to fixed thresholds, time, drawdown.

Scores are on the scale of their task: from random actions, 0, to a published reference, 1 (`analysis.mujoco_scores`;
of games a human tester, `analysis.human_scores`), fixed before the runs. A run that failed counts, with its last score
held to the end, and as random actions from the start if it had none; so does one of which a score came out NaN.
"""

from dataclasses import dataclass

import numpy as np

from analysis.cells import Cell
from analysis.condensed import SCORE, Condensed
from analysis.curves import Curve, Floats, grid_points
from analysis.groups import Group, Results
from analysis.mujoco_scores import Scale, scales
from analysis.sample_efficiency import first_crossing, last_crossing
from analysis.statistics import Draws, generator, resample_runs

LEVELS = (0.25, 0.5, 0.75, 0.9)
"""Shares of the way from random actions to the reference that steps are counted to."""
FINAL_EPISODES = 100
"""Most episodes behind a score."""


@dataclass(frozen=True)
class Outcome:
    """One run on the scale of its task.

    Attributes:
        seed: of the run.
        failed: whether it failed, so that its last score is held.
        steps: the grid, (K,).
        curve: normalised score at every point, (K,); 0 before the first.
        cpu_time: processor seconds per environment step; None where it was not recorded.
        influence: largest change of the final score that leaving out one of its episodes makes; None without episodes.
        pause: most steps between two ends of episodes, all but one in twenty: how finely the score is known; as that.
    """

    seed: int
    failed: bool
    steps: Floats
    curve: Floats
    cpu_time: float | None
    influence: float | None
    pause: float | None = None

    @property
    def area(self) -> float:
        """Normalised area under the learning curve: the mean over the grid."""
        return float(self.curve.mean())

    @property
    def final(self) -> float:
        """Normalised final score."""
        return float(self.curve[-1])

    @property
    def drawdown(self) -> float:
        """Largest fall of the score from its highest so far, as a share of the height above random actions there.

        0 for a run that never rises above random actions; at most 1 where it falls back to them.
        """
        return self.drawdown_after(0)

    def drawdown_after(self, share: float) -> float:
        """The same, to the scores after this share of the steps; its heights may lie before."""
        peak = np.maximum.accumulate(np.maximum(self.curve, 0))
        fall = peak - np.maximum(self.curve, 0)
        relative = np.divide(fall, peak, out=np.zeros_like(peak), where=peak > 0)
        return float(relative[self.steps > share * self.steps[-1]].max())

    def first(self, level: float) -> float:
        """Steps at the first point that reaches `level`; ∞ where none does."""
        return float(first_crossing(self.curve, np.asarray(level), self.steps))

    def sustained(self, level: float) -> float:
        """Steps at the first point after which the score never falls below `level` again; ∞ where there is none."""
        return last_crossing(self.curve, level, self.steps)


@dataclass(frozen=True)
class Achieved:
    """The runs of one variant on one task that count, on its scale."""

    env: str
    variant: str
    planned: int
    runs: tuple[Outcome, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.seed for run in self.runs)

    @property
    def failed(self) -> int:
        return sum(run.failed for run in self.runs)

    @property
    def excluded(self) -> bool:
        """Whether more than a fifth of the runs failed, so that there is no contrast here."""
        return 5 * self.failed > len(self.runs)

    def values(self, name: str) -> Floats:
        """`area`, `final` or `drawdown` of every run, (runs,)."""
        return np.array([getattr(run, name) for run in self.runs], dtype=np.float64)

    def without_failed(self) -> "Achieved":
        return Achieved(self.env, self.variant, self.planned, tuple(run for run in self.runs if not run.failed))


def scale_of(group: Group) -> Scale | None:
    """The scale of a group's task; None where none was published."""
    ids = {str(cell.settings["env.id"]) for cell in group.cells if "env.id" in cell.settings}
    if len(ids) == 1 and (scale := scales().get(ids.pop())):
        return scale
    return Scale(group.reference.random, group.reference.human) if group.reference else None


def achieved(group: Group, total_steps: int) -> Achieved | None:
    """The outcomes of a group's runs that finished or failed; None where its task has no scale or none counts."""
    scale = scale_of(group)
    if scale is None or group.mixed:
        return None
    grid = grid_points(total_steps)
    runs = [outcome(cell, scale, grid) for cell in group.cells if cell.state in ("finished", "failed")]
    return Achieved(group.env, group.variant, len(group.cells), tuple(runs)) if runs else None


def all_achieved(results: Results) -> dict[tuple[str, str], Achieved]:
    """The outcomes of a suite by environment and variant, where there are any."""
    steps = results.suite.total_steps
    return {(found.env, found.variant): found for group in results.groups if (found := achieved(group, steps))}


def outcome(cell: Cell, scale: Scale, grid: Floats) -> Outcome:
    """The outcome of a run that finished or failed; `grid` are the points of one that left nothing, (K,)."""
    run = cell.run
    if run is None:
        return Outcome(cell.seed, True, grid, np.zeros_like(grid), None, None)
    curve = run.curves[SCORE]
    return Outcome(
        seed=cell.seed,
        failed=cell.state == "failed" or not _is_finite(curve),
        steps=curve.steps,
        curve=held(curve, scale),
        cpu_time=run.cpu_time / run.env_steps if run.cpu_time else None,
        influence=influence(run, scale),
        pause=_pause(run),
    )


def _pause(run: Condensed) -> float | None:
    ends = np.unique(run.episodes.env_steps) if run.episodes is not None else np.empty(0)
    return float(np.quantile(np.diff(ends), 0.95)) if len(ends) > 1 else None


def _is_finite(curve: Curve) -> bool:
    return bool(np.isfinite(curve.values[curve.measurements > 0]).all())


def held(curve: Curve, scale: Scale) -> Floats:
    """Normalised scores, (K,): the last finite one held where there is none, 0 before the first."""
    known = (curve.measurements > 0) & np.isfinite(curve.values)
    last = np.maximum.accumulate(np.where(known, np.arange(len(known)), -1))
    return np.where(last >= 0, scale.normalise(curve.values[np.maximum(last, 0)]), 0.0)


def influence(run: Condensed, scale: Scale) -> float | None:
    """Largest change of the normalised final score when one of the episodes behind it is left out.

    Behind it are the last episodes, min(100, those of the last 10 % of the steps), and no fewer than two; None of a run
    whose episodes are not known.
    """
    if run.episodes is None or len(run.episodes.returns) < 2:
        return None
    recent = int((run.episodes.env_steps > 0.9 * run.env_steps).sum())
    returns = run.episodes.returns[-min(FINAL_EPISODES, max(recent, 2)) :]
    change = np.abs(returns - returns.mean()) / (len(returns) - 1)
    return float(change.max() / abs(scale.reference - scale.random))


def draws_of(one: Achieved, resamples: int) -> Draws:
    """Resamples of the runs, (resamples, runs)."""
    return resample_runs(len(one.runs), generator(one.env, one.variant), resamples)

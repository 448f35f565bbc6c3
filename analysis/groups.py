"""The runs of one variant on one environment, aggregated over seeds.

Runs that differ in more than the seed are not aggregated: no mean is one of two settings, or of two codes.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from analysis.alignment import AlignmentCurves, curves_of
from analysis.cells import STATES, Cell, Suite
from analysis.condensed import SCORE
from analysis.curves import Curve, Floats, bridged
from analysis.human_scores import Reference, reference_scores
from analysis.provenance import stamp
from analysis.sample_efficiency import Resampled
from analysis.statistics import RESAMPLES, Draws, centre, generator, resample_runs, resampled_iqm
from analysis.style import ordered
from analysis.text import shortened
from tracking.identity import CellIdentity, changes

NAMED = 6
"""Differences between runs that a reason lists before it counts the rest."""


@dataclass(frozen=True)
class Group:
    """The runs of one variant on one environment, and their bootstrap resamples over runs.

    Curves, final scores and gains of a group share the same resamples.
    """

    env: str
    variant: str
    cells: tuple[Cell, ...]
    resamples: int

    @cached_property
    def finished(self) -> list[Cell]:
        """The runs that finished, with a score or without."""
        return [cell for cell in self.cells if cell.state == "finished" and cell.run is not None]

    @cached_property
    def runs(self) -> list[Cell]:
        """The runs that enter the aggregates: finished, with a finite final score."""
        return [cell for cell in self.cells if cell.scored]

    @property
    def mixed(self) -> bool:
        """Whether the runs that finished differ in more than the seed, so that none of them is aggregated."""
        return any(cell.state == "mixed" for cell in self.cells)

    @cached_property
    def finals(self) -> Floats:
        """Final scores, (runs,)."""
        return np.array([cell.final_score for cell in self.runs], dtype=np.float64)

    @property
    def final(self) -> float:
        """IQM of the final scores; below `statistics.MIN_RUNS` runs their mean."""
        return float(centre(self.finals))

    @cached_property
    def draws(self) -> Draws:
        """Resampled runs, (resamples, runs)."""
        return self.draws_of(len(self.runs))

    def draws_of(self, runs: int) -> Draws:
        """Resamples of that many of the runs, (resamples, runs)."""
        return resample_runs(runs, generator(self.env, self.variant), self.resamples)

    @cached_property
    def scores(self) -> Curve:
        """Score curves of the runs: `steps` (K,), `values` and `measurements` (runs, K)."""
        return _stack(self._curves(SCORE))

    def kpi(self, name: str) -> Curve:
        """KPI curves where any run has a measurement: `steps` (P,), `values` and `measurements` (runs, P).

        A run without a measurement at such a point (all its updates rejected) is bridged by a straight line.
        """
        stacked = _stack([curve._replace(values=bridged(curve)) for curve in self._curves(name)])
        measured = stacked.measurements.any(axis=0)
        return Curve(stacked.steps[measured], stacked.values[:, measured], stacked.measurements[:, measured])

    @property
    def unsolved(self) -> int:
        """Alignment errors of `runs` whose natural gradient was not solved to its tolerance."""
        return sum(cell.run.counts["alignment_error_unsolved"] for cell in self.runs if cell.run)

    @cached_property
    def alignment(self) -> AlignmentCurves | None:
        """e(ρ) of the runs that took snapshots; None where there is no such run."""
        return curves_of([cell.run.snapshots for cell in self.runs if cell.run and cell.run.snapshots])

    def _curves(self, name: str) -> list[Curve]:
        return [cell.run.curves[name] for cell in self.runs if cell.run]

    @cached_property
    def curve(self) -> Floats:
        """Seed-aggregated score curve, (K,): IQM or mean over runs, null until every run has a score."""
        return centre(self.scores.values, axis=0)

    @cached_property
    def resampled_curves(self) -> Floats:
        """The same in every resample, (resamples, K)."""
        return resampled_iqm(self.scores.values, self.draws)

    @cached_property
    def resampled_finals(self) -> Floats:
        """The same in every resample, (resamples,)."""
        return centre(self.finals[self.draws])

    @property
    def resampled(self) -> Resampled:
        """Curve and final score with their resamples, for the sample-efficiency gain; needs a scored run."""
        return Resampled(
            steps=self.scores.steps,
            curve=self.curve,
            curves=self.resampled_curves,
            final=self.final,
            finals=self.resampled_finals,
            runs=len(self.runs),
        )

    @property
    def reference(self) -> Reference | None:
        """Published scores of the game that the runs play, None where it has none.

        Before a run has begun the game is the one in the environment's name, as `env=atari` names it.
        """
        games = {str(cell.settings.get("env.game")) for cell in self.cells if cell.settings}
        games = games or {self.env.removeprefix("atari_")}
        return reference_scores().get(games.pop()) if len(games) == 1 else None

    @property
    def states(self) -> str:
        """The states of the planned cells in words, e.g. ``4 finished, 1 failed``."""
        count = Counter(cell.state for cell in self.cells)
        return ", ".join(f"{count[state]} {state}" for state in STATES if count[state])


@dataclass(frozen=True)
class Results:
    """A suite's cells, grouped: what tables and figures are made of.

    `groups` come by environment in the order of the plan, then by variant in the order of `style.ordered`.
    """

    suite: Suite
    groups: tuple[Group, ...]
    resamples: int

    @cached_property
    def source(self) -> str:
        """The version of the benchmark and the hash of all cells, for the line under a table."""
        return stamp(self.suite.cells)

    @property
    def with_snapshots(self) -> bool:
        """Whether the alignment error was measured against the damping in any run that counts."""
        return any(group.alignment for group in self.groups)

    @cached_property
    def references(self) -> dict[str, Reference]:
        """Published scores by environment, of those that are games and have them."""
        return {group.env: group.reference for group in self.groups if group.reference}

    def group(self, env: str, variant: str) -> Group | None:
        """The group of a variant on an environment, None where none is planned."""
        return next((g for g in self.groups if (g.env, g.variant) == (env, variant)), None)

    @cached_property
    def random(self) -> dict[str, float]:
        """Mean return of the random policy by environment, where it was evaluated."""
        return {env: float(returns.mean()) for env, returns in self.random_returns.items()}

    @cached_property
    def random_returns(self) -> dict[str, Floats]:
        """Returns of the random policy's episodes by environment, (episodes,), pooled over all runs.

        Runs of one seed may have played the very same random episodes; such a repeated set counts once.
        """
        returns = {env: _distinct([c for c in self.suite.cells if c.env == env]) for env in self.suite.envs}
        return {env: episodes for env, episodes in returns.items() if episodes.size}

    def resampled_random(self, env: str) -> Floats:
        """Mean return of the random policy in every resample of its episodes, (resamples,)."""
        returns = self.random_returns[env]
        draws = resample_runs(len(returns), generator(env, "random"), self.resamples)
        return np.asarray(returns[draws].mean(axis=-1))


def gather(suite: Suite, resamples: int = RESAMPLES) -> Results:
    """Group the cells of a suite; `resamples` is the number of bootstrap resamples behind every interval.

    The finished runs of a group that was not all made alike become `mixed`.
    """
    found: defaultdict[tuple[str, str], list[Cell]] = defaultdict(list)
    for cell in suite.cells:
        found[cell.env, cell.variant].append(cell)
    made = {key: _unmixed(cells) for key, cells in found.items()}
    groups = [
        Group(env, variant, made[env, variant], resamples)
        for env in suite.envs
        for variant in ordered(suite.variants)
        if (env, variant) in made
    ]
    by_name = {cell.name: cell for cells in made.values() for cell in cells}
    suite = replace(suite, cells=tuple(by_name[cell.name] for cell in suite.cells))
    return Results(suite, tuple(groups), resamples)


def _unmixed(cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells of a group; the finished ones as `mixed`, with what differs, where that is more than the seed.

    None of them is left in: nothing says which of the settings were meant.
    """
    alike: defaultdict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        if cell.state == "finished":
            alike[json.dumps(_without_seed(cell).parts, sort_keys=True)].append(cell)
    if len(alike) < 2:
        return tuple(cells)
    most, *others = sorted(alike.values(), key=len, reverse=True)
    said = "; ".join(f"{_seeds(some)} with {_changes(most[0], some[0])}" for some in others)
    reason = shortened(f"not averaged: made otherwise than {_seeds(most)} are {said}")
    return tuple(replace(c, state="mixed", reason=reason) if c.state == "finished" else c for c in cells)


def _changes(one: Cell, other: Cell) -> str:
    found = changes(_without_seed(one), _without_seed(other))
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _without_seed(cell: Cell) -> CellIdentity:
    none: dict[str, object] = {"config": {}, "code": {}, "versions": {}, "device": ""}
    settings = {name: value for name, value in cell.settings.items() if name != "seed"}
    return CellIdentity(none | dict(cell.parts) | {"config": settings})


def _seeds(cells: Sequence[Cell]) -> str:
    return f"seed{'s' if len(cells) > 1 else ''} {', '.join(str(cell.seed) for cell in cells)}"


def source(groups: Sequence[Group]) -> str:
    """The version of the benchmark and the hash of the cells of these groups, for the line under a figure."""
    return stamp(cell for group in groups for cell in group.cells)


def _distinct(cells: Sequence[Cell]) -> Floats:
    counted = [cell for cell in cells if cell.state != "mixed"]
    sets = {(c.seed, r.tobytes()): r for c in counted if (r := c.evaluation.get("random")) is not None}
    return np.concatenate(list(sets.values())) if sets else np.empty(0)


def _stack(curves: Sequence[Curve]) -> Curve:
    steps = np.median([curve.steps for curve in curves], axis=0)
    return Curve(
        steps,
        np.stack([curve.values for curve in curves]),
        np.stack([curve.measurements for curve in curves]),
    )

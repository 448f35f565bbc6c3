"""Published scores beside those of a suite, for the same algorithm: comparable ones, and others that are marked.

A published score is comparable where algorithm, task version, budget and statistic (a mean at the end of the budget)
are the same. Others say what differs. Nothing is ranked.
"""

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from analysis.cells import values_of
from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS, percentile_interval

TABLE = Path(__file__).with_suffix(".csv")
RELATIVES = {"adam_pg": ("a2c", "reinforce")}
"""Published algorithms that are nearest to one of ours, and not the same."""
GAMES = "ALE v5"
SAME_BUDGET = 0.05
"""Share by which two budgets may differ and still be one."""
MOST_DIFFERENCES = 2
"""A published score that differs in more says nothing beside ours."""


@dataclass(frozen=True)
class Published:
    """One published score: of which task and version, by which algorithm, after how many steps, and what it is."""

    task: str
    version: str
    algorithm: str
    steps: int
    score: float
    spread: str
    runs: str
    statistic: str
    at_end: bool
    source: str


@dataclass(frozen=True)
class Beside:
    """A published score beside the runs of a group; `differs` is empty where the two are comparable."""

    group: Group
    published: Published
    differs: tuple[str, ...]


@cache
def published_scores() -> tuple[Published, ...]:
    """All rows of ``analysis/literature.csv``."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return tuple(
        Published(**row | {"steps": int(row["steps"]), "score": float(row["score"]), "at_end": row["at_end"] == "yes"})
        for row in rows
    )


def beside(results: Results) -> list[Beside]:
    """Published scores for the groups with runs that count: of each the comparable ones first, then by what differs."""
    found = []
    for group in results.groups:
        if group.runs and (task := task_of(group)):
            mine = [_beside(group, published, task[1], results) for published in published_scores()
                    if published.task == task[0] and _is_for(group, published)]  # fmt: skip
            near = [one for one in mine if len(one.differs) <= MOST_DIFFERENCES]
            found += sorted(near, key=lambda one: (len(one.differs), one.differs, one.published.source))
    return found


def task_of(group: Group) -> tuple[str, str] | None:
    """Task and version that the runs of a group are of, as ``literature.csv`` names them; None where it is not one."""
    games, ids = values_of("env.game", group.cells), values_of("env.id", group.cells)
    if len(games) == 1:
        return str(games[0]).replace("_", " ").title().replace(" ", ""), GAMES
    task, dash, version = str(ids[0]).rpartition("-") if len(ids) == 1 else ("", "", "")
    return (task, version) if dash else None


def _is_for(group: Group, published: Published) -> bool:
    return published.algorithm in (group.variant, *RELATIVES.get(group.variant, ()))


def _beside(group: Group, published: Published, version: str, results: Results) -> Beside:
    steps = results.suite.total_steps
    differs = {
        "algorithm": published.algorithm != group.variant,
        "version": published.version != version,
        "budget": abs(published.steps / steps - 1) > SAME_BUDGET,
        "statistic": not published.at_end,
    }
    return Beside(group, published, tuple(name for name, different in differs.items() if different))


def ends(group: Group) -> tuple[float | None, float | None]:
    """The interval of the final score over runs; None where there are too few runs for one."""
    if len(group.runs) < MIN_RUNS:
        return None, None
    low, high = percentile_interval(group.resampled_finals, [len(group.runs)])
    return float(low), float(high)

"""Curves of a suite for other tools, and the table of curves that came from elsewhere."""

import csv
import io

import numpy as np

from analysis.condensed import SCORE
from analysis.external import COLUMNS, SHORTEST, External
from analysis.groups import Results
from analysis.statistics import iqm
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, number
from analysis.tables.words import closing_words


def curves_csv(results: Results) -> str:
    """Scores of every run, one row per point of the grid that has one, in the columns that external curves have."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for cell in (cell for group in results.groups for cell in group.cells if cell.run):
        assert cell.run is not None
        curve = cell.run.curves[SCORE]
        for steps, score in zip(curve.steps, curve.values, strict=True):
            if np.isfinite(score):
                writer.writerow((cell.env, cell.variant, cell.seed, int(steps), f"{score:.12g}"))
    return file.getvalue()


def external(results: Results, curves: tuple[External, ...]) -> Table:
    """Final scores of runs that came from elsewhere, beside nothing: they are no part of the plan."""
    caption = (
        f"Curves from elsewhere beside those of suite {results.suite.name}; none enters a gain, a contrast or a claim. "
        "Final score: mean over the rows in the last 10 % of the suite's budget, 100 at most; IQM over the "
        "runs that reach the budget, and the range of these runs. What a row is (an episode, or a mean over some), the "
        f"policy and the version of the task are their source's. {closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "Final score", "Range", "Runs", "Steps"]
    return Table(
        "external",
        "External curves",
        caption,
        [_record(one) for one in curves],
        header,
        [_row(one) for one in curves],
        results.source,
    )


def _record(one: External) -> Record:
    finals = one.finals
    return {
        "env": one.env,
        "variant": one.variant,
        "runs": len(one.seeds),
        "runs_of_the_budget": len(finals),
        "seeds": " ".join(map(str, one.seeds)),
        "iqm": float(iqm(finals)) if finals.size else None,
        "min": float(finals.min()) if finals.size else None,
        "max": float(finals.max()) if finals.size else None,
        "env_steps_min": float(one.ends.min()),
        "env_steps_max": float(one.ends.max()),
    }


def _row(one: External) -> list[str]:
    record = _record(one)
    shorter = record["env_steps_min"] < SHORTEST * one.steps[-1]
    return [
        environment_name(one.env),
        algorithm_name(one.variant),
        number(record["iqm"]),
        "–" if record["min"] is None else f"{number(record['min'])} to {number(record['max'])}",
        f"{record['runs_of_the_budget']}/{record['runs']}",
        f"{record['env_steps_min']:,.0f}{' (shorter)' if shorter else ''}",
    ]

"""The page of a suite: ``report.html``, which opens from disk without a network.

It holds everything it shows: data, figures and the plotting library. Links go to the files beside it alone.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import plotly
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from plotly.offline import get_plotlyjs  # type: ignore[attr-defined,unused-ignore]

from analysis.aggregate import Aggregate, over_all_tasks
from analysis.external import External
from analysis.groups import Results
from analysis.provenance import benchmark, cells_hash
from analysis.report.data import plot_data
from analysis.statistics import MIN_RUNS
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Table, interval, number
from analysis.tables.words import budget

REPORT = "report.html"
HERE = Path(__file__).parent
CLAIMS, CELLS = "claims", "cells"
"""Tables with a place of their own: first of all, and last, folded."""
TITLES = {
    "learning_curves": "Learning curves",
    "learning_curves_updates": "Learning curves over updates",
    "learning_curves_time": "Learning curves over processor time",
    "literature": "Beside the literature",
    "alignment_curves": "Alignment error against damping",
    "tuning": "Scores of the configurations",
    "claims": "Claims",
}
"""Headings of figures; a geometry has its task's."""


@dataclass(frozen=True)
class Picture:
    """A figure: its name, heading, caption and PNG as a data URI."""

    name: str
    title: str
    caption: str
    uri: str


def report(results: Results, tables: Sequence[Table], figures: Path, external: Sequence[External] = ()) -> str:
    """The HTML of a suite's page, from its tables and the folder with its figures."""
    suite = results.suite
    unscored = [cell for group in results.groups for cell in group.cells if not cell.scored]
    return page(
        "suite.html",
        title=f"Suite {suite.name}",
        answer=answer(results),
        facts={
            "Planned runs": f"{len(suite.cells)} of {budget(results)}",
            "Finished with a score": str(len(suite.cells) - len(unscored)),
            "Tasks": ", ".join(map(environment_name, suite.envs)),
            "Gains against": algorithm_name(suite.baseline),
            "δ for the share of steps above it": f"{suite.delta_ref:g} nats",
            "Made by": f"{benchmark()}, Plotly {plotly.__version__}",
            "Cells": cells_hash(suite.cells),
        },
        claims=[table for table in tables if table.name == CLAIMS],
        tables=[table for table in tables if table.name not in (CLAIMS, CELLS)],
        cells=[table for table in tables if table.name == CELLS],
        pictures=pictures(figures),
        unscored=[
            (environment_name(c.env), algorithm_name(c.variant), str(c.seed), c.state, c.remark) for c in unscored
        ],
        data=None if suite.configurations else in_script(plot_data(results, external)),
    )


def page(template: str, **values: Any) -> str:
    """A template filled in; every text in it is escaped."""
    return (
        _templates()
        .get_template(template)
        .render(
            style=(HERE / "page.css").read_text(encoding="utf-8"),
            script=(HERE / "page.js").read_text(encoding="utf-8"),
            library=_library(),
            **values,
        )
    )


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@cache
def _library() -> str:
    """Plotly's script, which may stand inside an element: it must not end that."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def in_script(data: Any) -> str:
    """JSON that may stand in a script element, whatever text it holds."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def pictures(figures: Path) -> list[Picture]:
    """The PNG files in a folder, in the order of `TITLES`, then by name, with the captions that they hold."""
    order = list(TITLES)
    names = sorted((path.stem for path in figures.glob("*.png")), key=lambda name: (_place(name, order), name))
    return [_picture(figures / f"{name}.png") for name in names]


def _place(name: str, order: list[str]) -> int:
    return order.index(name) if name in order else len(order)


def _picture(path: Path) -> Picture:
    with Image.open(path) as image:
        caption = str(image.info.get("Description", ""))
    title = TITLES.get(path.stem) or f"Geometry: {environment_name(path.stem.removeprefix('geometry_'))}"
    return Picture(path.stem, title, caption, "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode())


def answer(results: Results) -> str:
    """What the suite says, in a sentence or two."""
    finished = [group for group in results.groups if group.runs]
    if not finished:
        return "No run has finished yet: there is no answer."
    if results.suite.configurations:
        return "A search for settings: each algorithm's configurations are below, ranked by their score over the tasks."
    if over_all := over_all_tasks(results):
        said = _over_all(over_all)
    else:
        envs = dict.fromkeys(group.env for group in finished)
        best = [max((group for group in finished if group.env == env), key=lambda group: group.final) for env in envs]
        said = "The highest final score has " + "; ".join(
            f"{algorithm_name(group.variant)} on {environment_name(group.env)} ({number(group.final)})"
            for group in best
        )
    few = min(len(group.runs) for group in finished)
    if few < MIN_RUNS:
        runs = "one run" if few == 1 else f"{few} runs"
        return (
            f"{said}. With as few as {runs} of an algorithm on a task there is no interval, and this decides nothing."
        )
    if len({group.variant for group in finished}) == 1:
        return f"{said}."
    return f"{said}. This order is no test: contrasts and their intervals say what differs."


def _over_all(over_all: Sequence[Aggregate]) -> str:
    first, *others = sorted(over_all, key=lambda one: -one.area.value)
    scale = first.words.partition("; ")[2]
    area = f"normalised area under the learning curve, {_in_brackets(first)} ({scale})"
    if not others:
        return f"Over {first.tasks} tasks {algorithm_name(first.variant)} reaches a {area}"
    rest = "; ".join(f"{algorithm_name(one.variant)} {_in_brackets(one)}" for one in others)
    return f"Over {first.tasks} tasks {algorithm_name(first.variant)} has the largest {area}; then {rest}"


def _in_brackets(one: Aggregate) -> str:
    area = one.area
    return interval(area.value, area.low, area.high) if area.is_interval else number(area.value)

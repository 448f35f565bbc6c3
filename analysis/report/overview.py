"""The page over all published suites: ``python -m analysis.report.overview results/published``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.cells import load_suite
from analysis.groups import Results, gather
from analysis.report.data import plot_data
from analysis.report.suite import REPORT, answer, in_script, page
from analysis.style import algorithm_name, environment_name, labelled
from analysis.tables.final_scores import final_scores
from analysis.tables.formats import Table
from analysis.tables.words import budget


@dataclass(frozen=True)
class Entry:
    """What the page says of one suite; `fault` where it cannot be read, and nothing else then."""

    name: str
    fault: str = ""
    answer: str = ""
    runs: str = ""
    scores: Table | None = None
    unscored: tuple[tuple[str, ...], ...] = ()


def write_overview(published: Path) -> Path:
    """Write `report.html` over the suites in a folder of published ones; returns its path."""
    entries, data = [], []
    for plan in sorted(published.glob("*/suite.json")):
        try:
            results = gather(load_suite(plan.parent))
        except ValueError as error:
            entries.append(Entry(plan.parent.name, fault=str(error)))
            continue
        with labelled(results.suite.labels):
            entries.append(_entry(plan.parent.name, results))
            data.append(_headline(results))
    html = page("overview.html", title="All published suites", entries=entries, data=in_script(data))
    path = published / REPORT
    path.write_text(html, encoding="utf-8")
    return path


def _entry(name: str, results: Results) -> Entry:
    cells = [cell for group in results.groups for cell in group.cells]
    unscored = [cell for cell in cells if not cell.scored]
    return Entry(
        name,
        answer=answer(results),
        runs=f"{len(cells)} planned runs of {budget(results)}, {len(cells) - len(unscored)} finished with a score",
        scores=final_scores(results),
        unscored=tuple(
            (environment_name(c.env), algorithm_name(c.variant), str(c.seed), c.state, c.remark) for c in unscored
        ),
    )


def _headline(results: Results) -> dict[str, Any]:
    whole = plot_data(results, ())
    return {"suite": results.suite.name, "variants": whole["variants"], "headline": whole["headline"]}


def main(arguments: Sequence[str]) -> int:
    """Write the page of the folder that is named; 2 where it has no suite."""
    folder = Path(arguments[0]) if len(arguments) == 1 else Path()
    if len(arguments) != 1 or not any(folder.glob("*/suite.json")):
        print("overview: name a folder with published suites, such as results/published", file=sys.stderr)
        return 2
    print(write_overview(folder))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

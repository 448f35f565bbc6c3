"""One page with all tables, and what is missing."""

from collections import Counter
from collections.abc import Sequence

from analysis.cells import STATES
from analysis.groups import Results
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Table
from analysis.tables.words import budget, frames_of_a_run


def index(results: Results, tables: Sequence[Table]) -> str:
    """Markdown page: how many runs there are, which are not and why, then every table."""
    suite = results.suite
    count = Counter(cell.state for cell in suite.cells)
    states = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    lines = [
        f"# Suite {suite.name}",
        "",
        f"{len(suite.cells)} planned runs of {budget(results)}{frames_of_a_run(results)}: {states}.",
        "",
        "## Missing, failed or unfinished",
        "",
    ]
    unscored = [cell for group in results.groups for cell in group.cells if not cell.scored]
    lines += [
        f"- {environment_name(cell.env)}, {algorithm_name(cell.variant)}, seed {cell.seed}: "
        f"**{cell.state}**, {' '.join(cell.remark.split())}"
        for cell in unscored
    ] or ["Nothing: every planned run finished with a score."]
    for table in tables:
        lines += ["", f"## {table.title}", "", table.markdown().rstrip()]
    return "\n".join(lines) + "\n"

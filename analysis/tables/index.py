"""One page with all tables, and what is missing."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from analysis.cells import STATES, Cell
from analysis.groups import Results
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Table, markdown
from analysis.tables.words import budget, frames_of_a_run


def index(results: Results, tables: Sequence[Table]) -> str:
    """Markdown page: how many runs there are, which are not and why, then every table."""
    suite = results.suite
    count = Counter(cell.state for cell in suite.cells)
    states = ", ".join(f"{count[state]} {state}" for state in STATES if count[state])
    lines = [
        f"# Suite {markdown(suite.name)}",
        "",
        f"{len(suite.cells)} planned runs of {budget(results)}{frames_of_a_run(results)}: {states}.",
        "",
        "## Missing, failed or unfinished",
        "",
    ]
    unscored = [cell for group in results.groups for cell in group.cells if not cell.scored]
    lines += _unscored(unscored) or ["Nothing: every planned run finished with a score."]
    for table in tables:
        lines += ["", f"## {table.title}", "", table.markdown().rstrip()]
    return "\n".join(lines) + "\n"


def _unscored(cells: Iterable[Cell]) -> list[str]:
    """A line for all seeds of an algorithm on an environment that share their state and its reason."""
    seeds: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for cell in cells:
        seeds[environment_name(cell.env), algorithm_name(cell.variant), cell.state, cell.remark].append(str(cell.seed))
    return [
        f"- {markdown(env)}, {markdown(algorithm)}, seed{'s' if len(which) > 1 else ''} {', '.join(which)}: "
        f"**{state}**, {markdown(remark)}"
        for (env, algorithm, state, remark), which in seeds.items()
    ]

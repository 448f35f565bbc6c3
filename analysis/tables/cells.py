"""Table of all planned cells: state and reason, score, cost, identity, and the geometry of every run."""

from analysis.cells import Cell
from analysis.groups import Results
from analysis.style import algorithm_name, environment_name
from analysis.tables import formats
from analysis.tables.formats import Table, number
from analysis.tables.words import closing_words

SHORT = 12
"""Digits of a cell's identity that the CSV file has."""


def cells(results: Results) -> Table:
    """One row per planned cell; the CSV also has the run-level KPIs and counts of `analysis.geometry`."""
    planned = [cell for group in results.groups for cell in group.cells]
    measured = [cell.run.geometry | cell.run.counts if cell.run else {} for cell in planned]
    columns = dict.fromkeys(column for record in measured for column in record)
    records = [{**_record(cell), **columns, **record} for cell, record in zip(planned, measured, strict=True)]
    caption = (
        f"Every planned run of suite {results.suite.name}. Final score: episode return at the end of a "
        "run. Wall time and identity, the hash of configuration, code and versions, are in the CSV file. "
        f"{closing_words(results)}"
    )
    header = [
        "Environment", "Algorithm", "Seed", "State", "Steps", "Final score", "Steps/s", "Reason",
    ]  # fmt: skip
    words = ("Environment", "Algorithm", "State", "Reason")
    rows = [_row(cell) for cell in planned]
    return Table("cells", "Cells", caption, records, header, rows, results.source, words)


def _record(cell: Cell) -> formats.Record:
    return {
        "env": cell.env,
        "variant": cell.variant,
        "algorithm": cell.algorithm,
        "seed": cell.seed,
        "state": cell.state,
        "reason": cell.remark,
        "env_steps": cell.env_steps,
        "final_score": cell.final_score,
        "wall_time": cell.wall_time,
        "steps_per_second": cell.steps_per_second,
        "identity": cell.identity[:SHORT],
        "run_dir": cell.run_dir,
    }


def _row(cell: Cell) -> list[str]:
    return [
        environment_name(cell.env),
        algorithm_name(cell.variant),
        str(cell.seed),
        cell.state,
        "–" if cell.env_steps is None else f"{cell.env_steps:,}",
        number(cell.final_score),
        number(cell.steps_per_second),
        cell.remark or "–",
    ]

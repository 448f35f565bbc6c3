"""docs/diagnostics.md against the columns that real runs write: the page cannot drift."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from algorithms.parts.algorithm import STEP_RULES
from pipeline.suites import find_algorithms
from tests.docs.pages import ROOT
from tests.settings import run

# Every algorithm, and every step rule: whatever can add a column.
VARIANTS: dict[str, tuple[str, ...]] = {name: (f"algorithm={name}",) for name in find_algorithms()}
VARIANTS |= {f"npg_{rule}": ("algorithm=npg", f"step_rule={rule}") for rule in STEP_RULES}
TABLES = ("progress", "alignment", "episodes", "evaluation")
UPDATES = 4
MEASURED = {
    "### Fisher trace": (0, 2, 3),
    "### Geometry": (0, 3),
    "### Held-out batch": (0, 3),
}  # updates
INTERVALS = ("diagnostics.interval=3", "diagnostics.trace_interval=2", "diagnostics.snapshots=2")

Runs = dict[str, dict[str, pa.Table]]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    written: Runs = {}
    for variant, settings in VARIANTS.items():
        run_dir = tmp_path_factory.mktemp(variant)
        assert run(run_dir, "env=inverted_pendulum", f"total_steps={UPDATES * 256}", *INTERVALS, *settings) == 0
        written[variant] = {table: pq.read_table(run_dir / f"{table}.parquet") for table in TABLES}
    return written


def documented(heading: str, level: int) -> dict[str, list[str]]:
    """Column -> cells of its row, in the section of the page under this heading."""
    page = (ROOT / "docs" / "diagnostics.md").read_text(encoding="utf-8")
    section = page.partition(f"\n{heading}\n")[2]
    section = re.split(rf"\n#{{1,{level}}} ", section)[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:2] == "| "]
    columns = [cells[0].strip("`") for cells in rows if cells[0].startswith("`")]
    assert len(columns) == len(set(columns)), f"{heading}: a column is listed twice"
    return {cells[0].strip("`"): cells for cells in rows if cells[0].startswith("`")}


@pytest.mark.parametrize("table", TABLES)
def test_the_page_lists_exactly_the_columns_that_runs_write(runs: Runs, table: str) -> None:
    written = {column for tables in runs.values() for column in tables[table].column_names}
    assert set(documented(f"## {table}.parquet", 2)) == written


@pytest.mark.parametrize("table", TABLES)
def test_columns_that_are_never_null_never_are(runs: Runs, table: str) -> None:
    for column, cells in documented(f"## {table}.parquet", 2).items():
        if cells[-1] != "never" or any(column in documented(section, 3) for section in MEASURED):
            continue
        for variant, tables in runs.items():
            assert column in tables[table].column_names, f"{variant} writes no {column}"
            assert tables[table][column].null_count == 0, f"{variant} writes null in {column}"


@pytest.mark.parametrize("section", MEASURED)
def test_the_geometry_is_measured_where_the_page_says(runs: Runs, section: str) -> None:
    for column, cells in documented(section, 3).items():
        for variant, tables in runs.items():
            values = tables["progress"][column].to_pylist()
            found = {index for index in range(UPDATES) if values[index] is not None}
            if cells[-1] == "never":
                assert found == set(MEASURED[section]), f"{variant}: {column}"
            else:
                assert found <= set(MEASURED[section]), f"{variant}: {column}"
        assert any(tables["progress"][column].null_count < UPDATES for tables in runs.values()), (
            f"{column}: always null"
        )


def test_what_the_page_says_of_added_columns_holds(runs: Runs) -> None:
    pairs = {v for v in runs if v.startswith("npg") or v in ("adam_pg", "trpo")}
    writers = {
        "`direction=natural`": {v for v in pairs if v != "adam_pg"},
        "every step rule, `acktr`": pairs | {"acktr"},
        "`critic=kfac`": {"acktr"},
        "`step_rule=line_search`": {"trpo", "npg_line_search"},
    }
    for column, cells in documented("### What an algorithm adds", 3).items():
        with_column = {variant for variant, tables in runs.items() if column in tables["progress"].column_names}
        assert with_column == writers.get(cells[1], {cells[1].strip("`")}), column


def test_the_units_of_time_are_the_timing_columns() -> None:
    columns = documented("## progress.parquet", 2)
    timing = {column for column in columns if column.endswith(("_time", "_per_second"))}
    assert set(documented("### Timing", 3)) | {"wall_time", "cpu_time"} == timing

"""One bad cell is named, and the analysis of the others goes on."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import analyse
from analysis.cells import PUBLISHED_CELL, load_cell, load_suite, values_of
from analysis.condensed import condense
from tests.analysis.synthetic import write_suite
from tests.tracking.test_published import HEADER
from tracking.published import write_published
from tracking.record import load_run


@pytest.fixture
def suite_dir(tmp_path: Path) -> Path:
    return write_suite(tmp_path, ["hopper"], ["adam_pg", "trpo"], 2, 60_000, snapshots=2)


def run_dirs(suite_dir: Path) -> list[Path]:
    return [Path(cell["run_dir"]) for cell in json.loads((suite_dir / "suite.json").read_text())["cells"]]


def test_damaged_and_unreadable_runs_are_left_out_by_name(suite_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.__main__.write_figures", lambda results, folder, external=(): folder.mkdir())
    cut, odd, binary, _ = run_dirs(suite_dir)
    manifest = json.loads((cut / "manifest.json").read_text())
    rows = pq.read_table(cut / "progress.parquet")
    ends = rows.slice(rows.num_rows - 1).to_pylist()[0]
    manifest |= {"env_steps": ends["env_steps"], "episode_return": ends["episode_return"]}
    (cut / "manifest.json").write_text(json.dumps(manifest))
    pq.write_table(rows.slice(0, 2), cut / "progress.parquet")
    (odd / "manifest.json").write_text('{"identity": []}')
    (binary / "status.json").write_bytes(b"\xff")
    (binary / "manifest.json").unlink()
    results = analyse(suite_dir, resamples=20)
    states = [(cell.state, cell.run is None) for cell in results.suite.cells]
    assert states == [("damaged", True), ("unreadable", True), ("unreadable", True), ("finished", False)]
    assert results.suite.cells[0].reason.startswith(
        "progress.parquet: ends with env_steps 4096, and manifest.json says"
    )
    assert "1 finished, 1 damaged, 2 unreadable" in (suite_dir / "tables" / "index.md").read_text()


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"env_steps": 0}, "no update"),
        ({"counts": {}}, "counts.updates: missing"),
        ({"geometry": {"kl_median": "0.1"}}, "geometry.kl_median: '0.1'"),
        ({"evaluation": {"random": 3}}, "evaluation.random: 3"),
        ({"evaluation": {"random": ["3"]}}, r"evaluation.random\[0\]: '3'"),
        ({"snapshots": {}}, "snapshots.env_steps: missing"),
        (
            {"snapshots": {name: [1.0] for name in ("env_steps", "rho", "error", "rho_own")} | {"converged": []}},
            "length",
        ),
        ({"final_score": "high"}, "final_score: 'high'"),
    ],
)
def test_a_published_run_of_other_kinds_is_unreadable(
    suite_dir: Path, tmp_path: Path, changes: dict[str, Any], fault: str
) -> None:
    run = condense(load_run(run_dirs(suite_dir)[0]), 60_000, 0.02)
    assert run is not None
    header, table = run.header(), run.table()
    assert published_state(tmp_path, header, table)[0] == "finished"
    state, reason = published_state(tmp_path, header | changes, table)
    assert state == "unreadable"
    assert re.match(rf"{published_file(tmp_path)}: .*{fault}", reason), reason


@pytest.mark.parametrize(
    ("file", "column"),
    [
        ("evaluation.parquet", "mode"),
        ("evaluation.parquet", "episode_return"),
        ("alignment.parquet", "rho"),
        ("alignment.parquet", "outcome"),
        ("progress.parquet", "wall_time"),
        ("progress.parquet", "kl"),
    ],
)
def test_a_table_without_a_column_is_named(suite_dir: Path, file: str, column: str) -> None:
    path = run_dirs(suite_dir)[0] / file
    pq.write_table(pq.read_table(path).drop([column]), path)
    states = [cell.state for cell in load_suite(suite_dir).cells]
    assert states == ["unreadable", "finished", "finished", "finished"]
    assert re.match(rf"{path}: .*{column}", load_suite(suite_dir).cells[0].reason)


def published_state(
    folder: Path, header: dict[str, Any], table: pa.Table, total_steps: int = 60_000
) -> tuple[str, str]:
    write_published(published_file(folder), HEADER | {"state": "finished", "reason": "", "run": header}, table)
    entry = {name: HEADER[name] for name in ("env", "variant", "algorithm", "seed")} | {"published": "here"}
    cell = load_cell(entry, {"suite": "x", "delta_ref": 0.02, "total_steps": total_steps}, folder)
    return cell.state, cell.reason


def published_file(folder: Path) -> Path:
    return folder / PUBLISHED_CELL.format(**HEADER)


def test_published_rows_that_are_not_those_of_a_run_are_unreadable(suite_dir: Path, tmp_path: Path) -> None:
    run = condense(load_run(run_dirs(suite_dir)[0]), 60_000, 0.02)
    assert run is not None
    header, table = run.header(), run.table()
    for other in (
        table.drop(["env_steps"]),
        table.drop(["episode_return"]),
        table.drop(["kl_measurements"]),
        table.drop(["outcome"]),
        table.set_column(2, "episode_return", pa.array(["x"] * table.num_rows)),
        table.filter(np.array(table["part"].to_pylist()) != "episode").drop(["env_index"]),
    ):
        assert published_state(tmp_path, header, other)[0] == "unreadable"
    state, reason = published_state(tmp_path, header, table, total_steps=90_000)
    assert (state, reason) == (
        "unreadable",
        f"{published_file(tmp_path)}: its curves are not on the grid of 90,000 steps",
    )


@pytest.mark.parametrize(
    ("entries", "fault"),
    [
        ({"cells": [{}]}, r"cells\[0\].env: missing"),
        ({"cells": {}}, r"cells: \{\} is not a list"),
        ({"total_steps": 10**15}, "total_steps: 1,000,000,000,000,000 is not between"),
        ({"total_steps": "many"}, "total_steps: 'many' is not an integer"),
        ({"exceptions": [1]}, r"exceptions: \[1\] is not an object"),
        ({"delta_ref": None}, "delta_ref: None is not a number"),
    ],
)
def test_a_plan_of_other_kinds_is_one_line(suite_dir: Path, entries: dict[str, Any], fault: str) -> None:
    path = suite_dir / "suite.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    with pytest.raises(ValueError, match=rf"^{path}: {fault}"):
        load_suite(suite_dir)


def test_settings_of_any_kinds_have_an_order(suite_dir: Path) -> None:
    cell = load_suite(suite_dir).cells[0]
    values = [[1], None, "a", 2, 0.5, {"b": 1}, 2]
    found = values_of("x", [replace(cell, parts={"config": {"x": value}}) for value in values])
    assert found == (0.5, 2, "a", None, [1], {"b": 1})

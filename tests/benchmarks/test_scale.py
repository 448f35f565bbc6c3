"""Predictions for other machines."""

from dataclasses import replace

import pytest

from benchmarks import scale
from benchmarks.scale import duration, in_order, makespan, row, seconds_on_core
from pipeline.suites import load_suite
from tracking.identity import REPOSITORY


def test_workers_take_jobs_in_turn() -> None:
    assert makespan([3, 1, 1, 1, 4], 1) == 10
    assert makespan([3, 1, 1, 1, 4], 2) == 7  # 3 and 4 on one, since the last job comes last
    assert makespan([3, 1, 1, 1, 4], 9) == 4


def test_a_suite_takes_its_cells_on_one_core_and_its_longest_cell_on_many() -> None:
    suite = load_suite("quick")
    seconds = [seconds_on_core(cell, suite.total_steps) for cell in in_order(suite)]
    assert [cell.seed for cell in in_order(suite)] == sorted(cell.seed for cell in suite.cells)
    assert makespan(seconds, 1) == pytest.approx(sum(seconds))
    assert makespan(seconds, 64) == max(seconds)
    assert row(suite)[-1] == f"{duration(max(seconds))}, 21 GB"  # 30 runs at 0.7 GB


def test_durations_are_named_in_the_unit_that_fits() -> None:
    assert [duration(seconds) for seconds in (90, 7200, 172_800)] == ["1.5 min", "2 h", "2 d"]


def test_the_page_has_the_rows_that_the_script_prints(capsys: pytest.CaptureFixture[str]) -> None:
    scale.main()
    page = (REPOSITORY / "docs" / "scale.md").read_text()
    for line in capsys.readouterr().out.split("\n"):
        assert line in page


def test_a_kind_that_was_never_measured_is_an_error() -> None:
    cell = load_suite("quick").cells[0]
    with pytest.raises(ValueError, match="has nothing of its kind"):
        seconds_on_core(replace(cell, overrides=(*cell.overrides, "device=cuda")), 1000)

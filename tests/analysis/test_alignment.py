"""e(ρ) from snapshots: by hand, in the table, in the figure, and where there is none."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.lines import Line2D

from analysis.__main__ import analyse
from analysis.alignment import Snapshots, curves_of
from analysis.cells import load_suite
from analysis.curves import Column
from analysis.figures import alignment_curves as figure_of
from analysis.groups import Results, gather
from analysis.statistics import iqm
from analysis.style import line_styles
from analysis.tables.alignment_curves import alignment_curves as table_of
from analysis.tables.formats import number
from tests.analysis.synthetic import RHOS, write_suite

NAN = float("nan")


def column(values: list[float | None]) -> Column:
    measured = np.array([value is not None for value in values])
    return Column(np.array([NAN if value is None else value for value in values]), measured)


def snapshots(
    errors: list[list[float | None]], own: float | None = None, unsolved: tuple[tuple[int, int], ...] = ()
) -> Snapshots:
    """Of a run with these errors, snapshot by snapshot, at ρ = 1 and 0.1; `unsolved` lists (snapshot, damping)."""
    n = len(errors)
    converged = np.ones((n, 2), dtype=bool)
    converged[tuple(np.array(unsolved, dtype=int).reshape(-1, 2).T)] = False
    return Snapshots(
        env_steps=np.repeat(1000.0 * np.arange(n), 2),
        rho=np.tile([1.0, 0.1], n),
        error=column([e for pair in errors for e in pair]),
        rho_own=column([own] * 2 * n),
        converged=converged.flatten(),
    )


def results(tmp_path: Path, seeds: int, variants: tuple[str, ...] = ("adam_pg", "trpo")) -> Results:
    suite_dir = write_suite(tmp_path, ["hopper"], list(variants), seeds, total_steps=60_000, snapshots=3)
    return gather(load_suite(suite_dir), 100)


def test_a_run_is_the_mean_over_its_snapshots_after_the_first() -> None:
    curves = curves_of([snapshots([[0.9, 0.9], [0.1, 0.3], [0.2, 0.5]])])
    assert curves is not None
    assert curves.rhos.tolist() == [0.1, 1.0]
    np.testing.assert_allclose(curves.errors, [[0.4, 0.15]])
    np.testing.assert_allclose(curves.first, [[0.9, 0.9]])
    assert curves.snapshots == 3


def test_a_single_snapshot_stands_for_its_run() -> None:
    curves = curves_of([snapshots([[0.1, 0.3]])])
    assert curves is not None
    np.testing.assert_allclose(curves.errors, [[0.3, 0.1]])


def test_updates_without_a_step_do_not_count_and_nan_stays_nan() -> None:
    curves = curves_of(
        [snapshots([[0.9, 0.9], [None, None], [0.2, 0.5]]), snapshots([[0.9, 0.9], [0.1, NAN], [0.3, 0.5]])]
    )
    assert curves is not None
    np.testing.assert_allclose(curves.errors, [[0.5, 0.2], [NAN, 0.2]])
    assert curves_of([snapshots([[0.9, 0.9], [None, None]])]) is None
    assert curves_of([]) is None


def test_own_damping_is_a_geometric_mean_and_absent_without_one() -> None:
    curves = curves_of([snapshots([[0.1, 0.1]] * 2, own=own) for own in (0.5, 2.0, None)])
    assert curves is not None
    assert curves.rho_own == pytest.approx(1.0)
    without = curves_of([snapshots([[0.1, 0.1]] * 2)])
    assert without is not None
    assert without.rho_own is None


def test_solves_that_stopped_short_show_where_they_are_part_of_a_curve() -> None:
    def converged(*unsolved: tuple[int, int], errors: list[list[float | None]]) -> list[bool]:
        curves = curves_of([snapshots(errors, unsolved=unsolved), snapshots([[0.1, 0.1]] * 3)])
        assert curves is not None
        return list(curves.converged.tolist())

    measured: list[list[float | None]] = [[0.1, 0.1]] * 3
    assert converged((2, 1), errors=measured) == [False, True]
    assert converged((0, 0), (0, 1), errors=measured) == [True, True]  # at the first snapshot, which is no part
    assert converged((1, 0), (1, 1), errors=[[0.1, 0.1], [None, None], [0.1, 0.1]]) == [True, True]


def test_the_table_has_the_iqm_of_the_curves_with_its_interval(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=5)
    table = table_of(suite)
    files = [tmp_path / f"results/synthetic/runs/hopper/trpo/seed-{seed}/alignment.parquet" for seed in range(5)]
    for rho in RHOS:
        by_hand = []
        for file in files:
            rows = pq.read_table(file).to_pylist()
            by_hand.append(np.mean([r["alignment_error"] for r in rows if r["rho"] == rho and r["env_steps"] > 0]))
        [row] = [r for r in table.records if (r["variant"], r["rho"]) == ("trpo", rho)]
        assert row["alignment_error"] == pytest.approx(float(iqm(np.array(by_hand))))
        assert row["alignment_error_low"] <= row["alignment_error"] <= row["alignment_error_high"]
        assert (row["runs"], row["snapshots"], row["converged"]) == (5, 3, rho > 0.002)
    adam, trpo = table.rows
    owns = [pq.read_table(file)["rho_own"][0].as_py() for file in files]
    assert (adam[3], trpo[3]) == ("–", number(float(np.exp(np.log(owns).mean()))))
    assert table.header[4:] == [f"ρ = {rho:g}" for rho in RHOS[::2]]
    assert [entry.endswith("*") for entry in trpo[4:]] == [rho < 0.002 for rho in RHOS[::2]]
    assert len(table.header) <= 8
    assert "95 % percentile bootstrap interval" in table.caption
    assert all(ord(character) < 128 for character in table.latex())


def test_with_two_runs_there_is_no_interval(tmp_path: Path) -> None:
    assert {row["alignment_error_low"] for row in table_of(results(tmp_path, seeds=2)).records} == {None}


def test_the_line_is_the_iqm_with_open_dots_where_solves_stopped_short(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=5)
    figure = figure_of(suite.groups, line_styles(suite.suite.variants))
    [panel] = figure.axes
    assert panel.get_xscale() == "log"
    curves = suite.groups[1].alignment
    assert curves is not None
    lines = [line for line in panel.lines if line.get_linestyle() != "None"]
    assert len(lines) == len(panel.collections) == 2  # a line in its band for each variant
    np.testing.assert_allclose(np.asarray(lines[1].get_ydata()), iqm(curves.errors, axis=0))
    np.testing.assert_allclose(np.asarray(lines[1].get_xdata()), sorted(RHOS))
    opened = [line for line in panel.lines if line.get_markerfacecolor() == "white"]
    assert [np.asarray(line.get_xdata()).tolist() for line in opened] == [[0.001], [0.001]]
    note = str(figure.get_label())
    assert "open dots" in note
    assert "mean over 2 updates" in note
    assert "IQM over 5 runs" in note


def test_the_own_damping_is_marked_inside_the_panel(tmp_path: Path) -> None:
    suite = results(tmp_path, seeds=3)
    figure = figure_of(suite.groups, line_styles(suite.suite.variants))
    [panel] = figure.axes
    marks = [line for line in panel.lines if line.get_marker() == "v"]
    own = suite.groups[1].alignment.rho_own  # type: ignore[union-attr]
    assert own is not None
    assert [x(mark) for mark in marks] == [own]
    assert panel.get_xlim()[0] < own < panel.get_xlim()[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["Adam-PG", "TRPO", "own damping"]


def x(mark: Line2D) -> float:
    return float(np.asarray(mark.get_xdata()).item())


def test_a_suite_without_snapshots_has_neither_table_nor_figure(tmp_path: Path) -> None:
    for count, expected in ((0, set()), (2, {"alignment_curves"})):
        suite_dir = write_suite(
            tmp_path / str(count), ["hopper"], ["adam_pg", "npg"], 1, total_steps=20_480, snapshots=count
        )
        analyse(suite_dir, 50)
        stems = {path.stem for folder in ("tables", "figures") for path in (suite_dir / folder).iterdir()}
        assert stems & {"alignment_curves"} == expected
    assert "Alignment error against damping" in (suite_dir / "tables" / "index.md").read_text()
    rows = list(csv.DictReader((suite_dir / "tables" / "alignment_curves.csv").read_text().splitlines()))
    assert len(rows) == 2 * len(RHOS)


def test_runs_without_snapshots_stay_out_of_the_curves_of_the_others(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg"], 3, total_steps=20_480, snapshots=2)
    (suite_dir / "runs/hopper/adam_pg/seed-1/alignment.parquet").unlink()
    [group] = gather(load_suite(suite_dir), 50).groups
    assert len(group.runs) == 3
    assert group.alignment is not None
    assert len(group.alignment.errors) == 2


def test_null_and_nan_of_the_file_stay_apart(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg"], 1, total_steps=20_480, snapshots=2)
    path = suite_dir / "runs/hopper/adam_pg/seed-0/alignment.parquet"
    table = pq.read_table(path)
    errors = table["alignment_error"].to_pylist()
    errors[-2:] = [NAN, None]
    place = table.column_names.index("alignment_error")
    changed = table.set_column(place, "alignment_error", pa.array(errors, type=pa.float64(), from_pandas=False))
    pq.write_table(changed, path)
    [cell] = load_suite(suite_dir).cells
    assert cell.run is not None
    assert cell.run.snapshots is not None
    assert (cell.run.snapshots.error.measured[-2:].tolist(), cell.run.snapshots.error.nan) == ([True, False], 1)

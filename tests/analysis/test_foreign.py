"""What is moved, mixed, ill-formed or hostile: tables name it, and say no less than they did."""

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import analyse
from analysis.alignment import curves_of
from analysis.cells import Cell, load_suite
from analysis.figures import geometry as geometry_figure
from analysis.figures import learning_curves, save_figure
from analysis.groups import gather
from analysis.plan import load_plan
from analysis.statistics import iqm
from analysis.style import line_styles
from analysis.tables.cells import cells
from analysis.tables.final_scores import final_scores
from analysis.tables.formats import Table, latex, markdown, mathtext
from analysis.tables.geometry import geometry
from analysis.tables.index import index
from analysis.tables.sample_efficiency import sample_efficiency
from analysis.text import LONGEST, shortened
from tests.analysis.synthetic import write_state, write_suite
from tests.analysis.test_alignment import snapshots
from tests.analysis.test_suite_tables import read, record, rewrite, run

ROOT = Path(__file__).parents[2]


@pytest.fixture
def suite_dir(tmp_path: Path) -> Path:
    return write_suite(tmp_path, ["hopper"], ["adam_pg", "npg"], seeds=3, total_steps=40_960)


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.__main__.write_figures", lambda results, folder, external=(): folder.mkdir())


def change_plan(suite_dir: Path, **entries: Any) -> None:
    path = suite_dir / "suite.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_moved_suite_shows_its_own_runs(suite_dir: Path) -> None:
    own = final_scores(read(suite_dir)).records
    before = suite_dir.rename(suite_dir.with_name("before"))
    later = write_suite(suite_dir.parents[1], ["hopper"], ["adam_pg", "npg"], seeds=3, total_steps=40_960)
    for seed in range(3):
        rewrite(run(later, "hopper", "npg", seed), "episode_return", lambda values: [7.0] * len(values))
    assert final_scores(read(before)).records == own
    assert cells(read(before)).records[0]["run_dir"] == "results/before/runs/hopper/adam_pg/seed-0"
    shutil.rmtree(later)
    assert final_scores(read(before)).records == own


def test_a_stored_path_is_not_followed(suite_dir: Path, tmp_path: Path) -> None:
    elsewhere = run(suite_dir, "hopper", "npg", 0).rename(tmp_path / "elsewhere")
    plan = json.loads((suite_dir / "suite.json").read_text())
    for cell in plan["cells"]:
        if (cell["variant"], cell["seed"]) == ("npg", 0):
            cell |= {"run_dir": str(elsewhere)}
        if (cell["variant"], cell["seed"]) == ("npg", 1):
            cell |= {"published": "../../etc/passwd"}
    (suite_dir / "suite.json").write_text(json.dumps(plan))
    states = {cell.name: (cell.state, cell.reason) for cell in load_suite(suite_dir).cells if cell.variant == "npg"}
    assert states["hopper/npg/seed-0"] == ("missing", "not started")
    assert states["hopper/npg/seed-1"] == ("missing", "not published")


def test_published_cells_are_those_of_the_folder_or_stand_in_from_the_one_beside_it(tmp_path: Path) -> None:
    published = ROOT / "results/published/acktr"
    here = tmp_path / "results/published/acktr"
    shutil.copytree(published, here)
    assert {cell.state for cell in load_suite(here).cells} == {"finished"}
    reusing = tmp_path / "results/acktr"
    reusing.mkdir()
    shutil.copy(published / "suite.json", reusing)
    assert {cell.state for cell in load_suite(reusing).cells} == {"finished"}
    shutil.rmtree(here / "cells")
    assert {cell.reason for cell in load_suite(reusing).cells} == {"not published"}


@pytest.mark.usefixtures("no_figures")
def test_tables_are_not_replaced_by_less_unless_told_to(suite_dir: Path) -> None:
    analyse(suite_dir, 20)
    page = (suite_dir / "tables/index.md").read_bytes()
    shutil.rmtree(run(suite_dir, "hopper", "npg", 1))
    said = r"shows 1 runs of which nothing is left \(hopper/npg/seed-1 missing"
    with pytest.raises(ValueError, match=said) as raised:
        analyse(suite_dir, 20)
    assert "--replace" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert (suite_dir / "tables/index.md").read_bytes() == page
    analyse(suite_dir, 20, replace_by_less=True)
    assert "5 finished, 1 missing" in (suite_dir / "tables/index.md").read_text()
    analyse(suite_dir, 20)


@pytest.mark.usefixtures("no_figures")
def test_a_grid_that_has_changed_and_a_run_that_has_failed_since_are_shown(suite_dir: Path) -> None:
    analyse(suite_dir, 20)
    plan = json.loads((suite_dir / "suite.json").read_text())
    change_plan(suite_dir, cells=[cell for cell in plan["cells"] if cell["seed"] < 2])
    shutil.rmtree(run(suite_dir, "hopper", "npg", 2))
    write_state(run(suite_dir, "hopper", "npg", 1), "failed", "no more", 2_048, None)
    assert len(analyse(suite_dir, 20).suite.cells) == 4


def change_parts(run_dir: Path, **parts: Any) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    known = manifest["identity"]["parts"]
    known |= {name: known[name] | entry if isinstance(entry, dict) else entry for name, entry in parts.items()}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"config": {"algorithm.clip": 0.01}}, "algorithm.clip 0.2 -> 0.01"),
        ({"code": {"algorithms/npg.py": "other"}}, "algorithms/npg.py changed"),
        ({"versions": {"torch": "2.0"}}, 'torch "1.0" -> "2.0"'),
        ({"device": "cuda"}, "device cpu -> cuda"),
    ],
)
def test_runs_that_differ_in_more_than_the_seed_have_no_mean(suite_dir: Path, parts: dict[str, Any], said: str) -> None:
    for seed in range(3):
        change_parts(
            run(suite_dir, "hopper", "npg", seed),
            config={"seed": seed, "algorithm.clip": 0.2},
            code={"algorithms/npg.py": "one"},
            versions={"torch": "1.0"},
        )
    assert record(final_scores(read(suite_dir)), variant="npg")["runs_scored"] == 3
    change_parts(run(suite_dir, "hopper", "npg", 1), **parts)
    results = read(suite_dir)
    scores, shape = (record(table(results), variant="npg") for table in (final_scores, geometry))
    assert (scores["score"], scores["runs_scored"], scores["states"]) == (None, 0, "3 mixed")
    assert (shape["kl_median"], shape["runs_finished"]) == (None, 0)
    assert record(final_scores(results), variant="adam_pg")["runs_scored"] == 3
    rows = [row for row in cells(results).records if row["variant"] == "npg"]
    assert {row["state"] for row in rows} == {"mixed"}
    assert all(row["final_score"] is not None for row in rows)
    reason = f"not averaged: made otherwise than seeds 0, 2 are seed 1 with {said}"
    assert f"- Hopper, NPG, seeds 0, 1, 2: **mixed**, {markdown(reason)}\n" in index(results, [])
    figure = learning_curves(results.groups, line_styles(["adam_pg", "npg"]), 40_960, results.random)
    notes = str(figure.get_label())
    assert "NPG: no line on a task where settings or code differ between the runs" in notes


@pytest.mark.parametrize("random", [np.nan, np.inf, 1.7e308])
def test_a_gain_over_undefined_returns_is_undefined(suite_dir: Path, random: float) -> None:
    for seed in range(3):
        path = run(suite_dir, "hopper", "npg", seed) / "evaluation.parquet"
        pq.write_table(pq.read_table(path).set_column(1, "episode_return", pa.array([random] * 60)), path)
    with np.errstate(over="ignore"):
        table = sample_efficiency(read(suite_dir))
    assert {row["undefined"] for row in table.records} == {"the random policy's returns are not finite"}


def test_a_baseline_that_never_reaches_its_threshold_leaves_gains_undefined(suite_dir: Path) -> None:
    results = read(suite_dir)
    baseline = results.group("hopper", "adam_pg")
    assert baseline is not None
    vars(baseline)["curve"] = np.full_like(iqm(baseline.scores.values, axis=0), np.nan)
    undefined = {row["undefined"] for row in sample_efficiency(results).records}
    assert undefined == {"Adam-PG's curve never reaches the threshold"}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", b"[" * 100_000),
        ("manifest.json", b"{}"),
        ("manifest.json", b'{"state": "odd", "reason": null, "identity": {"hash": "x", "parts": {}}}'),
        ("manifest.json", b'{"state": "failed", "reason": ["a"], "identity": {"hash": "x", "parts": {}}}'),
        ("manifest.json", b'{"state": "failed", "reason": "a", "identity": {"hash": 5, "parts": {}}}'),
        ("manifest.json", b'{"state": "failed", "reason": "a", "identity": {"hash": "x", "parts": {"config": 1}}}'),
        ("progress.parquet", b"PAR1"),
        ("evaluation.parquet", b""),
    ],
)
def test_a_run_that_cannot_be_read_is_named_and_the_others_go_on(suite_dir: Path, file: str, content: bytes) -> None:
    run_dir = run(suite_dir, "hopper", "npg", 1)
    (run_dir / file).write_bytes(content)
    results = read(suite_dir)
    [bad] = [cell for cell in results.suite.cells if cell.state != "finished"]
    assert (bad.name, bad.state) in {("hopper/npg/seed-1", "unreadable"), ("hopper/npg/seed-1", "damaged")}
    assert bad.state == "damaged" or str(run_dir) in bad.reason
    assert record(final_scores(results), variant="npg")["runs_scored"] == 2
    assert bad.reason[:40] in cells(results).csv()


@pytest.mark.parametrize("steps", [0, -5])
def test_a_run_whose_steps_do_not_increase_is_unreadable(suite_dir: Path, steps: int) -> None:
    rewrite(run(suite_dir, "hopper", "npg", 1), "env_steps", lambda values: [steps] * len(values))
    [bad] = [cell for cell in load_suite(suite_dir).cells if cell.state != "finished"]
    assert "environment steps do not increase" in bad.reason


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"suite": "../x"}, "suite: '../x' is not text"),
        ({"baseline": None}, "baseline: None is not text"),
        ({"delta_ref": -1}, "delta_ref: -1 is not a positive number"),
        ({"total_steps": 10**15}, "total_steps: 1,000,000,000,000,000 is not between"),
        ({"total_steps": True}, "total_steps: True is not an integer"),
        ({"exceptions": {"hopper": "x"}}, "exceptions.hopper: 'x' is not a list"),
        ({"cells": {}}, "cells: {} is not a list"),
        ({"cells": [{"env": "a|b"}]}, "cells[0].env: 'a|b' is not text"),
        (
            {"cells": [dict.fromkeys(("env", "variant", "algorithm"), "a") | {"seed": 0}] * 2},
            "a/a/seed-0 is planned twice",
        ),
        ({"cells": [dict.fromkeys(("env", "variant", "algorithm"), "a") | {"seed": -1}]}, "seed -1 is negative"),
    ],
)
def test_a_plan_is_checked_once(suite_dir: Path, entries: dict[str, Any], complaint: str) -> None:
    change_plan(suite_dir, **entries)
    with pytest.raises(ValueError, match=r"suite\.json: ") as raised:
        load_plan(suite_dir)
    assert str(raised.value).startswith(f"{suite_dir / 'suite.json'}: ")
    assert complaint in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[]", b"\xff", b"{"])
def test_what_is_no_plan_at_all_is_one_line(suite_dir: Path, content: bytes) -> None:
    (suite_dir / "suite.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"suite\.json: ") as raised:
        load_plan(suite_dir)
    assert len(str(raised.value).splitlines()) == 1


HOSTILE = "=1+1 | <img src=x> [a](b) *c* _d_ `e` $\\bad$ &amp; ~f~\n\n# g\r\x1b[31m\u202e\\end{table} ![h](i)"


def test_text_means_nothing_in_any_format() -> None:
    shown = markdown(HOSTILE)
    assert shown == (
        r"=1+1 \| \<img src=x> [a\](b) \*c* \_d\_ \`e\` \$\\bad\$ \&amp; \~f\~ # g [31m \\end{table} ![h\](i)"
    )
    assert markdown("0.22* [1, 2] < 3, σ_τ and adam_pg; *: unsolved (5)") == (
        "0.22* [1, 2] < 3, σ_τ and adam_pg; *: unsolved (5)"
    )
    table = Table("t", "T", HOSTILE, [{"reason": HOSTILE, "n": -1.5}], ["Reason"], [[HOSTILE]], "source")
    [header, line] = csv.reader(table.csv().splitlines())
    assert header == ["reason", "n"]
    assert line[0].startswith("'=1+1 |")
    assert line[1] == "-1.5"
    assert len(table.markdown().splitlines()) == 7
    assert r"\end{table}" not in latex(HOSTILE)
    assert "\n" not in latex(HOSTILE)
    assert shortened("ab" * LONGEST).endswith("ab ...")
    assert len(shortened("ab" * LONGEST)) == LONGEST


def test_a_reason_is_one_short_line_in_every_table(suite_dir: Path) -> None:
    write_state(run(suite_dir, "hopper", "npg", 0), "failed", HOSTILE * 50, 2_048, None)
    results = read(suite_dir)
    [failed] = [cell for cell in results.suite.cells if cell.state == "failed"]
    assert len(failed.reason) == LONGEST
    page = index(results, [cells(results)])
    assert "<img" not in page.replace(r"\<img", "")
    assert len(list(csv.DictReader(cells(results).csv().splitlines()))) == 6


def test_a_name_that_is_a_formula_does_not_end_a_figure(suite_dir: Path, tmp_path: Path) -> None:
    assert mathtext("a $\\bad$") == r"a \$∖bad\$"
    suite = load_suite(suite_dir)
    renamed = tuple(replace(cell, env="$\\bad$", variant="$\\frac$") for cell in suite.cells)
    named = gather(replace(suite, cells=tuple(c for c in renamed if c.algorithm == "npg")), 20)
    save_figure(learning_curves(named.groups, line_styles(["$\\frac$"]), 40_960, {}), tmp_path / "x", "source")


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "no value above 0"), (np.nan, "no value"), (None, "no value"), (-1.0, "no value above 0")]
)
def test_a_logarithmic_axis_without_a_value_says_so(
    suite_dir: Path, tmp_path: Path, value: float | None, said: str
) -> None:
    """As of a task with one action, whose Fisher matrix is 0."""
    for seed in range(3):
        for variant in ("adam_pg", "npg"):
            for name in ("fisher_trace", "kl"):
                rewrite(run(suite_dir, "hopper", variant, seed), name, lambda values: [value] * len(values))
    figure = geometry_figure(gather(load_suite(suite_dir), 20).groups, line_styles(["adam_pg", "npg"]), 40_960)
    trace, kl, alignment = figure.axes
    for panel in (trace, kl):
        assert said in [text.get_text() for text in panel.texts]
    assert not [text for text in alignment.texts if "no value" in text.get_text()]
    save_figure(figure, tmp_path / "x", "source")
    assert min(panel.get_position().width for panel in figure.axes) > 0.15


def test_dampings_that_cannot_be_drawn() -> None:
    good = snapshots([[0.1, 0.2], [0.1, 0.2]], own=np.inf)
    curves = curves_of([good])
    assert curves is not None
    assert curves.rho_own is None  # where the trace is 0
    with pytest.raises(ValueError, match="rho is not between"):
        replace(good, rho=np.array([np.nan, 1.0, 1.0, 1.0]))
    none = np.empty(0)
    assert curves_of([replace(good, env_steps=none, rho=none)]) is None


def test_nothing_of_a_session_reaches_a_result(tmp_path: Path) -> None:
    settings = "axes.facecolor: red\nsavefig.dpi: 40\nfont.size: 30\nbackend: module://absent\ntext.usetex: True\n"
    (tmp_path / "matplotlibrc").write_text(settings)
    session = {
        "MPLBACKEND": "module://absent.backend",
        "MPLCONFIGDIR": str(tmp_path),
        "LC_ALL": "C",
        "LANG": "tr_TR.UTF-8",
        "PYTHONIOENCODING": "ascii",
        "TZ": "Asia/Tokyo",
        "PYTHONHASHSEED": "7",
    }
    plain = {name: value for name, value in os.environ.items() if name not in session} | {"PYTHONHASHSEED": "1"}
    made = []
    suite_dir = write_suite(tmp_path / "größe", ["hopper"], ["npg"], seeds=1, total_steps=20_480, snapshots=2)
    for environment in (plain, os.environ | session):
        done = subprocess.run(
            [sys.executable, "-m", "analysis", str(suite_dir)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        files = sorted(path for name in ("tables", "figures") for path in (suite_dir / name).iterdir())
        made.append({path.name: path.read_bytes() for path in files})
    assert made[0] == made[1]


def test_a_cell_has_a_name() -> None:
    assert Cell("hopper", "npg", "npg", 3, "").name == "hopper/npg/seed-3"

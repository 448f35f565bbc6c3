"""Publishing runs: what is written, what is refused by name, and what stays as it is."""

import csv
import json
import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import analyse
from pipeline.cell import Contents
from pipeline.publish import Busy, main, publish, writing
from pipeline.reuse import published_path
from pipeline.suites import Cell, Suite, load_suite
from tests.pipeline.published import SUITE, draw_nothing, identity, train, write_suite
from tracking.identity import CellIdentity
from tracking.manifest import write_status
from tracking.published import read_published
from tracking.record import files_of

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = "published numbers come from committed code, and its run was trained"
OTHER = {"config": {"cell": "other"}, "code": {}, "versions": {}, "device": "cpu"}


@pytest.fixture
def suite(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    draw_nothing(monkeypatch)
    return write_suite(repository, monkeypatch)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def made_of(repository: Path, table: str) -> str:
    """A published table."""
    return (repository / "results/published/tiny/tables" / table).read_text()


def counted(repository: Path) -> dict[tuple[str, str], str]:
    """State and reason of the cells in the published tables."""
    rows = csv.DictReader(made_of(repository, "cells.csv").splitlines())
    return {(row["variant"], row["seed"]): " ".join((row["state"], row["reason"])).strip() for row in rows}


def test_published_cells_give_the_tables_and_figures_of_the_runs_byte_by_byte(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = write_suite(repository, monkeypatch, SUITE.replace("[hopper]", "[hopper, {atari_pong: [env=gym]}]"))
    train_failed = repository / suite.cells[3].run_dir
    manifest = json.loads((train_failed / "manifest.json").read_text())
    failed = manifest | {"state": "failed", "reason": "FloatingPointError: KL is not finite"}
    (train_failed / "manifest.json").write_text(json.dumps(failed))
    (repository / "results/tiny/suite.json").write_text(json.dumps(suite.describe()))
    analyse(Path("results/tiny"))
    report = publish(suite, repository)
    assert (report.count, report.refused, report.held) == (Counter(new=8), {}, "")
    for folder in ("tables", "figures"):
        made = files(repository / "results/published/tiny" / folder)
        assert made == files(repository / "results/tiny" / folder)
        assert len(made) > 5
    assert "trpo,1,failed,FloatingPointError: KL is not finite" in made_of(repository, "cells.csv")
    assert "8 planned runs of 60,000 environment steps, on Pong 240,000 frames: " in made_of(repository, "index.md")
    assert "| Adam-PG | " in made_of(repository, "human_normalised.md")


def test_a_published_cell_says_what_it_is_and_where_it_comes_from(repository: Path, suite: Suite) -> None:
    publish(suite, repository)
    cell = suite.cells[0]
    path = repository / published_path(suite, cell)
    header, curves = read_published(path)
    assert (header["env"], header["variant"], header["seed"]) == ("hopper", "adam_pg", 0)
    assert (header["state"], header["identity"]) == ("finished", identity(cell).hash)
    assert header["overrides"] == list(cell.overrides)
    assert header["provenance"]["git"] == {"commit": "c" * 40, "dirty": False}
    assert header["provenance"]["packages"]["torch"] == "2.13.0+cpu"
    assert header["provenance"]["identity"] == identity(cell).parts
    assert set(header["files"]) == {"manifest.json", "progress.parquet", "evaluation.parquet", "alignment.parquet"}
    curves = curves.filter(pc.equal(curves["part"], "curve"))
    assert curves["env_steps"].to_pylist() == [10_000, 20_000, 30_000, 40_000, 50_000, 59_392]
    assert path.stat().st_size < 15_000


def test_publishing_again_touches_no_cell(repository: Path, suite: Suite) -> None:
    publish(suite, repository)
    folder = repository / "results/published/tiny/cells"
    first, times = files(folder), {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}
    change_manifest(repository / suite.cells[0].run_dir, started="later")  # a run made again, with equal numbers
    report = publish(suite, repository)
    assert report.count == Counter(unchanged=4)
    assert files(folder) == first
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.parquet")} == times


def test_a_run_with_other_numbers_replaces_what_was_published(repository: Path, suite: Suite) -> None:
    publish(suite, repository)
    path = repository / suite.cells[0].run_dir / "evaluation.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "episode_return", pq.read_table(path)["episode_length"].cast("double")), path)
    assert publish(suite, repository).count == Counter(unchanged=3, replaced=1)
    header, _ = read_published(repository / published_path(suite, suite.cells[0]))
    assert header["run"]["evaluation"]["random"] == [1000.0] * 20


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (
            {"git": None},
            f"{COMMITTED} outside git; commit, remove its directory in results/tiny/runs and train it again",
        ),
        (
            {"git": {"commit": "c" * 40, "dirty": True}},
            f"{COMMITTED} with uncommitted changes of what it is made from; commit, remove",
        ),
        ({"identity": {"hash": "b" * 64, "parts": OTHER}}, "its run is not of today's suite (cell: "),
    ],
)
def test_a_run_that_is_not_to_be_published_is_refused_by_name_and_the_others_go_on(
    repository: Path, suite: Suite, entries: dict[str, Any], reason: str
) -> None:
    change_manifest(repository / suite.cells[0].run_dir, **entries)
    report = publish(suite, repository)
    [(line, cells)] = report.refused.items()
    assert cells == [suite.cells[0]]
    assert line.startswith(reason)
    assert "\n" not in line
    assert not (repository / published_path(suite, suite.cells[0])).exists()
    assert report.count == Counter(new=3)
    assert counted(repository)["adam_pg", "0"] == "missing not published"


def test_a_cell_that_left_no_manifest_is_refused_with_its_reason(repository: Path, suite: Suite) -> None:
    run_dir = repository / suite.cells[0].run_dir
    (run_dir / "manifest.json").unlink()
    write_status(run_dir, "failed", "refused: total_steps=5")
    assert "left no manifest (refused: total_steps=5)" in next(iter(publish(suite, repository).refused))


def test_a_grid_is_published_in_portions(repository: Path, suite: Suite) -> None:
    """On one machine the runs of seed 0, on another those of seed 1: both count, and the first stay as they are."""
    for cell in suite.cells:
        if cell.seed == 1:
            shutil.rmtree(repository / cell.run_dir)
    assert publish(suite, repository).count == Counter({"new": 2, "not there": 2})
    assert counted(repository)["trpo", "1"] == "missing not published"
    first = files(repository / "results/published/tiny/cells")
    shutil.rmtree(repository / "results/tiny/runs")
    for cell in suite.cells:
        if cell.seed == 1:
            train(repository, cell)
    assert publish(suite, repository).count == Counter(kept=2, new=2)
    both = files(repository / "results/published/tiny/cells")
    assert len(both) == 4
    assert both | first == both
    assert set(counted(repository).values()) == {"finished"}


def test_published_cells_of_other_code_stay_in_the_tables_and_are_counted_in_one_line(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(suite, repository)
    shutil.rmtree(repository / "results/tiny/runs")
    before = files(repository / "results/published/tiny")
    other = {"code": {"new.py": "hash"}}
    monkeypatch.setattr(Contents, "identity", lambda self, cell: CellIdentity(identity(cell).parts | other))
    monkeypatch.setattr("pipeline.publish.load_suite", lambda name: suite)
    monkeypatch.setattr("pipeline.publish.publish", lambda suite: publish(suite, repository))
    assert main(["tiny"]) == 1
    first, second, third, fourth = capsys.readouterr().out.splitlines()
    assert first == "suite tiny: 4 cells: none, 4 refused"
    assert second.startswith("refused: 4 cells of adam_pg, trpo on hopper: published from other code or settings")
    assert third.startswith("for all of these: new.py new; snakemake carry --config suite=tiny shows")
    assert fourth == "tables and figures of what is published: results/published/tiny/tables/index.md"
    assert files(repository / "results/published/tiny") == before


def test_a_new_run_does_not_join_published_seeds_of_other_code(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(suite, repository)
    shutil.rmtree(repository / suite.cells[0].run_dir)
    before = files(repository / "results/published/tiny")
    changed = {suite.cells[0], suite.cells[1]}  # both seeds of Adam-PG

    def today(cell: Cell) -> CellIdentity:
        parts = identity(cell).parts
        return CellIdentity(parts | {"code": {"new.py": "hash"}}) if cell in changed else CellIdentity(parts)

    monkeypatch.setattr(Contents, "identity", lambda self, cell: today(cell))
    parts = today(suite.cells[1])
    change_manifest(repository / suite.cells[1].run_dir, identity={"hash": parts.hash, "parts": parts.parts})
    report = publish(suite, repository)
    assert report.count == Counter(unchanged=2)
    assert "other published seeds of its variant are of other code" in list(report.refused)[1]
    assert files(repository / "results/published/tiny") == before


def test_tables_never_show_less_than_they_did_and_none_is_empty(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, elsewhere = repository / "results/tiny/runs", repository / "elsewhere"
    runs.rename(elsewhere)
    report = publish(suite, repository)
    assert report.count == Counter({"not there": 4})
    assert report.held == "tables and figures keep 0 published cells, since today's suite would show 0"
    assert not (repository / "results/published/tiny").exists()

    elsewhere.rename(runs)
    publish(suite, repository)
    shutil.rmtree(runs / "hopper/adam_pg/seed-0")
    before = files(repository / "results/published/tiny/tables")
    (repository / "conf/suite/tiny.yaml").write_text(SUITE + "delta_ref: 0.5\n")
    report = publish(load_suite("tiny", repository), repository)
    assert "published for delta_ref 0.02" in next(iter(report.refused))
    assert report.held == "tables and figures keep 4 published cells, since today's suite would show 3"
    assert files(repository / "results/published/tiny/tables") == before


def test_the_command_ends_with_1_and_a_line_where_a_cell_is_refused(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.publish.load_suite", lambda name: load_suite(name, repository))
    monkeypatch.setattr("pipeline.publish.publish", lambda suite: publish(suite, repository))
    assert main(["tiny"]) == 0
    assert capsys.readouterr().out.startswith("suite tiny: 4 cells: 4 new, 0 refused\n")
    change_manifest(repository / suite.cells[0].run_dir, git=None)
    assert main(["tiny"]) == 1
    first, second, _ = capsys.readouterr().out.splitlines()
    assert first == "suite tiny: 4 cells: 3 unchanged, 1 refused"
    assert second.startswith("refused: hopper/adam_pg/seed-0: ")


def test_a_damaged_run_is_refused_by_name_and_the_others_are_published(repository: Path, suite: Suite) -> None:
    """One is cut, one lacks a file, one cannot be read, one has a checkpoint that is not its own."""
    cut, lacking, odd, changed = (repository / cell.run_dir for cell in suite.cells)
    for run_dir in (cut, lacking, changed):
        (run_dir / "checkpoint").write_bytes(b"weights")
        change_manifest(run_dir, files=files_of(run_dir))
    rows = pq.read_table(cut / "progress.parquet")
    pq.write_table(rows.slice(0, 2), cut / "progress.parquet")
    (lacking / "evaluation.parquet").unlink()
    (odd / "status.json").unlink()
    change_manifest(odd, git="clean")
    (changed / "checkpoint").write_bytes(b"Weights")
    report = publish(suite, repository)
    again = "snakemake --config suite=tiny trains it again"
    reasons = list(report.refused)
    assert re.fullmatch(rf"its run is damaged \(progress.parquet: .* bytes, of .*\); {again}", reasons[0])
    assert reasons[1] == f"its run is damaged (evaluation.parquet: missing); {again}"
    assert reasons[2] == f"{odd}/manifest.json: git: 'clean' is not an object or null"
    assert reasons[3] == (
        "its run is damaged (checkpoint: not what it was when the run ended); "
        f"remove its directory in results/tiny/runs, and {again}"
    )
    (lacking / "evaluation.parquet").write_bytes((changed / "evaluation.parquet").read_bytes())
    change_manifest(lacking, files=files_of(lacking))
    assert publish(suite, repository).count == Counter(new=1)


def test_what_is_published_and_damaged_keeps_no_other_cell_from_being_published(repository: Path, suite: Suite) -> None:
    publish(suite, repository)
    first, second, third, _ = (repository / published_path(suite, cell) for cell in suite.cells)
    first.write_bytes(first.read_bytes()[:-20])
    second.unlink()
    second.mkdir()
    third.unlink()
    report = publish(suite, repository)
    assert report.count == Counter(new=1, unchanged=1)
    assert [len(cells) for cells in report.refused.values()] == [1, 1]
    assert f"{first}: damaged" in next(iter(report.refused))
    assert report.held == "tables and figures keep 4 published cells, since today's suite would show 2"
    shutil.rmtree(repository / "results/tiny")
    assert publish(suite, repository).count == Counter({"kept": 2, "not there": 1})


@pytest.mark.parametrize("plan", ["", "{}", "[" * 100_000, '{"cells": [{}]}'])
def test_a_published_plan_that_cannot_be_read_is_written_again(repository: Path, suite: Suite, plan: str) -> None:
    publish(suite, repository)
    path = repository / "results/published/tiny/suite.json"
    sound = path.read_text()
    path.write_text(plan)
    assert publish(suite, repository).count == Counter(unchanged=4)
    assert path.read_text() == sound


def test_two_publishers_at_once_do_not_break_each_other(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(suite, repository)
    before = files(repository / "results/published/tiny")
    with writing(repository / "results/published/tiny"):
        with pytest.raises(Busy, match="results/published/tiny: another process writes there"):
            publish(suite, repository)
        monkeypatch.setattr("pipeline.publish.load_suite", lambda name: suite)
        monkeypatch.setattr("pipeline.publish.publish", lambda suite: publish(suite, repository))
        with pytest.raises(SystemExit, match="another process writes there; try again when it is done"):
            main(["tiny"])
    assert files(repository / "results/published/tiny") == before
    assert publish(suite, repository).count == Counter(unchanged=4)


def test_a_killed_publisher_leaves_nothing_that_git_adds_and_the_next_one_removes_it(
    repository: Path, suite: Suite
) -> None:
    publish(suite, repository)
    folder = repository / "results/published/tiny"
    sound = files(folder)
    leftovers = [
        folder / "suite.json.0123456789abcdef.tmp",
        folder / "cells/hopper/trpo/seed-0.parquet.0123456789abcdef.tmp",
        folder / ".analysis-abc/tables/index.md",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    shutil.copy(ROOT / ".gitignore", repository)
    git = ["git", "-C", str(repository)]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "-A"], check=True)
    added = subprocess.run([*git, "ls-files", "results"], check=True, capture_output=True, text=True).stdout
    made_again = {"lock", "report.html"}  # of megabytes, and by `snakemake published`
    assert sorted(added.split()) == sorted(f"results/published/tiny/{name}" for name in sound.keys() - made_again)
    publish(suite, repository)
    assert files(folder) == sound


def change_manifest(run_dir: Path, **entries: Any) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps(manifest | entries))

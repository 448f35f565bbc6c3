"""Tables and figures of published suites made again."""

import shutil
from pathlib import Path

import pytest

from pipeline import rebuild as module
from pipeline.publish import publish
from pipeline.rebuild import main, rebuild
from pipeline.reuse import published_path
from pipeline.suites import Suite
from tests.pipeline.published import draw_nothing, write_suite
from tracking.published import read_published, write_published


@pytest.fixture
def suite(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    draw_nothing(monkeypatch)
    monkeypatch.setattr(module, "PUBLISHED", repository / "results/published")
    suite = write_suite(repository, monkeypatch)
    publish(suite, repository)
    shutil.rmtree(repository / "results/tiny")  # nothing but what is published,
    shutil.rmtree(repository / "conf")  # and no settings either
    return suite


def test_what_was_published_is_made_again_to_the_byte(
    repository: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert capsys.readouterr().out == "published suite tiny: tables equal, figures equal\n"
    compared = rebuild(repository / "results/published/tiny")
    assert (compared.tables, compared.figures, compared.drawn_by) == ([], [], "")


def test_a_changed_cell_shows_in_the_tables_it_is_in_by_name(
    repository: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    path = repository / published_path(suite, suite.cells[0])
    header, curves = read_published(path)
    write_published(path, header | {"run": header["run"] | {"final_score": 12.5}}, curves)
    assert main(["tiny"]) == 1
    said = capsys.readouterr().out
    assert "results/published/tiny/tables/final_scores.csv: differs from what was there\n" in said
    assert "geometry.csv" not in said  # whose numbers are the same
    assert said.endswith("published suite tiny: tables differ, figures equal\n")
    assert main(["tiny"]) == 0  # it has taken their place


def test_files_that_were_removed_or_added_are_named(repository: Path, suite: Suite) -> None:
    tables = repository / "results/published/tiny/tables"
    (tables / "geometry.tex").unlink()
    (tables / "old.csv").touch()
    assert rebuild(tables.parent).tables == ["tables/geometry.tex", "tables/old.csv"]
    assert (tables / "geometry.tex").exists()
    assert not (tables / "old.csv").exists()


def test_figures_are_compared_if_one_matplotlib_has_drawn_both(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "PUBLISHED", repository / "results/published")
    publish(write_suite(repository, monkeypatch), repository)
    figures = repository / "results/published/tiny/figures"
    before = {path: path.read_bytes() for path in figures.iterdir()}
    assert len(before) == 10
    pdf = figures / "learning_curves.pdf"
    pdf.write_bytes(before[pdf] + b"%")
    assert main([]) == 0  # a figure may differ by what draws it, numbers may not
    assert "tiny/figures/learning_curves.pdf: differs" in capsys.readouterr().out
    assert {path: path.read_bytes() for path in figures.iterdir()} == before

    pdf.write_bytes(b"by another version")
    monkeypatch.setattr(module, "SOFTWARE", "Matplotlib 99")
    assert main([]) == 0
    assert "figures not compared: Matplotlib " in capsys.readouterr().out
    assert pdf.read_bytes() == b"by another version"


def test_a_suite_that_is_not_there_is_named(
    repository: Path, suite: Suite, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["none"]) == 1
    assert "published suite none: " in capsys.readouterr().err
    monkeypatch.setattr(module, "PUBLISHED", repository / "nowhere")
    assert main([]) == 0
    assert capsys.readouterr().out.startswith("nothing is published")


@pytest.mark.parametrize("plan", ["[]", "[" * 100_000, '{"cells": [{}]}'])
def test_a_suite_that_cannot_be_read_is_named_and_the_others_are_made(
    repository: Path, suite: Suite, capsys: pytest.CaptureFixture[str], plan: str
) -> None:
    bad = repository / "results/published/bad"
    bad.mkdir()
    (bad / "suite.json").write_text(plan)
    assert main([]) == 1
    said = capsys.readouterr()
    assert said.out == "published suite tiny: tables equal, figures equal\n"
    assert said.err.startswith(f"published suite bad: {bad / 'suite.json'}")
    assert len(said.err.splitlines()) == 1
    assert main(["nowhere"]) == 1
    assert not (repository / "results/published/nowhere").exists()

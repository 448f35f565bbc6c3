"""Carrying published cells over a change of code, on a copy of this repository with cells that were really trained."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.carry import carry, main, prove, stale_cells
from pipeline.cell import Contents
from pipeline.publish import publish
from pipeline.repeat import checkout
from pipeline.reuse import published_path
from pipeline.suites import Suite, load_suite
from tests.pipeline.published import draw_nothing
from tracking.identity import REPOSITORY
from tracking.published import read_published

SUITE = """
envs: [{cartpole: [env=gym, env.id=CartPole-v1]}]
algorithms: [npg]
baseline: npg
seeds: 2
total_steps: 4096
overrides: [algorithm.batch_size=512, evaluation.episodes=2, evaluation.max_steps=100, diagnostics.snapshots=2]
"""
LOOP = "training/loop.py"
STEP = "training/learner.py"


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository of its own with the suite `tiny`, two cells of which are trained and published."""
    root = tmp_path_factory.mktemp("carry") / "repository"
    others = shutil.ignore_patterns(".*", "__pycache__", "results", "build", "wandb", "tests", "docs", "*.egg-info")
    shutil.copytree(REPOSITORY, root, ignore=others)
    (root / "conf/suite/tiny.yaml").write_text(SUITE)
    (root / ".gitignore").write_text("results/*\n!results/published/\n__pycache__/\n")
    git(root, "init")
    git(root, "add", ".")
    git(root, "commit", "-m", "trained from")
    for cell in load_suite("tiny", root).cells:
        command = [sys.executable, "train.py", *cell.overrides, f"run_dir={cell.run_dir}"]
        subprocess.run(command, cwd=root, check=True, capture_output=True, timeout=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        draw_nothing(patch)
        report = publish(load_suite("tiny", root), root)
    assert (report.count["new"], report.refused) == (2, {})
    shutil.rmtree(root / "results/tiny")
    return root


@pytest.fixture
def suite(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Suite]:
    """The suite; what a test does to the repository is undone."""
    shutil.copytree(trained / "results/published", tmp_path / "published")
    before = {file: (trained / file).read_text() for file in (LOOP, STEP)}
    monkeypatch.chdir(trained)
    draw_nothing(monkeypatch)
    yield load_suite("tiny", trained)
    shutil.rmtree(trained / "results")
    shutil.copytree(tmp_path / "published", trained / "results/published")
    for file, text in before.items():
        (trained / file).write_text(text)


def edit(root: Path, file: str, change: Callable[[str], str]) -> None:
    before = (root / file).read_text()
    after = change(before)
    assert after != before
    (root / file).write_text(after)


def headers(root: Path, suite: Suite) -> list[dict[str, Any]]:
    return [read_published(root / published_path(suite, cell))[0] for cell in suite.cells]


def test_a_harmless_change_is_carried_with_its_proof(trained: Path, suite: Suite) -> None:
    before = headers(trained, suite)
    edit(trained, LOOP, lambda text: text.replace("lr_scale", "scale_of_rates"))
    edit(trained, LOOP, lambda text: text.replace('{"learning_rate_scale"', '{"new": 1.0, "learning_rate_scale"'))
    contents = Contents(trained)
    [stale] = stale_cells(suite, contents)
    assert stale.cells == suite.cells
    [(_, proof)] = carry([suite], 1, trained)["tiny"]
    assert proof.difference == ""
    for cell, old, new in zip(suite.cells, before, headers(trained, suite), strict=True):
        assert new["identity"] == contents.hash(cell) != old["identity"]
        assert (new["content"], new["run"]) == (old["content"], old["run"])
        assert new["provenance"]["git"] == old["provenance"]["git"]
        [entry] = new["carried"]
        assert (entry["from"], entry["commit"]) == (old["identity"], old["provenance"]["git"]["commit"])
        assert "4,096 steps of seed 0 with a resume" in entry["compared"]
        assert entry["lacks"] == ["new"]
        assert entry["at"].startswith("20")
    assert stale_cells(suite, contents) == []
    assert not (trained / "results/.carry").exists()
    provenance = json.loads((trained / "results/published/tiny/tables/provenance.json").read_text())
    assert [cell["identity"] for cell in provenance["cells"]] == [contents.hash(cell) for cell in suite.cells]


@pytest.mark.parametrize(
    ("file", "old", "new", "difference"),
    [
        (STEP, "= normalise_advantages(advantages)", "= (1 + 1e-6) * normalise_advantages(advantages)", ""),
        (LOOP, "critic.fit(batch, lr_scale)", "critic.fit(batch, lr_scale if i < 2 else 0.999)", ""),
        (LOOP, "collector.observation_normaliser,\n        learner.evaluation_seeds",
         "collector.observation_normaliser,\n        learner.evaluation_seeds.spawn(1)[0]", "evaluation.parquet: "),
    ],
    ids=["at once", "after the first update", "in the evaluation alone"],
)  # fmt: skip
def test_a_change_that_moves_a_bit_is_not_carried_and_its_first_difference_is_named(
    trained: Path,
    suite: Suite,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    old: str,
    new: str,
    difference: str,
) -> None:
    before = {path: path.read_bytes() for path in (trained / "results/published").rglob("*.parquet")}
    edit(trained, file, lambda text: text.replace(old, new))
    monkeypatch.setattr("pipeline.carry.load_suite", lambda name: load_suite(name, trained))
    monkeypatch.setattr("pipeline.carry.carry", lambda suites, jobs: carry(suites, jobs, trained))
    assert main(["tiny"]) == 1
    said = capsys.readouterr().out
    assert "cartpole/npg, 2 cells of " in said
    assert "stay as they are: " + (difference or "progress.parquet: column ") in said
    assert "suite tiny: 0 cells carried, 2 stay that are not of today" in said
    assert {path: path.read_bytes() for path in (trained / "results/published").rglob("*.parquet")} == before


def test_an_edit_while_it_compares_proves_nothing(trained: Path, suite: Suite) -> None:
    edit(trained, LOOP, lambda text: text + "\nX = 1\n")
    contents = Contents(trained)
    [stale] = stale_cells(suite, contents)
    edit(trained, LOOP, lambda text: text + "\nX = 2\n")
    with checkout(stale.commit, trained / "results/.carry", trained) as then:
        proof = prove(stale, then, contents, trained / "results/.carry/runs")
    assert "settings or code have changed since this run was planned" in proof.difference


def test_other_packages_and_unknown_commits_prove_nothing(trained: Path, suite: Suite, tmp_path: Path) -> None:
    edit(trained, LOOP, lambda text: text + "\nX = 1\n")
    changes: dict[str, Callable[[Any], None]] = {
        "other packages: torch 1.0 then": lambda origin: origin["identity"]["versions"].update(torch="1.0"),
        "cannot be checked out": lambda origin: origin["git"].update(commit="0" * 40),
    }
    for said, change in changes.items():
        [stale] = stale_cells(suite, Contents(trained))
        header = json.loads(json.dumps(stale.header))
        change(header["provenance"])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "pipeline.carry.read_published", lambda path, header=header: (header, read_published(path)[1])
            )
            [(_, proof)] = carry([suite], 1, trained)["tiny"]
        assert said in proof.difference


def test_a_damaged_cell_is_named_and_the_others_are_compared(
    trained: Path, suite: Suite, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (trained / published_path(suite, cell) for cell in suite.cells)
    first.write_bytes(first.read_bytes()[:-20])
    edit(trained, LOOP, lambda text: text.replace("lr_scale", "scale_of_rates"))
    [stale] = stale_cells(suite, Contents(trained))
    assert stale.cells == (suite.cells[1],)
    assert capsys.readouterr().err.startswith(f"{first}: damaged")
    assert second.is_file()


@pytest.mark.parametrize(
    "override", ["hydra.run.dir=/tmp/x", "+hydra.callbacks.x._target_=os.system", "~hydra/launcher"]
)
def test_settings_of_hydra_in_a_published_cell_are_not_run(
    trained: Path, suite: Suite, tmp_path: Path, override: str
) -> None:
    edit(trained, LOOP, lambda text: text.replace("lr_scale", "scale_of_rates"))
    contents = Contents(trained)
    [stale] = stale_cells(suite, contents)
    header = {**stale.header, "overrides": [*stale.header["overrides"], override]}
    proof = prove(replace(stale, header=header), trained, contents, tmp_path / "runs")
    assert proof.difference == "its overrides configure Hydra, which may run what they name"
    assert not (tmp_path / "runs").exists()

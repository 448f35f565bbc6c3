"""Published cells that stand in for runs: which count, and what Snakemake makes of them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline.cell import Contents
from pipeline.reuse import digest, plan, published_path, reusable
from pipeline.suites import Cell, Suite, load_suite
from tests.tracking.test_published import HEADER
from tracking.published import write_published

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
SUITE = "envs: [hopper]\nalgorithms: [adam_pg, trpo]\nseeds: 1\ntotal_steps: 4096\n"
# Lists where the result of each cell would be read.
ANALYSIS = """
import json, sys
from pathlib import Path

results = Path(sys.argv[1])
cells = json.loads((results / "suite.json").read_text())["cells"]
(results / "tables").mkdir(exist_ok=True)
(results / "tables" / "index.md").write_text("\\n".join(cell.get("published", cell["run_dir"]) for cell in cells))
(results / "report.html").touch()
"""
ECHO = "import sys; print(sys.argv[1:])\n"


@pytest.fixture
def suite(repository: Path) -> Suite:
    (repository / "conf/suite/tiny.yaml").write_text(SUITE)
    (repository / "analysis/__main__.py").write_text(ANALYSIS)
    return load_suite("tiny", repository)


def publish(repository: Path, suite: Suite, cell: Cell, **changes: Any) -> Path:
    """A published cell as far as the pipeline looks at it, made from what there is today but for `changes`."""
    made = {"identity": Contents(repository).hash(cell), "delta_ref": suite.delta_ref}
    header = HEADER | {"env": cell.env, "variant": cell.variant, "seed": cell.seed} | made | changes
    path = repository / published_path(suite, cell)
    write_published(path, header, pa.table({"env_steps": pa.array([4096])}))
    return path


def snakemake(repository: Path, *arguments: str) -> tuple[int, str]:
    done = subprocess.run([SNAKEMAKE, *arguments], cwd=repository, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, True),
        ({"identity": "b" * 64}, False),
        ({"delta_ref": 0.01}, False),
    ],
)
def test_a_published_cell_counts_if_it_is_made_from_what_there_is_today(
    repository: Path, suite: Suite, changes: dict[str, Any], counts: bool
) -> None:
    cell = suite.cells[0]
    publish(repository, suite, cell, **changes)
    assert reusable(suite, Contents(repository)) == ({cell: published_path(suite, cell)} if counts else {})


def test_the_plan_names_the_file_that_stands_in_for_a_run(repository: Path, suite: Suite) -> None:
    first, second = plan(suite, {suite.cells[0]: "file"})["cells"]
    assert first["published"] == "file"
    assert "published" not in second
    assert plan(suite, {}) == suite.describe()


def test_a_damaged_published_cell_is_named_and_trained(repository: Path, suite: Suite) -> None:
    damaged, _ = [publish(repository, suite, cell) for cell in suite.cells]
    damaged.write_bytes(damaged.read_bytes()[:-20])
    refused: list[str] = []
    assert list(reusable(suite, Contents(repository), refused)) == [suite.cells[1]]
    [line] = refused
    assert line.startswith(f"{damaged}: damaged")
    code, said = snakemake(repository, "-n", "--config", "suite=tiny", "reuse_published=true")
    assert code == 0, said
    assert f"suite tiny: {line}" in said.splitlines()
    assert "suite tiny: 2 cells, 1 done (1 published), 1 to train" in said


def test_a_suite_that_has_changed_since_it_was_planned_is_not_the_plan(repository: Path, suite: Suite) -> None:
    def write(planned: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.reuse", "tiny", "--digest", planned]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    planned = plan(suite, {})
    assert json.loads(write(digest(planned)).stdout) == planned
    path = repository / "conf/suite/tiny.yaml"
    path.write_text(path.read_text() + "delta_ref: 0.5\n")
    late = write(digest(planned))
    assert (late.returncode, late.stdout) == (1, "")
    assert late.stderr == "suite tiny: has changed since it was planned; the same command plans it anew\n"


def test_a_published_cell_is_not_trained_and_its_file_is_analysed(repository: Path, suite: Suite) -> None:
    published, trained = suite.cells
    publish(repository, suite, published)
    index = repository / "results/tiny/tables/index.md"
    code, said = snakemake(repository, "--config", "suite=tiny", "reuse_published=true")
    assert code == 0, said
    assert "suite tiny: 2 cells, 1 done (1 published), 1 to train: about " in said
    assert index.read_text().splitlines() == [published_path(suite, published), trained.run_dir]
    assert not (repository / published.run_dir).exists()

    code, said = snakemake(repository, "--config", "suite=tiny")
    assert code == 0, said
    assert index.read_text().splitlines() == [published.run_dir, trained.run_dir]
    assert json.loads((repository / published.run_dir / "status.json").read_text())["status"] == "finished"
    assert (repository / trained.run_dir / "attempts").read_text() == "x"  # which was done


def test_the_rules_hand_their_options_on(repository: Path, suite: Suite) -> None:
    for module in ("carry", "publish", "rebuild", "verify"):
        (repository / "pipeline" / f"{module}.py").write_text(ECHO)
    options = ["sample=2", "sample_seed=5", "stop_after=9"]
    code, said = snakemake(
        repository, "carry", "publish", "published", "verify", "--cores", "2", "--config", "suite=tiny", *options
    )
    assert code == 0, said
    for expected in (
        "['tiny']",
        "['tiny', '--jobs', '2']",
        "['tiny', '--sample', '2', '--sample-seed', '5', '--stop-after', '9']",
    ):
        assert expected in said
    assert said.count("['tiny']") == 2
    (repository / "conf/suite/tiny.yaml").rename(repository / "conf/suite/full.yaml")
    code, said = snakemake(repository, "published")
    assert code == 0, said
    assert "[]" in said  # every published suite

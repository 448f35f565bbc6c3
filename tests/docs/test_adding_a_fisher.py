"""The example of docs/adding_a_fisher.md, followed to the letter in a copy of the repository, and its table."""

import re
from pathlib import Path

import pyarrow.parquet as pq

from algorithms.parts.algorithm import load_fisher
from tests.docs.pages import ROOT, copy_of_the_repository, follow

RUN_DIR = "results/adhoc/runs/gym_CartPole-v1/npg/seed-0"


def test_two_files_make_a_metric_that_npg_follows_and_that_conforms(tmp_path: Path) -> None:
    repository = copy_of_the_repository(tmp_path)
    (_, trained), (_, conformance) = follow("adding_a_fisher.md", repository)
    assert RUN_DIR in trained
    rows = pq.read_table(repository / RUN_DIR / "progress.parquet").to_pylist()
    assert {row["outcome"] for row in rows} == {"stepped"}
    assert rows[-1]["episode_return"] > 2 * rows[0]["episode_return"]
    assert "passed" in conformance or "100%" in conformance


def test_the_table_lists_every_metric_with_its_solvers() -> None:
    page = (ROOT / "docs" / "adding_a_fisher.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", page, re.MULTILINE))
    shipped = {path.stem for path in (ROOT / "conf" / "fisher").glob("*.yaml")}
    assert set(rows) == shipped
    for name, solvers in rows.items():
        assert tuple(re.findall(r"`(\w+)`", solvers)) == load_fisher(name).solvers

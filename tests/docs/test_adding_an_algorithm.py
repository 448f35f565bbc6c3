"""The example of docs/adding_an_algorithm.md, followed to the letter in a copy of the repository."""

from pathlib import Path

import pyarrow.parquet as pq

from tests.docs.pages import copy_of_the_repository, follow

RUN_DIR = "results/adhoc/runs/gym_CartPole-v1/nsgdm/seed-0"


def test_two_files_make_an_algorithm_that_learns_joins_the_suites_and_conforms(tmp_path: Path) -> None:
    repository = copy_of_the_repository(tmp_path)
    (_, trained), (_, cells), (_, conformance) = follow("adding_an_algorithm.md", repository)

    assert RUN_DIR in trained
    table = pq.read_table(repository / RUN_DIR / "progress.parquet")
    assert table.num_rows == 12288 // 1024
    assert table["momentum_cosine"].null_count == 0
    # Random play gives about 22. An update that went nowhere, or the wrong way, would stay there.
    assert table["episode_return"].to_pylist()[-1] > 100

    assert "results/smoke/runs/cartpole/nsgdm/seed-0" in cells
    assert "passed" in conformance or "100%" in conformance
    assert "skipped" not in conformance

"""The numbers of the README are those of the runs it names."""

from pathlib import Path

import pandas as pd

from docs.update_readme import BLOCK, PUBLISHED, block

ROOT = Path(__file__).resolve().parents[2]


def test_the_readme_shows_the_published_tables_to_the_letter() -> None:
    found = BLOCK.search((ROOT / "README.md").read_text(encoding="utf-8"))
    assert found is not None
    assert found[0] == found[1] + block() + found[2]


def test_the_runs_behind_it_are_the_whole_suite_and_all_finished() -> None:
    cells = pd.read_csv(ROOT / PUBLISHED / "tables/cells.csv")
    assert len(cells) == 3 * 5 * 2
    assert set(cells["state"]) == {"finished"}
    assert cells["identity"].nunique() == len(cells)

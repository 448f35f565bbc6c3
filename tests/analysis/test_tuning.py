"""A search's table and figure: normalised scores, ranks within an algorithm, the defaults marked."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis.__main__ import analyse
from analysis.cells import load_suite
from analysis.figures import tuning
from analysis.groups import gather
from analysis.mujoco_scores import scales
from analysis.tuning import trials
from tests.analysis.synthetic import ALGORITHMS, write_suite

DRAWN = {
    "npg-0": ["algorithm=npg"],
    "npg-1": ["algorithm=npg", "algorithm.delta=0.1"],
    "npg-2": ["algorithm=npg", "algorithm.delta=0.05", "algorithm.batch_size=1024"],
    "ppo-0": ["algorithm=ppo"],
}


@pytest.fixture
def searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variant, level in {"npg-0": 0.8, "npg-1": 0.6, "npg-2": 1.0}.items():
        monkeypatch.setitem(ALGORITHMS, variant, (level, 2.0, 0.01, 0.2, 45.0))
    return write_suite(tmp_path, ["halfcheetah", "hopper"], list(DRAWN), 2, 40_960, configurations=DRAWN)


def test_scores_are_means_over_tasks_of_normalised_means_over_seeds(searched: Path) -> None:
    suite = load_suite(searched)
    found = trials(gather(suite, 10))
    assert [(t.algorithm, t.rank) for t in found] == [("npg", 1), ("npg", 2), ("npg", 3), ("ppo", 1)]
    assert [t.number for t in found[:3]] == [2, 0, 1]
    for trial in found:
        expected = []
        for env, (random, reference) in {"halfcheetah": (-283.326, 4941.2), "hopper": (17.2162, 2031.1)}.items():
            cells = [c for c in suite.cells if (c.env, c.variant) == (env, f"{trial.algorithm}-{trial.number}")]
            scores = [(cell.final_score - random) / (reference - random) for cell in cells if cell.final_score]
            assert trial.normalised[env] == pytest.approx(np.mean(scores))
            expected.append(np.mean(scores))
        assert trial.score == pytest.approx(np.mean(expected))
        assert trial.runs == (4, 4)
        assert trial.settings == tuple(DRAWN[f"{trial.algorithm}-{trial.number}"][1:])


def test_a_configuration_of_which_a_run_is_missing_has_no_score_and_comes_last(searched: Path) -> None:
    best = trials(gather(load_suite(searched), 10))[0]
    shutil.rmtree(searched / "runs" / "hopper" / f"npg-{best.number}" / "seed-1")
    found = trials(gather(load_suite(searched), 10))
    assert [t.rank for t in found] == [1, 2, None, 1]
    assert (found[2].number, found[2].score, found[2].normalised["hopper"]) == (best.number, None, None)
    assert found[2].runs == (3, 4)


def test_a_search_has_its_own_tables_and_figure(searched: Path) -> None:
    analyse(searched, resamples=10)
    assert {path.stem for path in (searched / "tables").glob("*.csv")} == {"tuning", "cells", "curves"}
    assert {path.name for path in (searched / "figures").iterdir()} == {"tuning.png", "tuning.pdf"}
    table = (searched / "tables" / "tuning.md").read_text()
    assert "| the defaults |" in table
    assert "| delta=0.05 batch\\_size=1024 |" in table or "| delta=0.05 batch_size=1024 |" in table
    panel = tuning(gather(load_suite(searched), 10)).axes[0]
    rings = [line for line in panel.lines if line.get_marker() == "o"]
    assert len(rings) == 2
    assert all(np.size(line.get_xdata()) == 1 for line in rings)
    assert "configurations" in json.loads((searched / "suite.json").read_text())


def test_a_search_that_has_just_begun_is_shown_as_such(searched: Path) -> None:
    for run_dir in (searched / "runs" / "hopper").glob("*/seed-1"):
        shutil.rmtree(run_dir)
    results = gather(load_suite(searched), 10)
    assert all(trial.rank is None for trial in trials(results))
    assert [text.get_text() for text in tuning(results).axes[0].texts] == ["no configuration is complete"]


def test_every_task_of_the_comparison_has_a_scale_and_sources_for_it() -> None:
    assert len(scales()) == 9
    assert all(scale.reference > scale.random for scale in scales().values())

import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.search import Search, check, parse_grid, ranks, scores


def test_a_grid_is_every_combination_once() -> None:
    found = parse_grid(["algorithm.learning_rate=1e-3,3e-3", "network.hidden=[64,64],[32]", "critic.epochs=5"])
    assert [configuration.overrides for configuration in found] == [
        ["algorithm.learning_rate=0.001", "network.hidden=[64,64]", "critic.epochs=5"],
        ["algorithm.learning_rate=0.001", "network.hidden=[32]", "critic.epochs=5"],
        ["algorithm.learning_rate=0.003", "network.hidden=[64,64]", "critic.epochs=5"],
        ["algorithm.learning_rate=0.003", "network.hidden=[32]", "critic.epochs=5"],
    ]
    assert found[0].name == "learning_rate-0.001_network.hidden--64-64-_critic.epochs-5"


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        (["algorithm.learning_rate"], "cannot be read"),
        (["algorithm.learning_rate=1e-3,"], "cannot be read"),
        (["algorithm.delta=0.1", "algorithm.delta=0.2"], "listed twice"),
        (["algorithm.delta=0.1,1e-1"], "delta-0.1 is there twice"),
        (["seed=1,2"], "the search sets seed"),
    ],
)
def test_a_grid_that_means_nothing_is_refused(entries: list[str], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse_grid(entries)


@pytest.mark.parametrize(
    ("grid", "seeds", "complaint"),
    [
        ("algorithm.delta=0.02,-1", [100], r"algorithm\.delta=-1"),
        ("algorithm.batch_size=2048,8192", [100], "total_steps=4096: must be at least"),
        ("algorithm.delta=0.02", [100, 100], "--seeds: 100 is there twice"),
    ],
)
def test_what_train_would_refuse_is_refused_before_any_run(grid: str, seeds: list[int], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        check(Search("trpo", parse_grid([grid]), ["hopper"], seeds, 4096, Path("unused")))


def test_the_score_is_the_share_of_the_way_from_random_to_the_best() -> None:
    means = np.array([[100.0, -10.0], [50.0, -5.0], [np.nan, -20.0]])
    random = np.array([0.0, -25.0])
    found = scores(means, random)
    assert found[:2] == pytest.approx([(1 + 0.75) / 2, (0.5 + 1) / 2])
    assert math.isnan(found[2])
    assert ranks(found) == [1, 2, None]


def test_without_a_configuration_above_random_nothing_is_ranked() -> None:
    found = scores(np.array([[-30.0], [-40.0]]), np.array([-25.0]))
    assert ranks(found) == [None, None]


def test_equal_scores_share_a_rank() -> None:
    assert ranks(np.array([0.5, 1.0, 0.5])) == [2, 1, 2]

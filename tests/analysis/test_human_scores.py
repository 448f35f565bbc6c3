"""Human-normalised scores: the published numbers, the scale, and tables with entries computed by hand."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ale_py import roms

from analysis.groups import Results
from analysis.human_scores import Reference, reference_scores
from analysis.tables.final_scores import final_scores
from analysis.tables.human_normalised import human_normalised
from tests.analysis.synthetic import write_state, write_suite
from tests.analysis.test_suite_tables import read, record, rewrite, run

PONG, BREAKOUT = Reference(-20.7, 14.6), Reference(1.7, 30.5)


def test_the_seven_games_have_the_numbers_of_the_papers() -> None:
    papers = {
        "beam_rider": (363.9, 16926.5),
        "breakout": (1.7, 30.5),
        "enduro": (0.0, 860.5),
        "pong": (-20.7, 14.6),
        "qbert": (163.9, 13455.0),
        "seaquest": (68.4, 42054.7),
        "space_invaders": (148.0, 1668.7),
    }
    assert {game: tuple(reference_scores()[game]) for game in papers} == papers


def test_every_published_game_is_one_of_the_simulator_and_humans_beat_random_actions() -> None:
    assert len(reference_scores()) == 57
    assert reference_scores().keys() <= set(roms.get_all_rom_ids())
    assert all(human > random for random, human in reference_scores().values())


def test_the_scale_has_random_actions_at_0_and_the_human_tester_at_100() -> None:
    scores = np.array([1.7, 16.1, 30.5, 59.3, -12.7])
    np.testing.assert_allclose(BREAKOUT.normalise(scores), [0, 50, 100, 200, -50], rtol=1e-14, atol=1e-13)


def suite(tmp_path: Path, percent: dict[str, list[float]], variants: tuple[str, ...] = ("adam_pg",)) -> Path:
    """A suite of Pong and Breakout in which run k on a game ends with so many percent."""
    seeds = len(next(iter(percent.values())))
    suite_dir = write_suite(tmp_path, ["atari_pong", "atari_breakout"], list(variants), seeds, total_steps=60_000)
    for env, reference in (("atari_pong", PONG), ("atari_breakout", BREAKOUT)):
        for seed, share in enumerate(percent[env]):
            score = reference.random + share / 100 * (reference.human - reference.random)
            for variant in variants:
                rewrite(run(suite_dir, env, variant, seed), "episode_return", lambda values, s=score: [s] * len(values))
    return suite_dir


def test_scores_are_normalised_by_game_and_aggregated_over_runs_and_games(tmp_path: Path) -> None:
    results = read(suite(tmp_path, {"atari_pong": [0, 50, 50, 53, 103], "atari_breakout": [0, 100, 100, 100, 200]}))
    by_game = final_scores(results)
    pong = record(by_game, env="atari_pong")
    assert (pong["published_random"], pong["published_human"]) == (-20.7, 14.6)
    assert pong["human_normalised"] == pytest.approx(51, rel=1e-13)  # of five runs the inner three
    assert 0 <= pong["human_normalised_low"] < 50
    assert 53 < pong["human_normalised_high"] <= 103
    assert record(by_game, env="atari_breakout")["human_normalised"] == pytest.approx(100, rel=1e-13)
    assert by_game.rows[0][by_game.header.index("Human-normalised (%)")].startswith("51.0 [")
    [row] = human_normalised(results).records
    assert row["score"] == pytest.approx((50 + 50 + 53 + 3 * 100) / 6, rel=1e-13)  # without the outer two at either end
    assert (row["atari_pong"], row["atari_breakout"]) == pytest.approx((51, 100), rel=1e-13)
    assert 0 <= row["low"] < row["score"] < row["high"] < 151
    assert (row["runs_scored"], row["runs_planned"]) == (10, 10)


def test_the_interval_over_games_resamples_runs_within_each_game(tmp_path: Path) -> None:
    """Games whose runs agree with each other leave nothing to resample; runs of all games in one pot would."""
    [row] = human_normalised(read(suite(tmp_path, {"atari_pong": [50] * 5, "atari_breakout": [100] * 5}))).records
    assert [row["low"], row["score"], row["high"]] == pytest.approx([75, 75, 75], rel=1e-13)


def test_few_runs_have_no_interval_and_a_game_without_a_run_no_aggregate(tmp_path: Path) -> None:
    suite_dir = suite(
        tmp_path, {"atari_pong": [0, 50, 100], "atari_breakout": [0, 100, 200]}, variants=("adam_pg", "npg")
    )
    for seed in range(3):
        write_state(run(suite_dir, "atari_breakout", "npg", seed), "failed", "a reason", 0, None)
    write_state(run(suite_dir, "atari_breakout", "adam_pg", 2), "failed", "a reason", 0, None)
    table = human_normalised(read(suite_dir))
    few, none = record(table, variant="adam_pg"), record(table, variant="npg")
    assert (few["score"], few["low"], few["high"]) == (pytest.approx(50, rel=1e-13), None, None)  # the mean
    assert (few["statistic"], few["min"], few["max"]) == ("mean", pytest.approx(0, abs=1e-12), pytest.approx(100))
    assert few["note"] == "Breakout seed 2 failed: a reason"
    assert (none["atari_pong"], none["atari_breakout"], none["score"]) == (pytest.approx(50, rel=1e-13), None, None)
    assert (none["runs_scored"], none["runs_planned"]) == (3, 6)
    assert table.rows[1] == ["NPG", "50.0", "–", "–", "3/6"]


def test_the_measured_random_policy_does_not_enter(tmp_path: Path) -> None:
    suite_dir = suite(tmp_path, {"atari_pong": [50] * 3, "atari_breakout": [50] * 3})
    before = record(final_scores(read(suite_dir)), env="atari_pong")
    path = run(suite_dir, "atari_pong", "adam_pg", 0) / "evaluation.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "episode_return", table["episode_length"].cast("double")), path)
    after = record(final_scores(read(suite_dir)), env="atari_pong")
    assert after["random_mean"] > 300 > 0 > before["random_mean"]
    assert after["human_normalised"] == before["human_normalised"]


def test_tasks_that_are_no_published_game_are_left_out(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper", "atari_pong", "atari_adventure"], ["npg"], 3, total_steps=60_000)
    results = read(suite_dir)
    rows = {row[0]: row[3] for row in final_scores(results).rows}
    assert (rows["Hopper"], rows["Adventure"]) == ("–", "–")
    assert rows["Pong"] != "–"
    assert human_normalised(results).header == ["Algorithm", "Pong", "All games", "Runs"]
    without = write_suite(tmp_path / "mujoco", ["hopper"], ["npg"], 3, total_steps=60_000)
    assert not columns_of(read(without)) & {"human_normalised", "published_human"}


def columns_of(results: Results) -> set[str]:
    return set(final_scores(results).records[0])


def test_the_game_is_the_one_of_the_settings_whatever_the_task_is_called(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["atari_pong"], ["npg"], 3, total_steps=60_000)
    plan = suite_dir / "suite.json"
    plan.write_text(plan.read_text().replace('"env": "atari_pong"', '"env": "pong_without_sticky_actions"'))
    (suite_dir / "runs/atari_pong").rename(suite_dir / "runs/pong_without_sticky_actions")
    assert list(read(suite_dir).references) == ["pong_without_sticky_actions"]


def test_a_game_that_no_run_has_begun_is_missed_in_the_aggregate_over_all(tmp_path: Path) -> None:
    suite_dir = suite(tmp_path, {"atari_pong": [0, 50, 100], "atari_breakout": [0, 50, 100]})
    for seed in range(3):
        shutil.rmtree(run(suite_dir, "atari_breakout", "adam_pg", seed))
    table = human_normalised(read(suite_dir))
    assert table.header == ["Algorithm", "Pong", "Breakout", "All games", "Runs"]
    assert table.rows == [["Adam-PG", "50.0", "–", "–", "3/6"]]

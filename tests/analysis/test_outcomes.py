"""Outcomes and contrasts of the plan, by hand."""

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.cells import load_suite
from analysis.contrasts import PLANNED, contrasts, pair, ratio, split
from analysis.curves import Curve, Floats
from analysis.groups import gather
from analysis.mujoco_scores import Scale, scales
from analysis.outcomes import Achieved, Outcome, all_achieved, held
from analysis.statistics import holm
from analysis.tables.outcomes import aggregates, outcomes, planned_contrasts, thresholds
from tests.analysis.synthetic import write_state, write_suite
from tests.analysis.test_suite_tables import record, rewrite, run

STEPS = np.arange(1.0, 11.0) * 10_000
SCALE = Scale(0.0, 100.0)


def one_run(curve: Floats, seed: int = 0, failed: bool = False, cpu_time: float | None = None) -> Outcome:
    return Outcome(seed, failed, STEPS[: len(curve)], np.asarray(curve, dtype=np.float64), cpu_time, None)


def task(areas: Floats, env: str = "hopper", variant: str = "npg", first_seed: int = 0) -> Achieved:
    """Runs whose curves are flat at these heights."""
    runs = tuple(one_run(np.full(10, area), first_seed + i) for i, area in enumerate(areas))
    return Achieved(env, variant, len(runs), runs)


def test_a_run_counts_as_random_before_its_first_score_and_with_its_last_after_it_failed() -> None:
    values = np.array([np.nan, 20.0, 50.0, np.nan, np.nan])
    curve = Curve(STEPS[:5], values, np.array([0, 1, 1, 0, 0]))
    np.testing.assert_allclose(held(curve, SCALE), [0.0, 0.2, 0.5, 0.5, 0.5])
    spoilt = Curve(STEPS[:3], np.array([10.0, np.nan, 30.0]), np.array([1, 1, 1]))  # a score that came out NaN
    np.testing.assert_allclose(held(spoilt, SCALE), [0.1, 0.1, 0.3])


def test_first_touch_and_sustained_crossing_are_both_kept() -> None:
    unsteady = one_run(np.array([0.1, 0.6, 0.4, 0.4, 0.55, 0.7, 0.8, 0.9, 0.9, 0.9]))
    assert (unsteady.first(0.5), unsteady.sustained(0.5)) == (20_000, 50_000)
    assert (unsteady.first(0.95), unsteady.sustained(0.95)) == (np.inf, np.inf)
    assert one_run(np.array([0.6, 0.6, 0.4])).sustained(0.5) == np.inf  # ends below


def test_a_fall_counts_after_the_given_share_though_its_height_lies_before() -> None:
    fallen = one_run(np.array([1.0, 0.2, 1.0, 1.0, 0.6, 1.0, 1.0, 1.0, 1.0, 1.0]))
    assert [fallen.drawdown, fallen.drawdown_after(0.3)] == pytest.approx([0.8, 0.4])


def test_episodes_that_end_together_are_said_in_steps(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg"], 1, total_steps=100_000)
    ends = np.repeat(np.arange(16_000, 100_000, 16_000), 16)
    episodes = {"env_steps": ends, "episode_return": np.ones(len(ends)), "episode_length": np.full(len(ends), 1000)}
    episodes["episode_return"][-1] = 9_000.0
    table = pa.table({**episodes, "env_index": np.tile(np.arange(16), len(ends) // 16)})
    pq.write_table(table, run(suite_dir, "hopper", "adam_pg", 0) / "episodes.parquet")
    made = outcomes(gather(load_suite(suite_dir), 50))
    assert made.records[0]["pause"] == 16_000
    assert "tasks whose episodes end together to the steps between ends (Hopper every 16k)" in made.caption
    scale = scales()["Hopper-v5"]
    without = 8_999 / 16  # what the mean of sixteen is above the fifteen others
    assert made.records[0]["largest_influence"] == pytest.approx(without / (scale.reference - scale.random), rel=1e-6)
    assert made.rows[0][4].endswith("†")


def test_the_largest_drawdown_is_relative_to_the_height_it_falls_from() -> None:
    assert one_run(np.array([0.2, 0.8, 0.4, 0.8, 1.0, 0.9])).drawdown == pytest.approx(0.5)
    assert one_run(np.array([-0.1, -0.3])).drawdown == 0
    assert one_run(np.array([0.5, -0.2])).drawdown == 1  # below random actions is not more than all of it


def test_the_outcomes_of_a_suite_by_hand(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "ppo"], seeds=6, total_steps=100_000, batch=10_000)
    scale = scales()["Hopper-v5"]
    heights = np.arange(1, 11) / 10
    for variant, factor in (("adam_pg", 0.5), ("ppo", 1.0)):
        for seed in range(6):
            scores = (scale.random + (scale.reference - scale.random) * factor * heights).tolist()
            scores[0] = scores[0] if variant == "ppo" else None
            rewrite(run(suite_dir, "hopper", variant, seed), "episode_return", lambda _, scores=scores: scores)
    results = gather(load_suite(suite_dir), 200)
    table = outcomes(results)
    ppo, adam = record(table, variant="ppo"), record(table, variant="adam_pg")
    assert ppo["area"] == pytest.approx(0.55)
    assert adam["area"] == pytest.approx(0.5 * (5.5 - 0.1) / 10)  # no score yet is random, 0
    assert (ppo["final"], adam["final"]) == (pytest.approx(1.0), pytest.approx(0.5))
    assert (ppo["reached_90"], ppo["steps_90"], adam["reached_90"]) == (6, 90_000, 0)
    assert (ppo["statistic"], ppo["area_low"]) == ("iqm", pytest.approx(0.55))
    assert len(table.header) == 8
    [row] = [record for record in aggregates(results).records if record["variant"] == "ppo"]
    assert row["better"] == pytest.approx(1.0)
    assert row["optimality_gap"] == pytest.approx(0.45)
    assert (row["above_0.5"], row["above_1.1"]) == (1.0, 0.0)
    level = record(thresholds(results), variant="ppo", level=0.75)
    assert (level["reached"], level["touched"], level["steps_restricted"]) == (6, 6, 80_000)


def test_a_failed_run_counts_and_results_without_it_stand_beside(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "npg"], seeds=6, total_steps=60_000)
    failed = run(suite_dir, "hopper", "npg", 0)
    write_state(failed, "failed", "a reason", 59_392, None)
    (failed / "progress.parquet").unlink()
    shutil.rmtree(run(suite_dir, "hopper", "npg", 1))  # which has not begun, and is no failure
    results = gather(load_suite(suite_dir), 200)
    row = record(outcomes(results), variant="npg")
    assert (row["runs"], row["runs_failed"], row["runs_planned"]) == (5, 1, 6)
    assert "0:0 " in row["area_by_run"]
    assert row["area_without_failed"] > row["area"]
    [contrast] = contrasts(all_achieved(results))
    assert contrast.envs == ("hopper",)  # one of five is not more than a fifth
    assert contrast.without_failed is not None
    assert contrast.without_failed > contrast.value
    write_state(run(suite_dir, "hopper", "npg", 2), "failed", "a reason", 59_392, None)
    assert contrasts(all_achieved(gather(load_suite(suite_dir), 200))) == []


def test_a_suite_without_a_scale_has_no_outcomes(tmp_path: Path) -> None:
    results = gather(load_suite(write_suite(tmp_path, ["cartpole"], ["adam_pg"], 1, total_steps=20_480)), 50)
    for table in (outcomes, aggregates, thresholds, planned_contrasts):
        assert not table(results).records


def test_seeds_that_both_have_are_drawn_together() -> None:
    """Two variants that differ by a constant on every seed differ by it in every resample; unlike seeds do not."""
    areas = np.array([0.1, 0.3, 0.5, 0.7, 0.9])
    together = pair([task(areas + 0.05)], [task(areas)], "area")
    samples = together.samples(np.subtract)
    assert (together.sizes, samples.min(), samples.max()) == ([5], pytest.approx(0.05), pytest.approx(0.05))
    apart = pair([task(areas + 0.05, first_seed=10)], [task(areas, variant="trpo")], "area")
    assert apart.sizes == [5, 5]
    assert apart.samples(np.subtract).std() > 0.05


def test_verdicts_of_contrasts() -> None:
    rng = np.random.default_rng(0)
    envs = ("hopper", "ant", "walker2d")
    noise = {env: 0.02 * rng.standard_normal(10) for env in envs}

    def found(shift: float, spread: float = 1.0) -> dict[tuple[str, str], Achieved]:
        base = {(env, "npg"): task(0.5 + spread * noise[env], env) for env in envs}
        other = {env: 0.5 + shift + spread * 0.02 * rng.standard_normal(10) for env in envs}
        return base | {(env, "trpo"): task(other[env], env, "trpo", 50) for env in envs}

    def verdict(shift: float, spread: float = 1.0) -> str:
        [one] = contrasts(found(shift, spread))
        return one.verdict

    assert verdict(0.3) == "higher"
    assert verdict(-0.3) == "lower"
    assert verdict(0.07) == "higher, real and small"
    assert verdict(0.0) == "equal"
    assert verdict(0.05, spread=10) == "undecided"
    [few] = contrasts({key: task(one.values("area")[:4], key[0], key[1]) for key, one in found(0.3).items()})
    assert (few.low, few.p, few.verdict) == (None, None, "fewer than 5 runs")


def test_p_values_are_corrected_for_all_contrasts_of_the_plan() -> None:
    rng = np.random.default_rng(0)
    cells = {
        ("hopper", v): task(rng.normal(0.5 + 0.05 * i, 0.05, 10), "hopper", v) for i, v in enumerate(("ppo", "npg"))
    }
    [one] = contrasts(cells)
    assert one.p is not None
    assert one.p_holm == pytest.approx(holm([one.p], len(PLANNED))[0])
    assert one.p_holm == pytest.approx(min(1, 8 * one.p))


def test_contrasts_of_no_difference_are_seldom_significant() -> None:
    """At 5 % each, 200 pairs of five runs on two tasks, all of one distribution."""
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        cells = {
            (env, variant): task(rng.normal(0.5, 0.1, 5), env, variant, 100 * place)
            for env in ("hopper", "ant")
            for place, variant in enumerate(("npg", "trpo"))
        }
        [one] = contrasts(cells, [("npg", "trpo")])
        wrong += one.p is not None and one.p < 0.05
    assert wrong <= 18


def test_the_factorial_splits_the_gain_by_hand() -> None:
    heights = {"exact_line_search": 0.9, "adam_line_search": 0.6, "exact_lr": 0.5, "adam_lr": 0.3}
    cells = {("hopper", variant): task(np.full(5, height), "hopper", variant) for variant, height in heights.items()}
    parts = {part.name: part.value for part in split(cells)}
    assert parts["direction"] == pytest.approx(((0.9 - 0.6) + (0.5 - 0.3)) / 2)
    assert parts["step length"] == pytest.approx(((0.9 - 0.5) + (0.6 - 0.3)) / 2)
    assert parts["interaction"] == pytest.approx(0.9 - 0.6 - 0.5 + 0.3)
    assert all(part.estimate is not None for part in split(cells))
    del cells["hopper", "adam_lr"]
    assert split(cells) == []


def test_a_ratio_to_nothing_says_nothing() -> None:
    np.testing.assert_array_equal(ratio(np.array([1.0, 1.0, 1.0]), np.array([2.0, 0.0, -1.0])), [0.5, np.nan, np.nan])

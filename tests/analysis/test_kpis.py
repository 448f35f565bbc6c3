"""KPIs of runs as tables show them, and against outcomes."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from analysis.cells import load_suite
from analysis.condensed import Condensed
from analysis.groups import gather
from analysis.kpis import delta_of, early_kl, mixed_model, rank_correlation, steady
from analysis.tables.geometry import alignment, geometry
from analysis.tables.relations import correlations, model
from tests.analysis.synthetic import write_suite
from tests.analysis.test_suite_tables import record, rewrite, run


def only_run(suite_dir: Path) -> Condensed:
    [cell] = load_suite(suite_dir).cells
    assert cell.run is not None
    return cell.run


def test_the_first_update_is_left_out_of_the_alignment_error(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg"], 1, total_steps=100_000, interval=10)
    path = run(suite_dir, "hopper", "npg", 0)
    rewrite(path, "alignment_error", lambda values: [2.0 if i == 0 else value for i, value in enumerate(values)])
    errors = [e for e in pq.read_table(path / "progress.parquet")["alignment_error"].to_pylist() if e is not None]
    assert len(errors) == 5
    known = steady(only_run(suite_dir))
    assert known["alignment_error"] == pytest.approx(np.mean(errors[1:]), rel=1e-6)
    assert known["alignment_error_measurements"] == 4
    assert (known["alignment_noise"], known["alignment_noise_measurements"]) == (None, 0)


def test_no_alignment_error_from_fewer_than_three_measurements(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg"], 1, total_steps=60_000, interval=10)  # three, one the first
    known = steady(only_run(suite_dir))
    assert (known["alignment_error"], known["alignment_error_measurements"]) == (None, 2)
    row = alignment(gather(load_suite(suite_dir), 50)).rows[0]
    assert row[2:4] == ["–", "2"]


def test_the_trace_without_its_noise(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg"], 1, total_steps=400_000, interval=1)
    path = run(suite_dir, "hopper", "npg", 0)
    updates = 400_000 // 2048
    rng = np.random.default_rng(0)
    noise, walk = 0.05 * rng.standard_normal(updates), 0.03 * np.cumsum(rng.standard_normal(updates))
    late = np.arange(updates) > updates // 20
    for trace, is_still in ((noise, True), (noise + walk, False), (np.where(late, noise, 9.0), True)):
        rewrite(path, "fisher_trace", lambda _, trace=trace: np.exp(trace).tolist())
        rewrite(path, "fisher_trace_split", lambda _: (0.12 * (-1.0) ** np.arange(updates)).tolist())
        known = steady(only_run(suite_dir))
        assert known["trace_floor"] == pytest.approx(0.12 / np.sqrt(2), rel=0.01)
        if is_still:  # differences of noise of 0.05 deviate by 0.07, below the floor of 0.085
            assert known["trace_excess"] == 0
        else:
            assert known["trace_excess"] == pytest.approx(0.03 * np.sqrt(10), rel=0.5)
    shown = alignment(gather(load_suite(suite_dir), 50)).rows[0][-1]
    assert shown == "at the floor"


def test_delta_is_the_algorithms_own(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "npg"], 2, total_steps=60_000)
    results = gather(load_suite(suite_dir), 50)
    settings: dict[str, dict[str, object]] = {
        "adam_pg": {"algorithm.delta": 0.02, "algorithm.step_rule": "lr"},
        "npg": {"algorithm.delta": 0.01, "algorithm.step_rule": "normalised"},
    }
    for cell in results.suite.cells:
        dict.update(cell.parts["config"], settings[cell.variant])
    table = geometry(results)
    assert [row["delta"] for row in table.records] == [None, 0.01]
    assert [row[2] for row in table.rows] == ["–", "0.0100"]
    other = results.groups[1].cells[0]
    other.parts["config"]["algorithm.delta"] = 0.03
    assert delta_of(results.groups[1].cells) is None  # no delta of two


def test_early_kl_is_that_of_the_first_fifth(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg"], 1, total_steps=100_000, batch=10_000)
    kl = [0.01, 0.04, *[9.0] * 8]
    rewrite(run(suite_dir, "hopper", "npg", 0), "kl", lambda _: kl)
    assert early_kl(only_run(suite_dir)) == pytest.approx(np.log([0.01, 0.04]).mean(), rel=1e-6)


def test_rank_correlation_by_hand() -> None:
    assert rank_correlation([1, 2, 3, 4, 5], [1, 4, 9, 16, 25]) == pytest.approx(1)
    assert rank_correlation([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) == pytest.approx(0.820783, abs=1e-6)  # a tie
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None


def test_the_mixed_model_equals_statsmodels() -> None:
    """statsmodels 0.15.0, ``MixedLM(y, x, groups=tasks).fit(reml=True)`` of the same numbers."""
    rng = np.random.default_rng(7)
    tasks = np.repeat(["a", "b", "c", "d", "e"], [6, 9, 7, 5, 8])
    effects = {"a": 0.3, "b": -0.2, "c": 0.1, "d": 0.5, "e": -0.4}
    n = len(tasks)
    x = np.column_stack([np.ones(n), rng.normal(size=n), rng.normal(size=n)])
    y = x @ np.array([0.5, 0.2, -0.1]) + np.array([effects[task] for task in tasks]) + 0.15 * rng.normal(size=n)
    fitted = mixed_model(x, y, list(tasks))
    assert fitted is not None
    np.testing.assert_allclose(fitted.coefficients, [0.53044419, 0.15768661, -0.08470707], rtol=1e-5)
    np.testing.assert_allclose(fitted.errors, [0.16836447, 0.03312022, 0.03034246], rtol=2e-3)
    assert fitted.task_deviation == pytest.approx(0.37043168, rel=1e-3)
    assert fitted.residual_deviation == pytest.approx(0.14829874, rel=1e-3)
    assert (fitted.low < fitted.coefficients).all()
    assert mixed_model(x[:6], y[:6], ["a", "b", "c", "d", "e", "e"]) is None  # more parameters than runs tell
    assert mixed_model(np.column_stack([x, x[:, 1]]), y, list(tasks)) is None


def test_kpis_against_outcomes(tmp_path: Path) -> None:
    """KL per step decides on the height that Hopper reaches, and nothing does on HalfCheetah."""
    envs, updates = ["hopper", "halfcheetah"], 40
    suite_dir = write_suite(tmp_path, envs, ["npg"], 10, total_steps=200_000, batch=5_000, interval=2)
    rng = np.random.default_rng(1)
    for seed in range(10):
        for env in envs:
            height = 200 * (seed + 1) if env == "hopper" else 500 + 300 * rng.random()
            scores = (height * np.linspace(0, 1, updates)).tolist()
            rewrite(run(suite_dir, env, "npg", seed), "episode_return", lambda _, scores=scores: scores)
            rewrite(run(suite_dir, env, "npg", seed), "kl", lambda _, seed=seed: [0.001 * (seed + 1)] * updates)
    results = gather(load_suite(suite_dir), 50)
    table = correlations(results)
    hopper, cheetah = (record(table, env=env) for env in envs)
    assert hopper["kl_per_env_step_area"] == pytest.approx(1)
    assert abs(cheetah["kl_per_env_step_area"]) < 0.8
    assert cheetah["kl_per_env_step_area_low"] < cheetah["kl_per_env_step_area"] < cheetah["kl_per_env_step_area_high"]
    kl = record(model(results), predictor="kl_per_env_step")
    assert (kl["runs"], kl["tasks"]) == (20, 2)
    assert kl["low"] > 0
    assert len(table.header) <= 8
    few = gather(load_suite(write_suite(tmp_path / "few", ["hopper"], ["npg"], 2, total_steps=60_000)), 50)
    assert (correlations(few).records, model(few).records) == ([], [])

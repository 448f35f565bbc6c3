"""Tables of suites on disk: hand-computed entries, and cells in every state."""

import csv
import itertools
import json
import math
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.__main__ import analyse
from analysis.cells import load_suite
from analysis.groups import Results, gather
from analysis.statistics import iqm
from analysis.tables.alignment_curves import alignment_curves
from analysis.tables.cells import cells
from analysis.tables.final_scores import final_scores
from analysis.tables.formats import Table, interval, latex, number, percent, thousands
from analysis.tables.geometry import alignment, geometry
from analysis.tables.human_normalised import human_normalised
from analysis.tables.index import index
from analysis.tables.sample_efficiency import sample_efficiency
from tests.analysis.synthetic import write_state, write_suite
from tracking import lock

RESAMPLES = 200


def read(suite_dir: Path) -> Results:
    return gather(load_suite(suite_dir), RESAMPLES)


def record(table: Table, **wanted: Any) -> dict[str, Any]:
    """The one row of a table with these entries."""
    [found] = [row for row in table.records if all(row[key] == value for key, value in wanted.items())]
    return dict(found)


def run(suite_dir: Path, env: str, variant: str, seed: int) -> Path:
    return suite_dir / "runs" / env / variant / f"seed-{seed}"


def rewrite(run_dir: Path, name: str, change: Any) -> None:
    """Change a column of a run's progress: `change` maps the list of values (None is null)."""
    path = run_dir / "progress.parquet"
    table = pq.read_table(path)
    place = table.column_names.index(name)
    field = table.schema.field(name)
    new = pa.array(change(table[name].to_pylist()), type=field.type, from_pandas=False)
    pq.write_table(table.set_column(place, field, new), path)


@pytest.fixture
def suite_dir(tmp_path: Path) -> Path:
    return write_suite(tmp_path, ["hopper", "reacher"], ["trpo", "adam_pg"], seeds=4, total_steps=60_000)


@pytest.fixture
def five(tmp_path: Path) -> Path:
    """Runs enough for intervals."""
    return write_suite(tmp_path, ["hopper", "reacher"], ["trpo", "adam_pg"], seeds=5, total_steps=60_000)


def test_rows_come_by_environment_and_in_the_order_of_the_algorithms(suite_dir: Path) -> None:
    rows = [(row["env"], row["variant"]) for row in final_scores(read(suite_dir)).records]
    assert rows == [("hopper", "adam_pg"), ("hopper", "trpo"), ("reacher", "adam_pg"), ("reacher", "trpo")]


def test_final_score_is_the_iqm_of_the_last_rows(five: Path) -> None:
    row = record(final_scores(read(five)), env="hopper", variant="trpo")
    last = [
        pq.read_table(run(five, "hopper", "trpo", seed) / "progress.parquet")["episode_return"][-1].as_py()
        for seed in range(5)
    ]
    assert row["statistic"] == "iqm"
    assert row["score"] == pytest.approx(float(iqm(np.array(last))))
    assert row["low"] < row["score"] < row["high"]
    assert (row["min"], row["max"]) == (min(last), max(last))
    assert [float(entry.split(":")[1]) for entry in row["scores"].split()] == last


@pytest.mark.parametrize("seeds", [2, 4])
def test_below_five_runs_there_is_no_interval_but_every_run_and_their_mean(tmp_path: Path, seeds: int) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "ppo"], seeds=seeds, total_steps=60_000)
    results = read(suite_dir)
    table = final_scores(results)
    row = record(table, variant="ppo")
    assert (row["low"], row["high"]) == (None, None)
    assert (row["statistic"], row["score"]) == ("mean", pytest.approx(row["mean"]))
    shown = table.rows[1][2]
    assert "[" not in shown
    for entry in row["scores"].split():
        assert number(float(entry.split(":")[1])) in shown
    for page in (table, sample_efficiency(results), geometry(results), alignment(results)):
        assert "95 %" not in page.caption
        assert "IQM" not in page.caption
        assert "fewer than 5" in page.caption
    gains = sample_efficiency(results)
    assert {row["gain_low"] for row in gains.records} == {None}


def test_random_episodes_of_one_seed_count_once(suite_dir: Path) -> None:
    """The synthetic random policy depends on the seed only: 2 variants x 4 seeds are 4 sets of 20 episodes."""
    assert record(final_scores(read(suite_dir)), env="hopper", variant="trpo")["random_episodes"] == 80


def test_failed_missing_killed_and_running_cells_appear_with_their_reason(suite_dir: Path) -> None:
    write_state(run(suite_dir, "hopper", "trpo", 0), "failed", "FloatingPointError: KL is | not finite", 40_960, None)
    shutil.rmtree(run(suite_dir, "hopper", "trpo", 1))
    killed = run(suite_dir, "reacher", "adam_pg", 2)
    write_state(killed, "running", None, 0, None)
    (killed / "status.json").unlink()
    (run(suite_dir, "reacher", "adam_pg", 3) / "progress.parquet").write_bytes(b"damaged")
    results = read(suite_dir)

    table = cells(results)
    assert len(table.records) == 16
    failed = record(table, env="hopper", variant="trpo", seed=0)
    assert (failed["state"], failed["reason"]) == ("failed", "FloatingPointError: KL is | not finite")
    assert failed["env_steps"] == 59_392  # as far as it got
    missing = record(table, env="hopper", variant="trpo", seed=1)
    assert (missing["state"], missing["reason"], missing["env_steps"]) == ("missing", "not started", None)
    assert record(table, env="reacher", variant="adam_pg", seed=2)["state"] == "killed"
    assert record(table, env="reacher", variant="adam_pg", seed=3)["state"] == "unreadable"

    scores = record(final_scores(results), env="hopper", variant="trpo")
    assert (scores["runs_finished"], scores["runs_planned"]) == (2, 4)
    assert scores["states"] == "2 finished, 1 failed, 1 missing"
    assert "seed 0 failed: FloatingPointError" in scores["note"]
    assert scores["low"] is None  # two runs are too few

    page = index(results, [table])
    assert "- Hopper, TRPO, seed 0: **failed**, FloatingPointError: KL is \\| not finite" in page
    assert "- Hopper, TRPO, seed 1: **missing**, not started" in page
    assert "12 finished, 1 killed, 1 failed, 1 unreadable, 1 missing" in page
    assert r"FloatingPointError: KL is \| not finite |" in table.markdown()

    shutil.rmtree(run(suite_dir, "hopper", "trpo", 3))
    assert "- Hopper, TRPO, seeds 1, 3: **missing**, not started" in index(read(suite_dir), [])


def test_a_locked_run_is_running(suite_dir: Path) -> None:
    run_dir = run(suite_dir, "hopper", "trpo", 0)
    write_state(run_dir, "running", None, 0, None)
    (run_dir / "status.json").unlink()
    descriptor = lock.acquire(run_dir)
    try:
        assert record(cells(read(suite_dir)), env="hopper", variant="trpo", seed=0)["state"] == "running"
    finally:
        os.close(descriptor)


def test_a_suite_that_has_not_begun_has_tables_and_figures(suite_dir: Path) -> None:
    shutil.rmtree(suite_dir / "runs")
    results = analyse(suite_dir, RESAMPLES)
    assert {cell.state for cell in results.suite.cells} == {"missing"}
    assert "16 planned runs of 60,000 environment steps: 16 missing." in (suite_dir / "tables" / "index.md").read_text()
    assert (suite_dir / "figures" / "learning_curves.pdf").is_file()


def test_a_run_without_an_ended_episode_has_no_score_and_says_so(suite_dir: Path) -> None:
    rewrite(run(suite_dir, "hopper", "trpo", 0), "episode_return", lambda values: [None] * len(values))
    rewrite(run(suite_dir, "hopper", "trpo", 1), "episode_return", lambda values: [*values[:-1], math.nan])
    results = read(suite_dir)
    null, nan = (record(cells(results), env="hopper", variant="trpo", seed=seed) for seed in (0, 1))
    assert null["final_score"] is None
    assert null["reason"] == "no episode ended, so it has no score"
    assert math.isnan(nan["final_score"])
    assert nan["reason"] == "its final score is not finite"
    scores = record(final_scores(results), env="hopper", variant="trpo")
    assert (scores["runs_finished"], scores["runs_scored"]) == (4, 2)
    gain = record(sample_efficiency(results), env="hopper", variant="trpo", level=0.75)
    assert gain["reached"] <= 3  # the run without a score is censored, not left out
    assert "0:>59392" in gain["steps_by_run"]
    lines = cells(results).csv().splitlines()
    assert ",nan," in next(line for line in lines if line.startswith("hopper,trpo,trpo,1,"))
    assert ",59392,," in next(line for line in lines if line.startswith("hopper,trpo,trpo,0,"))


def score_zero_in_evaluation(run_dir: Path) -> None:
    path = run_dir / "evaluation.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(1, "episode_return", pa.array(np.zeros(60))), path)


def test_steps_to_threshold_and_censoring_by_hand(tmp_path: Path) -> None:
    """Scores rise linearly with the step: 1 per 1,000 for the baseline, so that 75 is reached at 75k of 100k."""
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "ppo"], seeds=5, total_steps=100_000, batch=1_000)
    slopes = {("adam_pg", seed): 1.0 for seed in range(5)}
    slopes |= {("ppo", seed): slope for seed, slope in enumerate((2, 2, 0.5, 2, 0.5))}
    for (variant, seed), slope in slopes.items():
        run_dir = run(suite_dir, "hopper", variant, seed)
        rewrite(run_dir, "episode_return", lambda values, slope=slope: [slope * (i + 1) for i in range(len(values))])
        score_zero_in_evaluation(run_dir)
    table = sample_efficiency(read(suite_dir))
    row = record(table, variant="ppo", level=0.75)
    assert (row["random"], row["baseline_final"], row["threshold"]) == (0, 100, 75)
    assert row["steps_by_run"] == "0:40000 1:40000 2:>100000 3:40000 4:>100000"
    assert (row["reached"], row["runs_finished"]) == (3, 5)
    assert row["steps_mean_restricted_to_T"] == 64_000
    assert (row["crossing"], row["baseline_crossing"]) == (50_000, 80_000)  # the inner three of five: slope 1.5
    assert row["baseline_last_crossing"] == 80_000
    assert "falls below the threshold" not in table.caption
    assert row["gain"] == 1 - 50 / 80
    assert row["gain_bound"] is None
    assert 0 < row["gain_censored_share"] < 0.2  # 9 % of the resamples draw the slow two at least four times
    baseline = record(table, variant="adam_pg", level=0.9)
    assert (baseline["gain"], baseline["gain_low"], baseline["is_baseline"]) == (0, None, True)
    shown = table.rows[1]
    assert shown[2:4] == ["3/5", "≥64k"]
    assert table.rows[0][4] == "0 (baseline)"


def test_every_curve_that_falls_back_from_the_threshold_is_named(tmp_path: Path) -> None:
    """All have 75 at 80k of 100k, 0 at 90k, and 100 at the end: N is a first touch."""
    suite_dir = write_suite(tmp_path, ["hopper"], ["adam_pg", "ppo"], seeds=3, total_steps=100_000, batch=1_000)
    for variant, seed in itertools.product(("adam_pg", "ppo"), range(3)):
        run_dir = run(suite_dir, "hopper", variant, seed)
        rewrite(run_dir, "episode_return", lambda values: [0 if i == 89 else i + 1 for i in range(len(values))])
        score_zero_in_evaluation(run_dir)
    table = sample_efficiency(read(suite_dir))
    row = record(table, variant="adam_pg", level=0.75)
    assert (row["baseline_crossing"], row["baseline_last_crossing"]) == (80_000, 100_000)
    stays = "N = 80k, at or above it for good from 100k"
    words = f"†: the curve falls below the threshold again; at 0.75: Hopper, Adam-PG, {stays}; Hopper, PPO, {stays}."
    assert words in table.caption
    assert [row[4] for row in table.rows] == ["0 (baseline)†", "0†"]


def test_gain_is_undefined_by_name(suite_dir: Path) -> None:
    for seed in range(4):  # on hopper the baseline learns nothing: random scores 18 ± 44 per episode
        change = lambda values, seed=seed: [18.0 + 3 * (seed - 1.5)] * len(values)  # noqa: E731
        rewrite(run(suite_dir, "hopper", "adam_pg", seed), "episode_return", change)
    for variant in ("trpo", "adam_pg"):
        for seed in range(4):
            path = run(suite_dir, "reacher", variant, seed) / "evaluation.parquet"
            pq.write_table(pq.read_table(path).slice(0, 0), path)
    table = sample_efficiency(read(suite_dir))
    noise = "Adam-PG's final scores are within noise of the random policy's"
    assert record(table, env="hopper", variant="trpo", level=0.9)["undefined"] == noise
    assert record(table, env="hopper", variant="trpo", level=0.9)["gain"] is None
    not_evaluated = "the random policy was not evaluated"
    assert record(table, env="reacher", variant="trpo", level=0.75)["undefined"] == not_evaluated
    assert f"Undefined: Hopper: {noise}; Reacher: {not_evaluated}." in table.caption
    assert {row[4] for row in table.rows} == {"undefined"}


def test_nan_and_null_of_the_kpis_are_counted_apart(suite_dir: Path) -> None:
    def spoil(values: list[float | None]) -> list[float | None]:
        return [math.nan if i == 0 else value for i, value in enumerate(values)]

    before = record(geometry(read(suite_dir)), env="hopper", variant="adam_pg")
    rewrite(run(suite_dir, "hopper", "adam_pg", 0), "alignment_error", spoil)
    rewrite(run(suite_dir, "hopper", "adam_pg", 1), "kl", spoil)
    after = record(geometry(read(suite_dir)), env="hopper", variant="adam_pg")
    assert (before["nan"], after["nan"]) == (0, 2)
    assert (after["alignment_error_nan"], after["kl_nan"], after["fisher_trace_nan"]) == (1, 1, 0)
    measured = 4 * math.ceil(29 / 10)  # four runs of 29 updates, measured at the first and every tenth
    assert before["alignment_error_measured"] == after["alignment_error_measured"] == measured
    assert after["kl_measured"] == 4 * 29
    assert math.isfinite(after["alignment_error"])


def test_an_alignment_error_against_an_unsolved_direction_is_marked(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["hopper"], ["trpo", "adam_pg"], seeds=2, total_steps=60_000, interval=5)
    rewrite(run(suite_dir, "hopper", "trpo", 1), "alignment_outcome", lambda values: ["capped", *values[1:]])
    assert record(alignment(read(suite_dir)), variant="trpo")["alignment_error_unsolved"] == 0  # of the first update
    rewrite(run(suite_dir, "hopper", "trpo", 1), "outcome", lambda values: ["stepped"] * len(values))
    capped = lambda values: ["capped" if i == 5 else value for i, value in enumerate(values)]  # noqa: E731
    rewrite(run(suite_dir, "hopper", "trpo", 1), "alignment_outcome", capped)
    table = alignment(read(suite_dir))
    assert record(table, variant="trpo")["alignment_error_unsolved"] == 1
    marked = [row[:2] for row in table.rows if row[table.header.index("e")].endswith("*")]
    assert marked == [["Hopper", "TRPO"]]
    assert "*: a natural gradient behind e was not solved to the tolerance" in table.caption


def test_a_run_that_never_sought_a_natural_gradient_has_nothing_unsolved(suite_dir: Path) -> None:
    """As one whose gradient is always zero: no alignment error, and no column of outcomes."""
    path = run(suite_dir, "hopper", "trpo", 0) / "progress.parquet"
    rewrite(path.parent, "alignment_error", lambda values: [None for _ in values])
    pq.write_table(pq.read_table(path).drop_columns(["alignment_outcome"]), path)
    assert record(alignment(read(suite_dir)), env="hopper", variant="trpo")["alignment_error_unsolved"] == 0


def test_the_damping_of_the_alignment_error_is_named(tmp_path: Path) -> None:
    one = write_suite(tmp_path / "one", ["hopper", "reacher"], ["npg"], 1, total_steps=60_000)
    assert "(λ = ρ tr F/d, ρ = 0.1)" in alignment(read(one)).caption
    two = write_suite(tmp_path / "two", ["hopper", "atari_pong"], ["npg"], 1, total_steps=60_000)
    assert "(λ = ρ tr F/d, on Hopper ρ = 0.1; on Pong ρ = 100)" in alignment(read(two)).caption


def test_geometry_is_the_iqm_of_run_level_kpis(five: Path) -> None:
    results = read(five)
    row = record(geometry(results), env="hopper", variant="trpo")
    runs = [r for r in cells(results).records if (r["env"], r["variant"]) == ("hopper", "trpo")]
    for name in ("kl_median", "trace", "alignment_error", "trace_noise_floor"):
        assert row[name] == pytest.approx(float(iqm(np.array([r[name] for r in runs]))))
        assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    assert row["rejected"] == sum(r["rejected"] for r in runs)
    assert row["trace_lag"] == 20_480  # ten updates of 2048


def test_another_variant_leaves_the_intervals_as_they_were(suite_dir: Path, tmp_path: Path) -> None:
    before = record(final_scores(read(suite_dir)), env="hopper", variant="trpo")
    plan = json.loads((suite_dir / "suite.json").read_text())
    plan["cells"] = [cell for cell in plan["cells"] if cell["env"] == "hopper" and cell["variant"] == "trpo"]
    (suite_dir / "suite.json").write_text(json.dumps(plan))
    assert record(final_scores(read(suite_dir)), env="hopper", variant="trpo") == before


def test_every_caption_says_interval_runs_and_step(five: Path) -> None:
    results = read(five)
    for table in (final_scores(results), sample_efficiency(results), geometry(results), alignment(results)):
        assert "95 % percentile bootstrap interval" in table.caption
        assert "A step is one agent–environment interaction." in table.caption
        assert len(table.header) <= 8
        assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize(
    ("envs", "said"),
    [
        (["atari_pong", "atari_breakout"], ": 4 frames, 240,000 in a run of 60,000 steps."),
        (["hopper", "atari_pong"], ": on Pong 4 frames, 240,000 in a run of 60,000 steps."),
        (
            ["atari_pong", "hopper", "atari_space_invaders", "atari_breakout"],
            ": on Pong, Space Invaders and Breakout 4 frames, 240,000 in a run of 60,000 steps.",
        ),
        (["hopper"], "."),
    ],
)
def test_every_caption_says_the_frames_of_steps_and_runs(tmp_path: Path, envs: list[str], said: str) -> None:
    suite_dir = write_suite(tmp_path, envs, ["adam_pg"], seeds=1, total_steps=60_000, snapshots=2)
    results = read(suite_dir)
    tables = [final_scores, sample_efficiency, geometry, cells, alignment_curves]
    for table in [*tables, human_normalised] if results.references else tables:
        assert table(results).caption.endswith(f"A step is one agent–environment interaction{said}")


def test_frames_come_from_the_settings_of_the_runs(tmp_path: Path) -> None:
    suite_dir = write_suite(tmp_path, ["atari_pong", "atari_breakout"], ["adam_pg", "npg"], 1, total_steps=60_000)
    set_frame_skip(run(suite_dir, "atari_pong", "adam_pg", 0), 2)
    set_frame_skip(run(suite_dir, "atari_pong", "npg", 0), 2)
    assert index(read(suite_dir), []).splitlines()[2] == (
        "4 planned runs of 60,000 environment steps, on Pong 120,000 frames; on Breakout 240,000 frames: 4 finished."
    )
    set_frame_skip(run(suite_dir, "atari_pong", "npg", 0), 3)
    results = read(suite_dir)
    assert "on Pong 120,000 frames or 180,000 frames; on Breakout 240,000 frames" in index(results, [])
    shutil.rmtree(suite_dir / "runs" / "atari_pong")  # whose frames nobody knows before it has begun
    assert "60,000 environment steps, on Breakout 240,000 frames: " in index(read(suite_dir), [])


def set_frame_skip(run_dir: Path, frame_skip: int) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["identity"]["parts"]["config"]["env.frame_skip"] = frame_skip
    (run_dir / "manifest.json").write_text(json.dumps(manifest))


def test_captions_name_settings_that_runs_have_on_one_task_alone(tmp_path: Path) -> None:
    suite_dir = write_suite(
        tmp_path,
        ["hopper", "ant"],
        ["adam_pg"],
        seeds=1,
        total_steps=20_000,
        exceptions={"hopper": ["algorithm.rho=5"]},
    )
    for table in (final_scores(read(suite_dir)), sample_efficiency(read(suite_dir)), geometry(read(suite_dir))):
        assert table.caption.endswith(" On Hopper with algorithm.rho=5.")


def test_csv_keeps_twelve_digits_and_drops_what_differs_between_processors(suite_dir: Path) -> None:
    table = final_scores(read(suite_dir))
    rows = list(csv.DictReader(table.csv().splitlines()))
    values = [row["score"] for row in table.records]
    assert [float(row["score"]) for row in rows] == pytest.approx(values, rel=1e-11, abs=0)
    other = replace(table, records=[dict(row, score=math.nextafter(row["score"], math.inf)) for row in table.records])
    assert other.csv() == table.csv()


def test_csv_keeps_types_apart() -> None:
    record = {"null": None, "nan": math.nan, "inf": -math.inf, "whole": 2.0, "count": 3, "flag": True, "word": "x"}
    table = Table("t", "T", "caption", [record], [], [], "source")
    assert table.csv().splitlines()[1] == ",nan,-inf,2.0,3,True,x"


def test_latex_is_booktabs_and_escaped(suite_dir: Path) -> None:
    text = geometry(read(suite_dir)).latex()
    for rule in (r"\toprule", r"\midrule", r"\bottomrule", r"\begin{tabular}", r"\end{table}"):
        assert text.count(rule) == 1
    body = text.split(r"\midrule")[1]
    assert body.count("Hopper") == 1  # a repeated environment is left out
    assert all(ord(character) < 128 for character in text)
    assert latex("a_b & 5 % < -3.2 [-∞, x-y]") == r"a\_b \& 5 \% $<$ $-$3.2 [$-$$\infty$, x-y]"
    assert latex("suite atari-1m") == "suite atari-1m"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "–"),
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (-math.inf, "-∞"),
        (0.0, "0"),
        (1520.4, "1520"),
        (-28.06, "-28.1"),
        (0.01234, "0.0123"),
        (1.04e-5, "1.0e-5"),
        (99.96, "100"),
    ],
)
def test_numbers(value: float | None, expected: str) -> None:
    assert number(value) == expected


def test_other_formats() -> None:
    assert (percent(None), percent(0.123), percent(0.0), percent(1.0)) == ("–", "12.3 %", "0 %", "100 %")
    assert (thousands(43_000), thousands(1_250_000), thousands(4_096)) == ("43k", "1,250k", "4.1k")
    assert interval(0.5, None, None) == "0.500"
    assert interval(0.5, -math.inf, 0.75) == "0.500 [-∞, 0.750]"


def test_a_gain_in_processor_time_is_that_of_steps_times_their_cost(five: Path) -> None:
    for env, variant, seed in itertools.product(("hopper", "reacher"), ("adam_pg", "trpo"), range(5)):
        path = run(five, env, variant, seed) / "progress.parquet"
        rows = pq.read_table(path)
        cost = 3e-4 if variant == "trpo" else 1e-4
        pq.write_table(rows.append_column("cpu_time", pa.array(cost * np.array(rows["env_steps"]))), path)
    row = record(sample_efficiency(read(five)), env="hopper", variant="trpo", level=0.75)
    assert row["gain"] is not None
    assert row["time_gain"] == pytest.approx(1 - 3 * (1 - row["gain"]))
    assert row["time_gain_low"] == pytest.approx(1 - 3 * (1 - row["gain_low"]))


def test_labels_are_those_of_suite_and_table(suite_dir: Path) -> None:
    assert r"\label{tab:atari-1m-final-scores}" in final_scores(read(suite_dir)).latex("atari-1m")

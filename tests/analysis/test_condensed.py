"""A condensed run: what is kept, with null and NaN apart, and that a published file gives back all of it."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.condensed import CURVES, Condensed, condense, from_published
from analysis.geometry import run_counts, run_geometry
from analysis.progress import read_progress
from tests.analysis.synthetic import write_suite
from tests.analysis.test_suite_tables import rewrite
from tests.tracking.test_published import HEADER
from tracking.published import read_published, write_published
from tracking.record import load_run

TOTAL, DELTA = 60_000, 0.019


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    suite_dir = write_suite(tmp_path, ["hopper"], ["npg"], 1, TOTAL, snapshots=2)
    return suite_dir / "runs/hopper/npg/seed-0"


def condensed(run_dir: Path) -> Condensed:
    run = condense(load_run(run_dir), TOTAL, DELTA)
    assert run is not None
    return run


def published(run: Condensed, folder: Path) -> Condensed:
    write_published(folder / "x.parquet", HEADER | {"run": run.header()}, run.table())
    header, table = read_published(folder / "x.parquet")
    return from_published(header["run"], table)


def test_a_published_file_gives_back_every_bit(run_dir: Path, tmp_path: Path) -> None:
    run = condensed(run_dir)
    again = published(run, tmp_path)
    assert repr(again.header()) == repr(run.header())
    assert list(again.curves) == list(CURVES)
    for name in CURVES:
        for one, other in zip(run.curves[name], again.curves[name], strict=True):
            assert one.dtype == other.dtype
            assert one.tobytes() == other.tobytes()
    assert again.content() == run.content()


def test_null_and_nan_stay_apart_in_curves_scores_and_snapshots(run_dir: Path, tmp_path: Path) -> None:
    def spoil(values: list[float | None]) -> list[float | None]:
        return [math.nan if i == 0 else value for i, value in enumerate(values)]

    rewrite(run_dir, "alignment_error", spoil)  # 29 updates, measured at 0, 10 and 20: bins 1, 3 and 5
    rewrite(run_dir, "episode_return", lambda values: [None, *values[1:-1], math.nan])
    path = run_dir / "alignment.parquet"
    table = pq.read_table(path)
    errors = pa.array([*table["alignment_error"].to_pylist()[:-2], math.nan, None], pa.float64(), from_pandas=False)
    pq.write_table(table.set_column(table.column_names.index("alignment_error"), "alignment_error", errors), path)
    run = published(condensed(run_dir), tmp_path)
    alignment = run.curves["alignment_error"]
    assert alignment.measurements.tolist() == [1, 0, 1, 0, 1, 0]
    assert np.isnan(alignment.values).tolist() == [True, True, False, True, False, True]
    stored = pq.read_table(tmp_path / "x.parquet")["alignment_error"]
    assert stored.is_null().to_pylist()[:6] == [False, True, False, True, False, True]
    assert run.final_score is not None
    assert math.isnan(run.final_score)
    assert run.snapshots is not None
    assert run.snapshots.error.measured[-2:].tolist() == [True, False]
    assert run.counts["alignment_error_nan"] == 1
    rewrite(run_dir, "episode_return", lambda values: [None] * len(values))
    assert published(condensed(run_dir), tmp_path).final_score is None


def test_summary_values_are_those_of_the_whole_run(run_dir: Path) -> None:
    run, progress = condensed(run_dir), read_progress(run_dir / "progress.parquet")
    assert progress is not None
    assert run.geometry == run_geometry(progress, DELTA)
    assert run.counts == run_counts(progress)
    assert 0 < (run.geometry["kl_share_above"] or 0) < 1  # δ separates the steps, so another one gives another share
    assert run.final_score == progress.columns["episode_return"].values[-1]
    assert (run.env_steps, run.wall_time) == (
        59_392,
        pq.read_table(run_dir / "progress.parquet")["wall_time"][-1].as_py(),
    )
    assert {mode: len(returns) for mode, returns in run.evaluation.items()} == dict.fromkeys(
        ("deterministic", "random", "stochastic"), 20
    )


def test_kpi_curves_are_means_over_accepted_updates_in_single_precision(run_dir: Path) -> None:
    rewrite(run_dir, "outcome", lambda values: ["rejected" if i == 3 else "stepped" for i in range(len(values))])
    kl = pq.read_table(run_dir / "progress.parquet")["kl"].to_numpy()
    run = condensed(run_dir)
    accepted = np.delete(kl[:4], 3)  # of the updates up to step 10,000 all but the rejected one
    assert run.curves["kl"].measurements[0] == 3
    assert run.curves["kl"].values[0] == np.float32(accepted.mean()) != accepted.mean()
    score = pq.read_table(run_dir / "progress.parquet")["episode_return"].to_numpy()
    assert run.curves["episode_return"].values[-1] == score[-1] != np.float32(score[-1])


def test_the_content_hash_moves_with_any_number_but_not_with_the_timing(run_dir: Path) -> None:
    run = condensed(run_dir)
    first = run.content()
    assert replace(run, wall_time=run.wall_time + 1).content() == first
    kl = run.curves["kl"]
    assert replace(run, final_score=0.5).content() != first
    assert replace(run, curves=run.curves | {"kl": kl._replace(values=kl.values * 2)}).content() != first
    assert replace(run, curves=run.curves | {"kl": kl._replace(measurements=kl.measurements + 1)}).content() != first
    assert replace(run, geometry=run.geometry | {"kl_max": math.nan}).content() != first
    assert replace(run, snapshots=None).content() != first
    assert replace(run, cpu_time=1.0).content() == first


def test_a_run_before_its_first_update_has_nothing_to_condense(run_dir: Path) -> None:
    table = pq.read_table(run_dir / "progress.parquet")
    pq.write_table(table.slice(0, 0), run_dir / "progress.parquet")
    assert condense(load_run(run_dir), TOTAL, DELTA) is None
    (run_dir / "progress.parquet").unlink()
    assert condense(load_run(run_dir), TOTAL, DELTA) is None

"""What a published cell keeps of updates and episodes, and that its statistics are computed again from them."""

import csv
import io
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from analysis.cells import PUBLISHED_CELL, load_suite
from analysis.condensed import CURVES, PART, Condensed, condense, from_published
from analysis.curves import Column
from analysis.episodes import Episodes
from analysis.geometry import KPIS, LATER, LATER_KPIS
from analysis.groups import gather
from analysis.progress import PUBLISHED
from analysis.recompute import check, differences, main, recompute
from analysis.tables.geometry import geometry
from envs.episodes import EpisodeLog
from tests.analysis.synthetic import write_progress, write_state
from tests.tracking.test_published import HEADER
from tracking.published import FORMAT, PublishedError, read_published, write_published
from tracking.record import load_run

ROOT = Path(__file__).parents[2]
OLD = ROOT / "results/published/acktr/cells/hopper/acktr/seed-0.parquet"
"""A cell of format 2."""
NUM_ENVS, WARM_UP, DELTA = 16, 512, 0.019


def play(updates: int, batch: int, length: float, rng: np.random.Generator) -> tuple[list[Any], list[float | None]]:
    """Episodes of some mean length, and the score after every update, as `envs.episodes` has both."""
    log = EpisodeLog(NUM_ENVS)
    log.env_steps = WARM_UP
    episodes: list[Any] = []
    scores = []
    for _ in range(updates):
        for _ in range(batch // NUM_ENVS):
            episodes += log.step(rng.normal(1, 0.5, NUM_ENVS), rng.random(NUM_ENVS) < 1 / length)
        scores.append(log.score())
    return episodes, scores


def write(run_dir: Path, updates: int, batch: int, length: float, later: bool = True) -> Path:
    """A run directory whose score is that of its episodes; rejected updates, nulls and NaN among them."""
    rng = np.random.default_rng(updates)
    episodes, scores = play(updates, batch, length, rng)
    steps = WARM_UP + batch * np.arange(1, updates + 1)
    place = np.arange(updates)
    outcome = np.where(place % 7 == 3, "rejected", np.where(place == 5, "non_finite", "stepped"))
    kl = np.where(outcome == "stepped", 0.018 * np.exp(0.2 * rng.standard_normal(updates)), 0)
    kl[8] = math.nan
    trace, sparse = 50 * np.exp(0.02 * np.cumsum(rng.standard_normal(updates))), place % 2 > 0
    error = rng.uniform(0.2, 0.6, updates)
    error[4] = math.nan
    columns: dict[str, tuple[Any, Any]] = {
        "env_steps": (steps, None),
        "wall_time": (steps / 9000, None),
        "episode_return": (np.array(scores, dtype=np.float64), np.array([score is None for score in scores])),
        "kl": (kl, None),
        "outcome": (outcome, None),
        "fisher_trace": (trace, sparse),
        "fisher_trace_split": (0.04 * rng.standard_normal(updates), sparse),
        "alignment_error": (error, sparse | (outcome != "stepped")),
        "alignment_outcome": (np.where(place % 4, "capped", "converged"), sparse),
        "quadratic_error": (0.05 * rng.random(updates), sparse | (outcome != "stepped")),
    }
    if later:
        columns |= {
            "kl_total": (1.5 * kl, None),
            "cpu_time": (steps / 4500, None),
            "alignment_error_heldout": (error + 0.1, sparse),
            "alignment_noise": (error - 0.1, sparse),
        }
    run_dir.mkdir(parents=True)
    write_progress(run_dir, columns)
    names = ("env_steps", "episode_return", "episode_length", "env_index")
    pq.write_table(pa.table({name: [row[name] for row in episodes] for name in names}), run_dir / "episodes.parquet")
    evaluation = {"mode": ["deterministic", "random"], "episode_return": [100.5, 3.25], "episode_length": [100, 3]}
    pq.write_table(pa.table(evaluation), run_dir / "evaluation.parquet")
    write_state(run_dir, "finished", None, int(steps[-1]), scores[-1] or 0.0)
    return run_dir


def condensed(run_dir: Path, total_steps: int) -> Condensed:
    run = condense(load_run(run_dir), total_steps, DELTA)
    assert run is not None
    return run


def published(run: Condensed, path: Path) -> Condensed:
    write_published(path, HEADER | {"run": run.header()}, run.table())
    header, table = read_published(path)
    return from_published(header["run"], table)


@pytest.fixture
def run(tmp_path: Path) -> Condensed:
    return condensed(write(tmp_path / "run", 40, 2_048, 90), 81_920)


def test_every_part_comes_back_bit_by_bit(run: Condensed, tmp_path: Path) -> None:
    again = published(run, tmp_path / "x.parquet")
    assert (run.updates, run.episodes) != (None, None)
    stored = pq.read_table(tmp_path / "x.parquet")
    assert repr(again.table().to_pydict()) == repr(stored.to_pydict())
    for one, other in ((run.updates, again.updates), (run.episodes, again.episodes)):
        assert one is not None
        assert other is not None
        assert one.table().column_names == other.table().column_names
        for a, b in zip(one.table().columns, other.table().columns, strict=True):
            assert a.is_null().to_pylist() == b.is_null().to_pylist()
            assert repr(a.to_pylist()) == repr(b.to_pylist())
    assert again.content() == run.content()
    assert again.cpu_time == pytest.approx((WARM_UP + 81_920) / 4500)


def test_null_and_nan_of_updates_stay_apart(run: Condensed, tmp_path: Path) -> None:
    updates = published(run, tmp_path / "x.parquet").updates
    assert updates is not None
    assert np.flatnonzero(np.isnan(updates.columns["kl"].values)).tolist() == [8]
    assert updates.columns["kl"].measured.all()
    error = updates.columns["alignment_error"]
    assert (error.measured[4], error.measured[1]) == (True, False)
    assert np.isnan(error.values[[4, 1]]).all()
    assert updates.alignment_outcome[:4].tolist() == ["converged", "", "capped", ""]
    assert set(updates.outcome) == {"stepped", "rejected", "non_finite"}
    rows = pq.read_table(tmp_path / "x.parquet").to_pandas().groupby(PART).size()
    assert rows["curve"] == 9
    assert rows["update"] == 40


def test_equal_runs_are_equal_files(run: Condensed, tmp_path: Path) -> None:
    published(published(run, tmp_path / "x.parquet"), tmp_path / "again.parquet")
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "again.parquet").read_bytes()


def test_a_run_from_before_has_nulls_for_later_columns(tmp_path: Path) -> None:
    run = published(condensed(write(tmp_path / "run", 40, 2_048, 90, later=False), 81_920), tmp_path / "x.parquet")
    assert run.updates is not None
    assert not run.updates.columns["kl_total"].measured.any()
    assert run.updates.columns["kl"].measured.all()
    assert list(run.curves) == list(CURVES)
    assert not any(run.curves[name].measurements.any() for name in LATER_KPIS)
    assert run.cpu_time is None


@pytest.mark.parametrize("name", [*PUBLISHED, "outcome", "alignment_outcome"])
def test_the_content_hash_moves_with_every_column_of_the_updates(run: Condensed, name: str) -> None:
    assert run.updates is not None
    first = run.content()
    if name in PUBLISHED:
        old = run.updates.columns[name]
        null = Column(old.values, old.measured & (np.arange(40) != 0))
        for other in (old._replace(values=np.where(np.arange(40) == 0, 7.0, old.values)), null):
            columns = run.updates.columns | {name: other}
            assert replace(run, updates=replace(run.updates, columns=columns)).content() != first
    else:
        outcome = getattr(run.updates, name).copy()
        outcome[0] = "capped"
        assert replace(run, updates=replace(run.updates, **{name: outcome})).content() != first


@pytest.mark.parametrize("name", ["env_steps", "returns", "lengths", "env_index"])
def test_the_content_hash_moves_with_every_column_of_the_episodes(run: Condensed, name: str) -> None:
    assert run.episodes is not None
    values = getattr(run.episodes, name).copy()
    values[-1] += 1
    assert replace(run, episodes=replace(run.episodes, **{name: values})).content() != run.content()


def test_one_flipped_bit_in_any_column_of_any_part_is_noticed_or_changes_nothing(
    run: Condensed, tmp_path: Path
) -> None:
    path = tmp_path / "x.parquet"
    published(run, path)
    sound, group = path.read_bytes(), pq.read_metadata(path).row_group(0)
    original, noticed = repr(read_published(path)[1].to_pydict()), 0
    for chunk in (group.column(i) for i in range(group.num_columns)):
        place = chunk.data_page_offset + chunk.total_compressed_size // 2
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 4]) + sound[place + 1 :])
        try:
            assert repr(read_published(path)[1].to_pydict()) == original
        except PublishedError:
            noticed += 1
    assert noticed > group.num_columns * 0.8


@pytest.mark.parametrize(("updates", "batch", "length"), [(40, 2_048, 90), (60, 1_024, 12), (30, 2_048, 400)])
@pytest.mark.parametrize("later", [True, False])
def test_every_statistic_is_computed_again(
    tmp_path: Path, updates: int, batch: int, length: float, later: bool
) -> None:
    total = updates * batch
    whole = condensed(write(tmp_path / "run", updates, batch, length, later), total)
    cell = published(whole, tmp_path / "x.parquet")
    again = recompute(cell, total, DELTA, NUM_ENVS)
    assert again is not None
    assert differences(whole, again) == []
    assert again.counts == whole.counts
    assert again.final_score == pytest.approx(whole.final_score, rel=1e-6)
    assert list(again.geometry) == list(whole.geometry)
    for name, value in whole.geometry.items():
        assert again.geometry[name] == (None if value is None else pytest.approx(value, rel=1e-5))
        assert (value is None) == (name in LATER_KPIS and not later), name
    assert {mode: float(returns.mean()) for mode, returns in cell.evaluation.items()} == {
        "deterministic": 100.5,
        "random": 3.25,
    }


def test_a_statistic_that_does_not_follow_is_named(run: Condensed) -> None:
    again = recompute(run, 81_920, DELTA, NUM_ENVS)
    assert again is not None
    assert run.final_score is not None
    score = run.curves["episode_return"]
    wrong = replace(
        run,
        final_score=run.final_score + 0.01,
        geometry=run.geometry | {"kl_median": 0.018, "kl_cv": None},
        counts=run.counts | {"rejected": 0},
        curves=run.curves | {"episode_return": score._replace(values=score.values * 1.001)},
    )
    assert differences(wrong, again) == ["final_score", "kl_median", "kl_cv", "rejected", "the curve episode_return"]
    other_rule = recompute(run, 81_920, DELTA, NUM_ENVS + 1)  # no environment 16 ever ends an episode
    assert other_rule is not None
    assert other_rule.final_score is None


def test_the_command_counts_what_agrees_and_what_cannot_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = json.loads((ROOT / "results/published/acktr/suite.json").read_text())
    old, new = plan["cells"][:2]
    shutil.copytree(ROOT / "results/published/acktr/cells", tmp_path / "cells")
    header, _ = read_published(ROOT / old["published"])
    path = tmp_path / PUBLISHED_CELL.format(**new)
    run = condensed(write(tmp_path / "run", 40, 2_048, 90), plan["total_steps"])

    def analyse(run: Condensed) -> tuple[int, str]:
        cell = header | {name: new[name] for name in ("env", "variant", "seed", "identity")} | {"run": run.header()}
        write_published(path, cell | {"format": FORMAT}, run.table())
        monkeypatch.setattr("sys.argv", ["recompute", str(tmp_path)])
        return main(), capsys.readouterr().out

    plan |= {"cells": [old, new], "delta_ref": header["delta_ref"]}
    (tmp_path / "suite.json").write_text(json.dumps(plan))
    run = replace(run, geometry=recomputed_geometry(run, header))
    assert analyse(run) == (0, "2 cells: 1 agree, 0 differ, 1 of format 2, without updates and episodes\n")
    code, said = analyse(replace(run, final_score=0.0))
    assert code == 1
    assert said.startswith(f"{new['env']}/{new['variant']}/seed-{new['seed']}: final_score\n")
    path.write_bytes(b"")
    assert main() == 1
    assert f"{path}: damaged" in capsys.readouterr().out


def recomputed_geometry(run: Condensed, header: dict[str, Any]) -> dict[str, float | None]:
    """Of the run with the reference δ of a header, which the share of steps above it depends on."""
    again = recompute(run, header["total_steps"], header["delta_ref"], NUM_ENVS)
    assert again is not None
    return again.geometry


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("length", [3, 60, 700])
def test_the_score_is_that_of_the_environments(seed: int, length: int) -> None:
    """From a log's own rows, null until every environment has ended an episode, windows of all three kinds."""
    rows, scores = play(60, 512, length, np.random.default_rng(seed))
    table = pa.table({name: [row[name] for row in rows] for name in rows[0]})
    again = Episodes.of(table).scores(WARM_UP + 512 * np.arange(1.0, 61.0), NUM_ENVS)
    assert again.measured.tolist() == [score is not None for score in scores]
    known = [score for score in scores if score is not None]
    np.testing.assert_allclose(again.values[again.measured], known, rtol=1e-6)


def test_a_run_without_episodes_has_no_score(tmp_path: Path) -> None:
    run_dir = write(tmp_path / "run", 40, 2_048, 90)
    (run_dir / "episodes.parquet").unlink()
    cell = published(condensed(run_dir, 81_920), tmp_path / "x.parquet")
    assert cell.episodes is not None
    assert len(cell.episodes.returns) == 0
    again = recompute(cell, 81_920, DELTA, NUM_ENVS)
    assert again is not None
    assert again.final_score is None


def test_a_cell_of_format_2_is_read_as_it_was() -> None:
    header, table = read_published(OLD)
    run = from_published(header["run"], table)
    assert header["format"] == 2
    assert run.content() == header["content"]
    assert run.table().equals(table)
    assert (run.updates, run.episodes, run.cpu_time) == (None, None, None)
    assert list(run.curves) == ["episode_return", *KPIS]
    assert recompute(run, header["total_steps"], header["delta_ref"], NUM_ENVS) is None


def test_the_size_of_a_realistic_cell(tmp_path: Path) -> None:
    """A million steps of Hopper: 488 updates, some 5,000 episodes, and the header of a real cell."""
    run = condensed(write(tmp_path / "run", 488, 2_048, 200), 1_000_000)
    assert run.episodes is not None
    assert len(run.episodes.returns) > 4_500
    header = {name: entry for name, entry in read_published(OLD)[0].items() if name != "format"}
    write_published(tmp_path / "x.parquet", header | {"run": run.header()}, run.table())
    assert (tmp_path / "x.parquet").stat().st_size < 60_000


def test_tables_have_kl_per_env_step_where_every_run_has_it(
    run: Condensed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = json.loads((ROOT / "results/published/acktr/suite.json").read_text())
    plan["cells"] = [cell for cell in plan["cells"] if cell["env"] == "hopper"]
    (tmp_path / "suite.json").write_text(json.dumps(plan))
    shutil.copytree(ROOT / "results/published/acktr/cells", tmp_path / "cells")
    suite = load_suite(tmp_path)
    assert LATER[0] not in geometry(gather(suite, 50)).records[0]
    assert set(check(suite).values()) == {None}

    def value(cells: list[Any]) -> str:
        table = geometry(gather(replace(suite, cells=tuple(cells)), 50)).csv()
        return next(csv.DictReader(io.StringIO(table)))[LATER[0]]

    mixed = [replace(suite.cells[0], run=run), *suite.cells[1:]]
    assert value(mixed) == ""
    assert float(value([replace(cell, run=run) for cell in suite.cells])) == pytest.approx(
        run.geometry["kl_per_env_step"]
    )

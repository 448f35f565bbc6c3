"""Verifying published cells, with synthetic runs in place of train.py."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from analysis.condensed import from_published
from pipeline.cell import Contents
from pipeline.publish import publish
from pipeline.reuse import published_path
from pipeline.suites import Cell, Suite
from pipeline.verify import CHANGED, EQUAL, INSIDE, MISMATCH, NOT_COMPARABLE, band, default_stop, main, verify
from tests.analysis.test_suite_tables import rewrite
from tests.pipeline.published import SUITE, draw_nothing, train, write_suite
from tracking.published import read_published

Change = Callable[[Path], None]


class Rerun:
    """Stands in for training: leaves the first part of a cell's run, after `change`, and remembers the steps asked."""

    def __init__(self, repository: Path, change: Change = lambda run_dir: None, seed: int | None = None) -> None:
        self.repository, self.change, self.seed = repository, change, seed
        self.stops: list[int | None] = []

    def __call__(self, overrides: Sequence[str], run_dir: Path, root: Path, stop_after: int | None) -> str:
        self.stops.append(stop_after)
        env, variant, seed = run_dir.parts[-3:]
        number = int(seed.removeprefix("seed-")) if self.seed is None else self.seed
        as_run = Cell(env, variant, variant, number, tuple(overrides), str(run_dir))
        train(self.repository, as_run)
        path = run_dir / "progress.parquet"
        table = pq.read_table(path)
        pq.write_table(table.filter(pc.less(table["env_steps"], (stop_after or 10**9) + 2048)), path)
        self.change(run_dir)
        return "said at the end"


@pytest.fixture
def suite(repository: Path, monkeypatch: pytest.MonkeyPatch) -> Suite:
    draw_nothing(monkeypatch)
    suite = write_suite(repository, monkeypatch, SUITE.replace("seeds: 2", "seeds: 6"))
    publish(suite, repository)
    return suite


def run(suite: Suite, repository: Path, rerun: Rerun, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Verdict on one cell, and what was compared."""
    monkeypatch.setattr("pipeline.verify.train", rerun)
    [verdict] = verify(suite, 1, 0, root=repository)
    return verdict.word, verdict.compared


def on_another_cpu(run_dir: Path) -> None:
    manifest = json.loads((run_dir / "manifest.json").read_text())
    (run_dir / "manifest.json").write_text(json.dumps(manifest | {"cpu": "another model"}))


def one_bit_more(run_dir: Path) -> None:
    """In the score after update 4, at step 8,192, which is that of the grid's point 10,000."""
    rewrite(run_dir, "episode_return", lambda values: [*values[:3], float(np.nextafter(values[3], 1e9)), *values[4:]])


def test_a_rerun_that_is_equal_up_to_the_stop_is_equal(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun = Rerun(repository)
    word, compared = run(suite, repository, rerun, monkeypatch)
    assert (word, compared) == (EQUAL, "2 points of 7 curves up to step 20,000")
    assert rerun.stops == [20_000]


def test_the_last_bit_of_one_score_is_a_mismatch_on_the_same_machine(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def later(run_dir: Path) -> None:  # past the last point that is compared
        rewrite(run_dir, "episode_return", lambda values: [*values[:-1], 0.0])

    word, _ = run(suite, repository, Rerun(repository, later), monkeypatch)
    assert word == EQUAL

    word, compared = run(suite, repository, Rerun(repository, one_bit_more), monkeypatch)
    assert word == MISMATCH
    assert "on the same machine and versions episode_return at step 10,000 is " in compared


def test_a_kpi_measured_more_often_is_a_mismatch(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(run_dir: Path) -> None:
        rewrite(run_dir, "fisher_trace", lambda values: [values[0]] * len(values))

    rerun = Rerun(repository, change)
    word, compared = run(suite, repository, rerun, monkeypatch)
    assert word == MISMATCH
    assert "fisher_trace at step 10,000 is " in compared
    assert "(4 measurements), and was " in compared


def test_elsewhere_another_trajectory_counts_as_one_more_seed(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    word, compared = run(suite, repository, Rerun(repository, on_another_cpu, seed=77), monkeypatch)
    assert word == INSIDE, compared
    assert compared.endswith("the last against 6 seeds (other cpu)")

    def far(run_dir: Path) -> None:
        on_another_cpu(run_dir)
        rewrite(run_dir, "kl", lambda values: [100 * value for value in values])

    word, compared = run(suite, repository, Rerun(repository, far, seed=77), monkeypatch)
    assert word == MISMATCH
    assert "other cpu): kl " in compared


def test_elsewhere_with_few_seeds_nothing_can_be_said(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in suite.cells:
        if cell.seed > 3:
            (repository / published_path(suite, cell)).unlink()
    word, compared = run(suite, repository, Rerun(repository, on_another_cpu, seed=77), monkeypatch)
    assert word == NOT_COMPARABLE
    assert compared.endswith("not equal; other cpu, and 4 published seeds where a band takes 5")


def test_equal_bits_on_another_machine_are_equal(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(suite, repository, Rerun(repository, on_another_cpu), monkeypatch)[0] == EQUAL


def test_changed_code_is_no_mismatch_and_not_trained(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Contents, "hash", lambda self, cell: "another")
    rerun = Rerun(repository)
    assert run(suite, repository, rerun, monkeypatch)[0] == CHANGED
    assert rerun.stops == []


def test_a_cell_that_cannot_be_trained_again_is_a_mismatch(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    rerun = Rerun(repository, lambda run_dir: (run_dir / "progress.parquet").unlink())
    assert run(suite, repository, rerun, monkeypatch) == (MISMATCH, "it cannot be trained again (said at the end)")


def test_the_sample_belongs_to_its_seed_and_the_report_names_every_cell(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.verify.train", Rerun(repository))
    one, again, other = ([v.cell for v in verify(suite, 4, seed, root=repository)] for seed in (0, 0, 1))
    assert one == again != other
    assert len(set(one)) == 4
    report = (repository / "results/tiny/verify/report.md").read_text()
    assert "4 of 12 published cells, drawn with sample_seed=1" in report
    for cell in other:
        assert f"| hopper/{cell.variant}/seed-{cell.seed} | equal | 2 points of 7 curves up to step 20,000 |" in report


def test_the_command_ends_with_1_on_a_mismatch_only(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pipeline.verify.load_suite", lambda name: suite)
    original = verify
    monkeypatch.setattr("pipeline.verify.verify", partial(original, root=repository))
    for change, code in ((on_another_cpu, 0), (one_bit_more, 1)):
        monkeypatch.setattr("pipeline.verify.train", Rerun(repository, change))
        assert main(["tiny", "--sample", "1", "--stop-after", "12288"]) == code
        assert "report: results/tiny/verify/report.md" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="sample=0: must be at least 1"):
        main(["tiny", "--sample", "0"])


def test_the_default_part_is_a_tenth_but_two_points_and_three_updates(repository: Path, suite: Suite) -> None:
    header, curves = read_published(repository / published_path(suite, suite.cells[0]))
    run = from_published(header["run"], curves)
    assert default_stop(run, 1_000_000) == 100_000
    assert default_stop(run, 60_000) == 20_000
    run.counts["updates"] = 4
    assert default_stop(run, 60_000) == 44_544  # three of four updates


def test_the_band_by_hand() -> None:
    assert band(np.array([3.0, 1.0, 2.0]), logarithmic=False) == (-3.0, 7.0)
    assert band(np.array([1.0, 10.0]), logarithmic=True) == pytest.approx((0.01, 1000.0))
    assert band(np.array([0.0, 10.0]), logarithmic=True) == (-20.0, 30.0)


def test_a_damaged_published_cell_is_a_mismatch_that_names_it(
    repository: Path, suite: Suite, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cell in suite.cells:
        with (repository / published_path(suite, cell)).open("r+b") as file:
            file.truncate(1000)
    word, compared = run(suite, repository, Rerun(repository), monkeypatch)
    assert word == MISMATCH
    assert "damaged" in compared

"""The bias of sampled diagnostics: measured on the updates that train.py makes, differences within an update."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from algorithms.parts.alignment import Row
from benchmarks.sampling_bias import KPIS, measurements, rows
from tests.settings import compose, run

CARTPOLE = ("env=gym", "env.id=CartPole-v1", "algorithm.batch_size=256", "rollout.warmup_steps=64", "critic.epochs=2")


@pytest.mark.parametrize("algorithm", ["trpo", "ppo", "acktr"])
def test_the_whole_batch_gives_the_kpis_that_a_run_of_train_logs(algorithm: str, tmp_path: Path) -> None:
    assert run(tmp_path, f"algorithm={algorithm}", *CARTPOLE) == 0
    logged = pq.read_table(tmp_path / "progress.parquet").to_pylist()
    config = compose(f"algorithm={algorithm}", *CARTPOLE)
    found = list(measurements(config, config.diagnostics, updates=[1, 3], sizes=[256, 64, 32, 1024]))
    assert [[row["geometry_states"] for row in update] for update in found] == [[32, 64, 256]] * 2
    for update, row in zip(found, (logged[0], logged[2]), strict=True):
        assert {kpi: update[-1][kpi] for kpi in KPIS} == {kpi: row[kpi] for kpi in KPIS}
        assert update[0]["diagnostics_states"] == 32
        assert update[0]["fisher_trace"] != update[-1]["fisher_trace"]


def test_differences_are_taken_within_an_update_and_are_relative_for_the_trace_alone_of_these_two() -> None:
    found: list[list[Row]] = [
        [{"geometry_states": n, "fisher_trace": tau, "alignment_error": e} for n, tau, e in update]
        for update in (
            [(64, 11.0, 0.4), (256, 10.0, 0.3)],
            [(64, 2.0, 0.9), (256, 4.0, 0.7)],
            [(64, 30.0, 0.5), (256, 20.0, None)],  # no step in this one
        )
    ]
    lines = {tuple(line[1:3]): line[3:] for line in rows("ppo", found)}
    assert lines["fisher_trace", "64"] == ["11.0 [2.00, 30.0]", "+10.0 % [-50.0 %, +50.0 %]"]
    assert lines["fisher_trace", "256 (all)"] == ["10.0 [4.00, 20.0]", "–"]
    assert lines["alignment_error", "64"] == ["0.650 [0.400, 0.900]", "+0.150 [+0.100, +0.200]"]
    assert lines["lambda_max", "64"] == ["–", "–"]

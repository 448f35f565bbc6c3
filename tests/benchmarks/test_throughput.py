import sys
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from benchmarks import throughput
from benchmarks.throughput import (
    HALFCHEETAH,
    PONG,
    TASKS,
    TRACE_INTERVAL,
    OurTiming,
    Task,
    Timing,
    breakdown,
    environment_rate,
    peer_of,
    row,
    seconds_per_update,
    time_ours,
)
from pipeline.suites import find_algorithms
from tests.settings import compose

each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


def progress_of_run(updates: int, interval: int) -> pd.DataFrame:
    """Diagnostics take 100 s where everything is measured, 4 s for the trace alone and 1 s otherwise."""
    diagnostics = [100.0 if i % interval == 0 else 4.0 if i % TRACE_INTERVAL == 0 else 1.0 for i in range(updates)]
    return pd.DataFrame(
        {"rollout_time": 2.0, "update_time": 3.0, "critic_time": [4.0, 6.0] * (updates // 2)}
        | {"diagnostics_time": diagnostics}
    )


def test_the_ratio_is_taken_within_each_pair() -> None:
    ours = [Timing(rate, 80, {}) for rate in (100.0, 300.0, 600.0)]
    peers = [Timing(rate, 160, {}) for rate in (100.0, 100.0, 300.0)]
    assert row("trpo", "TRPO", ours, peers) == ["trpo", "TRPO", "300", "100", "2.00 [1.00, 3.00]", "80 / 160"]


@each_task
@pytest.mark.parametrize("updates", [TRACE_INTERVAL + 1, 200])
def test_diagnostics_count_as_often_as_their_intervals_say_however_short_the_run(task: Task, updates: int) -> None:
    seconds = seconds_per_update(progress_of_run(updates, task.interval), task)
    full, trace = 1 / task.interval, 1 / task.trace_interval - 1 / task.interval
    expected = 100 * full + 4 * trace + 1 * (1 - full - trace)
    assert seconds == pytest.approx({"Rollout": 2.0, "Policy": 3.0, "Critic": 5.0, "Diagnostics": expected})


def test_the_rate_is_batch_over_the_time_of_all_phases_of_an_update(monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = {"config": {"critic": {"epochs": 2, "minibatch_size": 300}}, "packages": {"torch": "2"}}
    settings: list[str] = []
    monkeypatch.setattr(throughput, "train", lambda run_dir, overrides: settings.extend(overrides))
    monkeypatch.setattr(throughput, "read_manifest", lambda run_dir: manifest)
    monkeypatch.setattr(throughput, "progress_of", lambda run_dir: progress_of_run(20, PONG.interval))
    timing = time_ours(PONG, "ppo", ["critic.epochs=2", "threads=2"], 20_480, 7)
    update = 2 + 3 + 5 + (100 * 0.0025 + 4 * 0.0475 + 1 * 0.95)
    assert timing.steps_per_second == pytest.approx(1024 / update)
    assert timing.shares["Critic"] == pytest.approx(5 / update)
    assert sum(timing.shares.values()) == pytest.approx(1)
    assert (timing.critic_steps, timing.packages) == (8, {"torch": "2"})
    assert {"threads=2", "total_steps=20480", "seed=7", "critic.epochs=2"} <= set(settings)


def test_the_second_table_has_medians_and_our_share_of_the_environments_rate() -> None:
    shares = [{"Rollout": r, "Policy": 0.9 - r, "Critic": 0.08, "Diagnostics": 0.02} for r in (0.3, 0.5, 0.6)]
    ours = [OurTiming(rate, 80, {}, s, 0.5) for rate, s in zip((100.0, 250.0, 300.0), shares, strict=True)]
    assert breakdown("ppo", ours, environments=1000.0) == [
        "ppo", "4.00", "50.0 %", "40.0 %", "8.0 %", "2.0 %", "25.0 %", "0.500"
    ]  # fmt: skip


def test_the_environments_rate_counts_the_steps_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = count()
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))  # one per step
    assert environment_rate(HALFCHEETAH, seconds=3.0) == 16.0


@each_task
@pytest.mark.parametrize("algorithm", find_algorithms())
def test_every_algorithm_takes_the_settings_of_the_comparison_on_both_tasks(task: Task, algorithm: str) -> None:
    peer = peer_of(algorithm, task)
    batch = f"algorithm.batch_size={task.batch_size}"
    config: Any = compose(f"algorithm={algorithm}", *task.settings, batch, *peer.overrides, *peer.critic)
    steps = {"PPO": config.algorithm.batch_size * task.epochs // task.minibatch_size, "A2C": 1}
    critic_steps = config.critic.epochs * task.batch_size // config.critic.minibatch_size
    assert critic_steps == steps.get(peer.name, 10 * task.batch_size // 128)


def test_fewer_updates_than_show_every_measurement_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(
        sys, "argv", ["throughput.py", "--peer-python", str(tmp_path), "--task", "pong", "--steps", "5120"]
    )
    with pytest.raises(ValueError, match="--steps 5120: must be at least 6144, 6 updates"):
        throughput.main()

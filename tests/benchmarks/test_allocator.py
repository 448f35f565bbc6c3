import pytest

from benchmarks import allocator
from benchmarks.allocator import Cost, pair, row
from benchmarks.runs import RunFailed


def test_the_ratio_is_taken_within_each_pair() -> None:
    rates = [(100.0, 100.0), (300.0, 100.0), (600.0, 300.0)]
    pairs = [(Cost(with_them, 0.01, 2.0), Cost(without, 0.1, 1.5)) for with_them, without in rates]
    assert row("ppo", pairs) == ["ppo", "300", "100", "2.00 [1.00, 3.00]", "1.0 % / 10.0 %", "2.00 / 1.50"]


def test_a_pair_are_two_real_runs_that_must_be_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ["algorithm=npg", "env=gym", "env.id=CartPole-v1", "total_steps=1280", "algorithm.batch_size=256"]
    tuned, plain = pair(settings)
    assert tuned != plain
    assert min(tuned.steps_per_second, plain.steps_per_second, tuned.memory, plain.memory) > 0
    assert 0 < tuned.system < 1
    monkeypatch.setattr(allocator, "differences", lambda one, other: ["progress.parquet: row 3"])
    monkeypatch.setattr(allocator, "alone", lambda *arguments: tuned)
    with pytest.raises(RunFailed, match="row 3"):
        pair(settings)

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from benchmarks import checkpoint_cost
from tracking.record import CHECKPOINT, EPISODES


def test_small_shares_of_saving_keep_two_decimals(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(run_dir: Path, overrides: Sequence[str]) -> None:
        (run_dir / CHECKPOINT).write_bytes(bytes(2000))
        (run_dir / EPISODES).write_bytes(bytes(500))

    times = pd.DataFrame({"checkpoint_time": [9.0] * 5 + [0.01, 0.02, 0.03] + [0.02] * 17})  # the last 20 count
    monkeypatch.setattr(checkpoint_cost, "train", train)
    monkeypatch.setattr(checkpoint_cost, "progress_of", lambda run_dir: times)
    assert checkpoint_cost.row("ppo", "hopper", 1) == ["ppo", "20 [10, 30]", "0.03 %", "2.00", "0.500"]

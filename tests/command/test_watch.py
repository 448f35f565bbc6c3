"""What a run says while it trains."""

import pytest

from command.interrupt import Interrupt
from command.watch import Watch


def test_a_line_per_tenth_says_how_far_and_how_well(capsys: pytest.CaptureFixture[str]) -> None:
    with Watch(Interrupt(), "hopper TRPO seed 0", 100, 20) as watch:
        for i in range(3, 20):
            with watch.update(i):
                watch.tell({"episode_return": None if i < 5 else 1000.0 * i, "kl": 0.0123 if i % 2 else None})
    lines = capsys.readouterr().err.splitlines()
    starts = [line.rpartition(", ")[0] for line in lines]
    assert starts[0] == "hopper TRPO seed 0: 400 of 2,000 steps, KL 0.012"
    assert starts[1] == "hopper TRPO seed 0: 600 of 2,000 steps, return 5,000.0, KL 0.012"
    assert starts[-1] == "hopper TRPO seed 0: 2,000 of 2,000 steps, return 19,000.0, KL 0.012"
    assert len(lines) == 9
    assert all(line.endswith(" steps/s") for line in lines)

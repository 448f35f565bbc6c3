import sys

import pandas as pd
import pytest

from benchmarks import sharing
from benchmarks.sharing import row, side_by_side


def updates(rollout: float) -> pd.DataFrame:
    """Five updates of 100 steps; the first three take long and do not count."""
    slow = [100.0] * 3
    return pd.DataFrame(
        {
            "env_steps": [612, 712, 812, 912, 1012],
            "rollout_time": [*slow, rollout, rollout],
            "update_time": [*slow, 0.5, 0.5],
            "critic_time": [*slow, 0.25, 0.25],
            "diagnostics_time": [*slow, 0.25, 0.25],
        }
    )


def test_the_rates_of_all_are_added_and_those_of_one_are_the_median() -> None:
    assert row([updates(1.0), updates(1.0), updates(3.0)]) == [
        "3",
        "50.0",
        "125",
        "50.0 %",
        "25.0 %",
        "12.5 %",
        "12.5 %",
    ]


def test_runs_side_by_side_are_real_ones_with_seeds_of_their_own() -> None:
    settings = ["algorithm=npg", "env=gym", "env.id=CartPole-v1", "total_steps=1280", "algorithm.batch_size=256"]
    one, other = side_by_side(2, [*settings, "workers=2"])
    assert len(one) == len(other) == 5
    assert one["kl"].tolist() != other["kl"].tolist()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--runs", "2", "0"], "--runs 0: must be at least 1"),
        (
            ["--runs", "1", "--steps", "6144", "--algorithm", "npg", "--env", "hopper"],
            "--steps: must make more than 3 updates, not 3",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setattr(sys, "argv", ["sharing.py", *arguments])
    with pytest.raises(ValueError, match=message):
        sharing.main()

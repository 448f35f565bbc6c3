"""The size of held-out batches: independent batches of one update, spreads within updates."""

from benchmarks.heldout_size import Measured, lines, mean_and_spread, measurements
from tests.settings import compose

CARTPOLE = ("env=gym", "env.id=CartPole-v1", "algorithm.batch_size=256", "rollout.warmup_steps=64", "critic.epochs=2")


def test_every_update_is_measured_with_independent_batches_of_every_size() -> None:
    config = compose("algorithm=trpo", *CARTPOLE)
    found = list(measurements(config, updates=[1, 3], sizes=[32, 64], repeats=3))
    assert len(found) == 2
    for update in found:
        assert {size: {row["heldout_states"] for row in rows} for size, rows in update.rows.items()} == {
            32: {32}, 64: {64},
        }  # fmt: skip
        for rows in update.rows.values():
            assert len({row["alignment_error_heldout"] for row in rows}) == 3
        assert all(len(seconds) == 3 and min(seconds) > 0 for seconds in update.seconds.values())


def test_spreads_are_those_within_an_update() -> None:
    assert mean_and_spread([[0.2, 0.4], [0.7, 0.9]]) == "0.55 ± 0.141"
    rows = [[{"alignment_error_heldout": e, "alignment_noise": 0.5} for e in pair] for pair in ((0.2, 0.4), (0.7, 0.9))]
    measured = [Measured(0.25, {64: found}, {64: [1.0, 2.0]}) for found in rows]  # type: ignore[dict-item]
    assert lines("cartpole", "ppo", measured) == [
        ["cartpole", "ppo", "0.25", "Held out", "0.55 ± 0.141"],
        ["cartpole", "ppo", "0.25", "Noise", "0.50 ± 0.000"],
        ["cartpole", "ppo", "0.25", "Seconds", "1.50"],
    ]

"""The score of a run, case by case."""

import numpy as np
import pytest

from envs.episodes import EpisodeLog


def play(log: EpisodeLog, returns: list[float], length: int) -> None:
    """Every environment plays an episode of equal length; the reward comes at its end."""
    n = len(returns)
    for _ in range(length - 1):
        log.step(np.zeros(n), np.zeros(n, dtype=bool))
    log.step(np.asarray(returns), np.ones(n, dtype=bool))


def test_rows_carry_the_undiscounted_return_the_length_and_the_step_count() -> None:
    log = EpisodeLog(2)
    assert log.step(np.array([1.0, 10.0]), np.array([False, True])) == [
        {"env_steps": 2, "episode_return": 10.0, "episode_length": 1, "env_index": 1}
    ]
    assert log.step(np.array([2.0, 20.0]), np.array([True, False])) == [
        {"env_steps": 4, "episode_return": 3.0, "episode_length": 2, "env_index": 0}
    ]
    (row,) = log.step(np.array([0.0, 5.0]), np.array([False, True]))
    assert (row["episode_return"], row["episode_length"]) == (25.0, 2)


def test_no_score_before_every_environment_has_ended_an_episode() -> None:
    log = EpisodeLog(2)
    for _ in range(5):
        log.step(np.ones(2), np.array([True, False]))
    assert log.score() is None
    log.step(np.ones(2), np.array([False, True]))
    assert log.score() is not None


def test_the_window_is_at_least_one_episode_per_environment() -> None:
    log = EpisodeLog(3)
    play(log, [0.0, 0.0, 0.0], 10)
    play(log, [1.0, 2.0, 6.0], 10)
    log.env_steps *= 100  # the last 10 % of steps hold no episode
    assert log.score() == 3.0


def test_the_window_is_the_last_tenth_of_the_steps() -> None:
    log = EpisodeLog(2)
    for i in range(100):
        play(log, [float(i), float(i)], 1)
    assert log.env_steps == 200
    assert log.score() == np.mean(range(90, 100))


def test_the_window_is_at_most_100_episodes() -> None:
    log = EpisodeLog(1)
    for i in range(5000):
        play(log, [float(i)], 1)
    assert log.score() == pytest.approx(np.mean(range(4900, 5000)))


def test_first_episodes_may_leave_no_trace_in_rows_and_score() -> None:
    log = EpisodeLog(2, skip_first=True)
    assert log.step(np.array([1.0, 10.0]), np.array([True, False])) == []
    (row,) = log.step(np.array([2.0, 20.0]), np.array([True, False]))
    assert (row["env_steps"], row["episode_return"], row["env_index"]) == (4, 2.0, 0)
    assert log.step(np.array([0.0, 5.0]), np.array([False, True])) == []
    assert log.score() is None  # the second environment has not ended one that counts
    log.step(np.array([0.0, 6.0]), np.array([False, True]))
    assert log.score() == 4.0

"""Batches on a task whose every observation and reward can be foretold."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from envs.evaluation import EvaluationConfig, evaluate
from envs.gym import GymConfig
from envs.normalisers import ObservationNormaliser
from envs.rollout import Collector, RolloutConfig


class Counter(gym.Env[np.ndarray, np.ndarray]):
    """Observes the number of steps since the reset and is paid the same; ends after `end` steps if not cut off."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,), np.float64)
    action_space = gym.spaces.Box(-1, 1, (1,))

    def __init__(self, end: int = 10**9) -> None:
        self.end, self.t = end, 0

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        super().reset(seed=seed)
        self.t = 0
        return np.zeros(1), {}

    def step(self, action):  # type: ignore[no-untyped-def]
        self.t += 1
        return np.full(1, float(self.t)), float(self.t), self.t == self.end, False, {}


HERE = f"{__name__}:Counter"
gym.register("Ended-v0", HERE, kwargs={"end": 5})
gym.register("CutOff-v0", HERE, max_episode_steps=5)
gym.register("Both-v0", HERE, kwargs={"end": 5}, max_episode_steps=5)
gym.register("Limited-v0", HERE, max_episode_steps=8)
gym.register("Short-v0", HERE, kwargs={"end": 3}, max_episode_steps=8)

PLAIN = RolloutConfig(num_envs=2, warmup_steps=0, normalise_observations=False, rewards="raw", clip=100.0)


def collector(task_id: str, config: RolloutConfig = PLAIN) -> Collector:
    task = GymConfig("counter", 0.9, id=task_id)
    return Collector(task, config, np.random.SeedSequence(1), np.random.SeedSequence(2))


def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
    return np.zeros((len(observations), 1), dtype=np.float32) if noise is None else noise


def draw(rng: np.random.Generator, steps: int) -> np.ndarray:
    return rng.standard_normal((steps, 1), dtype=np.float32)


def test_observations_rewards_and_ends_are_those_of_the_task() -> None:
    rollout = collector("Ended-v0").collect(act, draw, 7)
    np.testing.assert_array_equal(rollout.observations[:, 0, 0], [0, 1, 2, 3, 4, 0, 1])
    np.testing.assert_array_equal(rollout.rewards[:, 0], [1, 2, 3, 4, 5, 1, 2])
    np.testing.assert_array_equal(np.flatnonzero(rollout.terminated[:, 0]), [4])
    assert not rollout.truncated.any()
    assert len(rollout.cut_off) == 0
    np.testing.assert_array_equal(rollout.last_observations, [[2], [2]])
    assert [row["episode_return"] for row in rollout.episodes] == [15.0, 15.0]


def test_a_limit_keeps_the_final_observation_for_the_bootstrap() -> None:
    rollout = collector("CutOff-v0").collect(act, draw, 7)
    assert not rollout.terminated.any()
    np.testing.assert_array_equal(rollout.cut_off, [[4, 0], [4, 1]])
    np.testing.assert_array_equal(rollout.cut_off_observations, [[5], [5]])
    np.testing.assert_array_equal(rollout.observations[5:, 0, 0], [0, 1])


def test_an_end_at_the_limit_is_an_end() -> None:
    rollout = collector("Both-v0").collect(act, draw, 7)
    assert rollout.terminated[4].all()
    assert not rollout.truncated.any()


def test_batches_go_on_where_the_last_one_stopped() -> None:
    whole, parts = collector("CutOff-v0"), collector("CutOff-v0")
    first = whole.collect(act, draw, 8)
    second = [parts.collect(act, draw, 4) for _ in range(2)]
    np.testing.assert_array_equal(first.observations, np.concatenate([p.observations for p in second]))
    np.testing.assert_array_equal(first.rewards, np.concatenate([p.rewards for p in second]))


def test_action_noise_has_a_stream_per_environment() -> None:
    """An environment's noise does not depend on how many others there are, nor on how long batches are."""
    few, many = collector("CutOff-v0"), collector("CutOff-v0", RolloutConfig(num_envs=4, warmup_steps=0))
    actions = few.collect(act, draw, 6).actions
    np.testing.assert_array_equal(actions, many.collect(act, draw, 6).actions[:, :2])
    assert not np.array_equal(actions[:, 0], actions[:, 1])
    parts = collector("CutOff-v0")
    np.testing.assert_array_equal(actions, np.concatenate([parts.collect(act, draw, 3).actions for _ in range(2)]))


def test_normalisers_are_frozen_during_a_batch_and_updated_once_after_it() -> None:
    config = RolloutConfig(num_envs=2, warmup_steps=0, clip=100.0)
    c = collector("CutOff-v0", config)
    first = c.collect(act, draw, 6)
    np.testing.assert_allclose(first.observations[:, 0, 0], [0, 1, 2, 3, 4, 0], rtol=1e-6)
    second = c.collect(act, draw, 4)
    seen = np.array([0, 1, 2, 3, 4, 0] * 2)
    np.testing.assert_allclose(second.observations[:, 0, 0], (np.arange(1, 5) - seen.mean()) / seen.std(), rtol=1e-5)
    returns = np.array([1, 2.9, 5.61, 9.049, 13.1441, 1])
    np.testing.assert_allclose(second.rewards[:, 0], np.arange(2, 6) / returns.std(), rtol=1e-6)


def test_renormalised_observations_are_those_that_the_next_batch_would_have() -> None:
    c = collector("CutOff-v0", RolloutConfig(num_envs=2, warmup_steps=0, clip=100.0))
    rollout = c.collect(act, draw, 6)
    assert rollout.renormalised is not None
    raw = np.array([[0, 1, 2, 3, 4, 0]] * 2).T[:, :, None]
    np.testing.assert_array_equal(rollout.renormalised, c.observation_normaliser(raw))
    assert not np.array_equal(rollout.renormalised, rollout.observations)
    assert collector("CutOff-v0").collect(act, draw, 6).renormalised is None


STAGGERED = RolloutConfig(
    num_envs=4, warmup_steps=0, normalise_observations=False, rewards="raw", clip=100.0, stagger=True
)


def test_staggered_first_episodes_are_cut_one_after_the_other_and_bootstrapped() -> None:
    c = collector("Limited-v0", STAGGERED)
    rollout = c.collect(act, draw, 17)
    ends = [np.flatnonzero(rollout.truncated[:, n]).tolist() for n in range(4)]
    assert ends == [[1, 9], [3, 11], [5, 13], [7, 15]]  # 2, 4, 6 and 8 steps, then 8 as ever
    assert not rollout.terminated.any()
    finals = {
        tuple(cut): float(final[0]) for cut, final in zip(rollout.cut_off, rollout.cut_off_observations, strict=True)
    }
    assert finals == {(1, 0): 2, (3, 1): 4, (5, 2): 6, (7, 3): 8, (9, 0): 8, (11, 1): 8, (13, 2): 8, (15, 3): 8}
    np.testing.assert_array_equal(rollout.observations[:, 0, 0], [0, 1, *range(8), *range(7)])
    assert [row["env_index"] for row in rollout.episodes] == [0, 1, 2, 3]
    assert {row["episode_length"] for row in rollout.episodes} == {8}


def test_a_first_episode_that_ends_by_itself_does_not_count_and_nothing_is_cut_after_it() -> None:
    rollout = collector("Short-v0", STAGGERED).collect(act, draw, 9)
    assert np.flatnonzero(rollout.truncated.any(1)).tolist() == [1]  # the first environment, before it ends
    assert [np.flatnonzero(rollout.terminated[:, n]).tolist() for n in range(4)] == [[4, 7], *[[2, 5, 8]] * 3]
    assert [row["env_index"] for row in rollout.episodes] == [0, 1, 2, 3, 0, 1, 2, 3]  # at steps 4, 5, 7 and 8


def test_without_a_time_limit_nothing_is_cut_and_first_episodes_count() -> None:
    rollout = collector("Ended-v0", STAGGERED).collect(act, draw, 6)
    assert not rollout.truncated.any()
    assert [row["env_steps"] for row in rollout.episodes] == [20] * 4


@pytest.mark.parametrize("processes", [1, 3])
def test_staggered_starts_go_on_from_a_state_and_are_the_same_in_processes(processes: int) -> None:
    task = GymConfig("hopper", 0.99, id="Hopper-v5", kwargs={"max_episode_steps": 8})
    assert task.time_limit == 8
    one, two, other = (
        Collector(task, STAGGERED, np.random.SeedSequence(1), np.random.SeedSequence(2), n) for n in (1, 1, processes)
    )

    def noise(rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.standard_normal((steps, 3), dtype=np.float32)

    whole = one.collect(act, noise, 20)
    parts = [two.collect(act, noise, 5)]
    other.load_state_dict(two.state_dict())
    parts.append(other.collect(act, noise, 15))
    for name in ("observations", "rewards", "truncated", "terminated", "cut_off_observations"):
        joined = np.concatenate([getattr(part, name) for part in parts])
        np.testing.assert_array_equal(getattr(whole, name), joined)
    assert whole.truncated[:8].any(1).tolist() == [False, True] * 4
    other.envs.close()


def test_the_warm_up_counts_its_steps_and_leaves_fresh_episodes() -> None:
    c = collector("CutOff-v0", RolloutConfig(num_envs=2, warmup_steps=16))
    c.warm_up(16, np.random.default_rng(0))
    assert c.episodes.env_steps == 16
    assert c.observation_normaliser.moments.count == 16
    assert not c.reward_normaliser.discounted.any()
    rollout = c.collect(act, draw, 5)
    assert rollout.episodes[0] == {"env_steps": 26, "episode_return": 15.0, "episode_length": 5, "env_index": 0}


def test_evaluation_plays_whole_episodes_in_three_modes() -> None:
    task = GymConfig("counter", 0.9, id="Ended-v0")
    rows = evaluate(
        task, EvaluationConfig(3, 100), act, draw, ObservationNormaliser((1,), False, 1.0), np.random.SeedSequence(0)
    )
    assert [row["mode"] for row in rows] == ["deterministic"] * 3 + ["stochastic"] * 3 + ["random"] * 3
    assert {(row["episode_return"], row["episode_length"]) for row in rows} == {(15.0, 5)}


def test_evaluation_stops_at_its_cap_and_reads_the_normaliser_only() -> None:
    normaliser = ObservationNormaliser((1,), True, 10.0)
    task = GymConfig("counter", 0.9, id="Ended-v0", kwargs={"end": 10**9})
    rows = evaluate(task, EvaluationConfig(2, 4), act, draw, normaliser, np.random.SeedSequence(0))
    assert {(row["episode_return"], row["episode_length"]) for row in rows} == {(10.0, 4)}
    assert normaliser.moments.count == 0
    assert evaluate(task, EvaluationConfig(0, 4), act, draw, normaliser, np.random.SeedSequence(0)) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_envs": 0}, "num_envs=0"),
        ({"warmup_steps": 17}, "multiple of"),
        ({"clip": 0.0}, "clip=0.0"),
        ({"rewards": "clipped"}, "rewards=clipped: unknown; choose one of normalised, sign"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RolloutConfig(**settings)

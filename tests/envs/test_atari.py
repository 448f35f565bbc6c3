"""Atari games: equal to Gymnasium's reference wrappers, bounded as asked, and restored bit for bit."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation, StickyAction
from omegaconf import OmegaConf

from algorithms.parts.policy import Pixels
from envs import atari, snapshot
from envs.atari import NOT_SAVED_BEFORE_ACTIONS, AtariConfig, games
from envs.evaluation import EvaluationConfig, evaluate
from envs.normalisers import ObservationNormaliser
from envs.rollout import Collector, Rollout, RolloutConfig
from envs.tasks import make, spaces
from tests.settings import compose, compose_raw
from tracking import checkpoint
from training.learner import build


def task(game: str, **settings: Any) -> AtariConfig:
    return AtariConfig(f"atari_{game}", 0.99, game=game, **settings)


def reference(game_id: str, sticky_actions: float, max_frames: int) -> gym.Env[Any, Any]:
    env: gym.Env[Any, Any] = gym.make(
        game_id, frameskip=1, repeat_action_probability=0.0, max_num_frames_per_episode=max_frames
    )
    if sticky_actions:
        env = StickyAction(env, sticky_actions)
    return FrameStackObservation(AtariPreprocessing(env), 4)


@pytest.mark.parametrize(
    ("game", "game_id", "sticky_actions", "max_frames", "seed"),
    [
        ("pong", "ALE/Pong-v5", 0.25, 250, 3),
        ("pong", "ALE/Pong-v5", 0.0, 250, 4),
        ("space_invaders", "ALE/SpaceInvaders-v5", 0.25, 250, 5),
        ("road_runner", "ALE/RoadRunner-v5", 0.25, 108_000, 6),
        ("klax", "ALE/Klax-v5", 0.0, 108_000, 7),
    ],
)
def test_every_step_is_that_of_the_reference_wrappers(
    game: str, game_id: str, sticky_actions: float, max_frames: int, seed: int
) -> None:
    envs = make(task(game, sticky_actions=sticky_actions, max_frames=max_frames), 1)
    original = reference(game_id, sticky_actions, max_frames)
    np.testing.assert_array_equal(envs.reset(seed=[seed])[0][0], original.reset(seed=seed)[0])
    rng, ends = np.random.default_rng(0), []
    for _ in range(160):
        actions = rng.integers(spaces(envs).n_actions, size=1)
        seen, reward, terminated, truncated, info = envs.step(actions)
        expected, *rest, _ = original.step(actions[0])
        assert [reward[0], terminated[0], truncated[0]] == rest
        if terminated[0] or truncated[0]:
            ends.append("terminated" if terminated[0] else "truncated")
            np.testing.assert_array_equal(info["final_obs"][0], expected)
            expected = original.reset()[0]
        np.testing.assert_array_equal(seen[0], expected)
    assert set(ends) == {"truncated" if max_frames == 250 else "terminated"}


def test_the_frame_cap_truncates_and_never_terminates() -> None:
    envs = make(task("pong", noop_max=0, max_frames=100), 1)
    envs.reset(seed=[0])
    for step in range(1, 76):
        _, _, terminated, truncated, _ = envs.step(np.array([0]))
        assert not terminated[0]
        assert truncated[0] == (step % 25 == 0)


def test_episodes_start_after_1_to_noop_max_frames() -> None:
    def frames_before_start(noop_max: int) -> list[int]:
        env = task("pong", noop_max=noop_max).make_one()
        env.reset(seed=0)
        found = []
        for _ in range(30):
            env.reset()
            found.append(env.unwrapped.ale.getEpisodeFrameNumber())  # type: ignore[attr-defined]
        return found

    assert set(frames_before_start(3)) == {1, 2, 3}
    assert set(frames_before_start(0)) == {0}


def test_shapes_and_numbers_of_actions_follow_the_settings() -> None:
    assert asdict(spaces(make(task("pong"), 1))) == {
        "observation_shape": (4, 84, 84),
        "n_actions": 6,
        "discrete": True,
    }
    other = make(task("pong", full_action_space=True, stack=2, screen_size=42, frame_skip=2), 1)
    assert asdict(spaces(other)) == {"observation_shape": (2, 42, 42), "n_actions": 18, "discrete": True}
    assert other.reset()[0].dtype == np.uint8


def collect(config: AtariConfig, length: int, rewards: str = "sign", batches: int = 1) -> tuple[Rollout, np.ndarray]:
    """The last of some batches of random play by two environments, and the lives in it before each step."""
    settings = RolloutConfig(num_envs=2, warmup_steps=0, normalise_observations=False, rewards=rewards)
    collector = Collector(config, settings, np.random.SeedSequence(1), np.random.SeedSequence(2))
    lives: list[list[int]] = []

    def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        assert noise is not None
        assert observations.dtype == np.uint8
        lives.append([env.unwrapped.ale.lives() for env in collector.envs.envs])  # type: ignore[attr-defined]
        return noise

    for _ in range(batches):
        rollout = collector.collect(act, lambda rng, n: rng.integers(collector.spaces.n_actions, size=n), length)
    return rollout, np.array(lives[-length:])


def test_agents_learn_from_the_sign_of_rewards_and_scores_are_the_games_own() -> None:
    rollout, _ = collect(task("space_invaders", max_frames=400), 120)
    raw, _ = collect(task("space_invaders", max_frames=400), 120, "raw")
    assert rollout.observations.shape == (120, 2, 4, 84, 84)
    assert rollout.observations.dtype == rollout.cut_off_observations.dtype == np.uint8
    assert len(rollout.cut_off) > 0
    assert rollout.cut_off_observations.shape == (len(rollout.cut_off), 4, 84, 84)
    np.testing.assert_array_equal(rollout.rewards, np.sign(raw.rewards))
    assert set(np.unique(rollout.rewards)) == {0, 1}
    assert rollout.episodes == raw.episodes
    first = rollout.episodes[0]
    assert first["episode_return"] == raw.rewards[: first["episode_length"], first["env_index"]].sum() > 1


def test_a_lost_life_is_terminal_for_learning_and_changes_nothing_else() -> None:
    tasks = [task("asterix", life_loss=enabled) for enabled in (False, True)]
    (plain, lives), (marked, _) = (collect(config, 140, "normalised", batches=2) for config in tasks)
    lost = np.zeros_like(plain.terminated)
    lost[:-1] = lives[1:] < lives[:-1]
    assert lost.sum() > plain.terminated.sum() > 0
    assert plain.rewards.any()
    np.testing.assert_array_equal(marked.terminated[:-1], (plain.terminated | lost)[:-1])
    for name in ("observations", "actions", "rewards", "truncated", "cut_off"):
        np.testing.assert_array_equal(getattr(marked, name), getattr(plain, name))
    assert marked.episodes == plain.episodes
    assert len(plain.episodes) > 0


def test_a_life_lost_in_the_step_that_is_cut_off_is_terminal_for_learning() -> None:
    settings: dict[str, Any] = {"life_loss": True, "noop_max": 0}
    _, lives = collect(task("breakout", **settings), 60)
    step = int(np.flatnonzero(lives[1:, 0] < lives[:-1, 0])[0])
    rollout, _ = collect(task("breakout", **settings, max_frames=4 * (step + 1)), step + 1)
    assert rollout.terminated[step, 0]
    assert not rollout.truncated[step, 0]
    assert rollout.episodes[0]["episode_length"] == step + 1


def test_both_networks_see_a_game_less_what_hardly_ever_changes_in_it() -> None:
    settings = ("rollout.num_envs=2", "rollout.warmup_steps=300", "algorithm.batch_size=64")
    learner = build(compose("algorithm=ppo", "env=atari", "env.game=pong", *settings, "algorithm.minibatch_size=64"))
    moments = learner.collector.observation_normaliser.image_moments
    assert moments is not None
    assert moments.count == 300
    for net in (learner.policy.network, learner.critic.network):
        pixels = net[0]
        assert isinstance(pixels, Pixels)
        np.testing.assert_allclose(pixels.mean, moments.mean, rtol=1e-6)
        assert float(pixels.deviation) == pytest.approx(moments.variance.mean() ** 0.5)
    assert moments.variance.mean() < 0.01 * (moments.mean**2 + moments.variance).mean()
    learner.collector.collect(learner.policy.actor(), learner.policy.distribution.noise, 4)
    assert moments.count == 300


def test_evaluation_counts_true_scores_up_to_its_cap() -> None:
    def fire(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        return np.ones(len(observations), dtype=np.int64) if noise is None else noise

    rows = evaluate(
        task("space_invaders"),
        EvaluationConfig(2, 70),
        fire,
        lambda rng, n: rng.integers(6, size=n),
        ObservationNormaliser((4, 84, 84), False, 10.0),
        np.random.SeedSequence(0),
    )
    assert {row["episode_length"] for row in rows} == {70}
    returns = np.array([row["episode_return"] for row in rows])
    assert returns.max() > 0
    assert not (returns % 5).any()  # an invader of the first row is worth 5


@pytest.mark.parametrize("game", ["pong", "breakout", "seaquest", "ms_pacman"])
def test_a_game_goes_on_bit_for_bit_in_an_environment_that_was_elsewhere(game: str, tmp_path: Path) -> None:
    config = task(game, max_frames=800)
    original, twin = make(config, 1), make(config, 1)
    original.reset(seed=[1])
    twin.reset(seed=[2])
    rng, ends = np.random.default_rng(0), 0
    n = spaces(original).n_actions
    for before, after in ((0, 30), (41, 30), (97, 320)):
        for _ in range(before):
            original.step(rng.integers(n, size=1))
        for _ in range(23):
            twin.step(rng.integers(n, size=1))
        checkpoint.save(tmp_path / "state", snapshot.save(original))
        snapshot.restore(twin, checkpoint.load(tmp_path / "state"))
        for _ in range(after):
            action = rng.integers(n, size=1)
            a, b = original.step(action), twin.step(action)
            assert all(np.array_equal(x, y) for x, y in zip(a[:4], b[:4], strict=True))
            ends += int(a[2][0] | a[3][0])
    assert ends > 0


def test_games_are_resumable_but_for_two() -> None:
    assert snapshot.unresumable(task("pong")) is None
    assert snapshot.unresumable(task("miniature_golf")) == (
        "atari_miniature_golf is known to keep state that no snapshot holds"
    )


@pytest.mark.parametrize("game", NOT_SAVED_BEFORE_ACTIONS)
def test_these_games_are_resumable_where_a_reset_takes_an_action(game: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert snapshot.unresumable(task(game, noop_max=1)) is None
    no_action = task(game, noop_max=0)
    assert snapshot.unresumable(no_action) == f"atari_{game} is known to keep state that no snapshot holds"
    monkeypatch.setattr(atari, "NOT_SAVED_BEFORE_ACTIONS", ())
    found = snapshot.unresumable(no_action)
    assert found is not None
    assert "a copy went another way" in found


def test_the_yaml_describes_the_defaults_for_any_of_over_a_hundred_games() -> None:
    assert len(games()) == 104
    composed = compose_raw("algorithm=ppo", "env=atari", "env.game=space_invaders")
    schema = OmegaConf.structured(AtariConfig)
    assert OmegaConf.to_object(OmegaConf.merge(schema, composed.env)) == task("space_invaders", kind="atari")
    assert composed.rollout.rewards == "sign"
    assert composed.rollout.normalise_observations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"game": "pongg"}, "env.game=pongg: no such game; nearest: pong"),
        ({"game": "Pong"}, "env.game=Pong: no such game; nearest: pong"),
        ({"game": "warlords"}, "env.game=warlords: no such game"),
        ({"kwargs": {"continuous": True}}, "env.kwargs.continuous=True: only ALE's discrete actions are supported"),
        ({"kwargs": {"frameskip": 4}}, "env.kwargs.frameskip=4: unknown; choose mode or difficulty"),
        ({"kwargs": {"mode": 99}}, "env.game=pong: cannot be made: "),
        ({"game": "backgammon"}, "env.game=backgammon: has no action that does nothing; set env.noop_max=0"),
        ({"sticky_actions": 1.0}, "env.sticky_actions=1.0: must lie in [0, 1)"),
        ({"stack": 0}, "env.stack=0: must be at least 1"),
        ({"max_frames": 0}, "env.max_frames=0: must be at least 1"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011, the message is compared below
        make(task(**{"game": "pong"} | settings), 1)
    assert str(refusal.value).startswith(message)
    assert "\n" not in str(refusal.value)

"""Playing a task in training: batches of transitions."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import workers
from envs.episodes import EpisodeLog
from envs.normalisers import REWARDS, ObservationNormaliser, RewardNormaliser
from envs.tasks import LIFE_LOST, EnvConfig, Envs, check_simulation, random_actions, reset, spaces, step

Act = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(normalised observations or images (N, ...), noise (N, ...) or None: the most likely actions) -> actions (N, ...)."""


@dataclass
class RolloutConfig:
    """How experience is collected, the same for every algorithm.

    Attributes:
        num_envs: environments stepped together.
        warmup_steps: steps of uniformly random actions that initialise the normalisers; they count as steps.
        normalise_observations: subtract the running mean, divide by the running standard deviation; of images those of
            the warm-up, and one deviation for all pixels.
        rewards: what agents learn from; normalised: divided by the running standard deviation of the discounted return;
            sign: of each, -1, 0 or 1; raw.
        clip: largest absolute value of a normalised observation or reward.
        stagger: where the task has a time limit, cut the first episode of environment n off after (n + 1) / num_envs of
            it, so that the environments do not reach it together; first episodes then do not count. Training only.
    """

    num_envs: int = 16
    warmup_steps: int = 512
    normalise_observations: bool = True
    rewards: str = "normalised"
    clip: float = 10.0
    stagger: bool = False

    def __post_init__(self) -> None:
        if self.num_envs < 1:
            raise ValueError(f"rollout.num_envs={self.num_envs}: must be at least 1")
        if self.warmup_steps < 0 or self.warmup_steps % self.num_envs:
            raise ValueError(
                f"rollout.warmup_steps={self.warmup_steps}: must be a multiple of rollout.num_envs={self.num_envs}"
            )
        if self.rewards not in REWARDS:
            raise ValueError(f"rollout.rewards={self.rewards}: unknown; choose one of {', '.join(REWARDS)}")
        if not self.clip > 0:
            raise ValueError(f"rollout.clip={self.clip}: must be above 0")


@dataclass(frozen=True)
class Rollout:
    """T steps of N environments, time first.

    Attributes:
        observations: normalised with the statistics before this batch, float32, (T, N, n); images are uint8,
            (T, N, c, h, w).
        renormalised: the same with the statistics that this batch is part of; None where they are no others.
        actions: as the policy sampled them, (T, N, ...).
        rewards: as agents learn from them, (T, N).
        terminated: the task ended at this step, or a life that counts as much, (T, N).
        truncated: a limit cut the episode off at this step, (T, N).
        last_observations: normalised, after the last step, (N, ...).
        cut_off: indices (t, n) of the truncated steps, (k, 2).
        cut_off_observations: normalised final observation of each of them, (k, ...).
        episodes: a row of `episodes.parquet` per episode that ended.
    """

    observations: np.ndarray
    renormalised: np.ndarray | None
    actions: np.ndarray
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    last_observations: np.ndarray
    cut_off: np.ndarray
    cut_off_observations: np.ndarray
    episodes: list[dict[str, Any]]


class Collector:
    """Steps the environments of one run, with one stream of action noise for each of them.

    Args:
        task: the task.
        config: how to collect.
        env_seeds: seeds of the environments.
        noise_seeds: seeds of the action noise.
        processes: that step the environments.
    """

    def __init__(
        self,
        task: EnvConfig,
        config: RolloutConfig,
        env_seeds: np.random.SeedSequence,
        noise_seeds: np.random.SeedSequence,
        processes: int = 1,
    ) -> None:
        self.task, self.envs = task, workers.make_in(processes, task, config.num_envs)
        self.spaces = spaces(self.envs)
        limit = task.time_limit if config.stagger else None
        self.episodes = EpisodeLog(config.num_envs, skip_first=limit is not None)
        self._first_lengths = None if limit is None else _staggered(limit, config.num_envs)
        self.observation_normaliser = ObservationNormaliser(
            self.spaces.observation_shape, config.normalise_observations, config.clip
        )
        self.reward_normaliser = RewardNormaliser(config.num_envs, task.gamma, config.rewards, config.clip)
        self.noise_streams = [np.random.default_rng(s) for s in noise_seeds.spawn(config.num_envs)]
        self._observations = seeded_reset(self.envs, task, "training", env_seeds)

    def warm_up(self, steps: int, rng: np.random.Generator) -> None:
        """Initialise the normalisers by `steps` steps of random actions, then reset every environment.

        Raises:
            FloatingPointError: as `collect`.
        """
        length = steps // self.envs.num_envs
        if length == 0:
            return
        observations, rewards, done = [], [], []
        for _ in range(length):
            taken = step(self.envs, random_actions(self.envs, rng), self.task, "warm-up")
            observations.append(taken.observations)
            rewards.append(taken.rewards)
            done.append(taken.terminated | taken.truncated)
        check_simulation()
        self.observation_normaliser.update(np.concatenate(observations))
        self.reward_normaliser.update(np.stack(rewards), np.stack(done))
        self.reward_normaliser.restart()
        self.episodes.env_steps += steps
        self._observations = reset(self.envs, self.task, "training")

    def collect(self, act: Act, draw_noise: Callable[[np.random.Generator, int], np.ndarray], length: int) -> Rollout:
        """`length` steps of every environment; the normalisers are frozen meanwhile and updated at the end.

        Raises:
            FloatingPointError: a simulation diverged, or an observation or reward is not finite or too large.
        """
        noise = np.stack([draw_noise(rng, length) for rng in self.noise_streams], 1)
        raw = np.empty((length, *self._observations.shape), self._observations.dtype)
        actions, rewards, terminated, truncated, ended = [], [], [], [], []
        cut_off, cut_off_observations = [], []
        episodes: list[dict[str, Any]] = []
        for t in range(length):
            raw[t] = self._observations
            actions.append(act(self.observation_normaliser(raw[t]), noise[t]))
            taken = step(self.envs, actions[t], self.task, "training")
            seen, end, cut = taken.observations, taken.terminated, taken.truncated
            self._observations = seen
            due = self._cut_first_episodes(end | cut)
            cut = cut | due
            rewards.append(taken.rewards)
            terminated.append(end | _lost_lives(taken.info))
            truncated.append(cut & ~terminated[t])
            ended.append(end | cut)
            for n in np.flatnonzero(truncated[t]):
                cut_off.append((t, n))
                cut_off_observations.append(seen[n] if due[n] else taken.info["final_obs"][n])
            episodes += self.episodes.step(taken.rewards, ended[t])
        check_simulation()
        raw_rewards = np.stack(rewards)

        normalise = self.observation_normaliser
        observations, last_observations = normalise(raw), normalise(self._observations)
        cut_off_shape = (-1, *self.spaces.observation_shape)
        cut_off_finals = normalise(np.asarray(cut_off_observations, raw.dtype).reshape(cut_off_shape))
        learned_rewards = self.reward_normaliser(raw_rewards)
        normalise.update(raw)
        self.reward_normaliser.update(raw_rewards, np.stack(ended))
        return Rollout(
            observations=observations,
            renormalised=normalise(raw) if normalise.moves else None,
            actions=np.stack(actions),
            rewards=learned_rewards,
            terminated=np.stack(terminated),
            truncated=np.stack(truncated),
            last_observations=last_observations,
            cut_off=np.asarray(cut_off, dtype=np.int64).reshape(-1, 2),
            cut_off_observations=cut_off_finals,
            episodes=episodes,
        )

    def _cut_first_episodes(self, ended: np.ndarray) -> np.ndarray:
        """Reset the environments whose first episode is as long as it is to be; returns which, none without stagger."""
        if self._first_lengths is None:
            return np.zeros_like(ended)
        due: np.ndarray = self.episodes.uncounted & (self.episodes.lengths + 1 >= self._first_lengths) & ~ended
        if due.any():
            self._observations = reset(self.envs, self.task, "training", options={"reset_mask": due})
        return due

    def cpu_time(self) -> float:
        """Seconds of processor time that processes of the environments' own have used."""
        return workers.cpu_time(self.envs)

    def state_dict(self) -> dict[str, Any]:
        """Everything between two batches, for a checkpoint: the environments, what they show, and all statistics."""
        return {
            "envs": workers.save(self.envs),
            "observations": self._observations.copy(),
            "observation_normaliser": self.observation_normaliser.state_dict(),
            "reward_normaliser": self.reward_normaliser.state_dict(),
            "episodes": self.episodes.state_dict(),
            "noise_streams": [rng.bit_generator.state for rng in self.noise_streams],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        workers.restore(self.envs, state["envs"])
        self._observations = state["observations"]
        self.observation_normaliser.load_state_dict(state["observation_normaliser"])
        self.reward_normaliser.load_state_dict(state["reward_normaliser"])
        self.episodes.load_state_dict(state["episodes"])
        for rng, saved in zip(self.noise_streams, state["noise_streams"], strict=True):
            rng.bit_generator.state = saved


def _lost_lives(info: dict[str, Any]) -> np.ndarray:
    """Whether each environment lost a life in a step, of those that say so."""
    now, at_end = (part.get(LIFE_LOST, False) for part in (info, info.get("final_info", {})))
    return np.asarray(now | at_end)


def _staggered(limit: int, num_envs: int) -> np.ndarray:
    """Lengths of the first episodes: (n + 1) / num_envs of the time limit, at least one step."""
    return np.maximum(1, limit * np.arange(1, num_envs + 1) // num_envs)


def seeded_reset(envs: Envs, task: EnvConfig, phase: str, seeds: np.random.SeedSequence) -> np.ndarray:
    """Reset every environment with a seed of its own; arguments, result and errors as `envs.tasks.reset`."""
    return reset(envs, task, phase, seed=[int(s.generate_state(1)[0]) for s in seeds.spawn(envs.num_envs)])

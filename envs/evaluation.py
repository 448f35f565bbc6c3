"""Playing a task after training: whole episodes, in three modes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from envs import workers
from envs.normalisers import ObservationNormaliser
from envs.rollout import Act, seeded_reset
from envs.tasks import EnvConfig, Envs, check_simulation, random_actions, step

Actor = Callable[[Envs, np.ndarray], np.ndarray]
"""(the environments, what they show, (N, ...)) -> actions, (N, ...)."""


@dataclass
class EvaluationConfig:
    """Episodes played after training.

    Attributes:
        episodes: number for each mode; 0 for none.
        max_steps: an episode still going after so many steps is stopped and counted as it stands.
    """

    episodes: int = 20
    max_steps: int = 10_000

    def __post_init__(self) -> None:
        if self.episodes < 0:
            raise ValueError(f"evaluation.episodes={self.episodes}: must not be negative")
        if self.max_steps < 1:
            raise ValueError(f"evaluation.max_steps={self.max_steps}: must be at least 1")


def evaluate(
    task: EnvConfig,
    config: EvaluationConfig,
    act: Act,
    draw_noise: Callable[[np.random.Generator, int], np.ndarray],
    normaliser: ObservationNormaliser,
    seeds: np.random.SeedSequence,
    processes: int = 1,
) -> list[dict[str, Any]]:
    """Rows of `evaluation.parquet`: the policy's most likely actions, its samples, and uniformly random actions.

    The three modes start from the same initial states; the normaliser is only read. Uniformly random actions are the
    zero of normalised scores.

    Raises:
        FloatingPointError: a simulation diverged, or an observation or reward is not finite or too large.
    """
    if config.episodes == 0:
        return []
    env_seeds, noise_seeds, random_seeds = seeds.spawn(3)
    noise_streams = [np.random.default_rng(s) for s in noise_seeds.spawn(config.episodes)]
    random_stream = np.random.default_rng(random_seeds)

    def deterministic(_: Envs, observations: np.ndarray) -> np.ndarray:
        return act(normaliser(observations), None)

    def stochastic(_: Envs, observations: np.ndarray) -> np.ndarray:
        return act(normaliser(observations), np.concatenate([draw_noise(rng, 1) for rng in noise_streams]))

    def random(envs: Envs, _: np.ndarray) -> np.ndarray:
        return random_actions(envs, random_stream)

    rows = []
    for mode in (deterministic, stochastic, random):
        # A fresh sequence of the same key each time: spawning changes what the next spawn of one object gives.
        same_seeds = np.random.SeedSequence(env_seeds.entropy, spawn_key=env_seeds.spawn_key)
        rows += [
            {"mode": mode.__name__, "episode_return": float(r), "episode_length": int(n)}
            for r, n in zip(*play(task, config, mode, same_seeds, processes), strict=True)
        ]
    return rows


def play(
    task: EnvConfig, config: EvaluationConfig, actor: Actor, seeds: np.random.SeedSequence, processes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of whole episodes, the first in each of as many environments. Errors as `evaluate`."""
    envs = workers.make_in(processes, task, config.episodes)
    observations = seeded_reset(envs, task, "evaluation", seeds)
    returns, lengths = np.zeros(config.episodes), np.zeros(config.episodes, dtype=np.int64)
    playing = np.ones(config.episodes, dtype=bool)
    for _ in range(config.max_steps):
        taken = step(envs, actor(envs, observations), task, "evaluation")
        observations = taken.observations
        returns += taken.rewards * playing
        lengths += playing
        playing &= ~(taken.terminated | taken.truncated)
        if not playing.any():
            break
    envs.close()
    check_simulation()
    return returns, lengths

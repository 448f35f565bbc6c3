"""The parts of one run put together: environments, networks, algorithm, and a random stream for each purpose."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from algorithms.parts.algorithm import Algorithm
from algorithms.parts.batch import AdvantageConfig, Batch, gae, normalise_advantages, to_tensors
from algorithms.parts.critic import Critic
from algorithms.parts.policy import Policy, distribution_for, normalise_images
from envs.rollout import Collector, Rollout
from envs.tasks import Spaces
from settings import RunConfig


@dataclass
class Learner:
    """The parts of one run that learn, each with a random stream of its own."""

    collector: Collector
    policy: Policy
    critic: Critic
    algorithm: Algorithm
    evaluation_seeds: np.random.SeedSequence
    heldout_seeds: np.random.SeedSequence
    diagnostics_rng: np.random.Generator

    def state_dict(self) -> dict[str, Any]:
        """All that shapes the updates to come."""
        return {
            "collector": self.collector.state_dict(),
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "diagnostics_rng": self.diagnostics_rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`.

        Raises:
            ValueError: the state is none of such a run. What is loaded by then stays: build the learner again.
        """
        refuse_misfit(state, self.state_dict())
        self.collector.load_state_dict(state["collector"])
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.diagnostics_rng.bit_generator.state = state["diagnostics_rng"]


def refuse_misfit(state: Any, fresh: Any, place: str = "state") -> None:
    """Raise ValueError where a state is not of the types and shapes of one that `state_dict()` has just given.

    What is None or empty there (moments before the first step, episodes) comes to hold something later and is not
    compared, nor are environments, which `envs.snapshot` knows.
    """
    if isinstance(fresh, Tensor | np.ndarray):
        if type(state) is not type(fresh) or state.dtype != fresh.dtype:
            raise ValueError(f"{place} is no {type(fresh).__name__} of {fresh.dtype}")
        if math.prod(fresh.shape) and state.shape != fresh.shape:
            raise ValueError(f"{place} has shape {tuple(state.shape)} where {tuple(fresh.shape)} is due")
    elif isinstance(fresh, dict | list) and fresh:
        kind = dict if isinstance(fresh, dict) else list  # and not an ordered dict, as torch gives
        keys, due = (_keys(node) if isinstance(node, kind) else [] for node in (state, fresh))
        if keys != due:
            raise ValueError(f"{place} holds {keys} where {due} is due")
        for key in due:
            if key != "envs":
                refuse_misfit(state[key], fresh[key], f"{place}[{key!r}]")
    elif isinstance(fresh, int | float | str) and type(state) is not type(fresh):
        raise ValueError(f"{place} is {state!r} where a {type(fresh).__name__} is due")


def _keys(node: dict[Any, Any] | list[Any]) -> list[Any]:
    return sorted(node) if isinstance(node, dict) else list(range(len(node)))


def seed_sequences(seed: int) -> dict[str, np.random.SeedSequence]:
    """One independent source of randomness per purpose, so that changing the use of one moves no other."""
    names = (
        "networks", "environments", "actions", "warm_up", "algorithm", "critic", "evaluation", "diagnostics", "heldout",
    )  # fmt: skip
    return dict(zip(names, np.random.SeedSequence(seed).spawn(len(names)), strict=True))


def build(config: RunConfig) -> Learner:
    """Environments, networks and algorithm of a run, in their initial state, the normalisers warmed up."""
    seeds = seed_sequences(config.seed)
    generator = torch.Generator().manual_seed(int(seeds["networks"].generate_state(1)[0]))
    collector = Collector(config.env, config.rollout, seeds["environments"], seeds["actions"], config.workers)
    policy = build_policy(config, collector.spaces, generator)
    critic = config.critic_class(
        collector.spaces.observation_shape,
        config.network,
        config.critic,
        generator,
        np.random.default_rng(seeds["critic"]),
        torch.device(config.device),
    )
    rng = np.random.default_rng(seeds["algorithm"])
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, rng)
    collector.warm_up(config.rollout.warmup_steps, np.random.default_rng(seeds["warm_up"]))
    moments = collector.observation_normaliser.image_moments
    if moments is not None:
        for network in (policy.network, critic.network):
            normalise_images(network, moments.mean, moments.variance)
    diagnostics_rng = np.random.default_rng(seeds["diagnostics"])
    return Learner(collector, policy, critic, algorithm, seeds["evaluation"], seeds["heldout"], diagnostics_rng)


def build_policy(config: RunConfig, spaces: Spaces, generator: torch.Generator) -> Policy:
    """The policy network of a run, initialised from the generator."""
    distribution = distribution_for(spaces.n_actions, spaces.discrete)
    return Policy(spaces.observation_shape, distribution, config.network, generator).to(config.device)


def to_batch(rollout: Rollout, critic: Critic, gamma: float, config: AdvantageConfig, device: torch.device) -> Batch:
    """Values, advantages and value targets of a rollout."""

    def values_of(observations: np.ndarray | Tensor) -> np.ndarray:
        return critic.values(torch.as_tensor(observations, device=device)).cpu().numpy().astype(np.float64)

    observations = torch.as_tensor(rollout.observations, device=device)
    values = values_of(observations.flatten(0, 1)).reshape(rollout.rewards.shape)
    next_values = np.concatenate((values[1:], values_of(rollout.last_observations)[None]))
    if len(rollout.cut_off):
        next_values[tuple(rollout.cut_off.T)] = values_of(rollout.cut_off_observations)
    done = rollout.terminated | rollout.truncated
    terminated = rollout.terminated if config.bootstrap_truncation else done
    advantages = gae(rollout.rewards, values, next_values, terminated, done, gamma, config.gae_lambda)
    normalised = normalise_advantages(advantages) if config.normalise else advantages
    return to_tensors(
        device,
        done.shape[1],
        observations=observations,
        actions=rollout.actions,
        advantages=normalised.astype(np.float32),
        values=values.astype(np.float32),
        targets=(values + advantages).astype(np.float32),
    )

"""Second batches of the policy at an update, which diagnostics compare its step with and nothing learns from."""

import logging

import numpy as np
import torch

from algorithms.parts.surrogate import Surrogate
from envs.rollout import Collector
from envs.snapshot import reseed
from settings import RunConfig
from training.learner import Learner, to_batch

log = logging.getLogger(__name__)


class HeldOut:
    """What training could have collected next, had chance fallen otherwise.

    Copies of the training environments and of its normalisers go on from where training stands, with action noise and
    generators of their own, which come from the seed and the index of the update alone: nothing is kept between two
    batches, and training is only read. The copies of the environments are made once.

    Args:
        config: the settings of the run.
        learner: whose policy, critic and environments.
        can_copy: whether the task's environments can be copied exactly; where not, nothing is held out.
    """

    def __init__(self, config: RunConfig, learner: Learner, can_copy: bool) -> None:
        self._config, self._learner = config, learner
        self._states = config.diagnostics.heldout_states if can_copy else None
        self._collector: Collector | None = None

    def problem(self, index: int) -> Surrogate | None:
        """The update problem of a second batch, at the policy's present parameters, before update `index` collects.

        None where none is due, and with a warning where the simulation of a second batch diverged.
        """
        if self._states is None or not self._config.diagnostics.measures_all(index):
            return None
        config, learner, policy = self._config, self._learner, self._learner.policy
        if self._collector is None:
            unused = np.random.SeedSequence(0)
            self._collector = Collector(config.env, config.rollout, unused, unused, config.workers)
        env_seeds, noise_seeds, _ = self._seeds(index)
        state = learner.collector.state_dict()
        noise = [np.random.default_rng(s).bit_generator.state for s in noise_seeds.spawn(config.rollout.num_envs)]
        self._collector.load_state_dict(state | {"envs": reseed(state["envs"], env_seeds), "noise_streams": noise})
        length = max(1, self._states // config.rollout.num_envs)
        try:
            rollout = self._collector.collect(policy.actor(), policy.distribution.noise, length)
        except FloatingPointError as error:
            log.warning("update %d: no second batch, %s", index + 1, error)
            return None
        device = torch.device(config.device)
        return Surrogate(policy, to_batch(rollout, learner.critic, config.env.gamma, config.advantage, device))

    def generator(self, index: int) -> np.random.Generator:
        """What draws the actions that diagnostics of that batch may ask for."""
        return np.random.default_rng(self._seeds(index)[2])

    def cpu_time(self) -> float:
        """Seconds of processor time that processes of its environments have used."""
        return self._collector.cpu_time() if self._collector is not None else 0.0

    def _seeds(self, index: int) -> list[np.random.SeedSequence]:
        seeds = self._learner.heldout_seeds
        return np.random.SeedSequence(seeds.entropy, spawn_key=(*seeds.spawn_key, index)).spawn(3)

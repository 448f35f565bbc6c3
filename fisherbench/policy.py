"""The policy of a finished run, as training left it. What is read runs no code."""

import json
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from algorithms.parts.batch import Batch
from algorithms.parts.policy import Policy
from command.failures import describe
from envs.normalisers import ObservationNormaliser
from envs.rollout import Collector
from envs.tasks import Envs, RenderMode, make, spaces, to_action_space
from fisherbench.geometry import Geometry
from settings import RunConfig, typed
from tracking import checkpoint
from tracking.manifest import MANIFEST, read_manifest
from tracking.record import CHECKPOINT, damage
from training.learner import build_policy, to_batch


@dataclass(frozen=True)
class Sample:
    """What a policy experienced: a batch as an update gets it, and the observations as the task gave them, (B, ...)."""

    batch: Batch
    observations: np.ndarray


class LoadedPolicy:
    """A policy with its frozen normaliser and the task that it was trained on.

    Attributes:
        run_dir: where it is from.
        config: the settings of its run, for this machine.
        network: from normalised observations to the parameters of a distribution over actions.
        normaliser: from a task's observations to normalised ones.
        observation_space: of one environment.
        action_space: of one environment.
    """

    def __init__(self, run_dir: Path, config: RunConfig) -> None:
        self.run_dir, self.config = run_dir, config
        envs = make(config.env, 1)
        self.spaces = spaces(envs)
        self.observation_space, self.action_space = envs.single_observation_space, envs.single_action_space
        envs.close()
        self.network: Policy = build_policy(config, self.spaces, torch.Generator())
        self.normaliser: ObservationNormaliser = self._fresh_normaliser()
        self._actor = self.network.actor()
        self._space: Envs = VectorEnv()  # of no environments: what actions are made to fit
        self._space.single_action_space = self.action_space

    def _load(self, learner: dict[str, Any]) -> None:
        """Take over what `training.learner.Learner` saved."""
        self._learner = learner
        self.network.load_state_dict(learner["policy"])
        self.normaliser.load_state_dict(learner["collector"]["observation_normaliser"])

    def __repr__(self) -> str:
        return f"LoadedPolicy({str(self.run_dir)!r})"

    @property
    def device(self) -> torch.device:
        """Where its network is."""
        return torch.device(self.config.device)

    def act(
        self, observations: np.ndarray, deterministic: bool = True, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """What the environments execute where they show these observations: one, (...), or a batch, (B, ...).

        Args:
            observations: as the task gives them.
            deterministic: the most likely actions; else samples.
            rng: draws the samples; None: a fresh one, seeded by the system.

        Raises:
            ValueError: the observations are of another shape.
        """
        observations, shape = np.asarray(observations), self.observation_space.shape
        if observations.shape not in (shape, (len(observations) if observations.ndim else 0, *(shape or ()))):
            raise ValueError(f"act: observations of shape {observations.shape}, where {shape} or (B, *{shape}) is due")
        is_one = observations.shape == shape
        batch = observations[None] if is_one else observations
        noise = None
        if not deterministic:
            noise = self.network.distribution.noise(rng or np.random.default_rng(), len(batch))
        actions = to_action_space(self._space, self._actor(self.normaliser(batch), noise))
        return np.asarray(actions[0]) if is_one else actions

    def make_env(self, render_mode: RenderMode | None = None) -> gym.Env[Any, Any]:
        """One environment of its task, whose observations `act` takes."""
        return self.config.env.make_one(render_mode)

    def collect(self, steps: int = 2048, seed: int = 0) -> Sample:
        """So many steps in fresh environments, with sampled actions; advantages are those of the run's own critic.

        The normalisers stay as they are. Equal seeds give equal samples.

        Raises:
            ValueError: steps is no multiple of the run's number of environments.
            FloatingPointError: the task went wrong.
        """
        config, num_envs = self.config, self.config.rollout.num_envs
        if steps < num_envs or steps % num_envs:
            raise ValueError(f"collect: steps={steps} must be a multiple of rollout.num_envs={num_envs}")
        env_seeds, noise_seeds, unused = np.random.SeedSequence(seed).spawn(3)
        collector = Collector(config.env, config.rollout, env_seeds, noise_seeds)
        frozen = collector.observation_normaliser = self._fresh_normaliser()
        critic = config.critic_class(
            self.spaces.observation_shape,
            config.network,
            config.critic,
            torch.Generator(),
            np.random.default_rng(unused),
            self.device,
        )
        state = self._learner["collector"]
        frozen.load_state_dict(state["observation_normaliser"])
        collector.reward_normaliser.load_state_dict(state["reward_normaliser"])
        collector.reward_normaliser.restart()
        critic.load_state_dict(self._learner["critic"])
        rollout = collector.collect(self._actor, self.network.distribution.noise, steps // num_envs)
        collector.envs.close()
        assert frozen.seen is not None
        batch = to_batch(rollout, critic, config.env.gamma, config.advantage, self.device)
        return Sample(batch, frozen.seen.reshape(steps, *self.spaces.observation_shape))

    def geometry(self, sample: Sample) -> Geometry:
        """Divergences, Fisher matrix and natural gradient of this policy on a sample of its own."""
        return Geometry(self, sample)

    def _fresh_normaliser(self) -> "_Frozen":
        rollout = self.config.rollout
        return _Frozen(self.spaces.observation_shape, rollout.normalise_observations, rollout.clip)


class _Frozen(ObservationNormaliser):
    """A normaliser that no batch moves; it keeps the one that it last was to learn from."""

    seen: np.ndarray | None = None

    def update(self, observations: np.ndarray) -> None:
        self.seen = observations


def load_policy(run_dir: str | Path, task: str | None = None, wrappers: Collection[str] = ()) -> LoadedPolicy:
    """The policy of a finished run, on the run's device or, where that is not here, on the CPU.

    Args:
        run_dir: the directory of the run.
        task: `env.id` of a run whose task is code of a module, `module:Task`; else it is refused.
        wrappers: the `module:Class` of `env.wrappers` that may be imported; a run with others is refused.

    Raises:
        ValueError: run_dir holds no finished run, or its settings are none that can be used.
        tracking.checkpoint.CheckpointError: the checkpoint cannot be read, or is not of these settings.
    """
    run_dir = Path(run_dir)
    manifest = read_manifest(run_dir)
    if manifest is None or manifest["state"] != "finished":
        holds = "no run" if manifest is None else f"a run that is {manifest['state']}"
        raise ValueError(f"run_dir={run_dir}: holds {holds}; give the directory of a finished run")
    if (harm := damage(run_dir, manifest, whole=True)) or manifest["config"] is None:
        raise ValueError(
            f"run_dir={run_dir}: damaged ({harm or 'manifest.json: without its settings'}); train it again"
        )
    config = _recorded_settings(run_dir / MANIFEST, manifest["config"], task, wrappers)
    policy, content = LoadedPolicy(run_dir, config), checkpoint.load(run_dir / CHECKPOINT)
    try:
        policy._load(content["state"]["learner"])
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise checkpoint.CheckpointError(f"{run_dir / CHECKPOINT}: not a state of this run ({reason})") from error
    return policy


def _recorded_settings(
    manifest: Path, recorded: dict[str, Any], task: str | None, wrappers: Collection[str]
) -> RunConfig:
    """The settings of a run that a manifest records, for this machine. ValueError for what may not be taken from it.

    A run directory may come from anybody: no module that it names is imported unless the user names it, too, and
    nothing in it is looked up here.
    """
    if not recorded:
        raise ValueError(f"{manifest}: records no settings")
    if "${" in json.dumps(recorded):
        raise ValueError(f"{manifest}: a setting holds ${{...}}; a run records values, and nothing is looked up for it")
    config = OmegaConf.create(recorded)
    env_id = str(OmegaConf.select(config, "env.id", default=""))
    if task not in (None, env_id):
        raise ValueError(f"env.id={task}: the run's task is {env_id or 'another'}; leave env.id out, or repeat that")
    if ":" in env_id and task is None:
        raise ValueError(
            f"{manifest}: its task is code of the module {env_id.rpartition(':')[0]}; if you trust it, "
            f"add env.id={env_id} (in Python, task={env_id!r})"
        )
    needed = _wrappers(recorded)
    if unknown := [name for name in needed if name not in wrappers]:
        raise ValueError(
            f"{manifest}: its task has wrappers that are code, {', '.join(unknown)}; if you trust them, "
            f"add env.wrappers={','.join(needed)} (in Python, wrappers={needed})"
        )
    device, _, index = str(config.get("device")).partition(":")
    gpus = torch.cuda.device_count()
    if device == "cuda" and (index or "0").isdecimal() and int(index or 0) >= gpus:
        config.device = "cuda" if gpus else "cpu"
        print(f"the run's device is not here: replayed on {config.device}, where rounding differs", file=sys.stderr)
    try:
        return typed(config)
    except (AttributeError, TypeError, ImportError, OmegaConfBaseException) as error:
        raise ValueError(f"{manifest}: its settings are not those of a run ({describe(error)})") from error


def _wrappers(recorded: dict[str, Any]) -> list[str]:
    """The `module:Class` of every wrapper in the settings of a run, whatever stands there."""
    env = recorded.get("env")
    entries = env.get("wrappers") if isinstance(env, dict) else None
    listed = entries if isinstance(entries, list) else [entries] if entries else []
    return [str(entry.get("class", "") if isinstance(entry, dict) else entry) for entry in listed]

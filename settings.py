"""The settings of one run: their types, and the checks that cross rooms."""

from dataclasses import dataclass, field
from typing import Any

import torch
from omegaconf import MISSING, DictConfig, OmegaConf

from algorithms.parts.algorithm import Algorithm, Pair, load_fisher
from algorithms.parts.batch import AdvantageConfig
from algorithms.parts.critic import Critic
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.plugins import load
from algorithms.parts.policy import NetworkConfig
from envs.evaluation import EvaluationConfig
from envs.rollout import RolloutConfig
from envs.tasks import EnvConfig
from tracking.wandb_tracker import TrackerConfig


@dataclass
class CheckpointConfig:
    """When tables and checkpoint are written; the end of the run and a SIGINT or SIGTERM write them too.

    Attributes:
        interval: seconds between two writes.
        updates: updates between two writes, whatever the time; null: by time alone.
    """

    interval: float = 60.0
    updates: int | None = None

    def __post_init__(self) -> None:
        if not self.interval > 0:
            raise ValueError(f"checkpoint.interval={self.interval}: must be above 0 seconds")
        if self.updates is not None and self.updates < 1:
            raise ValueError(f"checkpoint.updates={self.updates}: must be at least 1, or null for none")


@dataclass
class RunConfig:
    """All settings of one run; `conf/config.yaml` has the values and says what each is."""

    algorithm: Any = MISSING
    env: EnvConfig = MISSING
    fisher: Any = MISSING
    critic: Any = MISSING
    tracker: TrackerConfig = MISSING
    seed: int = MISSING
    total_steps: int = MISSING
    stop_after: int | None = MISSING
    run_dir: str = MISSING
    identity: str | None = None
    device: str = MISSING
    threads: int = MISSING
    workers: int = 1
    direction: str | None = MISSING
    step_rule: str | None = MISSING
    solver: str = MISSING
    learning_rate_schedule: str = MISSING
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    advantage: AdvantageConfig = field(default_factory=AdvantageConfig)
    diagnostics: DiagnosticsConfig = field(default_factory=DiagnosticsConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        batch_size, num_envs = self.algorithm.batch_size, self.rollout.num_envs
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
        if self.threads < 1:
            raise ValueError(f"threads={self.threads}: must be at least 1")
        if not 1 <= self.workers <= num_envs:
            raise ValueError(f"workers={self.workers}: must lie between 1 and rollout.num_envs={num_envs}")
        if batch_size % num_envs:
            raise ValueError(
                f"algorithm.batch_size={batch_size}: must be a multiple of rollout.num_envs={num_envs}, "
                f"for example {max(1, round(batch_size / num_envs)) * num_envs}"
            )
        if self.total_steps < batch_size:
            raise ValueError(
                f"total_steps={self.total_steps}: must be at least algorithm.batch_size={batch_size}, one update"
            )
        if self.stop_after is not None and self.stop_after < 1:
            raise ValueError(f"stop_after={self.stop_after}: must be at least 1 step, or null for the whole run")
        if self.learning_rate_schedule not in ("constant", "linear"):
            raise ValueError(
                f"learning_rate_schedule={self.learning_rate_schedule}: unknown; choose one of constant, linear"
            )
        self._check_device()
        if self.algorithm_class.is_pair:
            if self.pair.direction is None or self.pair.step_rule is None:
                raise ValueError(f"algorithm={self.algorithm.name}: needs both a direction and a step_rule")
        elif self.direction is not None or self.step_rule is not None:
            setting = "direction" if self.direction is not None else "step_rule"
            raise ValueError(
                f"{setting}={getattr(self, setting)}: algorithm={self.algorithm.name} is no pair of direction and "
                "step rule and takes neither; leave it out, or choose adam_pg, npg or trpo"
            )
        if self.direction != "natural" and (self.fisher.name, self.solver) != ("exact", self.fisher.solver):
            setting = f"fisher={self.fisher.name}" if self.fisher.name != "exact" else f"solver={self.solver}"
            raise ValueError(f"{setting}: nothing here reads it; it needs direction=natural, as npg and trpo have")

    def _check_device(self) -> None:
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise ValueError(f"device={self.device}: unknown; choose cpu, cuda or cuda:<index>") from None
        if device.type not in ("cpu", "cuda"):
            raise ValueError(f"device={self.device}: not supported; choose cpu, cuda or cuda:<index>")
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise ValueError(
                f"device={self.device}: this machine has {torch.cuda.device_count()} usable GPUs; choose device=cpu"
            )

    @property
    def algorithm_class(self) -> type[Algorithm]:
        """The class behind `algorithm`."""
        return load_algorithm(self.algorithm.name)

    @property
    def critic_class(self) -> type[Critic]:
        """The class behind `critic`."""
        return load_critic(self.critic.name)

    @property
    def pair(self) -> Pair:
        """The settings that cut across algorithms."""
        return Pair(self.direction, self.step_rule, self.fisher, self.solver)

    @property
    def updates(self) -> int:
        """Number of updates; what is left of total_steps after the last whole batch is not sampled."""
        return int(self.total_steps // self.algorithm.batch_size)

    @property
    def updates_before_stop(self) -> int:
        """Number of updates that `stop_after` lets the run make."""
        if self.stop_after is None:
            return self.updates
        needed = -(-(self.stop_after - self.rollout.warmup_steps) // self.algorithm.batch_size)
        return int(min(max(needed, 0), self.updates))


def load_algorithm(name: str) -> type[Algorithm]:
    """The algorithm in `algorithms/<name>.py`. Raises ValueError."""
    return load("algorithm", name, Algorithm, f"algorithms.{name}")


def load_critic(name: str) -> type[Critic]:
    """The critic in `algorithms/critics/<name>.py`. Raises ValueError."""
    return load("critic", name, Critic, f"algorithms.critics.{name}")


def load_env(kind: str) -> type[EnvConfig]:
    """The settings of tasks in `envs/<kind>.py`; runs load the simulator of their own kind alone. Raises ValueError."""
    return load("env.kind", kind, EnvConfig, f"envs.{kind}")


def typed(composed: DictConfig) -> RunConfig:
    """Settings with their types checked.

    Raises:
        ValueError: a value out of range, in one line that names the setting.
        omegaconf.errors.OmegaConfBaseException: an unknown key or a wrong type.
    """
    schema = OmegaConf.structured(RunConfig)
    schema.algorithm = OmegaConf.structured(load_algorithm(composed.algorithm.name).Config)
    schema.critic = OmegaConf.structured(load_critic(composed.critic.name).Config)
    schema.env = OmegaConf.structured(load_env(composed.env.kind))
    schema.fisher = OmegaConf.structured(load_fisher(composed.fisher.name).Config)
    config = OmegaConf.to_object(OmegaConf.merge(schema, composed))
    assert isinstance(config, RunConfig)
    return config

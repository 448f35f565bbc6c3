"""The critic: a value network, fitted to lambda-returns once per batch, in the way of `critic_<name>.py`."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor

from algorithms.fisher.parameters import in_passes
from algorithms.parts.batch import Batch
from algorithms.parts.policy import NetworkConfig, network


@dataclass
class CriticConfig:
    """What every critic's settings contain.

    Attributes:
        name: `algorithms/critics/<name>.py`, and the file in `conf/critic/`.
        learning_rate: before the schedule.
        epochs: passes over the batch.
        minibatch_size: states per step; a smaller batch is one minibatch.
    """

    name: str = MISSING
    learning_rate: float = MISSING
    epochs: int = MISSING
    minibatch_size: int = MISSING

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"critic.learning_rate={self.learning_rate}: must be above 0")
        if self.epochs < 1 or self.minibatch_size < 1:
            raise ValueError(
                f"critic.epochs={self.epochs}, critic.minibatch_size={self.minibatch_size}: both must be at least 1"
            )


class Critic(ABC):
    """V(s), fitted by least squares to the targets V(s) + A(s, a) of `algorithms.parts.batch.gae`.

    Attributes:
        Config: the dataclass of its settings.
    """

    Config: ClassVar[type[CriticConfig]]

    def __init__(
        self,
        shape: tuple[int, ...],
        network_config: NetworkConfig,
        config: Any,
        generator: torch.Generator,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.config, self.rng, self.states_per_pass = config, rng, network_config.states_per_pass
        self.network = network(shape, 1, network_config, 1.0, generator).to(device)

    @torch.inference_mode()
    def values(self, observations: Tensor) -> Tensor:
        """V(s) for normalised observations: (B, ...) -> (B,)."""
        return in_passes(self.network, observations, self.states_per_pass).squeeze(-1)

    @abstractmethod
    def fit(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        """Minimise the mean of (V(s) - target)^2 / 2; returns what it logs, the mean loss as `critic_loss` included."""

    def state_dict(self) -> dict[str, Any]:
        """All that shapes future values and fits: a subclass adds its optimiser."""
        return {"network": self.network.state_dict(), "rng": self.rng.bit_generator.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.network.load_state_dict(state["network"])
        self.rng.bit_generator.state = state["rng"]

    def minibatches(self, batch: Batch) -> Iterator[tuple[Tensor, Tensor]]:
        """Observations and targets, every epoch in a new order."""
        for _ in range(self.config.epochs):
            order = torch.from_numpy(self.rng.permutation(len(batch))).to(batch.targets.device)
            observations, targets = batch.observations[order], batch.targets[order]
            size = self.config.minibatch_size
            yield from zip(observations.split(size), targets.split(size), strict=True)

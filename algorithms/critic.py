"""The critic every algorithm shares: a value network fitted to lambda-returns by Adam."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.batch import Batch
from algorithms.policy import NetworkConfig, mlp


@dataclass
class CriticConfig:
    """How the value network is fitted, once per batch.

    Attributes:
        learning_rate: Adam's, before the schedule.
        epochs: passes over the batch.
        minibatch_size: states per Adam step; a smaller batch is one minibatch.
    """

    learning_rate: float = 1e-3
    epochs: int = 10
    minibatch_size: int = 256

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise ValueError(f"critic.learning_rate={self.learning_rate}: must be above 0")
        if self.epochs < 1 or self.minibatch_size < 1:
            raise ValueError(
                f"critic.epochs={self.epochs}, critic.minibatch_size={self.minibatch_size}: both must be at least 1"
            )


class Critic:
    """V(s), fitted by least squares to the targets V(s) + A(s, a) of `algorithms.batch.gae`."""

    def __init__(
        self,
        n_observations: int,
        network: NetworkConfig,
        config: CriticConfig,
        generator: torch.Generator,
        rng: np.random.Generator,
        device: torch.device,
    ) -> None:
        self.config = config
        self.network = mlp([n_observations, *network.hidden, 1], network.activation, 1.0, generator).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), config.learning_rate, fused=True)
        self.rng = rng

    @torch.inference_mode()
    def values(self, observations: Tensor) -> Tensor:
        """V(s) for normalised observations: (B, n) -> (B,)."""
        result: Tensor = self.network(observations).squeeze(-1)
        return result

    def fit(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        """Minimise the mean of (V(s) - target)^2 / 2; returns the mean loss as `critic_loss`."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * lr_scale
        losses = []
        for _ in range(self.config.epochs):
            order = torch.from_numpy(self.rng.permutation(len(batch))).to(batch.targets.device)
            observations, targets = batch.observations[order], batch.targets[order]
            for s, y in zip(
                observations.split(self.config.minibatch_size), targets.split(self.config.minibatch_size), strict=True
            ):
                loss = 0.5 * torch.nn.functional.mse_loss(self.network(s).squeeze(-1), y)
                self.optimiser.zero_grad(set_to_none=True)
                loss.backward()
                self.optimiser.step()
                losses.append(loss.detach())
        return {"critic_loss": float(torch.stack(losses).mean())}

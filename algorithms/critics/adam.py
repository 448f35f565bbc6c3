"""The critic that algorithms share: minibatches of Adam."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.parts.adam import adam
from algorithms.parts.batch import Batch
from algorithms.parts.critic import Critic, CriticConfig


@dataclass(frozen=True)
class LeastSquares:
    """(1/B) sum_s (V(s) - y_s)^2 / 2, V = z of shape (B, 1)."""

    targets: Tensor

    def __call__(self, z: Tensor) -> Tensor:
        return 0.5 * torch.nn.functional.mse_loss(z.squeeze(-1), self.targets)

    def gradient(self, z: Tensor) -> Tensor:
        return (z - self.targets.unsqueeze(-1)) / len(z)


class AdamCritic(Critic):
    """V <- V - alpha m / (sqrt(v) + epsilon), Adam's moments of the minibatch's gradient (Kingma and Ba 2015)."""

    Config = CriticConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.adam = adam(self.network)

    def fit(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        losses = []
        self.adam.begin(self.config.learning_rate * lr_scale)
        for s, y in self.minibatches(batch):
            loss = LeastSquares(y)
            losses.append(loss(self.adam.step(s, loss)))
        self.adam.end()
        return {"critic_loss": float(torch.stack(losses).mean())}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimiser": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.adam.load_state_dict(state["optimiser"])

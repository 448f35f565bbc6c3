"""The critic that algorithms share: minibatches of Adam."""

from typing import Any

import torch

from algorithms.parts.batch import Batch
from algorithms.parts.critic import Critic, CriticConfig


class AdamCritic(Critic):
    """V <- V - alpha m / (sqrt(v) + epsilon), Adam's moments of the minibatch's gradient (Kingma and Ba 2015)."""

    Config = CriticConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.optimiser = torch.optim.Adam(self.network.parameters(), self.config.learning_rate, fused=True)

    def fit(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = self.config.learning_rate * lr_scale
        losses = []
        for s, y in self.minibatches(batch):
            loss = 0.5 * torch.nn.functional.mse_loss(self.network(s).squeeze(-1), y)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            losses.append(loss.detach())
        return {"critic_loss": float(torch.stack(losses).mean())}

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.optimiser.load_state_dict(state["optimiser"])

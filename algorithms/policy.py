"""The policy and critic networks every algorithm shares."""

from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.fisher.distributions import Categorical, DiagonalGaussian, Distribution
from algorithms.fisher.layers import Constant

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "identity": nn.Identity}


@dataclass
class NetworkConfig:
    """Shape and initialisation, equal for policy and critic where both have it.

    Attributes:
        hidden: widths of the hidden layers.
        activation: one of `ACTIVATIONS`.
        policy_gain: orthogonal gain of the policy's last layer; small, so that the first policy ignores the state.
        log_std: initial log standard deviation of Gaussian policies.
    """

    hidden: list[int] = field(default_factory=lambda: [64, 64])
    activation: str = "tanh"
    policy_gain: float = 0.01
    log_std: float = 0.0

    def __post_init__(self) -> None:
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"network.hidden={self.hidden}: every width must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"network.activation={self.activation}: choose one of {', '.join(ACTIVATIONS)}")


def mlp(sizes: list[int], activation: str, last_gain: float, generator: torch.Generator) -> nn.Sequential:
    """Linear layers with an activation between; orthogonal weights of gain sqrt(2), the last `last_gain`; biases 0."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        is_last = i == len(sizes) - 2
        linear = nn.Linear(n_in, n_out)
        nn.init.orthogonal_(linear.weight, last_gain if is_last else 2**0.5, generator=generator)
        nn.init.zeros_(linear.bias)
        layers += [linear] if is_last else [linear, ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


class Policy(nn.Module):
    """pi(a | s) = p(a; z(s)): a network from normalised observations (B, n) to distribution parameters z (B, K).

    Gaussian: z = (mu(s), log sigma), the standard deviation independent of the state. Categorical: z = logits.
    """

    def __init__(
        self, n_observations: int, distribution: Distribution, config: NetworkConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.distribution = distribution
        n_outputs = distribution.actions if isinstance(distribution, DiagonalGaussian) else distribution.width
        sizes = [n_observations, *config.hidden, n_outputs]
        self.network = mlp(sizes, config.activation, config.policy_gain, generator)
        self.log_std = None
        if isinstance(distribution, DiagonalGaussian):
            self.log_std = Constant(torch.full((distribution.actions,), config.log_std))

    def forward(self, observations: Tensor) -> Tensor:
        z: Tensor = self.network(observations)
        return z if self.log_std is None else torch.cat((z, self.log_std(observations)), -1)

    @torch.inference_mode()
    def act(self, observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
        """Actions for a batch of observations: sampled with the given noise, or the mode when there is none."""
        device = next(self.parameters()).device
        z = self(torch.from_numpy(observations).to(device))
        if noise is None:
            return self.distribution.mode(z).cpu().numpy()
        return self.distribution.sample(z, torch.from_numpy(noise).to(device)).cpu().numpy()


def distribution_for(n_actions: int, discrete: bool) -> Distribution:
    """The family for a task: categorical for a finite choice, Gaussian for a vector of actions."""
    return Categorical(n_actions) if discrete else DiagonalGaussian(n_actions)

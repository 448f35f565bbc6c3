"""The policy and critic networks every algorithm shares."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from algorithms.fisher.chain import chain_of
from algorithms.fisher.distributions import Categorical, DiagonalGaussian, Distribution, MultiCategorical
from algorithms.fisher.layers import Constant, OutputNetwork
from algorithms.fisher.parameters import in_passes

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU, "elu": nn.ELU, "identity": nn.Identity}

INITIALISATIONS = ("orthogonal", "uniform")


@dataclass
class NetworkConfig:
    """Shape and initialisation, equal for policy and critic where both have it.

    Attributes:
        convolutions: of images, [channels, kernel, stride] each; none for vectors.
        hidden: widths of the hidden linear layers.
        activation: one of `ACTIVATIONS`.
        initialisation: of weights: orthogonal of gain sqrt(2), biases 0; or uniform, weights and biases within
            1 / sqrt(inputs), which is what PyTorch's layers start with.
        policy_gain: gain of the policy's last layer; small, so that the first policy ignores the state.
        log_std: initial log standard deviation of Gaussian policies.
        states_per_pass: states that go through a network together where a whole batch has to; bounds the memory that
            takes, and orders its sums. null: all of them.
    """

    convolutions: list[list[int]] = field(default_factory=list)
    hidden: list[int] = field(default_factory=lambda: [64, 64])
    activation: str = "tanh"
    initialisation: str = "orthogonal"
    policy_gain: float = 0.01
    log_std: float = 0.0
    states_per_pass: int | None = None

    def __post_init__(self) -> None:
        if any(len(layer) != 3 or min(layer) < 1 for layer in self.convolutions):
            raise ValueError(
                f"network.convolutions={self.convolutions}: every layer must be [channels, kernel, stride], at least 1 "
                "each, such as [32, 8, 4]"
            )
        if any(width < 1 for width in self.hidden):
            raise ValueError(f"network.hidden={self.hidden}: every width must be at least 1")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"network.activation={self.activation}: choose one of {', '.join(ACTIVATIONS)}")
        if self.initialisation not in INITIALISATIONS:
            raise ValueError(
                f"network.initialisation={self.initialisation}: choose one of {', '.join(INITIALISATIONS)}"
            )
        if self.states_per_pass is not None and self.states_per_pass < 1:
            raise ValueError(f"network.states_per_pass={self.states_per_pass}: must be at least 1, or null for all")


class Pixels(nn.Module):
    """(bytes - mean) / deviation: (B, C, H, W), channels last in memory, which convolutions are fastest with.

    Attributes:
        mean: of every pixel, (C, H, W); 0 until `normalise_images`.
        deviation: of all of them together; 255, for numbers in [0, 1], until then.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.tensor(255.0))

    def forward(self, images: Tensor) -> Tensor:
        dtype = images.dtype if images.is_floating_point() else self.mean.dtype
        images = images.contiguous(memory_format=torch.channels_last).to(dtype)  # reordered while they are bytes
        return (images - self.mean) / self.deviation


def normalise_images(network: nn.Sequential, mean: np.ndarray, variance: np.ndarray) -> None:
    """Let a network of images see (bytes - mean) / sqrt(mean of variance), both of every pixel, (C, H, W).

    What no state changes would otherwise drown what tells states apart: in Pong over 99 % of an image's mean square.
    One deviation for all, at least 1, since many a pixel hardly ever changes.
    """
    pixels = network[0]
    assert isinstance(pixels, Pixels)
    pixels.mean.copy_(torch.from_numpy(mean))
    pixels.deviation.fill_(max(1.0, math.sqrt(variance.mean())))


def network(
    shape: tuple[int, ...], n_outputs: int, config: NetworkConfig, last_gain: float, generator: torch.Generator
) -> nn.Sequential:
    """From observations of that shape to n_outputs numbers: convolutions of images, then linear layers.

    Orthogonal weights of gain sqrt(2), the last layer's `last_gain`, and biases 0; uniform ones of gain 1, the last
    layer's `last_gain` likewise. With images of 4 x 84 x 84,
    `convolutions` [32, 8, 4], [64, 4, 2], [64, 3, 1] and `hidden` [512] it is the network of Mnih et al. (2015).

    Raises:
        ValueError: images and no convolutions, convolutions and no images, or images too small for them.
    """
    activation = ACTIVATIONS[config.activation]
    layers: list[nn.Module] = []

    def add(layer: nn.Linear | nn.Conv2d, gain: float | None = None) -> None:
        assert layer.bias is not None
        if config.initialisation == "orthogonal":
            nn.init.orthogonal_(layer.weight, math.sqrt(2) if gain is None else gain, generator=generator)
            nn.init.zeros_(layer.bias)
        else:
            bound = (1 if gain is None else gain) / math.sqrt(layer.weight[0].numel())
            for parameter in (layer.weight, layer.bias):
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
        layers.append(layer)

    if (len(shape) == 3) != bool(config.convolutions):
        right = "[[32, 8, 4], [64, 4, 2], [64, 3, 1]]" if len(shape) == 3 else "[]"
        raise ValueError(
            f"network.convolutions={config.convolutions}: does not suit observations of shape {shape}; choose {right}"
        )
    if config.convolutions:
        layers.append(Pixels(shape))
        channels, size = shape[0], shape[1:]
        for n_channels, kernel, stride in config.convolutions:
            size = tuple((n - kernel) // stride + 1 for n in size)
            if min(size) < 1:
                raise ValueError(f"network.convolutions={config.convolutions}: images of shape {shape} are too small")
            add(nn.Conv2d(channels, n_channels, kernel, stride))
            layers.append(activation())
            channels = n_channels
        layers.append(nn.Flatten())
        shape = (channels, *size)
    width = math.prod(shape)
    for n_hidden in config.hidden:
        add(nn.Linear(width, n_hidden))
        layers.append(activation())
        width = n_hidden
    add(nn.Linear(width, n_outputs), last_gain)
    return nn.Sequential(*layers)


class Policy(OutputNetwork):
    """pi(a | s) = p(a; z(s)): a network from normalised observations (B, ...) to distribution parameters z (B, K).

    Gaussian: z = (mu(s), log sigma), the standard deviation independent of the state. Else: z = logits.
    """

    def __init__(
        self, shape: tuple[int, ...], distribution: Distribution, config: NetworkConfig, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.distribution, self.states_per_pass = distribution, config.states_per_pass
        n_outputs = distribution.actions if isinstance(distribution, DiagonalGaussian) else distribution.width
        self.network = network(shape, n_outputs, config, config.policy_gain, generator)
        self.log_std = None
        if isinstance(distribution, DiagonalGaussian):
            self.log_std = Constant(torch.full((distribution.actions,), config.log_std))

    @torch.no_grad()
    def z(self, observations: Tensor) -> Tensor:
        """z of a whole batch, without a graph."""
        return in_passes(self, observations, self.states_per_pass)

    def actor(self) -> Callable[[np.ndarray, np.ndarray | None], np.ndarray]:
        """The policy as a function from observations to actions: sampled with the given noise, or without it the mode.

        It follows changes of parameters in place, but not the policy to another device or precision.
        """
        z_of, device = chain_of(self) or self, next(self.parameters()).device

        @torch.inference_mode()
        def act(observations: np.ndarray, noise: np.ndarray | None) -> np.ndarray:
            z = z_of(torch.from_numpy(observations).to(device)).cpu()
            if noise is None:
                return self.distribution.mode(z).numpy()
            return self.distribution.sample(z, torch.from_numpy(noise)).numpy()

        return act


def distribution_for(n_actions: int | tuple[int, ...], discrete: bool) -> Distribution:
    """The family for a task: categorical for a finite choice or several at once, Gaussian for a vector of actions."""
    if isinstance(n_actions, tuple):
        return MultiCategorical(n_actions)
    return Categorical(n_actions) if discrete else DiagonalGaussian(n_actions)

"""Adam (Kingma and Ba 2015): its direction from a gradient, and its steps down the losses of a network's outputs."""

from copy import deepcopy
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from algorithms.fisher.chain import chain_of
from algorithms.fisher.parameters import assign, flatten
from algorithms.parts.gradient import NonFiniteGradient, clip


class Moments:
    """m / (sqrt(v) + epsilon) of every next gradient, m and v bias-corrected (Kingma and Ba 2015, algorithm 1)."""

    def __init__(self, beta1: float, beta2: float, epsilon: float) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.state: dict[str, Tensor] = {}

    def direction(self, g: Tensor) -> Tensor:
        """The direction after this gradient, shape (d,)."""
        state = self.state
        if not state:
            state.update(m=torch.zeros_like(g), v=torch.zeros_like(g), t=torch.zeros((), dtype=torch.int64))
        state["t"] += 1
        t = int(state["t"])
        state["m"].mul_(self.beta1).add_((1 - self.beta1) * g)
        state["v"].mul_(self.beta2).add_((1 - self.beta2) * g.square())
        scale = (state["v"] / (1 - self.beta2**t)).sqrt_().add_(self.epsilon)
        return (state["m"] / (1 - self.beta1**t)).div_(scale)


class Loss(Protocol):
    """A mean over states of a function of a network's outputs z there."""

    def __call__(self, z: Tensor) -> Tensor:
        """The loss, a scalar that can be differentiated; z of shape (B, K)."""
        ...

    def gradient(self, z: Tensor) -> Tensor:
        """d loss / dz in closed form, shape (B, K)."""
        ...


class Descent(Protocol):
    """Steps of Adam down losses of a network's outputs, with betas 0.9 and 0.999. The network has them after `end`."""

    def begin(self, learning_rate: float) -> None:
        """Start from the network's parameters."""
        ...

    def step(self, inputs: Tensor, loss: Loss, max_gradient_norm: float | None = None) -> Tensor:
        """One step; returns z before it, (B, K).

        Args:
            inputs: states.
            loss: of z there.
            max_gradient_norm: the gradient is scaled down to this Euclidean norm; None: it is taken as it is.

        Raises:
            NonFiniteGradient: there was a norm to compare, and it is not finite; no step was made.
        """
        ...

    def end(self) -> None:
        """Give the network the parameters of the last step."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The moments, for a checkpoint."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        ...


def adam(network: nn.Module, epsilon: float = 1e-8) -> Descent:
    """Adam's descent for a network: by closed forms if it is a chain, else by its graph."""
    return ChainAdam(network, epsilon) if chain_of(network) else GraphAdam(network, epsilon)


class ChainAdam(Descent):
    """J^T dloss/dz by matrix products, and all parameters in one vector from `begin` to `end`."""

    def __init__(self, network: nn.Module, epsilon: float) -> None:
        self.network, self.moments = network, Moments(0.9, 0.999, epsilon)

    def begin(self, learning_rate: float) -> None:
        chain = chain_of(self.network)
        assert chain is not None
        self.learning_rate, self.theta = learning_rate, flatten(self.network)
        self.chain = chain.at(self.theta)

    def step(self, inputs: Tensor, loss: Loss, max_gradient_norm: float | None = None) -> Tensor:
        with torch.inference_mode():  # a little faster than without a graph
            linearised = self.chain.linearise(inputs)
            g = linearised.vjp(loss.gradient(linearised.z))
            if max_gradient_norm is not None:
                g = clip(g, max_gradient_norm)
        self.theta.sub_(self.moments.direction(g), alpha=self.learning_rate)
        return linearised.z

    def end(self) -> None:
        assign(self.network, self.theta)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.moments.state)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.moments.state = deepcopy(state)


class GraphAdam(Descent):
    """`torch.autograd` and `torch.optim`, on the network's parameters as they are."""

    def __init__(self, network: nn.Module, epsilon: float) -> None:
        self.network = network
        self.optimiser = torch.optim.Adam(network.parameters(), eps=epsilon, fused=True)

    def begin(self, learning_rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate

    def step(self, inputs: Tensor, loss: Loss, max_gradient_norm: float | None = None) -> Tensor:
        z: Tensor = self.network(inputs)
        value = loss(z)
        self.optimiser.zero_grad(set_to_none=True)
        value.backward()
        if max_gradient_norm is not None:
            norm = nn.utils.clip_grad_norm_(self.network.parameters(), max_gradient_norm, foreach=True)
            if not torch.isfinite(norm):
                raise NonFiniteGradient
        self.optimiser.step()
        return z.detach()

    def end(self) -> None:
        pass

    def state_dict(self) -> dict[str, Any]:
        return self.optimiser.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimiser.load_state_dict(state)

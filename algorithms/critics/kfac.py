"""ACKTR's critic: Gauss-Newton by K-FAC, in a trust region of its own (Wu et al. 2017, section 3.1)."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from algorithms.fisher.distributions import UnitGaussian
from algorithms.fisher.factors import Factors, factors_of, kronecker_factors
from algorithms.fisher.metric import Model, backward_from
from algorithms.fisher.parameters import assign, flatten
from algorithms.parts.batch import Batch
from algorithms.parts.critic import Critic, CriticConfig
from algorithms.parts.kfac_step import KFACConfig, KFACStep


@dataclass
class KFACCriticConfig(KFACConfig, CriticConfig):
    """Settings of the K-FAC critic: those of every critic, and those of its steps."""

    def __post_init__(self) -> None:
        CriticConfig.__post_init__(self)
        self.check("critic")


class KFACCritic(Critic):
    """Steps of the policy's own kind, with V(s) as the mean of a Gaussian of variance 1.

    Its Fisher matrix is the Gauss-Newton matrix of the least-squares loss, and delta bounds half the mean squared
    change of V, in normalised rewards, that the quadratic model predicts for one step.
    """

    Config = KFACCriticConfig

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.step = KFACStep(self.config, self.network)

    def fit(self, batch: Batch, lr_scale: float) -> dict[str, float]:
        losses, steps = [], []
        for s, y in self.minibatches(batch):
            theta = flatten(self.network)
            model = Model(self.network, theta, s, UnitGaussian(), y)
            loss, g, factors = self._whole(model) if self.config.states is None else self._sampled(model)
            step = self.step(theta, g, self.config.learning_rate * lr_scale, factors)
            if step.change is not None:
                assign(self.network, theta + step.change)
            losses.append(loss)
            steps.append(step)

        def total(metric: str) -> float:
            return sum(step.metrics.get(metric, 0.0) for step in steps)

        return {
            "critic_loss": float(torch.stack(losses).mean()),
            "critic_step_size": total("step_size") / len(steps),
            "critic_steps_failed": float(sum(step.change is None for step in steps)),
            "critic_factor_jitters": total("factor_jitters"),
            "critic_factors_skipped": total("factors_skipped"),
        }

    def _whole(self, model: Model) -> tuple[Tensor, Tensor, list[Factors]]:
        """Loss, its negative gradient and the factors from one pass over the same states.

        With one output, delta serves both: its outer products are G, and error * delta is the loss's own.
        """
        z, passes = model.forward()
        error = model.actions.unsqueeze(-1) - z.detach()
        backward = list(backward_from(z, passes, [torch.ones_like(z)]))
        g = torch.cat([p.layer.vector(p.mean_gradient(error * delta)) for p, delta in backward])
        return 0.5 * error.square().mean(), g, factors_of(backward)

    def _sampled(self, model: Model) -> tuple[Tensor, Tensor, list[Factors]]:
        """Loss and its negative gradient, and the factors on some of the states."""
        theta = model.theta.clone().requires_grad_()
        loss = 0.5 * torch.nn.functional.mse_loss(model.function(theta).squeeze(-1), model.actions)
        (gradient,) = torch.autograd.grad(loss, theta)
        return (
            loss.detach(),
            -gradient,
            kronecker_factors(model.subsample(self.config.states, self.rng), None, self.rng),
        )

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"step": self.step.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.step.load_state_dict(state["step"])

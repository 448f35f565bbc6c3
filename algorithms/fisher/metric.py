"""What every Fisher matrix and approximation is to its users: a symmetric positive semi-definite linear operator."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import torch
from omegaconf import MISSING
from torch import Tensor, nn

from algorithms.fisher import solvers
from algorithms.fisher.chain import Linearised, chain_of
from algorithms.fisher.distributions import Distribution
from algorithms.fisher.layers import LayerPass, forward_with_passes
from algorithms.fisher.parameters import as_function
from algorithms.fisher.solvers import Solution

PRECONDITIONERS = ("diagonal", "kfac", "ekfac")
"""Metrics with an inverse that is cheap enough to apply in every iteration of a solve."""

Backward = tuple[LayerPass, Tensor]
"""A layer, and the gradient at its output for every state."""


@dataclass(frozen=True)
class Model:
    """Distributions p(a; z(s)) on a batch of states: where a Fisher matrix is taken.

    Attributes:
        module: the network, from states to z.
        theta: its parameters, shape (d,). Their precision is the matrix's.
        inputs: states, B in the first axis.
        distribution: the family that z parametrises.
        actions: outcomes that were observed, B in the first axis; only the empirical Fisher looks at them.
        states_per_pass: states that go through the network together where all have to and no graph joins them; None:
            all of them.
    """

    module: nn.Module
    theta: Tensor
    inputs: Tensor
    distribution: Distribution
    actions: Tensor
    states_per_pass: int | None = None

    def __len__(self) -> int:
        return len(self.inputs)

    def function(self, theta: Tensor) -> Tensor:
        """z on these states as a function of the parameters."""
        return as_function(self.module, self.inputs)(theta)

    @cached_property
    def linearised(self) -> Linearised | None:
        """z and dz/dtheta on these states in closed form; None if the module is no chain or is to see them in parts."""
        chain = chain_of(self.module)
        in_parts = self.states_per_pass is not None and self.states_per_pass < len(self)
        if chain is None or in_parts or self.inputs.dim() != 2:
            return None
        return chain.at(self.theta).linearise(self.inputs.to(self.theta.dtype))

    def subsample(self, states: int | None, rng: np.random.Generator) -> "Model":
        """The model on that many of its states, drawn without replacement; on all of them when there are fewer."""
        if states is None or states >= len(self):
            return self
        chosen = torch.from_numpy(np.sort(rng.choice(len(self), states, replace=False)))
        return self.select(chosen.to(self.inputs.device))

    def select(self, states: Tensor) -> "Model":
        """The model on the states of these indices."""
        return replace(self, inputs=self.inputs[states], actions=self.actions[states])

    def forward(self) -> tuple[Tensor, list[LayerPass]]:
        """z with its graph, and the pass of every layer. Raises TypeError for a layer of an unknown type."""
        return forward_with_passes(self.module, self.theta, self.inputs)

    def backward(self, samples: int | None = None, rng: np.random.Generator | None = None) -> Iterator[Backward]:
        """For every layer, gradients delta of log p whose outer products have the Fisher matrix as their expectation.

        Without `samples`, one pass per vector l_i of the closed form M = sum_i l_i l_i^T; with it, one per action drawn
        from the model, over sqrt(samples). `Constant` layers take the closed form either way: it costs next to nothing,
        and the block of a Gaussian's log sigma is 2 I without sampling noise.

        Args:
            samples: actions per state; None: the expectation in closed form.
            rng: draws the actions; needed only for that.

        Raises:
            TypeError: a layer of an unknown type.
        """
        z, passes = self.forward()
        closed_form = list(self.distribution.fisher_factors(z.detach()))
        if samples is None:
            yield from backward_from(z, passes, closed_form)
        else:
            assert rng is not None
            scores = self.sampled_scores(z.detach(), samples, rng)
            yield from backward_from(z, [p for p in passes if not p.layer.is_constant], scores)
            yield from backward_from(z, [p for p in passes if p.layer.is_constant], closed_form)

    def sampled_scores(self, z: Tensor, samples: int, rng: np.random.Generator) -> list[Tensor]:
        """d log p(a; z) / dz / sqrt(samples), shape (B, K), for that many actions per state drawn from p."""
        draws = (torch.from_numpy(self.distribution.noise(rng, len(z))).to(z) for _ in range(samples))
        actions = (self.distribution.sample(z, noise) for noise in draws)
        return [self.distribution.score(z, a) / samples**0.5 for a in actions]


def backward_from(z: Tensor, passes: list[LayerPass], factors: list[Tensor]) -> Iterator[Backward]:
    """Every layer with J^T l at its output, for every vector l of shape (B, K)."""
    outputs = [p.output for p in passes]
    for factor in factors if passes else ():
        yield from zip(passes, torch.autograd.grad(z, outputs, factor, retain_graph=True), strict=True)


@dataclass
class FisherConfig:
    """Which Fisher matrix a natural direction inverts, and how; a metric with settings of its own derives from this.

    Attributes:
        name: the metric's file name, here and in `conf/fisher/`.
        solver: how (F + lambda I) x = g is solved, one of the metric's `solvers`; the setting `solver` overrides it.
        states: states of the batch that F is taken over, drawn anew for every update and fixed within it; null: all.
        iterations: solver `cg`: products per solve at most.
        tolerance: solver `cg`: relative residual at which a solve stops.
        preconditioner: solver `cg`: name of a metric whose inverse preconditions the solve, or null.
    """

    name: str = MISSING
    solver: str = MISSING
    states: int | None = None
    iterations: int = MISSING
    tolerance: float = MISSING
    preconditioner: str | None = None

    def __post_init__(self) -> None:
        if self.states is not None and self.states < 1:
            raise ValueError(f"fisher.states={self.states}: must be at least 1, or null for the whole batch")
        if self.iterations < 1:
            raise ValueError(f"fisher.iterations={self.iterations}: must be at least 1")
        if not self.tolerance >= 0:
            raise ValueError(f"fisher.tolerance={self.tolerance}: must not be negative")
        if self.preconditioner is not None and self.preconditioner not in PRECONDITIONERS:
            raise ValueError(
                f"fisher.preconditioner={self.preconditioner}: choose null or one of {', '.join(PRECONDITIONERS)}"
            )


@dataclass
class SampledConfig(FisherConfig):
    """Settings of a metric that can take the expectation over actions by sampling.

    Attributes:
        samples: actions drawn per state; null: the expectation in closed form.
    """

    samples: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.samples is not None and self.samples < 1:
            raise ValueError(f"fisher.samples={self.samples}: must be at least 1, or null for the closed form")


class Metric(ABC):
    """A symmetric positive semi-definite matrix F over theta, shape (d, d).

    A new one is a subclass in `algorithms/fisher/metrics/<name>.py` and its values in `conf/fisher/<name>.yaml`.
    Randomness (sub-sample, sampled actions, sketch) is drawn when a metric is made, so it is one matrix from then on.

    Attributes:
        Config: the dataclass of its settings.
        solvers: names of the solvers that apply to it.
        theta: where F is taken; gives dimension, precision and device.
    """

    Config: ClassVar[type[FisherConfig]] = FisherConfig
    solvers: ClassVar[tuple[str, ...]] = ("cg", "cholesky")
    theta: Tensor

    @classmethod
    @abstractmethod
    def at(cls, model: Model, config: Any, rng: np.random.Generator) -> Self:
        """The metric of a model. Raises TypeError for a network with a layer that the metric does not know."""

    @abstractmethod
    def product(self, v: Tensor) -> Tensor:
        """F v for a vector (d,) or, column by column, a block of vectors (d, k)."""

    @abstractmethod
    def diagonal(self) -> Tensor:
        """The diagonal of F, shape (d,)."""

    @property
    def dim(self) -> int:
        """d."""
        return len(self.theta)

    def damped_product(self, v: Tensor, damping: float) -> Tensor:
        """What stands for F + lambda I, times v: that sum itself, unless a metric says otherwise."""
        return self.product(v) + damping * v

    def inverse_product(self, b: Tensor, damping: float) -> Solution:
        """x with damped_product(x) = b, for b of shape (d,) or (d, k)."""
        return solvers.conjugate_gradient(lambda v: self.damped_product(v, damping), b, 10 * self.dim, 1e-12)

    def quadratic(self, v: Tensor) -> Tensor:
        """v^T F v for one vector: a scalar."""
        return v.dot(self.product(v))

    def trace(self) -> float:
        """The trace tr F."""
        return float(self.diagonal().sum())

    def dense(self, damping: float = 0.0) -> Tensor:
        """F written out, or `damped_product` with it, shape (d, d)."""
        eye = torch.eye(self.dim, dtype=self.theta.dtype, device=self.theta.device)
        return self.damped_product(eye, damping) if damping else self.product(eye)

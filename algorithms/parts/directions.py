"""Where to go: the directions an update can follow, from a gradient g to a vector x of the same shape.

A direction is called once per update, in order; what it remembers between updates is in `state`.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.metric import FisherConfig, Model, SampledConfig
from algorithms.fisher.solvers import Outcome, check_dense, cholesky, conjugate_gradient
from algorithms.parts.adam import Moments
from algorithms.parts.algorithm import load_fisher
from algorithms.parts.surrogate import Surrogate


@dataclass(frozen=True)
class Direction:
    """x, shape (d,), how its computation ended, and what it logs."""

    x: Tensor
    outcome: Outcome = Outcome.CONVERGED
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def usable(self) -> bool:
        return self.outcome in (Outcome.CONVERGED, Outcome.CAPPED)


class DirectionRule(Protocol):
    """Turns a local problem into a direction of ascent."""

    state: dict[str, Tensor]

    def __call__(self, problem: Surrogate, g: Tensor) -> Direction:
        """The direction at problem.theta for the gradient g, shape (d,)."""
        ...


class Gradient:
    """x = g: steepest ascent in the Euclidean metric of the parameters."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate, g: Tensor) -> Direction:
        return Direction(g)


class Adam(Moments):
    """x = m / (sqrt(v) + epsilon), bias-corrected moments of g (Kingma and Ba 2015, algorithm 1)."""

    def __call__(self, problem: Surrogate, g: Tensor) -> Direction:
        return Direction(self.direction(g))


class RMSProp:
    """x = g / (sqrt(v) + epsilon), v the running mean of g^2 (Tieleman and Hinton 2012)."""

    def __init__(self, alpha: float, epsilon: float) -> None:
        self.alpha, self.epsilon = alpha, epsilon
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate, g: Tensor) -> Direction:
        v = self.alpha * self.state.get("v", torch.zeros_like(g)) + (1 - self.alpha) * g.square()
        self.state["v"] = v
        return Direction(g / (v.sqrt() + self.epsilon))


class Natural:
    """x = (F + lambda I)^-1 g: steepest ascent in the Fisher metric (Amari 1998), F and the solver as chosen.

    F is taken anew at every update, on states and with actions that are drawn once for it.

    Raises:
        ValueError: the solver or the preconditioner cannot serve this metric or number of parameters.
    """

    def __init__(self, fisher: FisherConfig, solver: str, damping: float, dim: int, rng: np.random.Generator) -> None:
        self.config, self.solver, self.damping, self.rng = fisher, solver, damping, rng
        self.metric = load_fisher(fisher.name)
        self.state: dict[str, Tensor] = {}
        if solver not in self.metric.solvers:
            raise ValueError(
                f"solver={solver}: does not apply to fisher={fisher.name}; choose one of "
                f"{', '.join(self.metric.solvers)}"
            )
        if solver == "cholesky":
            check_dense(dim)

    def __call__(self, problem: Surrogate, g: Tensor) -> Direction:
        c, damping = self.config, self.damping
        model = problem.model.subsample(c.states, self.rng)
        whole = model is problem.model and self.metric is type(problem.fisher)
        f = problem.fisher if whole else self.metric.at(model, c, self.rng)
        match self.solver:
            case "cg":
                product, inverse = partial(f.damped_product, damping=damping), self._preconditioner(model)
                solution = conjugate_gradient(product, g, c.iterations, c.tolerance, inverse)
            case "cholesky":
                solution = cholesky(lambda: f.dense(damping), g)
            case _:  # factored, woodbury: the metric's own
                solution = f.inverse_product(g, damping)
        metrics = {"solver_iterations": float(solution.iterations), "solver_residual": solution.residual}
        return Direction(solution.x, solution.outcome, metrics)

    def _preconditioner(self, model: Model) -> Callable[[Tensor], Tensor] | None:
        if self.config.preconditioner is None:
            return None
        closed_form = SampledConfig(self.config.preconditioner, iterations=1, tolerance=0.0)
        p = load_fisher(self.config.preconditioner).at(model, closed_form, self.rng)
        return lambda r: p.inverse_product(r, self.damping).x

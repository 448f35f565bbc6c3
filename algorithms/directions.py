"""Where to go: the directions an update can follow, from the policy gradient g to a vector x of the same shape.

A direction is called once per update, in order; what it remembers between updates is in `state`.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from algorithms.fisher.solvers import Outcome, conjugate_gradient
from algorithms.surrogate import Surrogate


@dataclass(frozen=True)
class Direction:
    """x, shape (d,), how its computation ended, and what it logs."""

    x: Tensor
    outcome: Outcome = Outcome.CONVERGED
    metrics: dict[str, float] = field(default_factory=dict)


class DirectionRule(Protocol):
    """Turns a local problem into a direction of ascent."""

    state: dict[str, Tensor]

    def __call__(self, problem: Surrogate) -> Direction:
        """The direction at problem.theta."""
        ...


class Gradient:
    """x = g: steepest ascent in the Euclidean metric of the parameters."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate) -> Direction:
        return Direction(problem.gradient)


class Adam:
    """x = m / (sqrt(v) + epsilon), bias-corrected moments of g (Kingma and Ba 2015, algorithm 1)."""

    def __init__(self, beta1: float, beta2: float, epsilon: float) -> None:
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate) -> Direction:
        g, state = problem.gradient, self.state
        if not state:
            state.update(m=torch.zeros_like(g), v=torch.zeros_like(g), t=torch.zeros((), dtype=torch.int64))
        state["t"] = state["t"] + 1
        state["m"] = self.beta1 * state["m"] + (1 - self.beta1) * g
        state["v"] = self.beta2 * state["v"] + (1 - self.beta2) * g.square()
        m = state["m"] / (1 - self.beta1 ** int(state["t"]))
        v = state["v"] / (1 - self.beta2 ** int(state["t"]))
        return Direction(m / (v.sqrt() + self.epsilon))


class RMSProp:
    """x = g / (sqrt(v) + epsilon), v the running mean of g^2 (Tieleman and Hinton 2012)."""

    def __init__(self, alpha: float, epsilon: float) -> None:
        self.alpha, self.epsilon = alpha, epsilon
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate) -> Direction:
        g = problem.gradient
        v = self.alpha * self.state.get("v", torch.zeros_like(g)) + (1 - self.alpha) * g.square()
        self.state["v"] = v
        return Direction(g / (v.sqrt() + self.epsilon))


class Natural:
    """x = (F + lambda I)^-1 g by conjugate gradients: steepest ascent in the Fisher metric (Amari 1998)."""

    def __init__(self, damping: float, iterations: int, tolerance: float) -> None:
        self.damping, self.iterations, self.tolerance = damping, iterations, tolerance
        self.state: dict[str, Tensor] = {}

    def __call__(self, problem: Surrogate) -> Direction:
        fisher = problem.fisher
        solution = conjugate_gradient(
            lambda v: fisher.product(v) + self.damping * v, problem.gradient, self.iterations, self.tolerance
        )
        metrics = {"cg_iterations": float(solution.iterations), "cg_residual": solution.residual}
        return Direction(solution.x, solution.outcome, metrics)

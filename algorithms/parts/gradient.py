"""The gradient that an update follows: the policy gradient, an entropy bonus and clipping if they are asked for."""

import math
from dataclasses import dataclass

import torch
from omegaconf import MISSING
from torch import Tensor

from algorithms.parts.algorithm import AlgorithmConfig
from algorithms.parts.surrogate import Surrogate


class NonFiniteGradient(ArithmeticError):
    """A gradient that cannot be followed."""


@dataclass
class GradientConfig(AlgorithmConfig):
    """What is done to the gradient before an algorithm follows it.

    Attributes:
        entropy_coefficient: beta, weight of the entropy bonus; 0: none.
        max_gradient_norm: the gradient is scaled down to this Euclidean norm; null: it stays as it is.
    """

    entropy_coefficient: float = MISSING
    max_gradient_norm: float | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.entropy_coefficient >= 0:
            raise ValueError(f"algorithm.entropy_coefficient={self.entropy_coefficient}: must not be negative")
        if self.max_gradient_norm is not None and not self.max_gradient_norm > 0:
            raise ValueError(f"algorithm.max_gradient_norm={self.max_gradient_norm}: must be above 0, or null for none")


def ascent_gradient(problem: Surrogate, config: GradientConfig) -> Tensor:
    """g + beta grad H, scaled down to the largest norm: shape (d,). Raises NonFiniteGradient."""
    g = problem.gradient_with_bonus(config.entropy_coefficient)
    if not torch.isfinite(g).all():
        raise NonFiniteGradient
    return g if config.max_gradient_norm is None else clip(g, config.max_gradient_norm)


def clip(g: Tensor, max_norm: float) -> Tensor:
    """g min(1, max_norm / ||g||) (Pascanu et al. 2013, algorithm 1). Raises NonFiniteGradient."""
    norm = float(torch.linalg.vector_norm(g))
    if not math.isfinite(norm):
        raise NonFiniteGradient
    return g if norm <= max_norm else (max_norm / norm) * g

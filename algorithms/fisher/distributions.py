"""Families of output distributions: all that depends on which family a network parametrises.

A network maps a state to z, the parameters of one distribution; batches put states in the first axis. B is the number
of states, K the width of z, A the number of action dimensions (Gaussian), of actions (categorical) or of choices
(several of them).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class Distribution(Protocol):
    """One family: sampling, log-density, entropy, divergence and Fisher matrix in the coordinates z."""

    @property
    def width(self) -> int:
        """Width K of z."""
        ...

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        """Randomness that `sample` turns into one action per step, drawn from one stream: shape (steps, ...)."""
        ...

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        """Actions a ~ p(a; z), a deterministic function of z and noise."""
        ...

    def mode(self, z: Tensor) -> Tensor:
        """Most likely action of each state."""
        ...

    def log_prob(self, z: Tensor, actions: Tensor) -> Tensor:
        """log p(a; z), shape (B,), nats."""
        ...

    def score(self, z: Tensor, actions: Tensor) -> Tensor:
        """d log p(a; z) / dz, shape (B, K)."""
        ...

    def entropy(self, z: Tensor) -> Tensor:
        """-E log p(a; z), shape (B,), nats."""
        ...

    def entropy_gradient(self, z: Tensor) -> Tensor:
        """d entropy / dz, shape (B, K)."""
        ...

    def kl(self, z_old: Tensor, z_new: Tensor) -> Tensor:
        """KL(p(.; z_old) || p(.; z_new)), shape (B,), nats, in float64 and without cancellation for close z."""
        ...

    def fisher_product(self, z: Tensor, v: Tensor) -> Tensor:
        """M v, M = E_a[(d log p / dz)(d log p / dz)^T] the Fisher matrix in z, one per state; shape (B, K)."""
        ...

    def fisher_factors(self, z: Tensor) -> Iterator[Tensor]:
        """Vectors l of shape (B, K) with sum_i l_i l_i^T = M, state by state."""
        ...


@dataclass(frozen=True)
class DiagonalGaussian:
    """Normal with diagonal covariance; z = (mu, log sigma), K = 2A. M = diag(1/sigma^2, 2)."""

    actions: int

    @property
    def width(self) -> int:
        return 2 * self.actions

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.standard_normal((steps, self.actions), dtype=np.float32)

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        mean, log_std = z.chunk(2, -1)
        return torch.addcmul(mean, log_std.exp(), noise)

    def mode(self, z: Tensor) -> Tensor:
        return z.chunk(2, -1)[0]

    def log_prob(self, z: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = z.chunk(2, -1)
        standardised = (actions - mean) * (-log_std).exp()
        return -0.5 * standardised.square().sum(-1) - log_std.sum(-1) - 0.5 * self.actions * math.log(2 * math.pi)

    def score(self, z: Tensor, actions: Tensor) -> Tensor:
        mean, log_std = z.chunk(2, -1)
        inverse_std = (-log_std).exp()
        standardised = (actions - mean) * inverse_std
        return torch.cat((standardised * inverse_std, standardised.square() - 1), -1)

    def entropy(self, z: Tensor) -> Tensor:
        return z.chunk(2, -1)[1].sum(-1) + 0.5 * self.actions * (1 + math.log(2 * math.pi))

    def entropy_gradient(self, z: Tensor) -> Tensor:
        gradient = torch.zeros_like(z)
        gradient[:, self.actions :] = 1.0
        return gradient

    def kl(self, z_old: Tensor, z_new: Tensor) -> Tensor:
        (mean_old, log_std_old), (mean_new, log_std_new) = z_old.double().chunk(2, -1), z_new.double().chunk(2, -1)
        twice_log_ratio = 2 * (log_std_old - log_std_new)
        standardised = (mean_old - mean_new) * (-log_std_new).exp()
        return 0.5 * (torch.expm1(twice_log_ratio) - twice_log_ratio + standardised.square()).sum(-1)

    def fisher_product(self, z: Tensor, v: Tensor) -> Tensor:
        log_std = z.chunk(2, -1)[1]
        mean_part, log_std_part = v.chunk(2, -1)
        return torch.cat((mean_part * (-2 * log_std).exp(), 2 * log_std_part), -1)

    def fisher_factors(self, z: Tensor) -> Iterator[Tensor]:
        inverse_std = (-z.chunk(2, -1)[1]).exp()
        # Pairs of opposite sign: mean and log sigma do not mix, and the 2 of log sigma is 1 + 1, free of rounding.
        for a in range(self.actions):
            for sign in (1.0, -1.0):
                factor = torch.zeros_like(z)
                factor[:, a] = sign * math.sqrt(0.5) * inverse_std[:, a]
                factor[:, self.actions + a] = 1.0
                yield factor


@dataclass(frozen=True)
class Categorical:
    """Finite choice; z = logits, K = A. M = diag(p) - p p^T with p = softmax(z)."""

    actions: int

    @property
    def width(self) -> int:
        return self.actions

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.random(steps, dtype=np.float32)

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        # Inverse transform: the number of cumulated probabilities at or below the noise. The last one is left out,
        # since rounding can leave it below 1.
        cumulated = z.softmax(-1).cumsum(-1)[..., :-1]
        return (cumulated <= noise.unsqueeze(-1)).sum(-1)

    def mode(self, z: Tensor) -> Tensor:
        return z.argmax(-1)

    def log_prob(self, z: Tensor, actions: Tensor) -> Tensor:
        return z.log_softmax(-1).gather(-1, actions.unsqueeze(-1)).squeeze(-1)

    def score(self, z: Tensor, actions: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(actions, self.actions) - z.softmax(-1)

    def entropy(self, z: Tensor) -> Tensor:
        log_p = z.log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)

    def entropy_gradient(self, z: Tensor) -> Tensor:
        # -p (log p + H)
        log_p = z.log_softmax(-1)
        p = log_p.exp()
        return p * ((p * log_p).sum(-1, keepdim=True) - log_p)

    def kl(self, z_old: Tensor, z_new: Tensor) -> Tensor:
        log_p, log_q = z_old.double().log_softmax(-1), z_new.double().log_softmax(-1)
        # sum p (e^d - 1) = 0 for d = log q - log p, so every term can be made non-negative and none cancels.
        difference = log_q - log_p
        return (log_p.exp() * (torch.expm1(difference) - difference)).sum(-1)

    def fisher_product(self, z: Tensor, v: Tensor) -> Tensor:
        p = z.softmax(-1)
        return p * (v - (p * v).sum(-1, keepdim=True))

    def fisher_factors(self, z: Tensor) -> Iterator[Tensor]:
        p = z.softmax(-1)
        for a in range(self.actions):
            factor = -p
            factor[:, a] += 1
            yield factor * p[:, a : a + 1].sqrt()


@dataclass(frozen=True)
class MultiCategorical:
    """Independent finite choices, the i-th among sizes[i]; z = the logits of all, K = sum(sizes). M is block-diagonal.

    Actions and noise have shape (B, A). With one choice all numbers are those of `Categorical`.
    """

    sizes: tuple[int, ...]

    @property
    def width(self) -> int:
        return sum(self.sizes)

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.random((steps, len(self.sizes)), dtype=np.float32)

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        return torch.stack([c.sample(part, u) for c, part, u in self._choices(z, noise.unbind(-1))], -1)

    def mode(self, z: Tensor) -> Tensor:
        return torch.stack([c.mode(part) for c, part in self._choices(z)], -1)

    def log_prob(self, z: Tensor, actions: Tensor) -> Tensor:
        return torch.stack([c.log_prob(part, a) for c, part, a in self._choices(z, actions.unbind(-1))]).sum(0)

    def score(self, z: Tensor, actions: Tensor) -> Tensor:
        return torch.cat([c.score(part, a) for c, part, a in self._choices(z, actions.unbind(-1))], -1)

    def entropy(self, z: Tensor) -> Tensor:
        return torch.stack([c.entropy(part) for c, part in self._choices(z)]).sum(0)

    def entropy_gradient(self, z: Tensor) -> Tensor:
        return torch.cat([c.entropy_gradient(part) for c, part in self._choices(z)], -1)

    def kl(self, z_old: Tensor, z_new: Tensor) -> Tensor:
        return torch.stack([c.kl(old, new) for c, old, new in self._choices(z_old, self._split(z_new))]).sum(0)

    def fisher_product(self, z: Tensor, v: Tensor) -> Tensor:
        return torch.cat([c.fisher_product(part, w) for c, part, w in self._choices(z, self._split(v))], -1)

    def fisher_factors(self, z: Tensor) -> Iterator[Tensor]:
        start = 0
        for c, part in self._choices(z):
            for factor in c.fisher_factors(part):
                yield torch.nn.functional.pad(factor, (start, self.width - start - c.width))
            start += c.width

    def _split(self, vectors: Tensor) -> tuple[Tensor, ...]:
        parts: tuple[Tensor, ...] = vectors.split(self.sizes, -1)
        return parts

    def _choices(self, z: Tensor, *more: tuple[Tensor, ...]) -> Iterator[tuple[Any, ...]]:
        """Every choice with its logits and its part of what else is given."""
        return zip(map(Categorical, self.sizes), self._split(z), *more, strict=True)


@dataclass(frozen=True)
class UnitGaussian:
    """Normal with variance 1; z = mu, K = 1. M = 1: the Fisher matrix is the Gauss-Newton matrix of least squares."""

    @property
    def width(self) -> int:
        return 1

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return rng.standard_normal((steps, 1), dtype=np.float32)

    def sample(self, z: Tensor, noise: Tensor) -> Tensor:
        return z + noise

    def mode(self, z: Tensor) -> Tensor:
        return z

    def log_prob(self, z: Tensor, actions: Tensor) -> Tensor:
        return -0.5 * (actions - z).square().sum(-1) - 0.5 * math.log(2 * math.pi)

    def score(self, z: Tensor, actions: Tensor) -> Tensor:
        return actions - z

    def entropy(self, z: Tensor) -> Tensor:
        return torch.full_like(z[:, 0], 0.5 * (1 + math.log(2 * math.pi)))

    def entropy_gradient(self, z: Tensor) -> Tensor:
        return torch.zeros_like(z)

    def kl(self, z_old: Tensor, z_new: Tensor) -> Tensor:
        return 0.5 * (z_new.double() - z_old.double()).square().sum(-1)

    def fisher_product(self, z: Tensor, v: Tensor) -> Tensor:
        return v

    def fisher_factors(self, z: Tensor) -> Iterator[Tensor]:
        yield torch.ones_like(z)

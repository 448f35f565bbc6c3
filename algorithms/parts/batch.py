"""What an update sees: one batch of transitions with their advantages and value targets."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor


@dataclass
class AdvantageConfig:
    """Generalised advantage estimation, shared by all algorithms.

    Attributes:
        gae_lambda: bias-variance parameter lambda, in [0, 1].
        normalise: scale the batch's advantages to mean 0 and standard deviation 1.
        bootstrap_truncation: add the value of the state at which a time limit cut an episode off. False treats a time
            limit as a terminal state; it exists to measure what that costs.
    """

    gae_lambda: float = 0.95
    normalise: bool = True
    bootstrap_truncation: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.gae_lambda <= 1:
            raise ValueError(f"advantage.gae_lambda={self.gae_lambda}: must lie in [0, 1]")


@dataclass(frozen=True)
class Batch:
    """One batch, time-major and flattened: entry t * num_envs + n is step t of environment n.

    Attributes:
        observations: normalised, shape (B, ...); images are bytes.
        actions: as sampled, before any clipping to the action space; (B, A) or (B,).
        advantages: normalised; (B,).
        values: the critic's V(s) before this update; (B,).
        targets: what the critic regresses on, V(s) + A(s, a) before normalisation; (B,).
        num_envs: number of environments.
    """

    observations: Tensor
    actions: Tensor
    advantages: Tensor
    values: Tensor
    targets: Tensor
    num_envs: int

    def __len__(self) -> int:
        return len(self.observations)

    def select(self, states: Tensor | slice) -> "Batch":
        """The transitions of these indices, flattened as they stand there."""
        columns = ("observations", "actions", "advantages", "values", "targets")
        return replace(self, **{name: getattr(self, name)[states] for name in columns})

    def of_environments(self, which: Tensor) -> "Batch":
        """The transitions of the environments of these indices."""
        indices = torch.arange(len(self)).view(-1, self.num_envs)[:, which].flatten()
        return replace(self.select(indices.to(self.observations.device)), num_envs=len(which))

    def split(self, size: int | None) -> Iterator["Batch"]:
        """The batch in parts of at most `size` transitions, in order; None: in one."""
        if size is None or size >= len(self):
            yield self
        else:
            yield from (self.select(slice(start, start + size)) for start in range(0, len(self), size))


def gae(
    rewards: np.ndarray,
    values: np.ndarray,
    next_values: np.ndarray,
    terminated: np.ndarray,
    done: np.ndarray,
    gamma: float,
    gae_lambda: float,
) -> np.ndarray:
    """Generalised advantage estimates (Schulman et al. 2016, equation 16), all arrays (T, N).

        delta_t = r_t + gamma (1 - terminated_t) V(s_{t+1}) - V(s_t)
        A_t = delta_t + gamma lambda (1 - done_t) A_{t+1}

    Args:
        rewards: r_t.
        values: V(s_t).
        next_values: V of the state that step t led to: at the end of an episode its final state, not the first one of
            the next episode.
        terminated: the task ended there: nothing follows, V = 0.
        done: the episode ended, terminated or cut off by a limit: the sum stops.
        gamma: discount.
        gae_lambda: lambda.
    """
    deltas = rewards + gamma * np.where(terminated, 0.0, next_values) - values
    advantages: np.ndarray = np.zeros_like(deltas)
    following = np.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        following = advantages[t] = deltas[t] + gamma * gae_lambda * np.where(done[t], 0.0, following)
    return advantages


def normalise_advantages(advantages: np.ndarray) -> np.ndarray:
    """(A - mean) / std over the batch. Constant advantages carry no signal and become exactly 0, not rounding noise."""
    centred: np.ndarray = advantages - advantages.mean()
    std = float(centred.std())
    if std <= 1e-12 * (1 + np.abs(advantages).max()):
        return np.zeros_like(advantages)
    return centred / std


def explained_variance(batch: Batch) -> float | None:
    """1 - Var(target - V) / Var(target): how much of the targets the critic foresaw. None when they do not vary."""
    variance = float(batch.targets.double().var(correction=0))
    if variance == 0:
        return None
    return 1 - float((batch.targets - batch.values).double().var(correction=0)) / variance


def to_tensors(device: torch.device, num_envs: int, **arrays: np.ndarray | Tensor) -> Batch:
    """A `Batch` from arrays of shape (T, N, ...)."""
    tensors = {name: torch.as_tensor(a, device=device).flatten(0, 1) for name, a in arrays.items()}
    return Batch(num_envs=num_envs, **tensors)

"""Running normalisation of observations and rewards: frozen while a batch is collected, updated once by the batch."""

from typing import Any

import numpy as np

EPSILON = 1e-8


class RunningMoments:
    """Mean and variance of all samples seen, in float64 (Chan, Golub and LeVeque 1983)."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.mean, self.variance, self.count = np.zeros(shape), np.ones(shape), 0

    def update(self, samples: np.ndarray) -> None:
        """Add samples along the first axis: (n, *shape)."""
        n, mean, variance = len(samples), samples.mean(0, dtype=np.float64), samples.var(0, dtype=np.float64)
        total = self.count + n
        shift = mean - self.mean
        squares = self.variance * self.count + variance * n + shift**2 * (self.count * n / total)
        self.mean = self.mean + shift * (n / total)
        self.variance, self.count = squares / total, total

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"mean": np.asarray(self.mean), "variance": np.asarray(self.variance), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.mean, self.variance, self.count = state["mean"], state["variance"], state["count"]


IMAGES = 256
"""Images whose moments are taken together, which bounds the memory."""


class ObservationNormaliser:
    """(o - mean) / std, clipped to +-clip. When not enabled: vectors in float32.

    Images stay the bytes they are, since the networks scale them; when enabled, by the moments of the first update,
    which this only keeps (`algorithms.parts.policy.normalise_images`).
    """

    def __init__(self, shape: tuple[int, ...], enabled: bool, clip: float) -> None:
        self._is_image = len(shape) > 1
        self.moments, self.enabled, self.clip = RunningMoments(shape if enabled else ()), enabled, clip
        self._freeze()

    def __call__(self, observations: np.ndarray) -> np.ndarray:
        """Normalised observations, same shape; float32, or images themselves."""
        if self._is_image:
            return observations
        if not self.enabled:
            return observations.astype(np.float32)
        normalised = (observations - self._mean) * self._inverse_std
        return np.clip(normalised, -self.clip, self.clip).astype(np.float32)

    @property
    def moves(self) -> bool:
        """Whether an update changes how the same observations are normalised; images' moments are fixed."""
        return self.enabled and not self._is_image

    def update(self, observations: np.ndarray) -> None:
        """Add a batch of raw observations, shape (..., *shape)."""
        if not self.enabled:
            return
        samples = observations.reshape(-1, *self.moments.mean.shape)
        if not self._is_image:
            self.moments.update(samples)
            self._freeze()
        elif self.moments.count == 0:
            for start in range(0, len(samples), IMAGES):
                self.moments.update(samples[start : start + IMAGES])

    def _freeze(self) -> None:
        self._mean, self._inverse_std = self.moments.mean, 1 / np.sqrt(self.moments.variance + EPSILON)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return self.moments.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.moments.load_state_dict(state)
        self._freeze()

    @property
    def image_moments(self) -> RunningMoments | None:
        """What the networks are to normalise images by; None where they are not to, and for vectors."""
        return self.moments if self.enabled and self._is_image else None


REWARDS = ("normalised", "sign", "raw")


class RewardNormaliser:
    """Rewards as agents learn from them, of one of three kinds.

    normalised: r / std(R), clipped to +-clip, R the running discounted sum R <- gamma R + r of each environment. The
    scale that Engstrom et al. (2020) list among PPO's code-level choices; rewards are not shifted, so their sign keeps
    its meaning. sign: -1, 0 or 1 (Mnih et al. 2015). raw: r.
    """

    def __init__(self, num_envs: int, gamma: float, kind: str, clip: float) -> None:
        self.moments, self.kind, self.clip = RunningMoments(()), kind, clip
        self.gamma, self.discounted = gamma, np.zeros(num_envs)

    def __call__(self, rewards: np.ndarray) -> np.ndarray:
        """Rewards for learning, same shape."""
        if self.kind == "sign":
            return np.asarray(np.sign(rewards))
        if self.kind == "raw":
            return rewards
        return np.clip(rewards / np.sqrt(self.moments.variance + EPSILON), -self.clip, self.clip)

    def update(self, rewards: np.ndarray, done: np.ndarray) -> None:
        """Add a batch of raw rewards, shape (T, N); done marks the steps that ended an episode."""
        if self.kind != "normalised":
            return
        returns = np.empty_like(rewards)
        for t, (reward, ended) in enumerate(zip(rewards, done, strict=True)):
            returns[t] = self.discounted = self.gamma * self.discounted + reward
            self.discounted = np.where(ended, 0.0, self.discounted)
        self.moments.update(returns.reshape(-1))

    def restart(self) -> None:
        """Forget unfinished sums: every environment was reset."""
        self.discounted = np.zeros_like(self.discounted)

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        return {"moments": self.moments.state_dict(), "discounted": self.discounted}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.moments.load_state_dict(state["moments"])
        self.discounted = state["discounted"]

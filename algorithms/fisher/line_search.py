"""Searches for the length of a step along a fixed direction."""

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Backtracking:
    """How a backtracking search ended.

    Attributes:
        accepted: whether a trial met both conditions; if not, no step is to be taken.
        scale: the last trial's multiple of the full step.
        backtracks: shortenings made.
        gain: improvement of the objective at the last trial.
        kl: divergence at the last trial, nats.
    """

    accepted: bool
    scale: float
    backtracks: int
    gain: float
    kl: float


def backtrack(
    trial: Callable[[float], tuple[float, float]], delta: float, ratio: float, max_backtracks: int
) -> Backtracking:
    """Shorten a step until the divergence is at most delta and the objective improves.

    Scales 1, ratio, ratio^2, ... (Schulman et al. 2015, appendix C). A trial that is not finite fails.

    Args:
        trial: scale -> (gain of the objective, divergence) at that multiple of the full step.
        delta: largest divergence, nats.
        ratio: factor from trial to trial, in (0, 1).
        max_backtracks: shortenings after the full step.
    """
    for backtracks in range(max_backtracks + 1):
        scale = ratio**backtracks
        gain, kl = trial(scale)
        if kl <= delta and gain > 0:
            return Backtracking(True, scale, backtracks, gain, kl)
    return Backtracking(False, scale, backtracks, gain, kl)


def scale_to_divergence(
    divergence: Callable[[float], float], delta: float, start: float, tolerance: float = 1e-3, max_trials: int = 60
) -> float:
    """Largest scale found with (1 - tolerance) delta <= divergence(scale) <= delta, by bracketing and bisection.

    Bisection is on the logarithm of the scale; divergences that are not finite count as too large. If rounding keeps
    the target out of reach, the last scale known to stay below delta is returned (0 when none was found).

    Args:
        divergence: scale -> divergence in nats; continuous, 0 at 0.
        delta: target, nats.
        start: first scale to try, positive.
        tolerance: relative tolerance on the divergence.
        max_trials: evaluations at most.
    """
    below, above = 0.0, math.inf
    scale = start
    for _ in range(max_trials):
        value = divergence(scale)
        if value <= delta:
            below = scale
            if value >= (1 - tolerance) * delta:
                break
        else:
            above = scale
        if below == 0:
            scale = above / 2
        elif above == math.inf:
            scale = below * 2
        else:
            scale = math.sqrt(below * above)
    return below

"""How far to go: rules that turn a direction x into the change of parameters that an update makes.

`normalised`, `to_divergence` and `line_search` measure x with the exact Fisher matrix, F + lambda I, whatever Fisher
matrix the direction came from, so that direction and length are not confounded.
"""

import math
from dataclasses import dataclass, field

from torch import Tensor

from algorithms.fisher.line_search import backtrack, scale_to_divergence
from algorithms.parts.surrogate import Surrogate


class CurvatureError(ArithmeticError):
    """x^T (F + lambda I) x gives no length. `outcome` says which way: `negative_curvature` or `non_finite`."""

    def __init__(self, curvature: float) -> None:
        super().__init__(f"x^T (F + lambda I) x = {curvature}")
        self.outcome = "negative_curvature" if math.isfinite(curvature) else "non_finite"


@dataclass(frozen=True)
class Step:
    """The change of theta (None: the rule rejects every length it tried) and what the rule logs."""

    change: Tensor | None
    metrics: dict[str, float] = field(default_factory=dict)


def learning_rate_step(x: Tensor, learning_rate: float) -> Step:
    """alpha x with a given alpha."""
    return Step(learning_rate * x, {"step_size": learning_rate})


def normalised(problem: Surrogate, x: Tensor, delta: float, damping: float) -> Step:
    """beta x, beta = sqrt(2 delta / x^T (F + lambda I) x): the quadratic model of the divergence equals delta.

    (Schulman et al. 2015, appendix C; Rajeswaran et al. 2017.)

    Raises:
        CurvatureError: the model has no positive finite curvature along x.
    """
    curvature = float(problem.fisher.quadratic(x) + damping * x.dot(x))
    if not (math.isfinite(curvature) and curvature > 0):
        raise CurvatureError(curvature)
    beta = math.sqrt(2 * delta / curvature)
    return Step(beta * x, {"step_size": beta})


def to_divergence(problem: Surrogate, x: Tensor, delta: float, damping: float) -> Step:
    """beta x with the exact mean divergence D(theta + beta x) = delta, by bisection from the normalised step.

    Raises:
        CurvatureError: as for `normalised`.
    """
    full = normalised(problem, x, delta, damping)
    assert full.change is not None
    change = full.change
    scale = scale_to_divergence(lambda s: problem.evaluate(problem.theta + s * change)[1], delta, 1.0)
    return Step(scale * change, {"step_size": scale * full.metrics["step_size"]})


def line_search(
    problem: Surrogate, full: Step, delta: float, ratio: float, max_backtracks: int, entropy_coefficient: float = 0.0
) -> Step:
    """The longest of full, ratio full, ratio^2 full, ... with D <= delta and L > L(theta_old); none: rejected.

    (Schulman et al. 2015, appendix C.) With an entropy bonus in the gradient it is in L, too: a step up L + beta H need
    not raise L.
    """
    assert full.change is not None
    change = full.change

    def trial(scale: float) -> tuple[float, float]:
        return problem.evaluate(problem.theta + scale * change, entropy_coefficient)

    search = backtrack(trial, delta, ratio, max_backtracks)
    metrics = {
        "step_size": search.scale * full.metrics["step_size"] if search.accepted else 0.0,
        "backtracks": float(search.backtracks),
        "surrogate_gain": search.gain,
    }
    return Step(search.scale * change if search.accepted else None, metrics)

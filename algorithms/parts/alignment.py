"""The alignment error: how far an update went astray from a natural gradient, its own batch's or that of another.

`docs/alignment.md` says what each of the two rewards.
"""

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.parameters import flatten
from algorithms.fisher.solvers import Outcome, conjugate_gradient, shifted_conjugate_gradient
from algorithms.parts.algorithm import Update
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.states import geometry_of, ratio, trace_estimate
from algorithms.parts.surrogate import Surrogate

Row = dict[str, float | int | bool | str | None]

RHOS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Dampings lambda = rho tr(F) / d of the alignment error at a snapshot."""
SNAPSHOT_TOLERANCE = 1e-3
"""Relative residual of its solves, at most. The smaller rho, the more of n lies where g has next to nothing, and so
does a small residual: at 1e-2, e at rho = 0.001 was off by up to 0.15 in first updates, at 1e-3 by up to 0.02."""


def own_alignment(local: Surrogate, g: Tensor, config: DiagnosticsConfig, trace: float, change: Tensor) -> Row:
    """Conditioning of F, from the Lanczos coefficients of the solve, and the alignment error of the change."""
    damping = config.rho * trace / len(g)
    metric_product = partial(local.fisher.damped_product, damping=damping)
    natural = conjugate_gradient(metric_product, g, config.max_iterations, config.tolerance)
    largest = natural.largest_eigenvalue - damping
    return {
        "alignment_error": alignment_error(change.to(g.dtype), natural.x, metric_product) if change.any() else None,
        "alignment_rho": config.rho,
        "alignment_damping": damping,
        "alignment_outcome": natural.outcome.value,
        "alignment_residual": natural.residual,
        "alignment_cg_iterations": natural.iterations,
        "lambda_max": largest,
        "condition_number": natural.largest_eigenvalue / damping,
        "effective_rank": ratio(trace, largest),
    }


def heldout_alignment(problem: Surrogate, config: DiagnosticsConfig, rng: np.random.Generator) -> Row:
    """The alignment error of a step with a batch that it has not seen, and how well that batch knows the direction.

    `alignment_noise` is e between the natural gradients of the two halves of the environments, each with the gradient
    and the Fisher matrix of its own half, in the metric of the whole; lambda is that of the whole throughout.

    Args:
        problem: the second batch, at theta_old; its policy now holds the new parameters.
        config: what to measure.
        rng: draws the actions that `trace_samples` asks for.
    """
    row: Row = {"heldout_states": len(problem.batch)}
    trace = trace_estimate(problem, config, rng).mean
    if not problem.gradient.any() or trace == 0:
        return row
    damping = config.rho * trace / len(problem.theta)
    parts = [problem]
    if problem.batch.num_envs > 1:
        parts += map(problem.of_environments, torch.arange(problem.batch.num_envs).tensor_split(2))
    metrics = [partial(geometry_of(part, config).fisher.damped_product, damping=damping) for part in parts]
    naturals = [
        conjugate_gradient(metric, part.gradient, config.max_iterations, config.tolerance)
        for metric, part in zip(metrics, parts, strict=True)
    ]
    whole, halves = naturals[0].x, [n.x for n in naturals[1:]]
    if halves:
        row["alignment_noise"] = alignment_error(halves[0], halves[1], metrics[0])
    change = flatten(problem.policy).double() - problem.theta.double()
    if change.any():
        row["alignment_error_heldout"] = alignment_error(change.to(whole.dtype), whole, metrics[0])
    worst = next((n.outcome for n in naturals if n.outcome is not Outcome.CONVERGED), naturals[0].outcome)
    row["alignment_heldout_outcome"] = worst.value
    row["alignment_heldout_residual"] = max(n.residual for n in naturals)
    return row


def alignment_curve(
    problem: Surrogate, update: Update, config: DiagnosticsConfig, rng: np.random.Generator
) -> list[Row]:
    """The alignment error of one update at every damping in `RHOS`: rows of `alignment.parquet`.

    F and g are the same for all, so that one Krylov space serves every solve. It is made in float64: in float32, small
    dampings take twice the products, and the recursion may say converged where it is not. Arguments as for `measure`.
    """
    g, fisher = problem.gradient.double(), geometry_of(problem, config).fisher64
    change = flatten(problem.policy).double() - problem.theta.double()
    mean_eigenvalue = trace_estimate(problem, config, rng).mean / len(g)
    if not g.any() or mean_eigenvalue == 0:
        return [{"rho": rho} for rho in RHOS]
    dampings = [rho * mean_eigenvalue for rho in RHOS]
    tolerance = min(config.tolerance, SNAPSHOT_TOLERANCE)
    naturals = shifted_conjugate_gradient(fisher.product, g, dampings, config.max_iterations, tolerance)
    rows: list[Row] = []
    for rho, damping, natural in zip(RHOS, dampings, naturals, strict=True):
        metric_product = partial(fisher.damped_product, damping=damping)
        rows.append(
            {
                "rho": rho,
                "damping": damping,
                "rho_own": ratio(update.damping, mean_eigenvalue),
                "alignment_error": alignment_error(change, natural.x, metric_product) if change.any() else None,
                "outcome": natural.outcome.value,
                "residual": natural.residual,
                "iterations": natural.iterations,
            }
        )
    return rows


def alignment_error(change: Tensor, natural: Tensor, metric_product: Callable[[Tensor], Tensor]) -> float:
    r"""e = 1 - <change, n> / (|change| |n|) in the metric G: 0 along the natural gradient n, 1 orthogonal, 2 against.

    <u, v> = u^T G v, G = F + lambda I. This project's own definition. Both vectors are scaled to unit length first, so
    that e does not depend on their size and small steps do not underflow. NaN if either vector is not finite or has
    no positive length in G.

    Args:
        change: what the update did, shape (d,).
        natural: n, close to G^-1 g.
        metric_product: v -> G v.
    """
    change, natural = _unit(change), _unit(natural)
    g_natural = metric_product(natural)
    squared_change, squared_natural = float(change.dot(metric_product(change))), float(natural.dot(g_natural))
    if not (squared_change > 0 and squared_natural > 0):
        return math.nan
    return 1 - float(change.dot(g_natural)) / math.sqrt(squared_change * squared_natural)


def _unit(v: Tensor) -> Tensor:
    unit: Tensor = v.double() / v.double().norm()
    return unit.to(v.dtype)

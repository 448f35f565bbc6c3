"""The KPIs of one update: what it did, measured on its own batch with the geometry at the old parameters.

Nothing here changes a parameter, and what is drawn comes from a random stream of its own: a run is the same with and
without its diagnostics. `docs/diagnostics.md` lists every column with formula and unit.
"""

import numpy as np
from torch import Tensor

from algorithms.fisher.parameters import flatten
from algorithms.parts.algorithm import Outcome, Update
from algorithms.parts.alignment import Row, own_alignment
from algorithms.parts.batch import explained_variance
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.states import geometry_of, ratio, trace_estimate
from algorithms.parts.surrogate import Surrogate

SMALLEST_KL = 1e-12
"""Below this divergence the quadratic-model error is rounding noise and stays null."""


def measure(
    problem: Surrogate,
    update: Update,
    config: DiagnosticsConfig,
    index: int,
    rng: np.random.Generator,
    renormalised: Tensor | None = None,
) -> Row:
    """The KPIs of one update: those of every row, and those of the intervals in `config` where they are due.

    Args:
        problem: the surrogate problem the update was given; its policy now holds the new parameters.
        update: what the algorithm reported.
        config: what to measure.
        index: number of updates before this one.
        rng: draws the actions that `trace_samples` asks for.
        renormalised: the batch's observations as the next batch will normalise them; None: no differently.
    """
    theta, policy = flatten(problem.policy), problem.policy
    change = theta.double() - problem.theta.double()
    stepped = update.outcome is Outcome.STEPPED
    distribution = policy.distribution
    kl = float(distribution.kl(problem.z, policy.z(problem.batch.observations)).mean()) if stepped else 0.0
    row: Row = {
        "kl": kl,
        "fisher_trace": None,
        "alignment_error": None,
        "quadratic_error": None,
        "step_accepted": update.outcome is not Outcome.REJECTED,
        "kl_total": kl if renormalised is None else float(distribution.kl(problem.z, policy.z(renormalised)).mean()),
        "outcome": update.outcome.value,
        "step_norm": float(change.norm()),
        "entropy": float(distribution.entropy(problem.z).mean()),
        "explained_variance": explained_variance(problem.batch),
    }
    if config.measures_all(index) or index % config.trace_interval == 0:
        trace = trace_estimate(problem, config, rng)
        row |= {
            "fisher_trace": trace.mean,
            "fisher_trace_se": trace.standard_error,
            "fisher_trace_split": trace.split,
            "diagnostics_states": trace.states,
            "rho_own": ratio(update.damping, trace.mean / len(problem.theta)),
        }
    if config.measures_all(index):
        g, local = problem.gradient, geometry_of(problem, config)
        row |= {"gradient_norm": float(g.norm()), "geometry_states": len(local.batch)}
        if g.any() and trace.mean != 0:
            row |= own_alignment(local, g, config, trace.mean, change)
        if change.any():
            row["quadratic_error"] = _quadratic_error(local, theta, change)
    return row


def _quadratic_error(problem: Surrogate, theta: Tensor, change: Tensor) -> float | None:
    """q = |D - change^T F change / 2| / D with networks in float64 too: in float32, q of small steps is noise."""
    kl = problem.evaluate(theta.double())[1]
    if kl < SMALLEST_KL:  # not so for NaN, which gives a NaN error
        return None
    return abs(kl - 0.5 * float(problem.fisher64.quadratic(change))) / kl

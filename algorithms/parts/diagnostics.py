"""The KPIs of one update: what it did, measured on its own batch with the geometry at the old parameters.

Nothing here changes a parameter, and what is drawn comes from a random stream of its own: a run is the same with and
without its diagnostics. `docs/diagnostics.md` lists every column with formula and unit.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.parameters import flatten
from algorithms.fisher.solvers import conjugate_gradient, shifted_conjugate_gradient
from algorithms.fisher.trace import fisher_trace
from algorithms.parts.algorithm import Outcome, Update
from algorithms.parts.batch import Batch, explained_variance
from algorithms.parts.surrogate import Surrogate

Row = dict[str, float | int | bool | str | None]

SMALLEST_KL = 1e-12
"""Below this divergence the quadratic-model error is rounding noise and stays null."""
RHOS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Dampings lambda = rho tr(F) / d of the alignment error at a snapshot."""
SNAPSHOT_TOLERANCE = 1e-3
"""Relative residual of its solves, at most. The smaller rho, the more of n lies where g has next to nothing, and so
does a small residual: at 1e-2, e at rho = 0.001 was off by up to 0.15 in first updates, at 1e-3 by up to 0.02."""


@dataclass
class DiagnosticsConfig:
    """What is measured how often.

    Attributes:
        interval: everything is measured at the first update and then at every interval-th.
        trace_interval: the Fisher trace alone, which is cheap, also at every trace_interval-th.
        states: states that the Fisher trace is averaged over, the same number for every algorithm; a smaller batch
            gives all it has.
        geometry_states: states that F is taken over for the alignment error, the conditioning and the quadratic-model
            error, chosen as for the trace; null: the whole batch.
        trace_samples: actions drawn per state for the Fisher trace; null: the expectation over actions in closed form.
        snapshots: updates at which the alignment error is measured for every damping in `RHOS`: evenly spread from the
            first to the last, which are both among them when there is more than one; 0: none.
        rho: damping of the alignment error's metric, lambda = rho tr(F) / d.
        tolerance: relative residual to which the natural gradient of the alignment error is solved; at snapshots
            `SNAPSHOT_TOLERANCE` where that is smaller.
        max_iterations: products at most for that, or for a snapshot; the residual reached is logged.
    """

    interval: int = 80
    trace_interval: int = 10
    states: int = 1024
    geometry_states: int | None = None
    trace_samples: int | None = None
    snapshots: int = 0
    rho: float = 0.1
    tolerance: float = 1e-2
    max_iterations: int = 1000

    def __post_init__(self) -> None:
        for setting in ("interval", "trace_interval", "states", "max_iterations"):
            if getattr(self, setting) < 1:
                raise ValueError(f"diagnostics.{setting}={getattr(self, setting)}: must be at least 1")
        if self.trace_samples is not None and self.trace_samples < 1:
            raise ValueError(
                f"diagnostics.trace_samples={self.trace_samples}: must be at least 1, or null for the closed form"
            )
        if self.geometry_states is not None and self.geometry_states < 1:
            raise ValueError(
                f"diagnostics.geometry_states={self.geometry_states}: must be at least 1, or null for the whole batch"
            )
        if self.snapshots < 0:
            raise ValueError(f"diagnostics.snapshots={self.snapshots}: must not be negative")
        for setting in ("rho", "tolerance"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"diagnostics.{setting}={getattr(self, setting)}: must be above 0")

    def snapshot_updates(self, updates: int) -> set[int]:
        """Indices of the snapshots in a run of that many updates."""
        return set(np.linspace(0, updates - 1, self.snapshots).round().astype(int).tolist())


def measure(problem: Surrogate, update: Update, config: DiagnosticsConfig, index: int, rng: np.random.Generator) -> Row:
    """The KPIs of one update: those of every row, and those of the intervals in `config` where they are due.

    Args:
        problem: the surrogate problem the update was given; its policy now holds the new parameters.
        update: what the algorithm reported.
        config: what to measure.
        index: number of updates before this one.
        rng: draws the actions that `trace_samples` asks for.
    """
    theta = flatten(problem.policy)
    change = theta.double() - problem.theta.double()
    stepped = update.outcome is Outcome.STEPPED
    distribution = problem.policy.distribution
    kl = float(distribution.kl(problem.z, problem.policy.z(problem.batch.observations)).mean()) if stepped else 0.0
    row: Row = {
        "kl": kl,
        "fisher_trace": None,
        "alignment_error": None,
        "quadratic_error": None,
        "step_accepted": update.outcome is not Outcome.REJECTED,
        "outcome": update.outcome.value,
        "step_norm": float(change.norm()),
        "entropy": float(distribution.entropy(problem.z).mean()),
        "explained_variance": explained_variance(problem.batch),
    }
    everything = index % config.interval == 0
    if everything or index % config.trace_interval == 0:
        trace = trace_estimate(problem, config, rng)
        row |= {
            "fisher_trace": trace.mean,
            "fisher_trace_se": trace.standard_error,
            "fisher_trace_split": trace.split,
            "diagnostics_states": trace.states,
            "rho_own": _ratio(update.damping, trace.mean / len(problem.theta)),
        }
    if everything:
        g, local = problem.gradient, _local(problem, config)
        row |= {"gradient_norm": float(g.norm()), "geometry_states": len(local.batch)}
        if g.any() and trace.mean != 0:
            row |= _alignment(local, g, config, trace.mean, change)
        if change.any():
            row["quadratic_error"] = _quadratic_error(local, theta, change)
    return row


def _local(problem: Surrogate, config: DiagnosticsConfig) -> Surrogate:
    """The problem on the states that F is taken over."""
    if config.geometry_states is None or config.geometry_states >= len(problem.batch):
        return problem
    return problem.on(_spread(problem.batch, config.geometry_states).flatten())


def _spread(batch: Batch, states: int) -> Tensor:
    """Indices of about so many states, evenly spaced in time, equally many of each environment: (times, num_envs)."""
    length = len(batch) // batch.num_envs
    times = np.linspace(0, length - 1, min(length, max(1, states // batch.num_envs))).round().astype(int)
    indices = torch.arange(len(batch), device=batch.observations.device).view(length, batch.num_envs)
    return indices[torch.from_numpy(times)]


def _quadratic_error(problem: Surrogate, theta: Tensor, change: Tensor) -> float | None:
    """q = |D - change^T F change / 2| / D with networks in float64 too: in float32, q of small steps is noise."""
    kl = problem.evaluate(theta.double())[1]
    if kl < SMALLEST_KL:  # not so for NaN, which gives a NaN error
        return None
    return abs(kl - 0.5 * float(problem.fisher64.quadratic(change))) / kl


@dataclass(frozen=True)
class TraceEstimate:
    """tr F as the mean of per-state traces.

    Attributes:
        mean: over `states` states.
        standard_error: of `mean`, over states and actions; None with a single environment.
        split: log(tau_1 / tau_2), tau_1 and tau_2 from the first and second half of the environments: what sampling
            alone does to log tau, in units of log. None with a single environment or where a half has no trace at all.
        states: how many.
    """

    mean: float
    standard_error: float | None
    split: float | None
    states: int


def trace_estimate(problem: Surrogate, config: DiagnosticsConfig, rng: np.random.Generator) -> TraceEstimate:
    """Fisher trace at theta_old over states evenly spaced in time, equally many of each environment.

    States of one trajectory depend on each other and environments do not, so the standard error is that of the mean of
    N independent environments: the standard deviation of their traces over sqrt(N).
    """
    batch = problem.batch
    n, chosen = batch.num_envs, _spread(batch, config.states)
    per_state = fisher_trace(problem.model.select(chosen.flatten()), config.trace_samples, rng).double()
    per_env = per_state.view(-1, n).mean(0)
    mean, states = float(per_env.mean()), len(per_state)
    if n == 1:
        return TraceEstimate(mean, None, None, states)
    one, other = (float(half.mean()) for half in per_env.tensor_split(2))
    ratio = _ratio(one, other)
    return TraceEstimate(mean, float(per_env.std()) / math.sqrt(n), math.log(ratio) if ratio else None, states)


def _alignment(local: Surrogate, g: Tensor, config: DiagnosticsConfig, trace: float, change: Tensor) -> Row:
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
        "effective_rank": _ratio(trace, largest),
    }


def alignment_curve(
    problem: Surrogate, update: Update, config: DiagnosticsConfig, rng: np.random.Generator
) -> list[Row]:
    """The alignment error of one update at every damping in `RHOS`: rows of `alignment.parquet`.

    F and g are the same for all, so that one Krylov space serves every solve. It is made in float64: in float32, small
    dampings take twice the products, and the recursion may say converged where it is not. Arguments as for `measure`.
    """
    g, fisher = problem.gradient.double(), _local(problem, config).fisher64
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
                "rho_own": _ratio(update.damping, mean_eigenvalue),
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


def _ratio(a: float | None, b: float) -> float | None:
    """Quotient a / b; None without a, and where b is 0, as the trace of a policy that has become deterministic is."""
    return None if a is None or b == 0 else a / b

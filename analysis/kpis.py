"""KPIs of a run as tables show them, and what they have to do with its outcome.

The first update is made by a policy that has learned nothing and by an optimiser without a past, so alignment errors
are taken over the measurements after it, and over no fewer than `FEWEST`. σ_τ is taken after a burn-in and without the
part that sampling noise alone would give. A published cell of format 2 has no updates: its errors are taken from the
curve after the first measured bin, and it has no σ_τ here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.cells import Cell
from analysis.condensed import Condensed
from analysis.curves import Floats
from analysis.geometry import Record, noise_floor, trace_stability
from analysis.statistics import student_quantile

FEWEST = 3
"""Fewest measurements that a mean alignment error is given for."""
BURN_IN = 0.1
"""Share of a run's steps before the Fisher traces that σ_τ is made of."""
EARLY = 0.2
"""Share of a run's steps that an early KPI is taken over."""
ERRORS = ("alignment_error", "alignment_error_heldout", "alignment_noise")
MIN_RANKED = 5
"""Fewest pairs that a rank correlation is given for."""
KPIS = ("kl_per_env_step", "alignment_error", "trace_excess")
"""What is held against the outcome; the first by its logarithm."""


def steady(run: Condensed) -> Record:
    """Alignment errors after the first update, how many there are, and σ_τ without its noise; None where unmeasured."""
    record: Record = {}
    for name in ERRORS:
        values = _later(run, name)
        record[name] = float(values.mean()) if len(values) >= FEWEST else None
        record[f"{name}_measurements"] = len(values)
    return record | {"alignment_error_unsolved": _unsolved(run)} | _trace(run)


def _unsolved(run: Condensed) -> int:
    """How many of these errors are against a natural gradient that was not solved to its tolerance."""
    if run.updates is None:
        return run.counts["alignment_error_unsolved"]
    updates = run.updates
    later = (updates.outcome == "stepped") & (np.arange(len(updates.outcome)) > 0)
    return int((updates.columns["alignment_error"].where(later).measured & ~updates.solved).sum())


def _later(run: Condensed, name: str) -> Floats:
    """Alignment errors of accepted updates after the first update; of a cell without updates, by bin."""
    if run.updates is not None:
        updates = run.updates
        later = (updates.outcome == "stepped") & (np.arange(len(updates.outcome)) > 0)
        return updates.columns[name].where(later).usable
    if name not in run.curves:
        return np.empty(0)
    curve = run.curves[name]
    measured = np.flatnonzero(curve.measurements > 0)[1:]
    values = curve.values[measured]
    return np.asarray(values[np.isfinite(values)])


def _trace(run: Condensed) -> Record:
    """Noise floor of σ_τ and √(σ_τ² − floor²), 0 at the floor."""
    none: Record = dict.fromkeys(("trace_floor", "trace_excess"))
    if run.updates is None:
        return none
    steps = run.updates.env_steps
    late = steps > BURN_IN * steps[-1]
    trace = run.updates.columns["fisher_trace"].where(late)
    usable = trace.measured & np.isfinite(trace.values) & (trace.values > 0)
    stability, _ = trace_stability(steps[usable], np.log(trace.values[usable]))
    floor = noise_floor(run.updates.columns["fisher_trace_split"].where(late).usable)
    if stability is None or floor is None:
        return none
    return {"trace_floor": floor, "trace_excess": float(np.sqrt(max(stability**2 - floor**2, 0.0)))}


def delta_of(cells: Iterable[Cell]) -> float | None:
    """The KL per step, nats, that these runs aim at or stay below; None where the update has none, or they differ."""
    found = {_delta(cell) for cell in cells if cell.settings}
    return found.pop() if len(found) == 1 else None


def _delta(cell: Cell) -> float | None:
    delta = cell.settings.get("algorithm.delta")
    without = cell.settings.get("algorithm.step_rule") in ("lr",)
    return None if without or not isinstance(delta, int | float) else float(delta)


def early_kl(run: Condensed) -> float | None:
    """Mean log KL per step over the first `EARLY` of a run's steps; None without a positive one."""
    curve = run.curves["kl"]
    values = curve.values[curve.steps <= EARLY * run.env_steps]
    values = values[np.isfinite(values) & (values > 0)]
    return float(np.log(values).mean()) if values.size else None


def rank_correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's ρ, ties by their mean rank; None with fewer than `MIN_RANKED` pairs or without variation."""
    if len(x) < MIN_RANKED or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return float(np.corrcoef(_ranks(np.asarray(x)), _ranks(np.asarray(y)))[0, 1])


def _ranks(values: Floats) -> Floats:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[place])


@dataclass(frozen=True)
class MixedModel:
    """y = X b + u_task + ε: coefficients with their standard errors and 95 % intervals, and both deviations."""

    coefficients: Floats
    errors: Floats
    low: Floats
    high: Floats
    task_deviation: float
    residual_deviation: float


def mixed_model(x: Floats, y: Floats, tasks: Sequence[str]) -> MixedModel | None:
    """Fit a model with a random intercept of each task by restricted maximum likelihood.

    Args:
        x: regressors, (runs, p), a column of ones among them.
        y: outcome, (runs,).
        tasks: of every run, (runs,).

    Returns None where there are no more runs than parameters, or the regressors depend on each other. Intervals are by
    Student's t with (runs − p) degrees of freedom.
    """
    runs, p = x.shape
    names, task = np.unique(np.asarray(tasks), return_inverse=True)
    if runs <= p + len(names) - 1 or np.linalg.matrix_rank(x) < p:
        return None
    sizes = np.bincount(task)

    def whitened(log_ratio: float) -> tuple[Floats, Floats, float]:
        """Both sides without their correlation within tasks, and log det V; the ratio is of variances."""
        ratio = np.exp(log_ratio)
        kept = 1 - 1 / np.sqrt(1 + sizes * ratio)
        means_x = np.stack([np.bincount(task, column) / sizes for column in x.T], axis=1)
        means_y = np.bincount(task, y) / sizes
        return (
            x - (kept[:, None] * means_x)[task],
            y - (kept * means_y)[task],
            float(np.log(1 + sizes * ratio).sum()),
        )

    def criterion(log_ratio: float) -> float:
        a, b, log_det = whitened(log_ratio)
        gram = a.T @ a
        residual = b - a @ np.linalg.solve(gram, a.T @ b)
        return float((runs - p) * np.log(residual @ residual) + log_det + np.linalg.slogdet(gram)[1])

    grid = np.linspace(-14, 8, 89)
    best = int(np.argmin([criterion(at) for at in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    for _ in range(40):
        third = (high - low) / 3
        low, high = (low, high - third) if criterion(low + third) < criterion(high - third) else (low + third, high)
    a, b, _ = whitened((low + high) / 2)
    inverse = np.linalg.inv(a.T @ a)
    coefficients = inverse @ a.T @ b
    variance = float(((b - a @ coefficients) ** 2).sum()) / (runs - p)
    errors = np.sqrt(variance * np.diag(inverse))
    reach = student_quantile(0.975, runs - p) * errors
    return MixedModel(
        coefficients,
        errors,
        coefficients - reach,
        coefficients + reach,
        float(np.sqrt(variance * np.exp((low + high) / 2))),
        float(np.sqrt(variance)),
    )

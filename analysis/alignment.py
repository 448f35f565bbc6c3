"""e(ρ): the alignment error of runs against the damping of the metric it is measured in, from their snapshots.

The first snapshot is the first update, made by a policy that has learned nothing and by an optimiser without a past.
A run is therefore summed up by its later snapshots, and the first one is kept beside them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analysis.curves import Column, Floats

SMALLEST = 1e-30
"""Damping ρ that can be drawn; the largest is its inverse."""


@dataclass(frozen=True)
class Snapshots:
    """The rows of a run's ``alignment.parquet``: one per snapshot and damping, each array (n,)."""

    env_steps: Floats
    rho: Floats
    error: Column
    rho_own: Column
    converged: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """How many snapshots."""
        return len(np.unique(self.env_steps))

    @property
    def later(self) -> NDArray[np.bool_]:
        """The rows after the first snapshot; all, if there is but one."""
        return self.first if self.first.all() else ~self.first

    @property
    def first(self) -> NDArray[np.bool_]:
        """The rows of the first snapshot."""
        return np.asarray(self.env_steps == self.env_steps.min())

    def __post_init__(self) -> None:
        if not _are_dampings(self.rho).all():
            raise ValueError(f"a snapshot's rho is not between {SMALLEST:g} and {1 / SMALLEST:g}")

    def solved(self, rho: float) -> bool:
        """Whether the solves behind the later errors at this ρ converged."""
        behind = self.later & self.error.measured & (self.rho == rho)
        return bool(self.converged[behind].all())

    def mean_error(self, rhos: Floats, rows: NDArray[np.bool_]) -> Floats:
        """Mean alignment error over some rows at each ρ, (P,): NaN without a measurement, or with one that is NaN."""
        measured = rows & self.error.measured
        found = [self.error.values[measured & (self.rho == rho)] for rho in rhos]
        return np.array([values.mean() if values.size else np.nan for values in found])


@dataclass(frozen=True)
class AlignmentCurves:
    """e(ρ) of several runs.

    Attributes:
        rhos: dampings ρ = λ d / tr F, increasing, (P,).
        errors: mean over the snapshots after the first, (runs, P).
        first: at the first snapshot, (runs, P).
        converged: whether every solve behind `errors` reached its tolerance, (P,).
        rho_own: ρ of the algorithm's own damping, geometric mean over the same snapshots and runs; None without one.
        snapshots: of the run that has most.
    """

    rhos: Floats
    errors: Floats
    first: Floats
    converged: NDArray[np.bool_]
    rho_own: float | None
    snapshots: int


def curves_of(runs: Sequence[Snapshots]) -> AlignmentCurves | None:
    """The curves of these runs; None when not one update was measured. A run whose snapshots all lack a step is out."""
    runs = [run for run in runs if run.count and run.error.measured[run.later].any()]
    if not runs:
        return None
    rhos = np.unique(np.concatenate([run.rho for run in runs]))
    own = np.concatenate([run.rho_own.where(run.later).usable for run in runs])
    own = own[_are_dampings(own)]  # without a trace there is none
    return AlignmentCurves(
        rhos=rhos,
        errors=np.stack([run.mean_error(rhos, run.later) for run in runs]),
        first=np.stack([run.mean_error(rhos, run.first) for run in runs]),
        converged=np.array([all(run.solved(rho) for run in runs) for rho in rhos]),
        rho_own=float(np.exp(np.log(own).mean())) if own.size else None,
        snapshots=max(run.count for run in runs),
    )


def _are_dampings(rho: Floats) -> NDArray[np.bool_]:
    return np.asarray((rho >= SMALLEST) & (rho <= 1 / SMALLEST))

"""What is measured of the updates of a run, and how often."""

from dataclasses import dataclass

import numpy as np


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
        heldout_states: steps of a second batch of the old policy, collected where everything is measured and compared
            with the step as well, equally many of each environment; null: none. They count in nothing else.
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
    heldout_states: int | None = None
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
        if self.heldout_states is not None and self.heldout_states < 1:
            raise ValueError(
                f"diagnostics.heldout_states={self.heldout_states}: must be at least 1, or null for no second batch"
            )
        if self.snapshots < 0:
            raise ValueError(f"diagnostics.snapshots={self.snapshots}: must not be negative")
        for setting in ("rho", "tolerance"):
            if not getattr(self, setting) > 0:
                raise ValueError(f"diagnostics.{setting}={getattr(self, setting)}: must be above 0")

    def measures_all(self, index: int) -> bool:
        """Whether everything is measured at the update of this index."""
        return index % self.interval == 0

    def snapshot_updates(self, updates: int) -> set[int]:
        """Indices of the snapshots in a run of that many updates."""
        return set(np.linspace(0, updates - 1, self.snapshots).round().astype(int).tolist())

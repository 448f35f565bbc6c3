"""What a run says about its geometry: KL per step, alignment, Fisher trace, degenerate updates.

Every function takes one run. What describes a step (KL, alignment error, quadratic error) is taken over
accepted updates (outcome ``stepped``) only: a rejected update has no step and is counted as a rejection. The
Fisher trace describes the policy, so every measurement of it counts.
"""

import numpy as np

from analysis.curves import Column, Floats
from analysis.progress import Progress

STABILITY_LAG = 20_000
"""Environment steps between the two Fisher traces that are compared."""
KPIS = ("kl", "fisher_trace", "alignment_error", "quadratic_error")
LATER_KPIS = ("alignment_error_heldout", "alignment_noise")
"""KPIs that earlier runs do not have."""
DEGENERATE = ("rejected", "zero_gradient", "negative_curvature", "ill_conditioned", "non_finite")
RUN_LEVEL = (
    "kl_median",
    "kl_p95",
    "kl_max",
    "kl_share_above",
    "kl_cv",
    "alignment_error",
    "quadratic_error",
    "trace",
    "trace_stability",
    "trace_lag",
    "trace_noise_floor",
    "rejection_rate",
    "kl_per_env_step",
    "alignment_error_heldout",
    "alignment_noise",
)
"""What `run_geometry` gives for a run."""
LATER = ("kl_per_env_step", *LATER_KPIS)
"""Those of them that a published cell of format 2 does not have."""
COUNTS = (
    "updates",
    "stepped",
    *DEGENERATE,
    *(f"{name}_measured" for name in KPIS),
    *(f"{name}_nan" for name in KPIS),
    "alignment_error_unsolved",
)
"""What `run_counts` gives for a run."""

Record = dict[str, float | None]


def run_geometry(progress: Progress, delta_ref: float) -> Record:
    """Run-level KPIs of one run; null (None) where nothing was measured. NaN measurements are left out."""
    accepted = progress.outcome == "stepped"
    columns = progress.columns
    return {
        **kl_summary(columns["kl"].where(accepted).usable, delta_ref),
        "alignment_error": _mean(columns["alignment_error"].where(accepted).usable),
        "quadratic_error": _mean(columns["quadratic_error"].where(accepted).usable),
        **trace_summary(progress.env_steps, columns["fisher_trace"], columns["fisher_trace_split"]),
        "rejection_rate": float((progress.outcome == "rejected").mean()),
        "kl_per_env_step": kl_per_env_step(progress.env_steps, columns["kl"].where(accepted).usable),
        **{name: _mean(columns[name].where(accepted).usable) for name in LATER_KPIS},
    }


def run_counts(progress: Progress) -> dict[str, int]:
    """Updates of one run by outcome, and per KPI how often it was measured and how often it came out NaN.

    `alignment_error_unsolved`: alignment errors of accepted updates against a natural gradient that was not solved to
    its tolerance.
    """
    counts = {"updates": len(progress.outcome), "stepped": int((progress.outcome == "stepped").sum())}
    counts |= {outcome: int((progress.outcome == outcome).sum()) for outcome in DEGENERATE}
    counts |= {f"{name}_measured": int(progress.columns[name].measured.sum()) for name in KPIS}
    counts |= {f"{name}_nan": progress.columns[name].nan for name in KPIS}
    error = progress.columns["alignment_error"].where(progress.outcome == "stepped")
    counts["alignment_error_unsolved"] = int((error.measured & ~progress.solved).sum())
    return counts


def kl_summary(kl: Floats, delta_ref: float) -> Record:
    """KL per step: median, 95th percentile, maximum, share above `delta_ref`, coefficient of variation.

    The coefficient of variation is standard deviation / mean: 0 for a method that moves at constant speed.
    """
    if kl.size == 0:
        return dict.fromkeys(("kl_median", "kl_p95", "kl_max", "kl_share_above", "kl_cv"))
    mean = float(kl.mean())
    varies = kl.size > 1 and mean > 0 and np.isfinite(mean)
    return {
        "kl_median": float(np.median(kl)),
        "kl_p95": float(np.quantile(kl, 0.95)),
        "kl_max": float(kl.max()),
        "kl_share_above": float((kl > delta_ref).mean()),
        "kl_cv": float(kl.std(ddof=1)) / mean if varies else None,
    }


def kl_per_env_step(env_steps: Floats, kl: Floats) -> float | None:
    """KL of all accepted updates / environment steps trained, nats per step; None with fewer than two updates.

    All n updates have a batch of (t_n − t_1) / (n − 1) steps, so the warm-up, which trains nothing, does not count.

    Args:
        env_steps: t, steps at the end of every update, (n,).
        kl: of the accepted ones.
    """
    n = len(env_steps)
    if n < 2:
        return None
    return float(kl.sum() * (n - 1) / (n * (env_steps[-1] - env_steps[0])))


def trace_summary(env_steps: Floats, trace: Column, split: Column) -> Record:
    """Fisher trace of a run: geometric mean, stability σ_τ and the lag it was taken at, noise floor."""
    positive = trace.measured & (trace.values > 0) & np.isfinite(trace.values)
    log_trace = np.log(trace.values[positive])
    stability, lag = trace_stability(env_steps[positive], log_trace)
    return {
        "trace": float(np.exp(log_trace.mean())) if log_trace.size else None,
        "trace_stability": stability,
        "trace_lag": lag,
        "trace_noise_floor": noise_floor(split.usable),
    }


def trace_stability(
    env_steps: Floats, log_trace: Floats, lag: float = STABILITY_LAG
) -> tuple[float | None, float | None]:
    """σ_τ, the standard deviation over the run of log τ(t+L)/τ(t), and the median lag it was really taken at.

    Each measurement is paired with the later one nearest to `lag` steps away. A pair off by more than half
    the measurement spacing (the end of the run) is dropped; where measurements are further apart than `lag`,
    neighbours are paired. (None, None) with fewer than two pairs.
    """
    n = len(env_steps)
    if n < 3:
        return None, None
    spacing = float(np.median(np.diff(env_steps)))
    first = np.arange(n - 1)
    target = env_steps[first] + lag
    after = np.clip(np.searchsorted(env_steps, target), first + 1, n - 1)
    before = np.maximum(after - 1, first + 1)
    nearest = np.where(target - env_steps[before] <= env_steps[after] - target, before, after)
    lags = env_steps[nearest] - env_steps[first]
    kept = np.abs(lags - lag) <= max(spacing / 2, spacing - lag)
    if kept.sum() < 2:
        return None, None
    change = log_trace[nearest] - log_trace[first]
    return float(change[kept].std(ddof=1)), float(np.median(lags[kept]))


def noise_floor(split: Floats) -> float | None:
    """σ_τ that sampling noise alone would give: √½ × the standard deviation of log(τ₁/τ₂).

    τ₁ and τ₂ come from disjoint halves of a batch's environments. If each log half-trace has variance v,
    their log-ratio has 2v, the whole trace v/2, and the difference of two whole traces v.
    """
    return float(np.sqrt(0.5) * split.std(ddof=1)) if split.size > 1 else None


def _mean(values: Floats) -> float | None:
    return float(values.mean()) if values.size else None

"""The states of a batch that diagnostics look at, and the Fisher trace over them."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from algorithms.fisher.trace import fisher_trace
from algorithms.parts.batch import Batch
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.surrogate import Surrogate


def geometry_of(problem: Surrogate, config: DiagnosticsConfig) -> Surrogate:
    """The problem on the states that F is taken over."""
    if config.geometry_states is None or config.geometry_states >= len(problem.batch):
        return problem
    return problem.on(spread(problem.batch, config.geometry_states).flatten())


def spread(batch: Batch, states: int) -> Tensor:
    """Indices of about so many states, evenly spaced in time, equally many of each environment: (times, num_envs)."""
    length = len(batch) // batch.num_envs
    times = np.linspace(0, length - 1, min(length, max(1, states // batch.num_envs))).round().astype(int)
    indices = torch.arange(len(batch), device=batch.observations.device).view(length, batch.num_envs)
    return indices[torch.from_numpy(times)]


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
    n, chosen = batch.num_envs, spread(batch, config.states)
    per_state = fisher_trace(problem.model.select(chosen.flatten()), config.trace_samples, rng).double()
    per_env = per_state.view(-1, n).mean(0)
    mean, states = float(per_env.mean()), len(per_state)
    if n == 1:
        return TraceEstimate(mean, None, None, states)
    one, other = (float(half.mean()) for half in per_env.tensor_split(2))
    quotient = ratio(one, other)
    return TraceEstimate(mean, float(per_env.std()) / math.sqrt(n), math.log(quotient) if quotient else None, states)


def ratio(a: float | None, b: float) -> float | None:
    """Quotient a / b; None without a, and where b is 0, as the trace of a policy that has become deterministic is."""
    return None if a is None or b == 0 else a / b

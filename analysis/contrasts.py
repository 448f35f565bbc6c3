"""Differences of two variants over tasks, and the contrasts that docs/plan.md fixes before the runs.

In every resample both variants' runs are drawn within each task, a seed for both at once where both have the same ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from analysis.curves import Floats
from analysis.outcomes import Achieved
from analysis.statistics import (
    MIN_RUNS,
    Draws,
    Estimate,
    Runs,
    generator,
    holm,
    iqm,
    p_value,
    percentile_interval,
    resample,
    resample_runs,
)

PLANNED = (
    ("npg", "adam_pg"),
    ("trpo", "adam_pg"),
    ("acktr", "adam_pg"),
    ("npg", "ppo"),
    ("trpo", "ppo"),
    ("acktr", "ppo"),
    ("trpo", "npg"),
    ("exact_kl", "adam_kl"),
)
"""The plan's contrasts, the first less the second; the last is of the factorial."""
SMALLEST = 0.10
"""Smallest effect of interest, of the scale."""
MARGIN = 0.05
"""Within which two variants count as equal."""
RESAMPLES = 10_000
"""Behind a contrast: small p-values are corrected for many tests."""

Both = dict[tuple[str, str], Achieved]
Combine = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class Pair:
    """Runs of two variants on common tasks, with their resamples."""

    x: Runs
    y: Runs
    x_draws: Sequence[Draws]
    y_draws: Sequence[Draws]
    sizes: Sequence[int]
    """Runs of every task and variant that were resampled on their own."""

    @property
    def enough(self) -> bool:
        """Whether there are runs enough for an interval."""
        return min((len(values) for values in (*self.x, *self.y)), default=0) >= MIN_RUNS

    def samples(self, combine: Combine) -> Floats:
        """`combine` of the IQMs of both in every resample, (resamples,)."""
        return combine(iqm(resample(self.x, self.x_draws)), iqm(resample(self.y, self.y_draws)))

    def value(self, combine: Combine) -> float:
        """`combine` of both aggregates."""
        pooled = [np.concatenate(list(runs)) for runs in (self.x, self.y)]
        one, other = (iqm(values) if self.enough else np.asarray(values.mean()) for values in pooled)
        return float(combine(one, other))

    def estimate(self, combine: Combine) -> Estimate | None:
        """Value and interval; None where runs are too few for one."""
        if not self.enough:
            return None
        low, high = percentile_interval(self.samples(combine), self.sizes)
        return Estimate(self.value(combine), float(low), float(high), True)


def pair(x: Sequence[Achieved], y: Sequence[Achieved], name: str, resamples: int = RESAMPLES) -> Pair:
    """The runs of two variants, task by task, by their outcome `name`."""
    x_draws, y_draws, sizes = [], [], []
    for one, other in zip(x, y, strict=True):
        if one.seeds == other.seeds:
            drawn = resample_runs(len(one.seeds), generator(one.env, "seeds"), resamples)
            x_draws.append(drawn)
            y_draws.append(drawn)
            sizes.append(len(one.seeds))
        else:
            for side, draws in ((one, x_draws), (other, y_draws)):
                draws.append(resample_runs(len(side.seeds), generator(side.env, side.variant, "seeds"), resamples))
                sizes.append(len(side.seeds))
    return Pair([one.values(name) for one in x], [other.values(name) for other in y], x_draws, y_draws, sizes)


def difference(one: Floats, other: Floats) -> Floats:
    """One − other."""
    return one - other


def ratio(one: Floats, other: Floats) -> Floats:
    """one / other; NaN where the other is not above 0, since there it says nothing."""
    return np.divide(one, other, out=np.full_like(np.asarray(one, dtype=np.float64), np.nan), where=other > 0)


@dataclass(frozen=True)
class Contrast:
    """x − y by the primary outcome.

    Attributes:
        x, y: variants.
        envs: tasks that both have, and on which neither has more than a fifth of its runs failed.
        left_out: tasks that both have, without contrast for their failed runs.
        value: difference of the aggregates.
        without_failed: the same without failed runs.
        low, high: 95 % interval; None where a task has fewer than `MIN_RUNS` runs, like all that follow.
        p: of no difference, as it is and corrected by Holm's method.
        narrow: 90 % interval.
        p_equal: the larger of both one-sided tests against ±`MARGIN`.
    """

    x: str
    y: str
    envs: tuple[str, ...]
    left_out: tuple[str, ...]
    value: float
    without_failed: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    narrow: tuple[float, float] | None = None
    p_equal: float | None = None

    @property
    def verdict(self) -> str:
        """What the plan says of such a difference."""
        if self.low is None or self.high is None or self.narrow is None or self.p_holm is None:
            return f"fewer than {MIN_RUNS} runs"
        equal = self.narrow[0] > -MARGIN and self.narrow[1] < MARGIN
        if self.p_holm >= 0.05 or self.low <= 0 <= self.high:
            return "equal" if equal else "undecided"
        small = max(abs(self.low), abs(self.high)) < SMALLEST
        return f"{'higher' if self.value > 0 else 'lower'}{', real and small' if small else ''}"


def contrasts(
    found: Mapping[tuple[str, str], Achieved], planned: Sequence[tuple[str, str]] = PLANNED
) -> list[Contrast]:
    """The planned contrasts that these runs have, their p-values corrected for all that are planned."""
    made = [one for x, y in planned if (one := _contrast(found, x, y))]
    tested = [one for one in made if one.p is not None]
    corrected = dict(zip(map(id, tested), holm([one.p or 0.0 for one in tested], len(planned)), strict=True))
    return [replace(one, p_holm=corrected.get(id(one))) for one in made]


def common(found: Mapping[tuple[str, str], Achieved], *variants: str) -> tuple[list[str], list[str]]:
    """Tasks that all these variants have, and of them those without contrast for a variant's failed runs."""
    envs = list(dict.fromkeys(env for env, _ in found))
    shared = [env for env in envs if all((env, variant) in found for variant in variants)]
    out = [env for env in shared if any(found[env, variant].excluded for variant in variants)]
    return [env for env in shared if env not in out], out


def _contrast(found: Mapping[tuple[str, str], Achieved], x: str, y: str) -> Contrast | None:
    envs, out = common(found, x, y)
    if not envs:
        return None
    one, other = [found[env, x] for env in envs], [found[env, y] for env in envs]
    both = pair(one, other, "area")
    clean = [[side.without_failed() for side in sides] for sides in (one, other)]
    complete = all(side.runs for sides in clean for side in sides)
    made: dict[str, Any] = {
        "x": x,
        "y": y,
        "envs": tuple(envs),
        "left_out": tuple(out),
        "value": both.value(difference),
        "without_failed": pair(clean[0], clean[1], "area", 1).value(difference) if complete else None,
    }
    if not both.enough:
        return Contrast(**made)
    samples = both.samples(difference)
    low, high = percentile_interval(samples, both.sizes)
    narrow = percentile_interval(samples, both.sizes, 0.90)
    above, _ = p_value(samples, both.sizes, -MARGIN)
    _, below = p_value(samples, both.sizes, MARGIN)
    return Contrast(
        **made,
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * min(p_value(samples, both.sizes))),
        narrow=(float(narrow[0]), float(narrow[1])),
        p_equal=max(above, below),
    )


SPLIT = {
    "direction": {
        "exact_line_search": 0.5, "adam_line_search": -0.5, "exact_lr": 0.5, "adam_lr": -0.5,
    },
    "step length": {
        "exact_line_search": 0.5, "adam_line_search": 0.5, "exact_lr": -0.5, "adam_lr": -0.5,
    },
    "interaction": {
        "exact_line_search": 1.0, "adam_line_search": -1.0, "exact_lr": -1.0, "adam_lr": 1.0,
    },
}  # fmt: skip
"""What the gain of the natural gradient with a line search over Adam's direction with a learning rate is made of."""


@dataclass(frozen=True)
class Part:
    """One part of the factorial's gain; `estimate` is None where runs are too few for an interval."""

    name: str
    value: float
    estimate: Estimate | None
    envs: tuple[str, ...]


def split(found: Mapping[tuple[str, str], Achieved]) -> list[Part]:
    """The gain split into direction, step length and their interaction; empty without the four pairs it needs."""
    variants = list(SPLIT["direction"])
    envs, _ = common(found, *variants)
    if not envs:
        return []
    cells = {variant: [found[env, variant] for env in envs] for variant in variants}
    runs = {variant: [one.values("area") for one in cells[variant]] for variant in variants}
    enough = all(len(values) >= MIN_RUNS for some in runs.values() for values in some)
    alike = all(len({cells[variant][i].seeds for variant in variants}) == 1 for i in range(len(envs)))
    values = {v: float(iqm(np.concatenate(r)) if enough else np.concatenate(r).mean()) for v, r in runs.items()}
    samples: dict[str, Floats] = {}
    sizes: list[int] = []
    for variant in variants:
        draws = [
            resample_runs(len(one.seeds), generator(one.env, *([] if alike else [variant]), "seeds"), RESAMPLES)
            for one in cells[variant]
        ]
        samples[variant] = iqm(resample(runs[variant], draws))
        if not (alike and sizes):
            sizes += [len(one.seeds) for one in cells[variant]]
    parts = []
    for name, weights in SPLIT.items():
        value = sum(weight * values[variant] for variant, weight in weights.items())
        found_in = None
        if enough:
            combined = np.sum([weight * samples[variant] for variant, weight in weights.items()], axis=0)
            low, high = percentile_interval(combined, sizes)
            found_in = Estimate(value, float(low), float(high), True)
        parts.append(Part(name, value, found_in, tuple(envs)))
    return parts

"""Claims on trial: what is said of natural gradients, how it is measured here, and a rule fixed before the data.

A claim is supported when the whole interval of its measure meets the rule, contradicted when the whole interval fails
it, and else undecided; without the runs that it needs it is not measured. One with several parts is supported when all
that were measured are, and contradicted when any is.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from analysis.contrasts import Combine, common, difference, pair, ratio
from analysis.curves import Floats
from analysis.groups import Group, Results
from analysis.outcomes import Achieved, all_achieved
from analysis.sample_efficiency import LEVELS, first_crossing, threshold, within_noise_of_random
from analysis.statistics import MIN_RUNS, Runs, generator, iqm, percentile_interval, resample, resample_runs
from analysis.style import algorithm_name

NATURAL = ("npg", "trpo", "acktr")
SUPPORTED, CONTRADICTED, UNDECIDED, NOT_MEASURED = "supported", "contradicted", "undecided", "not measured"
TUTORIALS = "surveys and tutorials of natural gradients"
KEPT = 0.8
"""Share of the best score that a step size has to keep to count as one that works."""


@dataclass(frozen=True)
class Rule:
    """What a measure has to be: `sense` (>=, >, <=, <) `bound`."""

    sense: str
    bound: float

    def __str__(self) -> str:
        return f"{ {'>=': '≥', '<=': '≤'}.get(self.sense, self.sense) } {self.bound:g}"

    def verdict(self, low: float, high: float) -> str:
        """Of an interval; NaN ends decide nothing."""
        met, failed = {
            ">=": (low >= self.bound, high < self.bound),
            ">": (low > self.bound, high <= self.bound),
            "<=": (high <= self.bound, low > self.bound),
            "<": (high < self.bound, low >= self.bound),
        }[self.sense]
        return SUPPORTED if met else CONTRADICTED if failed else UNDECIDED


@dataclass(frozen=True)
class Measured:
    """One measure of a claim; without ends where runs are too few for an interval."""

    part: str
    value: float
    low: float | None
    high: float | None
    envs: tuple[str, ...]


@dataclass(frozen=True)
class Claim:
    """One claim: `measure` gives its parts, and `needs` says which runs it is made of."""

    number: str
    text: str
    source: str
    measured_by: str
    rule: Rule | None
    measure: "Measure"
    needs: str

    def verdict(self, parts: Sequence[Measured]) -> str:
        """Of all parts together."""
        found = [self.verdict_of(part) for part in parts]
        if not found:
            return NOT_MEASURED
        if CONTRADICTED in found:
            return CONTRADICTED
        return SUPPORTED if set(found) == {SUPPORTED} else UNDECIDED

    def verdict_of(self, part: Measured) -> str:
        """Of one part; undecided where runs are too few for an interval."""
        if self.rule is None:
            return NOT_MEASURED
        return UNDECIDED if part.low is None or part.high is None else self.rule.verdict(part.low, part.high)


@dataclass(frozen=True)
class Evidence:
    """A suite's runs as claims are measured on them."""

    results: Results

    @cached_property
    def achieved(self) -> Mapping[tuple[str, str], Achieved]:
        """Outcomes by environment and variant."""
        return all_achieved(self.results)

    @cached_property
    def variants(self) -> set[str]:
        """Variants that have outcomes."""
        return {variant for _, variant in self.achieved}

    def group(self, env: str, variant: str) -> Group | None:
        """The group of a variant on a task, where it has a run that finished with a score."""
        group = self.results.group(env, variant)
        return group if group and group.runs else None


Measure = Callable[[Evidence], list[Measured]]


def compare(evidence: Evidence, x: str, y: str, name: str, combine: Combine, part: str = "") -> list[Measured]:
    """`combine` of two variants' aggregates of an outcome over the tasks that both have; empty without any."""
    found = evidence.achieved
    envs, _ = common(found, x, y)
    if not envs:
        return []
    both = pair([found[env, x] for env in envs], [found[env, y] for env in envs], name, evidence.results.resamples)
    value = both.value(combine)
    named = part or algorithm_name(x)
    if math.isnan(value):
        return []
    if not both.enough:
        return [Measured(named, value, None, None, tuple(envs))]
    return [_measured(named, value, both.samples(combine), both.sizes, envs)]


def _measured(
    part: str, value: float, samples: Floats, sizes: Sequence[int], envs: Sequence[str], highest: Floats | None = None
) -> Measured:
    """The interval of `samples`; where one is undefined (NaN) it may be anything. `highest`: another upper side."""
    low = np.where(np.isnan(samples), -np.inf, samples)
    above = samples if highest is None else highest
    high = np.where(np.isnan(above), np.inf, above)
    ends = percentile_interval(low, sizes)[0], percentile_interval(high, sizes)[1]
    return Measured(part, value, float(ends[0]), float(ends[1]), tuple(envs))


def step_ratios(evidence: Evidence, x: str, y: str) -> tuple[Floats, Floats, float, list[int], list[str]] | None:
    """Mean over tasks of log(N_x / N_y), N the steps to the gain's threshold, which is made of y.

    Returns (largest that each resample can be, least, value, runs that were resampled, tasks), or None without a task.
    A curve that never reaches the threshold is ∞ in the largest, and its budget in the least.
    """
    most, least, values, sizes, envs = [], [], [], [], []
    for env in evidence.results.suite.envs:
        mine, other = evidence.group(env, x), evidence.group(env, y)
        if mine is None or other is None or env not in evidence.results.random_returns:
            continue
        randoms = evidence.results.resampled_random(env)
        if within_noise_of_random(other.resampled_finals, randoms):
            continue
        one, two = mine.resampled, other.resampled
        goals = threshold(LEVELS[0], randoms, two.finals)
        reached = first_crossing(two.curves, goals, two.steps)
        crossing = first_crossing(one.curves, goals, one.steps)
        unknown = np.isinf(reached)
        reached = np.where(unknown, two.budget, reached)
        most.append(np.where(unknown, np.inf, np.log(crossing / reached)))
        least.append(np.where(unknown, -np.inf, np.log(np.minimum(crossing, one.budget) / reached)))
        goal = threshold(LEVELS[0], np.asarray(evidence.results.random[env]), np.asarray(two.final))
        n_x, n_y = (float(first_crossing(some.curve, goal, some.steps)) for some in (one, two))
        values.append(math.log(min(n_x, one.budget) / min(n_y, two.budget)))
        sizes += [one.runs, two.runs]
        envs.append(env)
    if not envs:
        return None
    return np.mean(most, axis=0), np.mean(least, axis=0), float(np.mean(values)), sizes, envs


def _step_gain(evidence: Evidence, x: str) -> list[Measured]:
    """1 − exp(mean over tasks of log N/N_Adam-PG)."""
    if (found := step_ratios(evidence, x, "adam_pg")) is None:
        return []
    most, least, value, sizes, envs = found
    part = algorithm_name(x)
    if min(sizes) < MIN_RUNS:
        return [Measured(part, 1 - math.exp(value), None, None, tuple(envs))]
    return [_measured(part, 1 - math.exp(value), 1 - np.exp(most), sizes, envs, 1 - np.exp(least))]


def _step_factor(evidence: Evidence, x: str, y: str) -> list[Measured]:
    """N_y / N_x at the threshold that y sets."""
    if (found := step_ratios(evidence, x, y)) is None:
        return []
    most, least, value, sizes, envs = found
    part = algorithm_name(x)
    if min(sizes) < MIN_RUNS:
        return [Measured(part, math.exp(-value), None, None, tuple(envs))]
    return [_measured(part, math.exp(-value), np.exp(-most), sizes, envs, np.exp(-least))]


def _less_one(one: Floats, other: Floats) -> Floats:
    return ratio(one, other) - 1


def _kpi(evidence: Evidence, x: str, y: str, name: str, words: str) -> list[Measured]:
    """Mean over tasks of the difference of a run-level figure's aggregates."""
    differences, samples, sizes, envs = [], [], [], []
    for env in evidence.results.suite.envs:
        sides = [evidence.group(env, variant) for variant in (x, y)]
        values = [_known(group, name) for group in sides if group]
        if len(values) < 2 or not all(len(some) for some in values):
            continue
        enough = min(map(len, values)) >= MIN_RUNS
        one, other = (iqm(some) if enough else np.asarray(some.mean()) for some in values)
        differences.append(float(one - other))
        drawn = [
            iqm(some[resample_runs(len(some), generator(env, variant, name), evidence.results.resamples)])
            for some, variant in zip(values, (x, y), strict=True)
        ]
        samples.append(drawn[0] - drawn[1])
        sizes += [len(some) for some in values]
        envs.append(env)
    if not envs:
        return []
    part = f"{algorithm_name(x)}, {words}"
    value = float(np.mean(differences))
    if min(sizes) < MIN_RUNS:
        return [Measured(part, value, None, None, tuple(envs))]
    return [_measured(part, value, np.mean(samples, axis=0), sizes, envs)]


def _known(group: Group, name: str) -> Floats:
    known = [cell.run.geometry.get(name) for cell in group.finished if cell.run]
    return np.array([value for value in known if value is not None], dtype=np.float64)


def _time(evidence: Evidence, x: str, y: str) -> list[Measured]:
    """Processor time per step of x over y's, geometric mean over tasks of the ratio of means."""
    ratios, samples, sizes, envs = [], [], [], []
    for env in evidence.results.suite.envs:
        times = [
            np.array([run.cpu_time for run in one.runs if run.cpu_time], dtype=np.float64)
            for variant in (x, y)
            if (one := evidence.achieved.get((env, variant)))
        ]
        if len(times) < 2 or not all(len(some) for some in times):
            continue
        ratios.append(math.log(times[0].mean() / times[1].mean()))
        drawn = [
            some[resample_runs(len(some), generator(env, variant, "time"), evidence.results.resamples)].mean(axis=1)
            for some, variant in zip(times, (x, y), strict=True)
        ]
        samples.append(np.log(drawn[0] / drawn[1]))
        sizes += [len(some) for some in times]
        envs.append(env)
    if not envs:
        return []
    value = math.exp(float(np.mean(ratios)))
    if min(sizes) < MIN_RUNS:
        return [Measured(algorithm_name(x), value, None, None, tuple(envs))]
    return [_measured(algorithm_name(x), value, np.exp(np.mean(samples, axis=0)), sizes, envs)]


@dataclass(frozen=True)
class Sweep:
    """A setting changed for both methods alike: factor -> variant of each, 1 for the methods themselves."""

    factors: tuple[float, ...]
    suffix: str

    def variant(self, method: str, factor: float) -> str:
        """As `conf/suite/claims.yaml` names it."""
        return method if factor == 1 else f"{method}_{self.suffix}{factor:g}"


STEP_SIZES = Sweep((0.1, 0.3, 1, 3, 10), "step")
BATCHES = Sweep((0.25, 0.5, 1, 2), "batch")
STARTS = {"deviation": Sweep((0.1, 1, 10), "std"), "last layer": Sweep((0.1, 1, 10), "gain")}


def _sweep(evidence: Evidence, sweep: Sweep) -> "tuple[list[str], dict[str, list[Runs]]] | None":
    """Areas by method and factor on the tasks that all its variants have; None where one is missing."""
    methods = ("npg", "adam_pg")
    names = {method: [sweep.variant(method, factor) for factor in sweep.factors] for method in methods}
    envs, _ = common(evidence.achieved, *(name for some in names.values() for name in some))
    if not envs:
        return None
    return envs, {m: [[evidence.achieved[env, v].values("area") for env in envs] for v in names[m]] for m in methods}


def _over_sweep(evidence: Evidence, sweep: Sweep, part: str, of: Callable[[Floats, Floats], Floats]) -> list[Measured]:
    """`of` the areas of NPG and Adam-PG at every factor, (…, factors) each; its resamples are of the runs of each."""
    if (found := _sweep(evidence, sweep)) is None:
        return []
    envs, areas = found
    cells = [runs for some in areas.values() for at in some for runs in at]
    enough = min(map(len, cells)) >= MIN_RUNS
    pooled = {m: np.array([_centre(np.concatenate(list(at)), enough) for at in some]) for m, some in areas.items()}
    value = float(of(pooled["npg"], pooled["adam_pg"]))
    if not enough:
        return [Measured(part, value, None, None, tuple(envs))]
    samples = {}
    for method, some in areas.items():
        columns = []
        for factor, at in zip(sweep.factors, some, strict=True):
            draws = [
                resample_runs(len(runs), generator(env, sweep.variant(method, factor)), evidence.results.resamples)
                for env, runs in zip(envs, at, strict=True)
            ]
            columns.append(iqm(resample(at, draws)))
        samples[method] = np.stack(columns, axis=-1)
    sizes = [len(runs) for runs in cells]
    return [_measured(part, value, of(samples["npg"], samples["adam_pg"]), sizes, envs)]


def _centre(values: Floats, enough: bool) -> float:
    return float(iqm(values) if enough else values.mean())


def breadth(areas: Floats, factors: Sequence[float] = STEP_SIZES.factors) -> Floats:
    """log10 of the range of step sizes around the best that keep `KEPT` of its area, (…); areas are (…, factors)."""
    best = areas.argmax(axis=-1)
    works = areas >= KEPT * areas.max(axis=-1, keepdims=True)
    places = np.arange(areas.shape[-1])
    fails_below = np.where(~works & (places < best[..., None]), places, -1).max(axis=-1)
    fails_above = np.where(~works & (places > best[..., None]), places, areas.shape[-1]).min(axis=-1)
    logs = np.log10(np.asarray(factors, dtype=np.float64))
    return np.asarray(logs[fails_above - 1] - logs[fails_below + 1])


def _breadths(npg: Floats, adam: Floats) -> Floats:
    return breadth(npg) - breadth(adam)


def _slope(npg: Floats, adam: Floats) -> Floats:
    """Least-squares slope of the gain in area against the doublings of the batch."""
    doublings = np.log2(np.asarray(BATCHES.factors))
    centred = doublings - doublings.mean()
    return np.asarray(((npg - adam) * centred).sum(axis=-1) / (centred**2).sum())


def _poor_starts(npg: Floats, adam: Floats) -> Floats:
    """Mean gain in area at the changed starts, less that at the default, which is in the middle."""
    gain = npg - adam
    return np.asarray((gain[..., 0] + gain[..., 2]) / 2 - gain[..., 1])


def _each(variants: Sequence[str], measure: Callable[[Evidence, str], list[Measured]]) -> Measure:
    return lambda evidence: [part for variant in variants for part in measure(evidence, variant)]


def _nothing(_: Evidence) -> list[Measured]:
    return []


def _steadier(evidence: Evidence, x: str) -> list[Measured]:
    parts = []
    for y in ("adam_pg", "ppo"):
        parts += compare(evidence, x, y, "drawdown", difference, f"{algorithm_name(x)}, against {algorithm_name(y)}")
    return parts


def _controlled(evidence: Evidence, x: str) -> list[Measured]:
    return _kpi(evidence, x, "ppo", "kl_share_above", "share above δ") + _kpi(evidence, x, "ppo", "kl_cv", "variation")


AREA = "difference of the normalised area"
CLAIMS = (
    Claim("1a", "natural gradients save 20 to 40 % of the steps of Adam-based baselines", TUTORIALS,
          "1 − exp(mean over tasks of log N/N of Adam-PG), N the steps to the gain's threshold",
          Rule(">=", 0.2), _each(NATURAL, _step_gain), "NPG, TRPO or ACKTR, and Adam-PG"),
    Claim("1b", "and gain as much in final performance", TUTORIALS,
          "ratio of the aggregates of normalised final scores over Adam-PG's, minus 1", Rule(">=", 0.2),
          _each(NATURAL, lambda e, x: compare(e, x, "adam_pg", "final", _less_one)), "NPG, TRPO or ACKTR, and Adam-PG"),
    Claim("2a", "the natural gradient is invariant to parametrisation", TUTORIALS,
          "KL between twins after an update of size η", Rule("<=", 1e-10), _nothing, "an audit of invariance"),
    Claim("2b", "and Adam's update is not", TUTORIALS, "order in η of that KL", Rule("<=", 2.5), _nothing,
          "an audit of invariance"),
    Claim("3", "20 to 50 iterations of conjugate gradients suffice", TUTORIALS,
          "iterations to a cosine of 0.95 with the exact solution, 90th percentile", Rule("<=", 50), _nothing,
          "the accuracy of the solver on snapshots"),
    Claim("4a", "a diagonal Fisher matrix is cheaper and less accurate than K-FAC", TUTORIALS,
          "time and error against the number of parameters", Rule("<", 1), _nothing, "the cost of approximations"),
    Claim("4b", "and K-FAC than the exact one", TUTORIALS, "time and error against the number of parameters",
          Rule("<", 1), _nothing, "the cost of approximations"),
    Claim("4c", "the full matrix costs O(n³)", TUTORIALS, "exponent of the time over the largest decade",
          Rule(">=", 2.5), _nothing, "the cost of approximations"),
    Claim("5", "KL(θ‖θ + d) is ½dᵀFd + O(‖d‖³)", TUTORIALS, "order of the remainder in ‖d‖", Rule(">=", 2.5),
          _nothing, "the remainder along directions"),
    Claim("6a", "natural gradients control the KL per step", TUTORIALS,
          "difference from PPO of the share of updates above δ, and of the variation of KL", Rule("<", 0),
          _each(("npg", "acktr"), _controlled), "NPG or ACKTR, and PPO"),
    Claim("6b", "and train more steadily", TUTORIALS, "difference of the largest relative drawdown of the score",
          Rule("<", 0), _each(NATURAL, _steadier), "NPG, TRPO or ACKTR, and Adam-PG or PPO"),
    Claim("7a", "PPO is nearly as effective as TRPO", TUTORIALS,
          "ratio of the aggregates of normalised final scores", Rule(">=", 0.9),
          lambda e: compare(e, "ppo", "trpo", "final", ratio), "PPO and TRPO"),
    Claim("7b", "and cheaper", TUTORIALS, "ratio of processor time per step", Rule("<", 1),
          lambda e: _time(e, "ppo", "trpo"), "PPO and TRPO with processor times"),
    Claim("8", "NPG is less sensitive to its step size than Adam-PG", TUTORIALS,
          f"decades of step sizes that keep {KEPT:g} of the best area, NPG's less Adam-PG's", Rule(">", 0),
          lambda e: _over_sweep(e, STEP_SIZES, "NPG", _breadths), "the step sizes of suite claims"),
    Claim("9a", "natural gradients help most under sparse reward", TUTORIALS,
          "gain with delayed reward less that with dense reward", Rule(">", 0), _nothing, "tasks with delayed reward"),
    Claim("9b", "noise favours natural gradients", TUTORIALS,
          "slope of NPG's gain in area against doublings of the batch", Rule("<", 0),
          lambda e: _over_sweep(e, BATCHES, "NPG", _slope), "the batch sizes of suite claims"),
    Claim("9c", "noise disfavours natural gradients", TUTORIALS,
          "slope of NPG's gain in area against doublings of the batch", Rule(">", 0),
          lambda e: _over_sweep(e, BATCHES, "NPG", _slope), "the batch sizes of suite claims"),
    Claim("10a", "ACKTR needs a half to a third of A2C's steps", "Wu et al. 2017",
          "ratio of steps to the gain's threshold, A2C: Adam-PG with RMSProp at ACKTR's batch size", Rule(">=", 2),
          lambda e: _step_factor(e, "acktr", "a2c"), "ACKTR and variant a2c of suite claims"),
    Claim("10b", "at 10 to 25 % more cost", "announcement of ACKTR by its authors",
          "ratio of processor time per step, same critic", Rule("<=", 1.25),
          lambda e: _time(e, "acktr_adam", "a2c"), "variants acktr_adam and a2c of suite claims"),
    Claim("11", "evolution strategies need far more samples", TUTORIALS, "published tables", None, _nothing,
          "evolution strategies, which are not here"),
    Claim("12", "at equal KL per step the direction alone pays", "this project",
          f"factorial: {AREA}, natural less Adam, rule kl, best δ of each", Rule(">", 0),
          lambda e: compare(e, "exact_kl", "adam_kl", "area", difference, "natural"), "suite factorial"),
    Claim("13", "poor initialisation favours natural gradients", TUTORIALS,
          "NPG's gain in area with start deviation and last layer × 10 and ÷ 10 less that at the default",
          Rule(">", 0),
          lambda e: [part for name, sweep in STARTS.items() for part in _over_sweep(e, sweep, name, _poor_starts)],
          "the initialisations of suite claims"),
)  # fmt: skip


def tried(results: Results) -> list[tuple[Claim, list[Measured]]]:
    """Every claim with its measures on this suite."""
    evidence = Evidence(results)
    return [(claim, claim.measure(evidence)) for claim in CLAIMS]

"""Phrases that several captions share."""

from collections.abc import Callable
from typing import Any

from analysis.cells import values_of
from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS
from analysis.style import environment_name

HUMAN_NORMALISED = (
    "100 (score − random) / (human − random), in percent, with the published scores of random actions and of a human "
    "tester (Mnih et al. 2015, Wang et al. 2016)"
)


def budget(results: Results) -> str:
    """How long a run is."""
    return f"{results.suite.total_steps:,} environment steps"


def aggregate_words(results: Results, instead: str = "every run in parentheses") -> str:
    """What an aggregate over runs is and what stands behind it: an interval, or `instead` where runs are too few."""
    sizes = [len(group.runs) for group in results.groups if group.runs]
    many = (
        "IQM over runs [95 % percentile bootstrap interval over runs, its tails widened for their number, "
        f"{results.resamples:,} resamples]"
    )
    few = f"of fewer than {MIN_RUNS} runs the mean, {instead}, and no interval"
    found = ((many, any(n >= MIN_RUNS for n in sizes)), (few, any(n < MIN_RUNS for n in sizes)))
    said = "; ".join(words for words, needed in found if needed) or "no run yet"
    return said[0].upper() + said[1:]


def statistic(runs: int) -> str | None:
    """What an aggregate over that many runs is: iqm, mean, None of none."""
    return ("iqm" if runs >= MIN_RUNS else "mean") if runs else None


def closing_words(results: Results) -> str:
    """What a step is, and where runs have settings of their own: the end of every caption."""
    steps = results.suite.total_steps
    frames = _by_environment(
        results, "env.frame_skip", lambda skip: f"{skip} frames, {skip * steps:,} in a run of {steps:,} steps"
    )
    exceptions = [
        f" On {environment_name(env)} with {', '.join(settings)}." for env, settings in results.suite.exceptions.items()
    ]
    in_frames = f": {frames}" if frames else ""
    return f"A step is one agent–environment interaction{in_frames}.{''.join(exceptions)}"


def frames_of_a_run(results: Results) -> str:
    """A number of steps, followed by the frames that it is on games."""
    frames = _by_environment(results, "env.frame_skip", lambda skip: f"{skip * results.suite.total_steps:,} frames")
    return f", {frames}" if frames else ""


def damping_words(results: Results) -> str:
    """The damping that the alignment error of an update is measured with."""
    rhos = _by_environment(results, "diagnostics.rho", lambda rho: f"ρ = {rho:g}")
    return f", {rhos}" if rhos else ""


def _by_environment(results: Results, setting: str, words: Callable[[Any], str]) -> str:
    """`words` of a setting's values, and on which environments, unless on all; empty where no run has the setting."""
    suite = results.suite
    envs: dict[tuple[Any, ...], list[str]] = {}
    for env in suite.envs:
        values = values_of(setting, (cell for cell in suite.cells if cell.env == env))
        envs.setdefault(values, []).append(environment_name(env))
    parts = {" or ".join(map(words, values)): names for values, names in envs.items() if values}
    if len(envs) == 1:
        return "".join(parts)
    return "; ".join(f"on {_listed(names)} {text}" for text, names in parts.items())


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def unscored(group: Group) -> str:
    """The cells of a group that do not count in its scores, each with its state and reason."""
    return "; ".join(f"seed {c.seed} {c.state}: {c.remark}" for c in group.cells if not c.scored)

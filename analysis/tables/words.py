"""Phrases that several captions share."""

from analysis.groups import Group, Results
from analysis.statistics import MIN_RUNS
from analysis.style import environment_name


def budget(results: Results) -> str:
    """How long a run is."""
    return f"{results.suite.total_steps:,} environment steps"


def interval_words(results: Results) -> str:
    """What stands in brackets behind an estimate."""
    return f"[95 % percentile bootstrap interval over runs, {results.resamples:,} resamples]"


def few_runs(results: Results, instead: str) -> str:
    """What stands in place of an interval, where a group of the suite has too few runs for one."""
    too_few = any(0 < len(group.runs) < MIN_RUNS for group in results.groups)
    return f"; with fewer than {MIN_RUNS} runs {instead}" if too_few else ""


def closing_words(results: Results) -> str:
    """What a step is, and where runs have settings of their own: the end of every caption."""
    atari = any(env.startswith("atari") for env in results.suite.envs)
    frames = " (on Atari 4 frames)" if atari else ""
    exceptions = [
        f" On {environment_name(env)} with {', '.join(settings)}." for env, settings in results.suite.exceptions.items()
    ]
    return f"A step is one agent–environment interaction{frames}.{''.join(exceptions)}"


def unscored(group: Group) -> str:
    """The cells of a group that do not count in its scores, each with its state and reason."""
    return "; ".join(f"seed {c.seed} {c.state}: {c.remark}" for c in group.cells if not c.scored)

"""Table of published scores beside those of a suite, with what differs."""

from analysis.groups import Results
from analysis.literature import Beside, beside, ends
from analysis.statistics import MIN_RUNS
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, number
from analysis.tables.words import closing_words

NAMES = {"ppo": "PPO", "trpo": "TRPO", "acktr": "ACKTR", "npg": "NPG", "a2c": "A2C", "reinforce": "REINFORCE"}


def literature(results: Results) -> Table:
    """Per group and published score: ours with its interval, the published one, and what differs between the two."""
    found = beside(results)
    caption = (
        f"Published scores beside those of suite {results.suite.name}. Here: final score, IQM over runs [interval over "
        f"runs] from {MIN_RUNS} on, the mean of fewer. Comparable is a published score of the same algorithm, task "
        "version and budget that is a mean at the end of the budget, as here; another is marked with * and with what "
        "differs: algorithm, version of the task, budget, or statistic, such as the maximum over the run. Evaluations "
        "in place of training episodes count as the same statistic. Nothing is ranked. "
        f"{closing_words(results)}"
    )
    header = ["Environment", "Algorithm", "Here", "Published", "± or interval", "Runs", "Differs in", "Source"]
    words = ("Environment", "Algorithm", "Differs in", "Source")
    rows = [_row(one) for one in found]
    return Table(
        "literature",
        "Beside the literature",
        caption,
        [_record(one) for one in found],
        header,
        rows,
        results.source,
        words,
    )


def _record(one: Beside) -> Record:
    low, high = ends(one.group)
    published = one.published
    return {
        "env": one.group.env,
        "variant": one.group.variant,
        "score": one.group.final,
        "low": low,
        "high": high,
        "runs": len(one.group.runs),
        "published_algorithm": published.algorithm,
        "published_version": published.version,
        "published_steps": published.steps,
        "published_score": published.score,
        "published_spread": published.spread,
        "published_runs": published.runs,
        "statistic": published.statistic,
        "comparable": not one.differs,
        "differs": " ".join(one.differs),
        "source": published.source,
    }


def _row(one: Beside) -> list[str]:
    published = one.published
    said = {
        "algorithm": NAMES[published.algorithm],
        "version": published.version,
        "budget": f"{published.steps:,} steps",
        "statistic": published.statistic,
    }
    return [
        environment_name(one.group.env),
        algorithm_name(one.group.variant),
        interval(one.group.final, *ends(one.group)),
        number(published.score) + ("*" if one.differs else ""),
        published.spread or "–",
        published.runs or "–",
        "; ".join(said[name] for name in one.differs) or "–",
        published.source,
    ]

"""Table of final scores: IQM over seeds, evaluation of the final policies, the random policy beside them."""

from typing import Any

import numpy as np

from analysis.groups import Group, Results
from analysis.human_scores import Reference
from analysis.statistics import MIN_RUNS, percentile_interval
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Record, Table, interval, number
from analysis.tables.words import HUMAN_NORMALISED, aggregate_words, budget, closing_words, statistic, unscored


def final_scores(results: Results) -> Table:
    """Per environment and variant: the last `episode_return`, over the runs that finished with one.

    IQM with its interval from `MIN_RUNS` runs on; with fewer the mean, and the reader sees every run. `score` in the
    CSV is either, as `statistic` says. Of Atari games the score is human-normalised too.
    """
    records = [_record(results, group) for group in results.groups]
    if results.references:
        records = [record | _human_normalised(record, results.references.get(record["env"])) for record in records]
    rows = [_row(record, group) for record, group in zip(records, results.groups, strict=True)]
    caption = (
        f"Final score in suite {results.suite.name}: episode return at the end of {budget(results)} (mean "
        f"over the last training episodes of a run). {aggregate_words(results)}. Runs: "
        "finished with a score / planned. Deterministic and stochastic: mean return of the evaluation "
        "episodes of the final policies; random: of uniformly random actions, pooled over the "
        f"environment's runs. {f'Human-normalised: {HUMAN_NORMALISED}. ' if results.references else ''}"
        f"{closing_words(results)}"
    )
    normalised = ["Human-normalised (%)"] if results.references else []
    header = ["Environment", "Algorithm", "Final score", *normalised, "Runs", "Deterministic", "Stochastic", "Random"]
    return Table("final_scores", "Final scores", caption, records, header, rows, results.source)


def _record(results: Results, group: Group) -> dict[str, Any]:
    scores = group.finals
    low, high = percentile_interval(group.resampled_finals, [len(scores)]) if len(scores) >= MIN_RUNS else (None, None)
    evaluated = {
        mode: [cell.evaluation[mode] for cell in group.finished if mode in cell.evaluation]
        for mode in ("deterministic", "stochastic")
    }
    random = results.random_returns.get(group.env)
    return {
        "env": group.env,
        "variant": group.variant,
        "algorithm": group.cells[0].algorithm,
        "runs_planned": len(group.cells),
        "runs_finished": len(group.finished),
        "runs_scored": len(scores),
        "states": group.states,
        "statistic": statistic(len(scores)),
        "score": group.final if len(scores) else None,
        "low": None if low is None else float(low),
        "high": None if high is None else float(high),
        "mean": float(scores.mean()) if len(scores) else None,
        "std": float(scores.std(ddof=1)) if len(scores) > 1 else None,
        "min": float(scores.min()) if len(scores) else None,
        "max": float(scores.max()) if len(scores) else None,
        "scores": " ".join(f"{cell.seed}:{cell.final_score!r}" for cell in group.runs),
        **{
            f"{mode}_mean": float(np.concatenate(returns).mean()) if returns else None
            for mode, returns in evaluated.items()
        },
        "random_mean": results.random.get(group.env),
        "random_episodes": 0 if random is None else len(random),
        "note": unscored(group),
    }


def _human_normalised(record: Record, reference: Reference | None) -> dict[str, Any]:
    """The published scores, and the score and its interval on the scale between them."""

    def normalise(value: Any) -> float | None:
        return None if reference is None or value is None else float(reference.normalise(value))

    return {
        "published_random": reference.random if reference else None,
        "published_human": reference.human if reference else None,
        "human_normalised": normalise(record["score"]),
        "human_normalised_low": normalise(record["low"]),
        "human_normalised_high": normalise(record["high"]),
    }


def _row(record: Record, group: Group) -> list[str]:
    score = interval(record["score"], record["low"], record["high"])
    if 1 < len(group.runs) < MIN_RUNS:
        score += f" ({'; '.join(number(value) for value in group.finals)})"
    normalised = []
    if "human_normalised" in record:
        ends = (record["human_normalised_low"], record["human_normalised_high"])
        normalised.append(interval(record["human_normalised"], *ends))
    return [
        environment_name(group.env),
        algorithm_name(group.variant),
        score,
        *normalised,
        f"{record['runs_scored']}/{record['runs_planned']}",
        number(record["deterministic_mean"]),
        number(record["stochastic_mean"]),
        number(record["random_mean"]),
    ]

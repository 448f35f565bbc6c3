"""Table of human-normalised scores: every algorithm on every Atari game, and over all of them."""

import numpy as np

from analysis.groups import Results
from analysis.statistics import MIN_RUNS, iqm, percentile_interval
from analysis.style import algorithm_name, environment_name, ordered
from analysis.tables.formats import Record, Table, interval, number
from analysis.tables.words import HUMAN_NORMALISED, closing_words, interval_words, unscored


def human_normalised(results: Results) -> Table:
    """Per variant: IQM of the human-normalised final scores over runs on each game, and over runs and games.

    The interval is the stratified 95 % percentile bootstrap (Agarwal et al. 2021): runs are resampled within each
    game. Over all games there is a value where each has a run with a score, and an interval from three on each on.
    """
    games = list(results.references)
    variants = ordered(group.variant for group in results.groups if group.env in results.references)
    records = [_record(results, variant) for variant in variants]
    caption = (
        f"Human-normalised final scores in suite {results.suite.name}: {HUMAN_NORMALISED}. Games: IQM over runs. All "
        f"games: IQM over the runs on all these games, each run counted once {interval_words(results)}, runs "
        f"resampled within each game, given from {MIN_RUNS} runs on each; –: a game without a run that finished with "
        f"a score. Runs: finished with a score / planned. {closing_words(results)}"
    )
    header = ["Algorithm", *map(environment_name, games), "All games", "Runs"]
    rows = [_row(record, games) for record in records]
    return Table("human_normalised", "Human-normalised scores", caption, records, header, rows, results.source)


def _record(results: Results, variant: str) -> Record:
    groups = [group for group in results.groups if group.variant == variant and group.env in results.references]
    scales = [results.references[group.env].normalise for group in groups]
    scored = [len(group.runs) for group in groups]
    record: dict[str, object] = {
        "variant": variant,
        "algorithm": groups[0].cells[0].algorithm,
        "runs_planned": sum(len(group.cells) for group in groups),
        "runs_scored": sum(scored),
        **dict.fromkeys(results.references),
        **{
            group.env: float(scale(np.asarray(group.final)))
            for group, scale in zip(groups, scales, strict=True)
            if group.runs
        },
        **dict.fromkeys(("iqm", "low", "high")),
        "note": "; ".join(f"{environment_name(group.env)} {said}" for group in groups if (said := unscored(group))),
    }
    if all(scored):
        finals = [scale(group.finals) for group, scale in zip(groups, scales, strict=True)]
        record["iqm"] = float(iqm(np.concatenate(finals)))
    if min(scored) >= MIN_RUNS:
        resampled = [scale(group.finals[group.draws]) for group, scale in zip(groups, scales, strict=True)]
        low, high = percentile_interval(iqm(np.concatenate(resampled, axis=1)))
        record |= {"low": float(low), "high": float(high)}
    return record


def _row(record: Record, games: list[str]) -> list[str]:
    return [
        algorithm_name(record["variant"]),
        *(number(record[game]) for game in games),
        interval(record["iqm"], record["low"], record["high"]),
        f"{record['runs_scored']}/{record['runs_planned']}",
    ]

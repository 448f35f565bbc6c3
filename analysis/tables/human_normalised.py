"""Table of human-normalised scores: every algorithm on every Atari game, and over all of them."""

import numpy as np

from analysis.groups import Results
from analysis.statistics import estimate
from analysis.style import algorithm_name, environment_name, ordered
from analysis.tables.formats import Record, Table, ends, number, spread
from analysis.tables.words import HUMAN_NORMALISED, aggregate_words, closing_words, statistic, unscored


def human_normalised(results: Results) -> Table:
    """Per variant: human-normalised final scores over runs on each game, and over runs and games.

    The interval is the stratified 95 % percentile bootstrap (Agarwal et al. 2021): runs are resampled within each
    game. Over all games there is a value where each has a run with a score; it is the IQM, with its interval, where
    each has `MIN_RUNS`, and else the mean, with the range of the runs.
    """
    games = list(results.references)
    variants = ordered(group.variant for group in results.groups if group.env in results.references)
    records = [_record(results, variant) for variant in variants]
    caption = (
        f"Human-normalised final scores in suite {results.suite.name}: {HUMAN_NORMALISED}. "
        f"{aggregate_words(results, 'over all games with their range')}. All games: over the runs on all these games, "
        "each counted once, runs resampled within each game; –: a game without a run that finished with a score. "
        f"Runs: finished with a score / planned. {closing_words(results)}"
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
        "statistic": None,
        **ends(None),
        "note": "; ".join(f"{environment_name(group.env)} {said}" for group in groups if (said := unscored(group))),
    }
    if all(scored):
        finals = [scale(group.finals) for group, scale in zip(groups, scales, strict=True)]
        found = estimate(finals, [group.draws for group in groups])
        record |= {"statistic": statistic(min(scored)), **ends(found)}
    return record


def _row(record: Record, games: list[str]) -> list[str]:
    return [
        algorithm_name(record["variant"]),
        *(number(record[game]) for game in games),
        spread(record),
        f"{record['runs_scored']}/{record['runs_planned']}",
    ]

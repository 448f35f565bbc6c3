"""Table of a search for settings: every configuration of every algorithm, by rank."""

from analysis.groups import Results
from analysis.style import algorithm_name, environment_name
from analysis.tables.formats import Table, number
from analysis.tables.words import budget
from analysis.tuning import trials


def tuning(results: Results) -> Table:
    """Per algorithm and configuration: rank, settings, score, and the normalised final score on every task."""
    found, envs = trials(results), results.suite.envs
    seeds = sorted({cell.seed for cell in results.suite.cells})
    records = [
        {
            "algorithm": trial.algorithm,
            "rank": trial.rank,
            "configuration": trial.number,
            "settings": " ".join(trial.settings),
            "score": trial.score,
            **{f"normalised_{env}": trial.normalised.get(env) for env in envs},
            "runs_scored": trial.runs[0],
            "runs_planned": trial.runs[1],
        }
        for trial in found
    ]
    rows = [
        [
            algorithm_name(trial.algorithm),
            "–" if trial.rank is None else str(trial.rank),
            str(trial.number),
            " ".join(setting.removeprefix("algorithm.") for setting in trial.settings) or "the defaults",
            number(trial.score),
            *(number(trial.normalised.get(env)) for env in envs),
        ]
        for trial in found
    ]
    caption = (
        f"Search for settings in suite {results.suite.name}: configurations of each algorithm, equally many, drawn at "
        f"random from the space in its file, number 0 being the defaults; each on {len(envs)} tasks with seeds "
        f"{', '.join(map(str, seeds))} for {budget(results)}. On a task: the final score on the scale from random "
        "actions, 0, to the best published at a million steps, 1 (analysis/mujoco_scores.csv), mean over seeds. Score: "
        "mean over tasks; none where a run has none. Rank: within the algorithm."
    )
    header = ["Algorithm", "Rank", "No.", "Settings", "Score", *map(environment_name, envs)]
    return Table(
        "tuning", "Search for settings", caption, records, header, rows, results.source, ("Algorithm", "Settings")
    )

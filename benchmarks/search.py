"""A hyperparameter search with a stated budget: every configuration of a grid, on every task, with every seed.

    python benchmarks/search.py adam_pg --grid algorithm.learning_rate=1e-3,3e-3 algorithm.batch_size=256,512 \
        --envs halfcheetah hopper --seeds 100 101 --steps 300000 --jobs 2

Every run is a train.py in <out>/runs/<env>/<configuration>/seed-<k>; the same command goes on where it was stopped.
Writes <out>/search.md and <out>/search.csv. Exits 1 when runs failed, which the table
names, and 2 for settings it refuses before anything is computed.
"""

import argparse
import math
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Record, Table, number
from benchmarks.runs import RunFailed, train
from command.refusals import refuse
from settings import typed
from tracking.identity import REPOSITORY
from tracking.record import load_run

OF_THE_SEARCH = ("algorithm", "env", "seed", "total_steps", "run_dir")


@dataclass(frozen=True)
class Configuration:
    """One point of the grid: dotted setting -> value; its name is a directory."""

    settings: dict[str, str]

    @property
    def name(self) -> str:
        parts = (f"{key.removeprefix('algorithm.')}-{value}" for key, value in self.settings.items())
        return re.sub(r"[^\w.+-]+", "-", "_".join(parts))

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self.settings.items()]


@dataclass(frozen=True)
class Search:
    """An algorithm's grid of configurations and what each is tried on."""

    algorithm: str
    configurations: Sequence[Configuration]
    envs: Sequence[str]
    seeds: Sequence[int]
    steps: int
    out: Path

    def cells(self) -> Iterator[tuple[Configuration, str, int]]:
        """Every run, a whole configuration after the other."""
        return product(self.configurations, self.envs, self.seeds)

    def run_dir(self, configuration: Configuration, env: str, seed: int) -> Path:
        """Where a run is kept."""
        return self.out / "runs" / env / configuration.name / f"seed-{seed}"

    def overrides(self, configuration: Configuration, env: str, seed: int) -> list[str]:
        """The command line of a run, all but its run_dir."""
        fixed = [f"algorithm={self.algorithm}", f"env={env}", f"seed={seed}", f"total_steps={self.steps}"]
        return [*fixed, *configuration.overrides]


def parse_grid(entries: Sequence[str]) -> list[Configuration]:
    """All combinations of `setting=value,value,...`, written as Hydra's sweeps are; the last setting varies fastest.

    Raises ValueError for an entry that cannot be read, and for a setting or value that is there twice.
    """
    values: dict[str, list[str]] = {}
    for entry in entries:
        try:
            override = OverridesParser.create().parse_override(entry)
            single = not override.is_sweep_override()
            found = [override.get_value_element_as_str()] if single else list(override.sweep_string_iterator())
        except HydraException:
            raise ValueError(f"--grid {entry}: cannot be read; write setting=value,value,...") from None
        key = override.get_key_element()
        if key in OF_THE_SEARCH:
            raise ValueError(f"--grid {entry}: the search sets {key} for every run; leave it out")
        if key in values:
            raise ValueError(f"--grid {entry}: {key} is listed twice; list all its values once")
        values[key] = found
    configurations = [Configuration(dict(zip(values, point, strict=True))) for point in product(*values.values())]
    _refuse_repetition("--grid", [configuration.name for configuration in configurations])
    return configurations


def scores(means: np.ndarray, random: np.ndarray) -> np.ndarray:
    """Mean over tasks of (mean - random) / (best - random): 1 for a configuration that is the best on every task.

    Args:
        means: final return, mean over seeds, (configurations, envs); NaN where a run has none.
        random: return of uniformly random actions, (envs,).

    Returns:
        (configurations,); NaN where a task has no mean, and for all when no configuration beats random on a task.
    """
    best = np.fmax.reduce(means, axis=0)
    reach = np.where(best > random, best - random, np.nan)
    mean: np.ndarray = ((means - random) / reach).mean(1)
    return mean


def ranks(scores: np.ndarray) -> list[int | None]:
    """1 for the highest score; equal scores share a rank, and one that is NaN has none."""
    return [None if np.isnan(score) else 1 + int((scores > score).sum()) for score in scores]


def check(search: Search) -> None:
    """Refuse what train.py would refuse, before anything is computed."""
    _refuse_repetition("--envs", search.envs)
    _refuse_repetition("--seeds", search.seeds)
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        for cell in search.cells():
            typed(compose("config", [*search.overrides(*cell), "run_dir=unused"]))


def run_all(search: Search, jobs: int) -> list[str]:
    """Train what has not been trained, `jobs` runs side by side; returns a line for every run that failed."""
    cells = list(search.cells())
    failed: dict[int, str] = {}  # by position, for the order of the list
    with ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(train, search.run_dir(*cell), search.overrides(*cell)): i for i, cell in enumerate(cells)
        }
        try:
            for done, future in enumerate(as_completed(futures), 1):
                i = futures[future]
                configuration, env, seed = cells[i]
                label, run_dir = f"{env} {configuration.name} seed {seed}", search.run_dir(*cells[i])
                try:
                    future.result()
                    outcome = number(final_return(run_dir))
                except RunFailed as error:
                    outcome = f"failed: {error}"
                    failed[i] = f"{label}: {error} ({run_dir / 'train.log'})"
                print(f"[{done}/{len(cells)}] {label}: {outcome}", file=sys.stderr, flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [failed[i] for i in sorted(failed)]


def final_return(run_dir: Path) -> float:
    """Episode return at the end of a run; NaN unless it finished and every environment ended an episode."""
    run = load_run(run_dir)
    if run.status != "finished" or run.progress is None:
        return math.nan
    return float(run.progress["episode_return"].iloc[-1])


def random_return(run_dirs: Sequence[Path]) -> float:
    """Mean return of the episodes of random actions that these runs recorded; NaN if there are none."""
    tables = [run.evaluation for run in map(load_run, run_dirs) if run.evaluation is not None]
    episodes = [table.loc[table["mode"] == "random", "episode_return"] for table in tables]
    returns = np.concatenate(episodes) if episodes else np.array([])
    return float(returns.mean()) if len(returns) else math.nan


def tabulate(search: Search, failed: Sequence[str]) -> Table:
    """The configurations, best first."""
    grid = [[[search.run_dir(c, env, k) for k in search.seeds] for env in search.envs] for c in search.configurations]
    finals = np.array([[[final_return(run_dir) for run_dir in seeds] for seeds in envs] for envs in grid])
    random = np.array([random_return([d for envs in grid for d in envs[j]]) for j in range(len(search.envs))])
    means = finals.mean(2)
    score = scores(means, random)
    rank = ranks(score)

    records: list[Record] = []
    for i in sorted(range(len(grid)), key=lambda i: (rank[i] is None, rank[i])):
        record = {"rank": rank[i], **search.configurations[i].settings, "score": _null(score[i])}
        for j, env in enumerate(search.envs):
            record[env] = _null(means[i, j])
            record |= {f"{env} seed {k}": _null(x) for k, x in zip(search.seeds, finals[i, j], strict=True)}
        records.append(record)

    settings = list(search.configurations[0].settings)
    rows = [[_text(value) for value in record.values()] for record in records]
    return Table(
        "search", "Search", _caption(search, random, failed), records, list(records[0]), rows, benchmark(), settings
    )


def _caption(search: Search, random: np.ndarray, failed: Sequence[str]) -> str:
    n, envs, seeds = len(search.configurations), len(search.envs), len(search.seeds)
    floor = ", ".join(f"{env} {number(value)}" for env, value in zip(search.envs, random, strict=True))
    caption = (
        f"Search for the settings of {search.algorithm}: {n} configurations × {envs} tasks × {seeds} seeds × "
        f"{search.steps:,} steps = {n * envs * seeds * search.steps:,} steps. Returns are the final episode_return, "
        "mean over seeds and each seed. Score: mean over tasks of (return − random) / (best configuration's return "
        f"− random), with the return of random actions: {floor}."
    )
    return "\n\n".join([caption, *(f"Failed: {line}." for line in failed)])


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _text(value: str | int | float | None) -> str:
    return number(value) if value is None or isinstance(value, float) else str(value)


def _refuse_repetition(option: str, values: Sequence[str] | Sequence[int]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise ValueError(f"{option}: {value} is there twice; list it once")


def main() -> int:
    """Check, train, tabulate; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("algorithm")
    parser.add_argument("--grid", nargs="+", required=True, metavar="SETTING=VALUE,...", help="its configurations")
    parser.add_argument("--envs", nargs="+", required=True, help="names in conf/env/")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101], help="none that results are reported on")
    parser.add_argument("--steps", type=int, required=True, help="environment steps of each run")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="default: results/search/<algorithm>")
    options = parser.parse_args()
    if options.jobs < 1:
        raise ValueError(f"--jobs {options.jobs}: must be at least 1")
    out = options.out or REPOSITORY / "results" / "search" / options.algorithm
    configurations = parse_grid(options.grid)
    search = Search(options.algorithm, configurations, options.envs, options.seeds, options.steps, out)
    check(search)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be written ({error.strerror}); choose a writable directory") from None
    failed = run_all(search, options.jobs)
    table = tabulate(search, failed)
    (out / "search.md").write_text(table.markdown(), encoding="utf-8")
    (out / "search.csv").write_text(table.csv(), encoding="utf-8")
    print(table.markdown())
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error, "search.py"))
    except KeyboardInterrupt:
        sys.exit(130)

"""Learning curves from elsewhere, beside those of a suite: never trained here, and never in a gain.

They come as a long CSV file with the columns `COLUMNS`, one row per episode or per score that the source reports::

    env,variant,seed,env_steps,episode_return
    hopper,sb3-ppo,0,2048,31.2

``python -m analysis.external OUT.csv --env hopper --variant sb3-ppo RUN ...`` makes one of the files of other tools
(`analysis.foreign_logs`); a suite's own ``tables/curves.csv`` is one as well.
"""

import argparse
import csv
import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from analysis.curves import GRID, Floats, grid_points
from analysis.foreign_logs import Rows, read_runs
from analysis.style import EXTERNAL
from analysis.text import shortened

COLUMNS = ("env", "variant", "seed", "env_steps", "episode_return")
WINDOW, MOST = 0.1, 100
"""The score at a step is the mean over the rows in this last share of the steps until there, `MOST` at most."""
LARGEST_STEP = 2**53
MOST_ROWS = 5_000_000
SHORTEST = 0.99
"""Share of the suite's budget from which on a run counts as one of this budget."""

Key = tuple[str, str, int]


@dataclass(frozen=True)
class External:
    """The runs of one variant on one environment of the suite that come from elsewhere.

    `variant` ends in ``style.EXTERNAL``. `steps` (K,) is the suite's grid, `values` (runs, K) the scores there: NaN
    before a run's first row and after its end. `ends` (runs,) are the steps of their last rows.
    """

    env: str
    variant: str
    seeds: tuple[int, ...]
    steps: Floats
    values: Floats
    ends: Floats

    @property
    def finals(self) -> Floats:
        """Scores at the end of the budget, of the runs that reach it, (≤ runs,)."""
        return np.asarray(self.values[self.ends >= SHORTEST * self.steps[-1], -1])


def read_external(paths: Iterable[Path], envs: Sequence[str], total_steps: int) -> tuple[External, ...]:
    """The external runs in files, or folders of them, by environment and variant.

    Raises:
        ValueError: one line that names file and line, what is wrong there and what would be right.
    """
    runs: dict[Key, tuple[Path, Floats]] = {}
    for path in _files(paths):
        for key, rows in _read(path, envs).items():
            if key in runs:
                env, variant, seed = key
                raise ValueError(
                    f"{path}: {env}/{variant}/seed-{seed} is in {runs[key][0]} already; give every run once"
                )
            runs[key] = (path, rows)
    points = grid_points(total_steps)
    found: dict[tuple[str, str], list[tuple[int, Floats]]] = {}
    for (env, variant, seed), (_, rows) in sorted(runs.items()):
        found.setdefault((env, variant), []).append((seed, rows))
    return tuple(
        External(
            env,
            variant + EXTERNAL,
            tuple(seed for seed, _ in some),
            points,
            np.stack([_scores(rows, points) for _, rows in some]),
            np.array([rows[-1, 0] for _, rows in some]),
        )
        for (env, variant), some in found.items()
    )


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            if not (inside := sorted(path.glob("*.csv"))):
                raise ValueError(f"{path}: has no *.csv; python -m analysis.external makes one of other tools' files")
            yield from inside
        elif path.is_file():
            yield path
        else:
            raise ValueError(f"{path}: no such file or folder of external curves")


def _read(path: Path, envs: Sequence[str]) -> dict[Key, Floats]:
    """The rows of every run in a file, (n, 2): steps and returns, by step."""
    found: dict[Key, list[tuple[int, float]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.reader(file, strict=True)
            header = next(lines, [])
            if tuple(header) != COLUMNS:
                raise ValueError(f"line 1: the columns are {shortened(','.join(header), 80)}, not {','.join(COLUMNS)}")
            for row in lines:
                if row:
                    key, values = _row(row, envs, lines.line_num)
                    found.setdefault(key, []).append(values)
                if lines.line_num > MOST_ROWS:
                    raise ValueError(f"more than {MOST_ROWS:,} lines")
    except (ValueError, csv.Error) as error:  # a UnicodeDecodeError is a ValueError
        raise ValueError(f"{path}: {error}") from None
    if not found:
        raise ValueError(f"{path}: has no row under its header")
    return {key: _sorted(rows) for key, rows in found.items()}


def _row(row: list[str], envs: Sequence[str], line: int) -> tuple[Key, tuple[int, float]]:
    if len(row) != len(COLUMNS):
        raise ValueError(f"line {line}: {len(row)} entries, not {len(COLUMNS)}; the file may be cut off")
    env, variant, seed, steps, score = row
    if env not in envs:
        raise ValueError(f"line {line}: env {shortened(env, 40)!r} is not in the suite, which has {', '.join(envs)}")
    if not variant or variant != shortened(variant, 40):
        raise ValueError(f"line {line}: variant {shortened(variant, 40)!r}: give a name of 1 to 40 characters")
    for name, entry in (("seed", seed), ("env_steps", steps)):
        if not (entry.isascii() and entry.isdecimal() and int(entry) <= LARGEST_STEP):
            raise ValueError(f"line {line}: {name} {shortened(entry, 40)!r} is not a whole number from 0")
    try:
        value = float(score)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"line {line}: episode_return {shortened(score, 40)!r} is not a finite number")
    return (env, variant, int(seed)), (int(steps), value)


def _sorted(rows: list[tuple[int, float]]) -> Floats:
    table = np.array(rows, dtype=np.float64)
    return table[np.argsort(table[:, 0], kind="stable")]


def _scores(rows: Floats, points: Floats) -> Floats:
    """Score at the points of the grid, (K,): see `WINDOW`. The point at or just after the last row is the last one."""
    steps, returns = rows.T
    end = np.searchsorted(steps, points, side="right")
    count = np.clip(end - np.searchsorted(steps, (1 - WINDOW) * points, side="right"), 1, MOST)
    total = np.append(0.0, np.cumsum(returns))
    known = (end > 0) & (points < steps[-1] + GRID)
    scores = (total[end] - total[np.maximum(end - count, 0)]) / np.minimum(count, np.maximum(end, 1))
    return np.where(known, scores, np.nan)


def write_long(path: Path, env: str, variant: str, runs: Sequence[Rows], first_seed: int) -> int:
    """Write runs as a long CSV file, with seeds counted from `first_seed`; returns the number of rows."""
    with path.open("x", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for seed, rows in enumerate(runs, first_seed):
            writer.writerows((env, variant, seed, steps, repr(score)) for steps, score in rows)
    return sum(len(rows) for rows in runs)


def main(arguments: Sequence[str]) -> int:
    """Make a long CSV file of other tools' files; 2 with one line on stderr where that cannot be."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.external",
        description="Make curves for --config external= of monitor.csv files, TensorBoard event files and W&B exports.",
    )
    parser.add_argument("out", type=Path, help="the CSV file to write")
    parser.add_argument("runs", type=Path, nargs="+", help="a file, or a folder with the files of one run")
    parser.add_argument("--env", required=True, help="environment of the suite, such as hopper")
    parser.add_argument("--variant", required=True, help="what to call it, such as sb3-ppo")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; the others count on")
    parser.add_argument(
        "--tag", default="", help="which scalar of event files and W&B exports is the return of an episode"
    )
    options = parser.parse_args(arguments)
    try:
        runs = [run for path in options.runs for run in read_runs(path, options.tag)]
        rows = write_long(options.out, options.env, options.variant, runs, options.seed)
    except FileExistsError:
        print(f"external: {options.out}: is there already; give another name", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"external: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(runs)} runs, {rows:,} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

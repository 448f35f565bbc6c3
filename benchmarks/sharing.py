"""Training steps per second of equal runs side by side, on the cores of a machine or on one GPU.

    python benchmarks/sharing.py [--runs 1 2 --algorithm ppo --env "atari env.game=pong" --device cuda --workers 2]

For every number of runs: what one of them does, what all do together, and where the time of one goes. The runs start
together and do the same work; their first updates, in which some have not begun yet, do not count.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number, percent
from benchmarks.runs import PHASES, SKIPPED, UNMEASURED, RunFailed, machine, progress_of, steps_per_second, train


def side_by_side(runs: int, settings: Sequence[str]) -> list[pd.DataFrame]:
    """Rows of progress.parquet of so many runs at once, with seeds 0, 1, ... Raises RunFailed."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(runs) as pool:

        def progress(seed: int) -> pd.DataFrame:
            run_dir = Path(directory) / str(seed)
            train(run_dir, [*settings, *UNMEASURED, f"seed={seed}"])
            return progress_of(run_dir)

        return list(pool.map(progress, range(runs)))


def row(progress: Sequence[pd.DataFrame]) -> list[str]:
    """One line of the table, from all runs that were side by side."""
    rates, shares = [], []
    for updates in progress:
        seconds = updates[list(PHASES.values())].iloc[SKIPPED:].sum()
        rates.append(steps_per_second(updates))
        shares.append(seconds / seconds.sum())
    columns = (percent(median(float(share[column]) for share in shares)) for column in PHASES.values())
    return [str(len(progress)), number(median(rates)), number(sum(rates)), *columns]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", nargs="+", type=int, default=[1, 2], help="side by side (default: 1 2)")
    parser.add_argument("--algorithm", default="ppo", help="(default: %(default)s)")
    parser.add_argument("--env", default="atari env.game=pong", help="(default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes of each that step environments (default: 1)")
    parser.add_argument("--steps", type=int, default=20_480, help="of each run (default: %(default)s)")
    options = parser.parse_args()
    if min(options.runs) < 1:
        raise ValueError(f"--runs {min(options.runs)}: must be at least 1")
    described, lines = machine(), []
    if options.device != "cpu":
        described = f"{torch.cuda.get_device_name(options.device)}; {described}"
    settings = [f"algorithm={options.algorithm}", *f"env={options.env}".split()]
    settings += [f"{name}={getattr(options, name)}" for name in ("device", "workers")]
    settings.append(f"total_steps={options.steps}")
    for runs in options.runs:
        progress = side_by_side(runs, settings)
        lines.append(row(progress))
        print(f"{runs} side by side: {lines[-1][2]} steps/s together", file=sys.stderr)
    caption = (
        f"Training steps per second of equal runs side by side: {' '.join(settings)}. One: median over the runs. The "
        "shares of its time are those of collecting, of the policy's update with its advantages, of the critic's fit "
        f"and of the diagnostics of every update, medians.\n\nMachine: {described}."
    )
    header = ["Runs", "One, steps/s", "All, steps/s", *PHASES]
    print(Table("sharing", "Runs side by side", caption, [], header, lines, benchmark(), ()).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"sharing.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

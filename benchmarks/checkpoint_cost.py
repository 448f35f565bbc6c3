"""What saving a run costs: time per checkpoint with its tables, and its share at the default interval.

    python benchmarks/checkpoint_cost.py [--env humanoid --steps N --only ppo acktr]

Every algorithm trains with its own settings and saves after every update; the last twenty saves are looked at, when
the tables are longest.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number
from benchmarks.runs import RunFailed, chosen, machine, progress_of, train
from tracking.record import CHECKPOINT, EPISODES

INTERVAL = 60.0
"""Default of checkpoint.interval, s."""
SAVES = 20


def row(algorithm: str, env: str, steps: int) -> list[str]:
    """Measure one algorithm."""
    settings = (f"algorithm={algorithm}", f"env={env}", f"total_steps={steps}", "evaluation.episodes=0")
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory)
        train(run_dir, [*settings, "checkpoint.updates=1"])
        seconds = progress_of(run_dir)["checkpoint_time"].tail(SAVES)
        sizes = [(run_dir / name).stat().st_size for name in (CHECKPOINT, EPISODES)]
    return [
        algorithm,
        f"{1000 * seconds.median():.0f} [{1000 * seconds.min():.0f}, {1000 * seconds.max():.0f}]",
        f"{100 * seconds.median() / INTERVAL:.2f} %",  # a few hundredths
        *(number(size / 1000) for size in sizes),
    ]


def main(arguments: Sequence[str]) -> int:
    """Measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="humanoid", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=102_400, help="of each run (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    options = parser.parse_args(arguments)
    try:
        caption = (
            f"Saving a run of {options.steps:,} steps on {options.env}: median [min, max] of {SAVES}. {machine()}."
        )
        rows = [row(algorithm, options.env, options.steps) for algorithm in chosen(options.only)]
    except (ValueError, RunFailed) as error:
        print(f"checkpoint_cost: {error}", file=sys.stderr)
        return 1
    header = ["Algorithm", "Save (ms)", "Share at 60 s", "Checkpoint (kB)", "Episodes (kB)"]
    print(Table("checkpoint_cost", "Cost of saving", caption, [], header, rows, benchmark(), ("Algorithm",)).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

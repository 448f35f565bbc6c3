"""What the memory allocator's settings of a suite's cells are worth: the same run with them and without, in turn.

    python benchmarks/allocator.py [--env "atari env.game=pong" --only ppo acktr --repeats 3]

The settings are those of `process_environment` in pipeline/run_cell.py. Every pair of runs must come out equal to the
last bit, or the script ends.
"""

import argparse
import os
import resource
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number, percent
from benchmarks.runs import (
    UNMEASURED,
    RunFailed,
    alone,
    chosen,
    machine,
    peak_memory,
    progress_of,
    spread,
    steps_per_second,
    train,
)
from pipeline.run_cell import TUNABLES
from tracking.compare import differences


@dataclass(frozen=True)
class Cost:
    """Of one run: steps per second, share of its processor time spent in the kernel, peak of its memory in GB."""

    steps_per_second: float
    system: float
    memory: float


def cost(run_dir: Path, settings: Sequence[str], tuned: bool) -> Cost:
    """Of a real run, with the settings of a cell or those of the C library; to be called `alone`."""
    if tuned:
        os.environ.pop(TUNABLES, None)  # for the wrapper to set
    else:
        os.environ[TUNABLES] = ""
    train(run_dir, settings)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return Cost(steps_per_second(progress_of(run_dir)), used.ru_stime / (used.ru_stime + used.ru_utime), peak_memory())


def pair(settings: Sequence[str]) -> tuple[Cost, Cost]:
    """The same run with the settings and without. Raises RunFailed where the two differ."""
    with tempfile.TemporaryDirectory() as directory:
        tuned, plain = (Path(directory) / name for name in ("tuned", "plain"))
        costs = alone(cost, tuned, settings, True), alone(cost, plain, settings, False)
        if found := differences(tuned, plain):
            raise RunFailed(f"with and without the settings of the allocator: {'; '.join(found)}")
    return costs


def row(algorithm: str, pairs: Sequence[tuple[Cost, Cost]]) -> list[str]:
    """One line of the table: medians, and the ratio within a pair."""
    tuned, plain = zip(*pairs, strict=True)
    ratios = [a.steps_per_second / b.steps_per_second for a, b in pairs]
    rates = [number(median(run.steps_per_second for run in side)) for side in (tuned, plain)]
    system = [percent(median(run.system for run in side)) for side in (tuned, plain)]
    memory = [number(median(run.memory for run in side)) for side in (tuned, plain)]
    return [algorithm, *rates, spread(ratios), " / ".join(system), " / ".join(memory)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="atari env.game=pong", help="(default: %(default)s)")
    parser.add_argument("--steps", type=int, default=15_360, help="of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    options = parser.parse_args()
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: must be at least 1")
    described, rows = machine(), []
    settings = [*f"env={options.env}".split(), f"total_steps={options.steps}", *UNMEASURED]
    for algorithm in chosen(options.only):
        pairs = []
        for repeat in range(options.repeats):
            pairs.append(pair([f"algorithm={algorithm}", *settings, f"seed={repeat}"]))
            tuned, plain = (run.steps_per_second for run in pairs[-1])
            print(f"{algorithm}, {repeat + 1} of {options.repeats}: {tuned:,.0f} and {plain:,.0f}", file=sys.stderr)
        rows.append(row(algorithm, pairs))
    caption = (
        f"Training steps per second with and without the allocator's settings of a cell, {' '.join(settings)}: pairs "
        f"of runs in turn, {options.repeats} for each algorithm, equal to the last bit. Rates are medians, the ratio "
        "is with / without within a pair, median [minimum, maximum]. Kernel: share of the processor time, start "
        f"included; memory: peak of the resident set; with / without.\n\nMachine: {described}."
    )
    header = ["Algorithm", "With, steps/s", "Without, steps/s", "Ratio", "Kernel", "Memory, GB"]
    print(Table("allocator", "Allocator", caption, [], header, rows, benchmark(), ("Algorithm",)).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"allocator.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

"""What the diagnostics cost at their defaults: their share of a run's wall time, for every algorithm.

    python benchmarks/diagnostics_cost.py [--steps N --only ppo trpo]

Every algorithm trains on HalfCheetah-v5 with its own settings. The same run with the geometry measured at the first
update alone is the check: the time it saves should be about the difference of the two shares. Runs of fewer updates
than `diagnostics.interval` overstate the share, since the first update measures everything.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number, percent
from benchmarks.runs import RunFailed, chosen, machine, progress_of, train

FIRST_ONLY = ["diagnostics.interval=1000000000", "diagnostics.trace_interval=1000000000"]  # no run is that long


def run(algorithm: str, steps: int, overrides: Sequence[str] = ()) -> pd.DataFrame:
    """The progress of one run."""
    fixed = ["env=halfcheetah", f"total_steps={steps}", "evaluation.episodes=0"]
    with tempfile.TemporaryDirectory() as directory:
        train(Path(directory), [f"algorithm={algorithm}", *fixed, *overrides])
        return progress_of(Path(directory))


def share(progress: pd.DataFrame) -> float:
    """Share of a run's wall time that its diagnostics took."""
    return float(progress["diagnostics_time"].sum() / progress["wall_time"].iloc[-1])


def row(algorithm: str, steps: int) -> list[str]:
    """Measure one algorithm, both ways."""
    default = run(algorithm, steps)
    check = run(algorithm, steps, FIRST_ONLY)
    seconds, without = (float(progress["wall_time"].iloc[-1]) for progress in (default, check))
    everything, trace = (int(default[column].notna().sum()) for column in ("alignment_residual", "fisher_trace"))
    return [
        algorithm,
        f"{len(default)} / {trace} / {everything}",
        number(seconds),
        percent(share(default)),
        number(without),
        percent(share(check)),
        percent(1 - without / seconds),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=204_800, help="of each run (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    options = parser.parse_args()
    described = machine()
    rows = [row(algorithm, options.steps) for algorithm in chosen(options.only)]
    caption = (
        f"Cost of the diagnostics on HalfCheetah-v5 over {options.steps:,} steps, one thread, evaluation aside. "
        "Updates: all / with the Fisher trace measured / with everything measured. Share: diagnostics_time over "
        "wall_time, at the defaults and with the geometry measured at the first update alone. Saved: wall time of "
        f"the latter against the former.\n\nMachine: {described}."
    )
    header = ["Algorithm", "Updates", "Wall time, s", "Share", "First only, s", "Share, first only", "Saved"]
    print(
        Table(
            "diagnostics_cost", "Cost of the diagnostics", caption, [], header, rows, benchmark(), ("Algorithm",)
        ).markdown()
    )


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"diagnostics_cost.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

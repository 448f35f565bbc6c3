"""Wall time, memory and disk of every suite on other machines, predicted from the unit costs that were measured.

    python benchmarks/scale.py

Prints the tables of docs/scale.md. A cell takes the seconds of pipeline/costs.csv on one core; a core takes the next
cell of the suite when it is free, as in Snakemake. That N cores do N times the work of one is assumed, not measured.
"""

import heapq
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from pipeline.forecast import AROUND, memory, tabled
from pipeline.suites import Cell, Suite, load_suites
from tracking.identity import REPOSITORY

CORES = (2, 16, 64)
GPUS = (1, 4, 8)
CORES_PER_GPU = 16
GAMES_ON_GPU = 10_000 / CORES_PER_GPU  # steps/s of each of 16 runs on an H100 (benchmarks/README.md); 16,000 with MPS


def makespan(seconds: Iterable[float], workers: int) -> float:
    """When the last of these jobs ends, each begun in turn by the worker that is free first."""
    free = [0.0] * workers
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)


def in_order(suite: Suite) -> list[Cell]:
    """The cells as Snakemake starts them: low seeds first."""
    return sorted(suite.cells, key=lambda cell: cell.seed)


def seconds_on_core(cell: Cell, total_steps: int) -> float:
    """What a run takes on one core. Raises ValueError where nothing is known of its kind."""
    if (cost := tabled(cell, REPOSITORY)) is None:
        raise ValueError(f"{cell.env}: pipeline/costs.csv has nothing of its kind")
    return AROUND + total_steps * cost.seconds_per_step


def row(suite: Suite) -> list[str]:
    """One line of the first table: the suite, its cells, core-hours, disk; wall time and memory for each machine."""
    cells = in_order(suite)
    seconds = [seconds_on_core(cell, suite.total_steps) for cell in cells]
    costs = [cost for cell in cells if (cost := tabled(cell, REPOSITORY)) is not None]
    disk = sum(cost.other_bytes + suite.total_steps * cost.table_bytes_per_step for cost in costs)
    memories = sorted(map(memory, cells), reverse=True)
    machines = [f"{duration(makespan(seconds, n))}, {sum(memories[:n]) / 1e9:.0f} GB" for n in CORES]
    return [f"`{suite.name}`", f"{len(cells):,}", f"{sum(seconds) / 3600:,.1f}", f"{disk / 1e9:.2f} GB", *machines]


def gpu_row(suite: Suite) -> list[str]:
    """One line of the second table: the wall time of a suite of games on GPUs, 16 runs on each."""
    seconds = [AROUND + suite.total_steps / GAMES_ON_GPU] * len(suite.cells)
    wall = [f"{duration(makespan(seconds, n * CORES_PER_GPU))}" for n in GPUS]
    with_mps = [f"{duration(makespan([each / 1.6 for each in seconds], n * CORES_PER_GPU))}" for n in GPUS]
    return [f"`{suite.name}@cuda`", *(f"{one}, {other}" for one, other in zip(wall, with_mps, strict=True))]


def duration(seconds: float) -> str:
    """Minutes below two hours, hours below two days, else days."""
    for limit, unit, name in ((7200, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds / unit:.3g} {name}"
    return f"{seconds / 86400:.3g} d"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Print both tables."""
    names = sorted(path.stem for path in (REPOSITORY / "conf" / "suite").glob("[!.]*.yaml"))
    suites = {suite.name: suite for name in names for suite in load_suites(name)}
    first = [row(suite) for suite in suites.values()]
    print(table(["suite", "cells", "core-hours", "disk", *(f"{n} cores" for n in CORES)], first), end="\n\n")
    games = [gpu_row(suite) for suite in suites.values() if all(cell.env.startswith("atari_") for cell in suite.cells)]
    print(table(["suite", *(f"{n} GPU{'s' * (n > 1)}, {n * CORES_PER_GPU} cores" for n in GPUS)], games))


if __name__ == "__main__":
    main()

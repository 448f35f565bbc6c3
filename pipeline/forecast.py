"""How long cells will train, how much disk they will fill and how much memory they hold.

From runs of the same environment and variant that finished here on such a device, wherever there are any, and otherwise
from costs.csv, which has CPUs alone.
"""

import csv
import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import mean

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.suites import Cell, device_of
from tracking.files import open_regular
from tracking.manifest import STATUS, read_manifest, read_status
from tracking.record import PROGRESS

TABLE = "pipeline/costs.csv"  # measured on one core of a 2026 server
AROUND = 6.0  # s of a run that its wall_time leaves out: imports, warm-up, evaluation
RUNS_READ = 10  # of every kind, the newest
MEMORY, MEMORY_ATARI = 0.7e9, 2.4e9  # bytes: ACKTR on Humanoid and on Pong, with diagnostics
MEMORY_CUDA = 4e9  # bytes of main memory that CUDA and its libraries take beside; an allowance, not measured
SNAKEMAKE = 0.8e9  # bytes of the processes of Snakemake around a run in the job of a cluster
DAY = 24 * 60.0  # minutes
LEAST = 10.0  # s of training in a run whose speed means something


@dataclass(frozen=True)
class Cost:
    """What one run takes, and how this is known. Its tables grow with the steps, its other files do not."""

    seconds_per_step: float
    table_bytes_per_step: float
    other_bytes: float
    source: str


@dataclass(frozen=True)
class Forecast:
    """What cells will take; `sources` counts the cells by what their part rests on, `unknown` those left out."""

    core_hours: float
    bytes: float
    sources: Counter[str]
    unknown: int

    def __str__(self) -> str:
        """In words, for a message."""
        hours, minutes = f"{self.core_hours:,.0f} core-hours", f"{60 * self.core_hours:.0f} core-minutes"
        basis = ", ".join(f"{count} by {source}" for source, count in sorted(self.sources.items()))
        about = f"about {hours if self.core_hours >= 3 else minutes} and {self.bytes / 1e6:,.0f} MB ({basis})"
        beside = f"no forecast for {self.unknown} of a kind that {TABLE} lacks"
        return "; ".join([about] * bool(self.sources) + [beside] * bool(self.unknown))


def forecast(cells: Collection[Cell], total_steps: int, restarted: Collection[Cell], root: Path) -> Forecast:
    """What is left to do of `cells` takes; the `restarted` train from the first step, others on from their last row."""
    seconds = size = 0.0
    sources: Counter[str] = Counter()
    runs = {}
    for cell in cells:
        costs = _finished(cell.env, cell.variant, _is_on_gpu(cell), root)
        runs[cell.env, cell.variant] = len(costs)
        cost = _mean(costs) if costs else tabled(cell, root)
        if cost is None:
            continue
        row = None if cell in restarted else _last_row(root / cell.run_dir / PROGRESS)
        seconds += AROUND + max(0.0, total_steps - (row[0] if row else 0.0)) * cost.seconds_per_step
        size += cost.other_bytes + total_steps * cost.table_bytes_per_step
        sources[cost.source] += 1
    count = f"{sum(runs.values())} finished runs"
    named = Counter({source or count: n for source, n in sources.items()})
    return Forecast(seconds / 3600, size, named, len(cells) - named.total())


@dataclass(frozen=True)
class Request:
    """What the job of one cell asks a cluster for."""

    minutes: int
    megabytes: int


def request(cell: Cell, total_steps: int, root: Path) -> Request:
    """Twice the forecast of a whole run, 10 minutes at least, a day where there is none; memory likewise with a margin.

    A run that needs longer is stopped ahead of the limit, saved, and queued again (pipeline/run_cell.py).
    """
    costs = _finished(cell.env, cell.variant, _is_on_gpu(cell), root)
    cost = _mean(costs) if costs else tabled(cell, root)
    minutes = DAY if cost is None else 2 * (AROUND + total_steps * cost.seconds_per_step) / 60
    return Request(max(10, math.ceil(minutes)), math.ceil((1.5 * memory(cell) + SNAKEMAKE) / 1e6))


def memory(cell: Cell) -> float:
    """Most bytes of main memory that a run holds at a time."""
    return (MEMORY_ATARI if _is_atari(cell) else MEMORY) + (MEMORY_CUDA if _is_on_gpu(cell) else 0)


@cache
def _finished(env: str, variant: str, on_gpu: bool, root: Path) -> tuple[Cost, ...]:
    """The newest finished runs of a kind, on GPUs or on CPUs, of whichever suite."""
    runs = sorted(root.glob(f"results/*/runs/{env}/{variant}/seed-*/{STATUS}"), key=lambda path: -path.lstat().st_mtime)
    costs: list[Cost] = []
    for run_dir in (run.parent for run in runs):
        if len(costs) == RUNS_READ:
            break
        try:
            status, manifest = read_status(run_dir), read_manifest(run_dir)
        except (OSError, ValueError):
            continue
        if status is None or status["status"] != "finished" or manifest is None:
            continue
        row = _last_row(run_dir / PROGRESS)
        device = (manifest["config"] or {}).get("device", "cpu")
        if (device != "cpu") == on_gpu and row is not None and row[1] >= LEAST:
            sizes = {path.name: path.stat().st_size for path in run_dir.iterdir() if path.is_file()}
            tables = sum(size for name, size in sizes.items() if name.endswith(".parquet"))
            costs.append(Cost(row[1] / row[0], tables / row[0], sum(sizes.values()) - tables, ""))
    return tuple(costs)


def _is_atari(cell: Cell) -> bool:
    return "env=atari" in cell.overrides


def _is_on_gpu(cell: Cell) -> bool:
    return device_of(cell.overrides) != "cpu"


def _mean(costs: Collection[Cost]) -> Cost:
    return Cost(
        mean(cost.seconds_per_step for cost in costs),
        mean(cost.table_bytes_per_step for cost in costs),
        mean(cost.other_bytes for cost in costs),
        "",
    )


def _last_row(progress: Path) -> tuple[float, float] | None:
    """Steps and training seconds at the end of a progress.parquet, from its footer; None without a row."""
    try:
        with open_regular(progress) as file:
            footer = pq.read_metadata(file)
        largest = dict.fromkeys(("env_steps", "wall_time"), 0.0)
        for group in map(footer.row_group, range(footer.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.path_in_schema in largest and column.statistics is not None and column.statistics.has_min_max:
                    name = column.path_in_schema
                    largest[name] = max(largest[name], column.statistics.max)
    except (OSError, ValueError, TypeError, pa.ArrowException):  # damaged, or of other types
        return None
    known = all(0 < value < math.inf for value in largest.values())
    return (largest["env_steps"], largest["wall_time"]) if known else None


def tabled(cell: Cell, root: Path) -> Cost | None:
    """The cost of a run by the table; None where that has nothing of its kind: an Atari game or none, on a CPU.

    Of a task that it lacks, by the slowest row of the kind for the algorithm, or the slowest of the kind.
    """
    if _is_on_gpu(cell):
        return None
    table = _table(root)
    if (cell.env, cell.algorithm) in table:
        return table[cell.env, cell.algorithm]
    kind = {key: cost for key, cost in table.items() if key[0].startswith("atari_") == _is_atari(cell)}
    alike = [cost for (_, algorithm), cost in kind.items() if algorithm == cell.algorithm] or list(kind.values())
    if not alike:
        return None
    slowest = max(alike, key=lambda cost: cost.seconds_per_step)
    return replace(slowest, source=f"the slowest in {TABLE}")


@cache
def _table(root: Path) -> dict[tuple[str, str], Cost]:
    lines = (root / TABLE).read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {
        (row["env"], row["algorithm"]): Cost(
            1 / float(row["steps_per_second"]),
            float(row["table_bytes_per_step"]),
            float(row["other_bytes"]),
            TABLE,
        )
        for row in rows
    }

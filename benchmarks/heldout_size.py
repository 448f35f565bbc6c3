"""How many states a held-out batch needs: the spread of what is measured with it, and its cost, by its size.

    python benchmarks/heldout_size.py [--envs halfcheetah hopper --only trpo ppo --updates 20 --states 1024 4096]

Every algorithm trains as in train.py, up to the last of those updates, once per seed. At each of them the same update
is measured with several independent held-out batches of every size. One table: per task and algorithm the alignment
error against its own batch, and by size the held-out error, the noise, both as mean ± standard deviation over these
batches, and the processor time of one batch, collection and measurement.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from algorithms.parts.alignment import Row, heldout_alignment
from algorithms.parts.diagnostics import measure
from algorithms.parts.surrogate import Surrogate
from analysis.provenance import benchmark
from analysis.tables.formats import Table
from benchmarks.runs import chosen
from benchmarks.sampling_bias import settings
from command.refusals import refuse
from settings import RunConfig
from training.determinism import prepare_torch
from training.heldout import HeldOut
from training.learner import build, to_batch

ENVS = ["halfcheetah", "hopper", "inverted_double_pendulum"]
KPIS = {"Held out": "alignment_error_heldout", "Noise": "alignment_noise"}
"""Heading of the table -> column."""


@dataclass(frozen=True)
class Measured:
    """One update: its own alignment error, and by size the rows and seconds of every held-out batch."""

    own: float
    rows: dict[int, list[Row]]
    seconds: dict[int, list[float]]


def measurements(config: RunConfig, updates: Sequence[int], sizes: Sequence[int], repeats: int) -> Iterator[Measured]:
    """Train; measure each of these updates, counted from 1, `repeats` times at every size.

    Learning rates are those of the schedule's start.
    """
    learner, batch_size, device = build(config), config.algorithm.batch_size, torch.device(config.device)
    collector, policy, critic = learner.collector, learner.policy, learner.critic
    by_size = {size: replace(config.diagnostics, interval=1, heldout_states=size) for size in sizes}
    heldout = {
        size: HeldOut(replace(config, diagnostics=diagnostics), learner, can_copy=True)
        for size, diagnostics in by_size.items()
    }
    for i in range(max(updates)):
        problems: dict[int, list[tuple[Surrogate, float]]] = {size: [] for size in sizes}
        for size in sizes if i + 1 in updates else ():
            for repeat in range(repeats):
                start = time.process_time()
                problem = heldout[size].problem(i * repeats + repeat)  # another index, another batch
                assert problem is not None
                problems[size].append((problem, time.process_time() - start))
        rollout = collector.collect(policy.actor(), policy.distribution.noise, batch_size // config.rollout.num_envs)
        batch = to_batch(rollout, critic, config.env.gamma, config.advantage, device)
        problem = Surrogate(policy, batch)
        update = learner.algorithm.update(problem, lr_scale=1.0)
        if i + 1 in updates:
            own = measure(problem, update, replace(config.diagnostics, interval=1), 0, learner.diagnostics_rng)
            rows: dict[int, list[Row]] = {size: [] for size in sizes}
            seconds: dict[int, list[float]] = {size: [] for size in sizes}
            for size, collected in problems.items():
                for problem, spent in collected:
                    start = time.process_time()
                    rows[size].append(heldout_alignment(problem, by_size[size], learner.diagnostics_rng))
                    seconds[size].append(spent + time.process_time() - start)
            yield Measured(float(own["alignment_error"] or 0.0), rows, seconds)
        critic.fit(batch, lr_scale=1.0)


def lines(task: str, algorithm: str, measured: Sequence[Measured]) -> list[list[str]]:
    """A line per KPI and one of seconds, with a column per size; spreads are within an update, pooled over these."""
    head, found = [task, algorithm], []
    sizes = list(measured[0].rows)
    own = f"{fmean(m.own for m in measured):.2f}"
    for name, kpi in KPIS.items():
        values = {size: [[float(row[kpi] or 0.0) for row in m.rows[size]] for m in measured] for size in sizes}
        found.append([*head, own, name, *(mean_and_spread(values[size]) for size in sizes)])
    spent = {size: fmean(s for m in measured for s in m.seconds[size]) for size in sizes}
    return [*found, [*head, own, "Seconds", *(f"{spent[size]:.2f}" for size in sizes)]]


def mean_and_spread(groups: Sequence[Sequence[float]]) -> str:
    """Mean of all ± root mean square of the groups' standard deviations: ``0.93 ± 0.02``."""
    spread = fmean(stdev(group) ** 2 for group in groups) ** 0.5
    return f"{fmean(x for group in groups for x in group):.2f} ± {spread:.3f}"


def main() -> int:
    """Train, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--envs", nargs="+", default=ENVS, help=f"names in conf/env/ (default: {' '.join(ENVS)})")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    parser.add_argument("--updates", nargs="+", type=int, default=[20], help="to measure (default: 20)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[100], help="(default: 100)")
    parser.add_argument("--states", nargs="+", type=int, default=[1024, 2048, 4096, 8192, 16384], help="of the batches")
    parser.add_argument("--repeats", type=int, default=4, help="batches of each size (default: %(default)s)")
    options = parser.parse_args()
    if min(options.updates) < 1:
        raise ValueError(f"--updates {min(options.updates)}: must be at least 1")
    if options.repeats < 2:
        raise ValueError(f"--repeats {options.repeats}: must be at least 2, for a spread")
    table = []
    for task in options.envs:
        for algorithm in chosen(options.only):
            measured = []
            for seed in options.seeds:
                config = settings(algorithm, task, seed)
                prepare_torch(config.device, config.threads)
                measured += list(measurements(config, options.updates, options.states, options.repeats))
            table += lines(task, algorithm, measured)
            print("\n".join(" | ".join(line) for line in table[-3:]), file=sys.stderr, flush=True)
    caption = (
        f"Held-out batches by size, updates {', '.join(map(str, options.updates))} of seeds "
        f"{', '.join(map(str, options.seeds))}, {options.repeats} batches of each size: mean ± standard deviation over "
        "the batches of one update. Seconds: processor time of one batch, collected and measured."
    )
    header = ["Task", "Algorithm", "Own e", "", *(f"{size:,}" for size in options.states)]
    print(Table("heldout_size", "Held-out batches", caption, [], header, table, benchmark(), ("Task",)).markdown())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error, "heldout_size.py"))
    except KeyboardInterrupt:
        sys.exit(130)

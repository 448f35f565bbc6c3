"""What the geometry costs: Fisher products and directions in units of one policy gradient, ACKTR beside Adam-PG.

    python benchmarks/geometry_cost.py [--batch 2048 --repeats 30 --pairs 5 --steps 102400]

First table: every Fisher matrix of `conf/fisher/` with its default settings, on a fixed batch with the shapes of
HalfCheetah-v5. Second: one whole policy update of every algorithm on that batch. Third: training runs of `acktr` with
the critic that all share and of `adam_pg`, at the same batch, in turn. Ratios are taken within each round.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from hydra import compose, initialize_config_dir

from algorithms.parts.algorithm import load_fisher
from algorithms.parts.batch import Batch
from algorithms.parts.directions import Direction, DirectionRule
from algorithms.parts.policy import Policy, distribution_for
from algorithms.parts.surrogate import Surrogate
from analysis.provenance import benchmark
from analysis.tables.formats import Table, number
from benchmarks.runs import RunFailed, machine, progress_of, spread, train
from pipeline.suites import find_algorithms
from settings import RunConfig, typed
from tracking.identity import REPOSITORY

OBSERVATIONS, ACTIONS = 17, 6  # HalfCheetah-v5


def settings(*overrides: str) -> RunConfig:
    """Typed settings of `python train.py env=halfcheetah *overrides`."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return typed(compose("config", ["env=halfcheetah", *overrides]))


def fixed_batch(size: int) -> tuple[Policy, Batch]:
    """A policy with the defaults of `conf/`, and random states with actions of its own and random advantages."""
    generator, rng = torch.Generator().manual_seed(0), np.random.default_rng(0)
    policy = Policy((OBSERVATIONS,), distribution_for(ACTIONS, False), settings("algorithm=npg").network, generator)
    observations = torch.randn(size, OBSERVATIONS, generator=generator)
    noise = torch.from_numpy(policy.distribution.noise(rng, size))
    with torch.no_grad():
        actions = policy.distribution.sample(policy(observations), noise)
    advantages = torch.randn(size, generator=generator)
    return policy, Batch(observations, actions, advantages, torch.zeros(size), advantages, 16)


def side_by_side(tasks: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Milliseconds of every task, once per round, all tasks in turn within a round; the first round is not counted."""
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(repeats + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            task()
            if i:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times


def relative(times: dict[str, list[float]], unit: str) -> dict[str, list[str]]:
    """Median in milliseconds, and median [min, max] of the ratio to `unit` within a round."""
    return {
        name: [number(statistics.median(values)), spread([a / b for a, b in zip(values, times[unit], strict=True)])]
        for name, values in times.items()
    }


def fishers(batch_size: int, repeats: int) -> list[list[str]]:
    """A row per Fisher matrix: making it, one product, and a whole natural direction."""
    policy, batch = fixed_batch(batch_size)
    g = Surrogate(policy, batch).gradient
    tasks: dict[str, Callable[[], object]] = {"gradient": lambda: Surrogate(policy, batch).gradient}
    for name in sorted(path.stem for path in (REPOSITORY / "conf" / "fisher").glob("*.yaml")):
        config = settings("algorithm=npg", f"fisher={name}")
        metric, model = load_fisher(name), Surrogate(policy, batch).model
        make = partial(metric.at, model, config.fisher, np.random.default_rng(0))
        tasks[f"{name}: make"] = make
        tasks[f"{name}: product"] = partial(make().product, g)
        algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
        tasks[f"{name}: direction ({config.pair.solver})"] = partial(
            lambda direction: _follow(direction, Surrogate(policy, batch)),
            algorithm.direction,  # type: ignore[attr-defined]
        )
    return [[name, *cells] for name, cells in relative(side_by_side(tasks, repeats), "gradient").items()]


def updates(batch_size: int, repeats: int) -> list[list[str]]:
    """A row per algorithm: one whole update of the policy, no critic, beside Adam-PG's."""
    tasks: dict[str, Callable[[], object]] = {}
    for name in ["adam_pg", *(a for a in find_algorithms() if a != "adam_pg")]:
        policy, batch = fixed_batch(batch_size)
        config = settings(f"algorithm={name}", f"algorithm.batch_size={batch_size}")
        algorithm = config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))
        tasks[name] = partial(lambda a, p, b: a.update(Surrogate(p, b), 1.0), algorithm, policy, batch)
    return [[name, *cells] for name, cells in relative(side_by_side(tasks, repeats), "adam_pg").items()]


def runs(batch_size: int, steps: int, pairs: int) -> list[list[str]]:
    """Wall time per environment step of whole runs, ACKTR's over Adam-PG's with the same critic and batch."""
    seconds: dict[str, list[float]] = {"adam_pg": [], "acktr": []}
    for _ in range(pairs):
        for name, values in seconds.items():
            shared = ["critic=adam", f"algorithm.batch_size={batch_size}", f"total_steps={steps}"]
            with tempfile.TemporaryDirectory() as directory:
                train(Path(directory), [f"algorithm={name}", "env=halfcheetah", "evaluation.episodes=0", *shared])
                values.append(float(progress_of(Path(directory))["wall_time"].iloc[-1]))
    per_step = {name: [1e6 * s / steps for s in values] for name, values in seconds.items()}
    return [[name, *cells] for name, cells in relative(per_step, "adam_pg").items()]


def _follow(direction: DirectionRule, problem: Surrogate) -> Direction:
    """A direction and the gradient that it is taken from."""
    return direction(problem, problem.gradient)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2048, help="states (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=30, help="rounds of the first two tables (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs, 0 for none (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=102_400, help="of each run (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    described = machine()
    shapes = (
        f"{OBSERVATIONS} observations, {ACTIONS} actions, batch {options.batch:,}, one thread. Machine: {described}."
    )
    tables = [
        (
            "Fisher matrices",
            f"Median over {options.repeats} rounds, ratio [min, max] within a round. {shapes}",
            ["Task", "ms", "Over one policy gradient"],
            fishers(options.batch, options.repeats),
        ),
        (
            "Policy updates",
            f"As above, critic aside. {shapes}",
            ["Algorithm", "ms", "Over adam_pg"],
            updates(options.batch, options.repeats),
        ),
    ]
    if options.pairs:
        caption = (
            f"Wall time per environment step of whole runs of {options.steps:,} steps on HalfCheetah-v5 with the "
            f"shared critic, {options.pairs} pairs of runs in turn; median, ratio [min, max] within a pair. {shapes}"
        )
        rows = runs(options.batch, options.steps, options.pairs)
        tables.append(("Whole runs", caption, ["Algorithm", "µs per step", "Over adam_pg"], rows))
    for title, caption, header, rows in tables:
        print(Table(title, title, caption, [], header, rows, benchmark(), (header[0],)).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"geometry_cost.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

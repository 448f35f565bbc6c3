"""Training steps per second of every algorithm on HalfCheetah-v5 or Pong, beside Stable-Baselines3 and sb3-contrib.

    python benchmarks/throughput.py --peer-python PEERS/bin/python [--task pong --threads 2 --repeats K --only ppo trpo]

Ours and the peer's runs take turns, each in a fresh process; a ratio is taken within each such pair. A second table
says where our time goes. benchmarks/README.md says how to make the peers' environment and what is equal on both sides.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pandas as pd
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from hydra import compose, initialize_config_dir

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number, percent
from benchmarks.runs import (
    PHASES,
    RunFailed,
    alone,
    chosen,
    last_line,
    machine,
    peak_memory,
    progress_of,
    spread,
    train,
)
from envs.tasks import make, random_actions, to_action_space
from pipeline.run_cell import process_environment
from settings import typed
from tracking.identity import REPOSITORY
from tracking.manifest import read_manifest

NUM_ENVS = 16
TRACE_INTERVAL = 5
"""Updates between two Fisher traces in these runs, whose first few updates thus show what every measurement takes."""
ENVIRONMENT_SECONDS = 10.0


@dataclass(frozen=True)
class Task:
    """What both sides train on.

    Attributes:
        title: its name in captions.
        batch_size: steps per update.
        settings: of ours, those that cost time.
        epochs: of PPO.
        minibatch_size: of PPO.
        interval: updates between two measurements of everything that a run makes by default.
        trace_interval: likewise of the Fisher trace alone.
        updates: of each run, by default.
    """

    title: str
    batch_size: int
    settings: Sequence[str]
    epochs: int
    minibatch_size: int
    interval: int
    trace_interval: int
    updates: int


HALFCHEETAH = Task(
    "HalfCheetah-v5",
    2048,
    [
        "env=halfcheetah",
        "rollout.normalise_observations=true",
        "rollout.rewards=normalised",
        "network.hidden=[64,64]",
        "network.activation=tanh",
    ],
    epochs=10,
    minibatch_size=64,
    interval=100,
    trace_interval=10,
    updates=100,
)
PONG = Task(
    "Pong",
    1024,
    [
        "env=atari",
        "env.game=pong",
        "env.sticky_actions=0.25",
        "env.frame_skip=4",
        "env.stack=4",
        "env.life_loss=false",
        "rollout.rewards=sign",
        "network.convolutions=[[32,8,4],[64,4,2],[64,3,1]]",
        "network.hidden=[512]",
        "network.activation=relu",
    ],
    epochs=3,
    minibatch_size=256,
    interval=400,
    trace_interval=20,
    updates=20,
)
TASKS = {"halfcheetah": HALFCHEETAH, "pong": PONG}
NATURAL = [
    "algorithm.delta=0.02", "algorithm.damping=0.1", "fisher=exact", "fisher.iterations=10", "fisher.states=null"
]  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """What an algorithm is compared with.

    Attributes:
        name: the algorithm in the peer library.
        overrides: settings that make our policy update do the same work.
        critic: settings that give our critic as many gradient steps as the peer's default.
    """

    name: str
    overrides: Sequence[str]
    critic: Sequence[str]


def peer_of(algorithm: str, task: Task) -> Peer:
    """PPO and TRPO by name; A2C for all that make one step per batch and no Fisher products."""

    def critic(epochs: int, minibatch_size: int) -> list[str]:
        return [f"critic.epochs={epochs}", f"critic.minibatch_size={minibatch_size}"]

    match algorithm:
        case "ppo":
            own = [f"algorithm.epochs={task.epochs}", f"algorithm.minibatch_size={task.minibatch_size}"]
            return Peer("PPO", own, critic(task.epochs, task.minibatch_size))
        case "trpo" | "npg":
            return Peer("TRPO", NATURAL, critic(10, 128))
    return Peer("A2C", [], critic(1, task.batch_size))


@dataclass(frozen=True)
class Timing:
    """One timed training: steps per second, gradient steps of the critic per batch, versions of packages."""

    steps_per_second: float
    critic_steps: int
    packages: dict[str, str]


@dataclass(frozen=True)
class OurTiming(Timing):
    """One of ours: also the share of each phase in its time, and the peak of its resident memory in GB (10^9 bytes)."""

    shares: dict[str, float]
    peak_memory: float


def time_ours(task: Task, algorithm: str, overrides: Sequence[str], steps: int, seed: int) -> OurTiming:
    """A real run; to be called `alone`."""
    settings = [
        f"algorithm={algorithm}",
        *task.settings,
        f"algorithm.batch_size={task.batch_size}",
        f"rollout.num_envs={NUM_ENVS}",
        f"diagnostics.interval={task.interval}",
        f"diagnostics.trace_interval={TRACE_INTERVAL}",
        "evaluation.episodes=0",
        *overrides,
    ]
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory)
        train(run_dir, [*settings, f"total_steps={steps}", f"seed={seed}"])
        manifest, progress = read_manifest(run_dir), progress_of(run_dir)
    assert manifest is not None
    critic: dict[str, Any] = manifest["config"]["critic"]
    seconds = seconds_per_update(progress, task)
    return OurTiming(
        task.batch_size / sum(seconds.values()),
        critic["epochs"] * math.ceil(task.batch_size / critic["minibatch_size"]),
        manifest["packages"],
        {phase: spent / sum(seconds.values()) for phase, spent in seconds.items()},
        peak_memory(),
    )


def seconds_per_update(progress: pd.DataFrame, task: Task) -> dict[str, float]:
    """Mean wall time of every phase of an update, s.

    The first update measures everything, which a run of a few updates would count too often. So the diagnostics are
    the mean of updates that measure everything, the trace or neither, each weighted by its share in a long run with the
    task's intervals; NaN if this run has none of a kind.
    """
    seconds = {phase: float(progress[column].mean()) for phase, column in PHASES.items()}
    here = progress["diagnostics_time"].groupby(measured(len(progress), task.interval, TRACE_INTERVAL)).mean()
    period = measured(math.lcm(task.interval, task.trace_interval), task.interval, task.trace_interval)
    weights = pd.Series(period).value_counts(normalize=True)
    return seconds | {"Diagnostics": float((weights * here).sum(skipna=False))}


def measured(updates: int, interval: int, trace_interval: int) -> np.ndarray:
    """What the diagnostics of each update measure."""
    i = np.arange(updates)
    return np.select([i % interval == 0, i % trace_interval == 0], ["everything", "trace"], "neither")


def environment_rate(task: Task, seconds: float) -> float:
    """Steps per second of the environments alone, with random actions that are drawn before."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        config = typed(compose("config", ["algorithm=ppo", *task.settings]))
    envs, rng = make(config.env, NUM_ENVS), np.random.default_rng(0)
    envs.reset(seed=0)
    steps, start = 0, time.perf_counter()
    for actions in cycle([to_action_space(envs, random_actions(envs, rng)) for _ in range(1000)]):
        envs.step(actions)
        steps += NUM_ENVS
        if (spent := time.perf_counter() - start) >= seconds:
            break
    envs.close()
    return steps / spent


def time_peer(python: Path, task: str, name: str, threads: int, device: str, steps: int, seed: int) -> Timing:
    """A training of the peer library, in its own environment."""
    arguments = {
        "--task": task,
        "--steps": steps,
        "--batch-size": TASKS[task].batch_size,
        "--num-envs": NUM_ENVS,
        "--threads": threads,
        "--device": device,
        "--seed": seed,
    }
    options = [text for option, value in arguments.items() for text in (option, str(value))]
    command = [str(python.absolute()), str(Path(__file__).resolve().with_name("peer.py")), name, *options]
    environment = process_environment()  # as ours
    with tempfile.TemporaryDirectory() as directory:  # where MuJoCo leaves a file of warnings
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"{name} of {python}: {last_line(done.stderr) or f'exit code {done.returncode}'}")
    return Timing(**json.loads(last_line(done.stdout)))


def row(algorithm: str, peer: str, ours: Sequence[Timing], theirs: Sequence[Timing]) -> list[str]:
    """One line of the first table; the ratio is ours over the peer's, taken pair by pair."""
    ratios = [a.steps_per_second / b.steps_per_second for a, b in zip(ours, theirs, strict=True)]
    rates = [number(median(timing.steps_per_second for timing in side)) for side in (ours, theirs)]
    return [algorithm, peer, *rates, spread(ratios), f"{ours[0].critic_steps} / {theirs[0].critic_steps}"]


def breakdown(algorithm: str, ours: Sequence[OurTiming], environments: float) -> list[str]:
    """One line of the second table, medians over our runs; `environments` is the rate of those alone."""
    rate = median(timing.steps_per_second for timing in ours)
    shares = [percent(median(timing.shares[phase] for timing in ours)) for phase in PHASES]
    memory = number(median(timing.peak_memory for timing in ours))
    return [algorithm, number(1e3 / rate), *shares, percent(rate / environments), memory]


def versions(packages: dict[str, str]) -> str:
    """Packages in one line."""
    return ", ".join(f"{package} {version}" for package, version in packages.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True, help="python of the peers' environment")
    parser.add_argument("--task", choices=TASKS, default="halfcheetah", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, choices=(1, 2), default=1, help="of torch (default: %(default)s)")
    defaults = " or ".join(f"{task.updates * task.batch_size}" for task in TASKS.values())
    parser.add_argument("--device", default="cpu", help="cpu or cuda, of both sides (default: %(default)s)")
    parser.add_argument("--steps", type=int, help=f"of each run (default: {defaults}, by task)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    parser.add_argument("--equal-critic", action="store_true", help="give our critic as many steps as the peer's")
    options = parser.parse_args()
    task, threads, device = TASKS[options.task], options.threads, options.device
    machinery = [f"threads={threads}", f"device={device}"]
    updates = task.updates if options.steps is None else options.steps // task.batch_size
    if updates <= TRACE_INTERVAL:
        least = (TRACE_INTERVAL + 1) * task.batch_size
        raise ValueError(f"--steps {options.steps}: must be at least {least}, {TRACE_INTERVAL + 1} updates")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: must be at least 1")
    if not os.access(options.peer_python, os.X_OK):
        raise ValueError(f"--peer-python {options.peer_python}: no such program; benchmarks/README.md says how to")
    steps, algorithms = updates * task.batch_size, chosen(options.only)

    described, rows, breakdowns = machine(), [], []
    if device != "cpu":
        described = f"{torch.cuda.get_device_name(device)}; {described}"
    packages: tuple[dict[str, str], dict[str, str]] = ({}, {})
    environments = [alone(environment_rate, task, ENVIRONMENT_SECONDS) for _ in range(options.repeats)]
    for algorithm in algorithms:
        peer = peer_of(algorithm, task)
        overrides = [*peer.overrides, *(peer.critic if options.equal_critic else ()), *machinery]
        ours, theirs = [], []
        for repeat in range(options.repeats):
            ours.append(alone(time_ours, task, algorithm, overrides, steps, repeat))
            theirs.append(time_peer(options.peer_python, options.task, peer.name, threads, device, steps, repeat))
            rates = f"{ours[-1].steps_per_second:,.0f} and {theirs[-1].steps_per_second:,.0f} steps/s"
            print(f"{algorithm} and {peer.name}, {repeat + 1} of {options.repeats}: {rates}", file=sys.stderr)
        rows.append(row(algorithm, peer.name, ours, theirs))
        breakdowns.append(breakdown(algorithm, ours, median(environments)))
        packages = (ours[0].packages, theirs[0].packages)

    pairs = "pair" if options.repeats == 1 else "pairs"
    caption = (
        f"Training steps per second on {task.title}: {options.repeats} {pairs} of runs of {steps:,} steps, in turn, "
        f"{'one thread' if threads == 1 else f'{threads} threads'}, device={device}, {NUM_ENVS} environments, "
        f"{task.batch_size} steps "
        "per update on both sides. Rates are medians; the ratio is ours over the peer's within a pair, median "
        f"[minimum, maximum]. Critic: its gradient steps per update, ours / peer's.\n\nMachine: {described}.\n\nOurs: "
        f"{versions(packages[0])}.\n\nPeers: {versions(packages[1])}."
    )
    header = ["Algorithm", "Peer", "Ours, steps/s", "Peer, steps/s", "Ratio", "Critic"]
    print(Table("throughput", "Throughput", caption, [], header, rows, benchmark(), ("Algorithm", "Peer")).markdown())

    lowest, middle, highest = (number(f(environments)) for f in (min, median, max))
    caption = (
        "Where the time of our runs goes: wall time per step, and its shares: collecting, the policy's update with its "
        f"advantages, the critic's fit and the diagnostics, everything measured at every {task.interval}th update and "
        f"the Fisher trace at every {task.trace_interval}th. Of environments: our rate over that of the "
        f"{NUM_ENVS} environments alone with random actions, {middle} [{lowest}, {highest}] steps/s. Memory: peak of "
        "the resident set of train.py. Medians."
    )
    header = ["Algorithm", "ms per step", *PHASES, "Of environments", "Memory, GB"]
    source, words = benchmark(), ("Algorithm",)
    print(Table("breakdown", "Where the time goes", caption, [], header, breakdowns, source, words).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"throughput.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

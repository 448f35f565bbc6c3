"""Training steps per second of every algorithm on HalfCheetah-v5, beside Stable-Baselines3 and sb3-contrib.

    python benchmarks/throughput.py --peer-python PEERS/bin/python [--steps N --repeats K --only ppo trpo]

Ours and the peer's runs take turns, each in a fresh process on one thread; a ratio is taken within each such pair.
benchmarks/README.md says how to make the peers' environment and what is equal on both sides.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from analysis.provenance import benchmark
from analysis.tables.formats import Table, number
from benchmarks.runs import RunFailed, chosen, last_line, machine, progress_of, train
from tracking.manifest import read_manifest

BATCH_SIZE = 2048
NUM_ENVS = 16
COMMON = [
    "env=halfcheetah",
    f"algorithm.batch_size={BATCH_SIZE}",
    f"rollout.num_envs={NUM_ENVS}",
    "rollout.normalise_observations=true",
    "rollout.rewards=normalised",
    "network.hidden=[64,64]",
    "network.activation=tanh",
    "evaluation.episodes=0",
]
NATURAL = ["algorithm.delta=0.02", "algorithm.damping=0.1", "fisher=exact", "fisher.iterations=10"]


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


PPO = Peer("PPO", ["algorithm.epochs=10", "algorithm.minibatch_size=64"], ["critic.minibatch_size=64"])
TRPO = Peer("TRPO", NATURAL, ["critic.minibatch_size=128"])
A2C = Peer("A2C", [], ["critic.epochs=1", f"critic.minibatch_size={BATCH_SIZE}"])
PEERS = {"ppo": PPO, "trpo": TRPO, "npg": TRPO}  # one step per batch and no Fisher products: A2C


@dataclass(frozen=True)
class Timing:
    """One timed training: steps per second, gradient steps of the critic per batch, versions of packages."""

    steps_per_second: float
    critic_steps: int
    packages: dict[str, str]


def time_ours(algorithm: str, overrides: Sequence[str], steps: int, seed: int) -> Timing:
    """Steps per second of a real run with its diagnostics: updates * batch / wall time of the training loop."""
    with tempfile.TemporaryDirectory() as directory:
        run_dir = Path(directory)
        train(run_dir, [f"algorithm={algorithm}", *COMMON, *overrides, f"total_steps={steps}", f"seed={seed}"])
        manifest, progress = read_manifest(run_dir), progress_of(run_dir)
    assert manifest is not None
    critic: dict[str, Any] = manifest["config"]["critic"]
    return Timing(
        len(progress) * BATCH_SIZE / float(progress["wall_time"].iloc[-1]),
        critic["epochs"] * math.ceil(BATCH_SIZE / critic["minibatch_size"]),
        manifest["packages"],
    )


def time_peer(python: Path, name: str, steps: int, seed: int) -> Timing:
    """The same of the peer library, in its own environment."""
    arguments = {"--steps": steps, "--batch-size": BATCH_SIZE, "--num-envs": NUM_ENVS, "--seed": seed}
    options = [text for option, value in arguments.items() for text in (option, str(value))]
    one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "MKL", "OPENBLAS")}
    command = [str(python.absolute()), str(Path(__file__).resolve().with_name("peer.py")), name, *options]
    with tempfile.TemporaryDirectory() as directory:  # where MuJoCo leaves a file of warnings
        done = subprocess.run(command, cwd=directory, env={**os.environ, **one_thread}, capture_output=True, text=True)
    if done.returncode:
        raise RunFailed(f"{name} of {python}: {last_line(done.stderr) or f'exit code {done.returncode}'}")
    return Timing(**json.loads(last_line(done.stdout)))


def spread(values: Sequence[float]) -> str:
    """Median and range: ``1.52 [1.47, 1.60]``."""
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]"


def row(algorithm: str, peer: str, ours: Sequence[Timing], theirs: Sequence[Timing]) -> list[str]:
    """One line of the table; the ratio is ours over the peer's, taken pair by pair."""
    ratios = [a.steps_per_second / b.steps_per_second for a, b in zip(ours, theirs, strict=True)]
    rates = [number(median(timing.steps_per_second for timing in side)) for side in (ours, theirs)]
    return [algorithm, peer, *rates, spread(ratios), f"{ours[0].critic_steps} / {theirs[0].critic_steps}"]


def versions(packages: dict[str, str]) -> str:
    """Packages in one line."""
    return ", ".join(f"{package} {version}" for package, version in packages.items())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peer-python", type=Path, required=True, help="python of the peers' environment")
    parser.add_argument("--steps", type=int, default=100 * BATCH_SIZE, help="of each run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="ALGORITHM", help="not every algorithm found")
    parser.add_argument("--equal-critic", action="store_true", help="give our critic as many steps as the peer's")
    options = parser.parse_args()
    if options.steps < BATCH_SIZE:
        raise ValueError(f"--steps {options.steps}: must be at least {BATCH_SIZE}, one update")
    if options.repeats < 1:
        raise ValueError(f"--repeats {options.repeats}: must be at least 1")
    if not os.access(options.peer_python, os.X_OK):
        raise ValueError(f"--peer-python {options.peer_python}: no such program; benchmarks/README.md says how to")
    steps = options.steps // BATCH_SIZE * BATCH_SIZE

    described, rows = machine(), []
    packages: tuple[dict[str, str], dict[str, str]] = ({}, {})
    for algorithm in chosen(options.only):
        peer = PEERS.get(algorithm, A2C)
        overrides = [*peer.overrides, *(peer.critic if options.equal_critic else ())]
        ours, theirs = [], []
        for repeat in range(options.repeats):
            ours.append(time_ours(algorithm, overrides, steps, repeat))
            theirs.append(time_peer(options.peer_python, peer.name, steps, repeat))
            rates = f"{ours[-1].steps_per_second:,.0f} and {theirs[-1].steps_per_second:,.0f} steps/s"
            print(f"{algorithm} and {peer.name}, {repeat + 1} of {options.repeats}: {rates}", file=sys.stderr)
        rows.append(row(algorithm, peer.name, ours, theirs))
        packages = (ours[0].packages, theirs[0].packages)

    caption = (
        f"Training steps per second on HalfCheetah-v5: {options.repeats} pairs of runs of {steps:,} steps, in turn, "
        f"one thread, {NUM_ENVS} environments, {BATCH_SIZE} steps per update on both sides. Rates are medians; the "
        "ratio is ours over the peer's within a pair, median [minimum, maximum]. Critic: its gradient steps per "
        f"update, ours / peer's.\n\nMachine: {described}.\n\nOurs: {versions(packages[0])}.\n\nPeers: "
        f"{versions(packages[1])}."
    )
    header = ["Algorithm", "Peer", "Ours, steps/s", "Peer, steps/s", "Ratio", "Critic"]
    print(Table("throughput", "Throughput", caption, [], header, rows, benchmark(), ("Algorithm", "Peer")).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RunFailed) as error:
        sys.exit(f"throughput.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

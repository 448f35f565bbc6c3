"""Kill runs at random instants, let them go on, and compare what they end with to runs that were left alone.

    python benchmarks/kill_stress.py --kills 200 --envs ant hopper "atari env.game=pong"

One line per algorithm and task. Times of the kills are uniform over the time that the undisturbed run took, its start
included. Exits 1 when anything differs.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipeline.suites import find_algorithms
from tracking.compare import differences
from tracking.identity import REPOSITORY

SETTINGS = ("evaluation.episodes=2", "evaluation.max_steps=100", "diagnostics.interval=4", "diagnostics.snapshots=2")


def start(run_dir: Path, *settings: str) -> subprocess.Popen[bytes]:
    """Start a run that saves after every update, or go on with it; its output goes to a file beside its directory."""
    command = [sys.executable, "train.py", *settings, "checkpoint.updates=1", f"run_dir={run_dir}"]
    with run_dir.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, cwd=REPOSITORY, stdout=log, stderr=log)


def stress(algorithm: str, env: str, kills: int, steps: int, seed: int, directory: Path) -> tuple[int, list[str]]:
    """Kill runs of one kind `kills` times in all, and let each end; returns how many there were, and `differences`.

    `env` is what follows `env=` on the command line: `hopper`, `atari env.game=pong`.
    """
    settings = (f"algorithm={algorithm}", *f"env={env}".split(), f"total_steps={steps}", *SETTINGS)
    rng = random.Random(f"{seed} {algorithm} {env}")
    directory.mkdir(parents=True)
    whole = directory / "whole"
    began = time.monotonic()
    if start(whole, *settings).wait() != 0:
        return 0, [f"the undisturbed run failed: {whole}.log"]
    duration, killed, runs = time.monotonic() - began, 0, 0
    while killed < kills:
        runs += 1
        parts = directory / f"parts-{runs}"
        code: int | None = None
        while code is None:
            process = start(parts, *settings)
            try:
                code = process.wait(rng.uniform(0, duration) if killed < kills else None)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                killed += 1
        if found := differences(whole, parts) if code == 0 else [f"exit code {code}: {parts}.log"]:
            return runs, found
    return runs, []


def main(arguments: Sequence[str]) -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="kill_stress.py", description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="in all, shared among algorithms and tasks")
    parser.add_argument("--envs", nargs="+", default=["ant", "humanoid", "hopper", "inverted_double_pendulum"])
    parser.add_argument("--algorithms", nargs="+", default=find_algorithms())
    parser.add_argument("--steps", type=int, default=20480, help="of every run")
    parser.add_argument("--seed", type=int, default=0, help="of the times of the kills")
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side")
    options = parser.parse_args(arguments)
    cells = list(product(options.algorithms, options.envs))
    each = -(-options.kills // len(cells))
    failures = 0
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(
            lambda c: stress(c[0], c[1], each, options.steps, options.seed, Path(directory) / f"kind-{cells.index(c)}"),
            cells,
        )
        for (algorithm, env), (runs, found) in zip(cells, results, strict=True):
            failures += bool(found)
            print(f"{env} {algorithm}: {each} kills over {runs} runs, {'; '.join(found) or 'all equal'}", flush=True)
    print(f"{each * len(cells)} kills in all; {failures or 'none'} of {len(cells)} kinds of run ended differently")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

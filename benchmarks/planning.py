"""How long `snakemake -n` takes for a thousand cells, of which none or all are done.

    python benchmarks/planning.py [--cells N --repeats K]

In a copy of this repository, so nothing here is touched. The finished cells are made up: what a run of a million steps
leaves, but for its checkpoint, and the records that `snakemake --touch --forceall` makes of them, which takes minutes;
nothing is trained.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from pipeline.cell import Contents
from pipeline.suites import find_algorithms, load_suite
from tracking.identity import REPOSITORY
from tracking.run import PROGRESS_COLUMNS, Run

ENVS = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "reacher",
    "swimmer",
)
NAME = "planned"
UPDATES = 488


def build(root: Path, cells: int) -> int:
    """Copy the repository to `root`, with a suite of about so many cells; returns their number."""
    others = shutil.ignore_patterns(".*", "__pycache__", "results", "build", "wandb", "*.egg-info")
    shutil.copytree(REPOSITORY, root, ignore=others)
    seeds = max(1, round(cells / len(ENVS) / len(find_algorithms(root))))
    (root / "conf" / "suite" / f"{NAME}.yaml").write_text(
        f"envs: [{', '.join(ENVS)}]\nalgorithms: all\nseeds: {seeds}\ntotal_steps: 1000000\n"
    )
    return len(load_suite(NAME, root).cells)


def finish(root: Path) -> None:
    """Leave what a finished grid leaves for planning to look at."""
    contents = Contents(root)
    for cell in load_suite(NAME, root).cells:
        identity = contents.identity(cell)
        with Run.open(root / cell.run_dir, {}, identity, threads=1) as run:
            for update in range(1, UPDATES + 1):
                measured = {name: update / 3 for name in PROGRESS_COLUMNS if PROGRESS_COLUMNS[name] is float}
                run.log({"env_steps": 2048 * update, **measured})
                run.log_episodes(
                    {"env_steps": 2048 * update, "episode_return": update / 7, "episode_length": 200, "env_index": i}
                    for i in range(10)
                )
            run.finish(UPDATES / 3, 2048 * UPDATES, [])
    for file in ("suite.json", "tables/index.md", "figures/.complete"):
        path = root / "results" / NAME / file
        path.parent.mkdir(exist_ok=True)
        path.touch()
    snakemake(root, "--touch", "--forceall")


def snakemake(root: Path, *arguments: str) -> str:
    """Run Snakemake; returns what it said."""
    command = [str(Path(sys.executable).with_name("snakemake")), *arguments, "--config", f"suite={NAME}"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def measure(root: Path, repeats: int, expected: str) -> tuple[float, float]:
    """Median wall-clock and CPU seconds of `snakemake -n`, whose output must hold the expected text."""
    walls, cpus = [], []
    for _ in range(repeats):
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        said = snakemake(root, "-n")
        walls.append(time.perf_counter() - start)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        if expected not in said:
            sys.exit(f"not what was to be measured:\n{said}")
    return median(walls), median(cpus)


def main(arguments: Sequence[str]) -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1000, help="about how many")
    parser.add_argument("--repeats", type=int, default=3, help="the median of so many is given")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "repository"
        cells = build(root, options.cells)
        print(f"{cells} cells; {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
        for state in ("none", "all"):
            if state == "all":
                finish(root)
            expected = f"{cells} cells, {cells if state == 'all' else 0} done"
            wall, cpu = measure(root, options.repeats, expected)
            print(f"{state} done: {wall:.1f} s, of them {cpu:.1f} s of CPU", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

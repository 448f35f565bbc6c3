"""What the diagnostics of an update become when they are taken on a sample of its states.

    python benchmarks/sampling_bias.py [--env "atari env.game=pong" --only trpo ppo acktr --updates 1 20 40]

Every algorithm trains as in train.py, up to the last of those updates, once per seed. At each of them the same update
is measured on samples of its batch, for the trace and the geometry alike, and on the whole batch. One table: every KPI
by number of states, and its difference from the whole batch, median [min, max] over updates and seeds.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from algorithms.parts.alignment import Row
from algorithms.parts.diagnostics import measure
from algorithms.parts.diagnostics_config import DiagnosticsConfig
from algorithms.parts.surrogate import Surrogate
from analysis.provenance import benchmark
from analysis.tables.formats import Table, number
from benchmarks.runs import chosen
from command.refusals import refuse
from settings import RunConfig, typed
from tracking.identity import REPOSITORY
from training.determinism import prepare_torch
from training.learner import build, to_batch

KPIS = {
    "fisher_trace": True,
    "lambda_max": True,
    "effective_rank": True,
    "alignment_error": False,
    "alignment_residual": False,
    "quadratic_error": False,
}
"""What is compared, and whether its difference is relative."""


def settings(algorithm: str, env: str, seed: int) -> RunConfig:
    """Typed settings of a run; `env` is what follows `env=` on the command line, as `atari env.game=pong`."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return typed(compose("config", [f"algorithm={algorithm}", *f"env={env}".split(), f"seed={seed}"]))


def measurements(
    config: RunConfig, diagnostics: DiagnosticsConfig, updates: Sequence[int], sizes: Sequence[int]
) -> Iterator[list[Row]]:
    """Train; at each of these updates, counted from 1, its KPIs on every size below the batch's and on all of it.

    Learning rates are those of the schedule's start.
    """
    learner, batch_size = build(config), config.algorithm.batch_size
    collector, policy, critic = learner.collector, learner.policy, learner.critic
    length, device = batch_size // config.rollout.num_envs, torch.device(config.device)
    for i in range(max(updates)):
        rollout = collector.collect(policy.actor(), policy.distribution.noise, length)
        batch = to_batch(rollout, critic, config.env.gamma, config.advantage, device)
        problem = Surrogate(policy, batch)
        update = learner.algorithm.update(problem, lr_scale=1.0)
        if i + 1 in updates:
            samples = [
                replace(diagnostics, interval=1, states=size, geometry_states=size)
                for size in (*sorted(size for size in sizes if size < batch_size), batch_size)
            ]
            yield [measure(problem, update, sample, i, learner.diagnostics_rng) for sample in samples]
        critic.fit(batch, lr_scale=1.0)


def rows(algorithm: str, measured: Sequence[Sequence[Row]]) -> list[list[str]]:
    """A line per KPI and number of states, from `measurements` with the whole batch last in each."""
    lines = []
    for kpi, is_relative in KPIS.items():
        for i, row in enumerate(measured[0]):
            pairs = [(found[i].get(kpi), found[-1].get(kpi)) for found in measured]
            known = [(float(a), float(b)) for a, b in pairs if a is not None and b is not None]
            differences = [a / b - 1 if is_relative else a - b for a, b in known]
            is_whole = i == len(measured[0]) - 1
            difference = "–" if is_whole else spread(differences, _percent if is_relative else _signed)
            states = f"{row['geometry_states']}{' (all)' if is_whole else ''}"
            lines.append([algorithm, kpi, states, spread([a for a, _ in known], number), difference])
    return lines


def spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Median [min, max]; – without values."""
    return f"{form(median(values))} [{form(min(values))}, {form(max(values))}]" if values else "–"


def _percent(value: float) -> str:
    return f"{100 * value:+.1f} %"


def _signed(value: float) -> str:
    return f"{value:+.3f}"


def main() -> int:
    """Train, measure and print; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="atari env.game=pong", help="(default: %(default)s)")
    parser.add_argument(
        "--only", nargs="+", default=["trpo", "ppo", "acktr"], metavar="ALGORITHM", help="(default: trpo ppo acktr)"
    )
    parser.add_argument("--updates", nargs="+", type=int, default=[1, 20, 40], help="to measure (default: 1 20 40)")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1], help="(default: 0 1)")
    parser.add_argument("--states", nargs="+", type=int, default=[64, 128, 256, 512, 1024], help="of the samples")
    parser.add_argument("--tolerance", type=float, help="diagnostics.tolerance; default: that of the task")
    parser.add_argument("--max-iterations", type=int, help="diagnostics.max_iterations; default: that of the task")
    options = parser.parse_args()
    if min(options.updates) < 1:
        raise ValueError(f"--updates {min(options.updates)}: must be at least 1")
    given = {name: getattr(options, name) for name in ("tolerance", "max_iterations")}
    given = {name: value for name, value in given.items() if value is not None}
    configs = {name: [settings(name, options.env, seed) for seed in options.seeds] for name in chosen(options.only)}
    lines = []
    for algorithm, runs in configs.items():
        measured = []
        for config in runs:
            prepare_torch(config.device, config.threads)
            diagnostics = replace(config.diagnostics, **given)
            for found in measurements(config, diagnostics, options.updates, options.states):
                measured.append(found)
                print(f"{algorithm} seed {config.seed}: {len(measured)} updates measured", file=sys.stderr)
        lines += rows(algorithm, measured)
    names = ", ".join(str(update) for update in options.updates)
    caption = (
        f"Diagnostics on samples of the batch, {options.env}, updates {names} of seeds "
        f"{', '.join(map(str, options.seeds))}: median [min, max] over these. Difference: from the whole batch, of the "
        f"same update; relative where in percent. Solves to a residual of {diagnostics.tolerance:g}, with at most "
        f"{diagnostics.max_iterations} products."
    )
    header = ["Algorithm", "KPI", "States", "Value", "Difference"]
    print(Table("sampling_bias", "Bias", caption, [], header, lines, benchmark(), ("Algorithm", "KPI")).markdown())
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (ValueError, HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error, "sampling_bias.py"))
    except KeyboardInterrupt:
        sys.exit(130)

"""Steps per second of the MuJoCo tasks: Gymnasium's SyncVectorEnv, ours, and MuJoCo's own calls alone.

    python benchmarks/environments.py [--num-envs 16 --seconds 3 --repeats 3 --only halfcheetah hopper]

All three go through the same states, with uniformly random actions and the same episode ends: the third is `mj_step`
for each copy and step, with the states after resets put back from memory. One thread, in turn, ratios within a round.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium.vector import SyncVectorEnv

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from hydra import compose, initialize_config_dir

from analysis.provenance import benchmark
from analysis.tables.formats import Table
from benchmarks.runs import machine, spread
from envs.gym import GymConfig
from envs.tasks import EnvConfig, make, random_actions, to_action_space
from settings import typed
from tracking.identity import REPOSITORY

STATE = mujoco.mjtState.mjSTATE_INTEGRATION
HEADER = ["Task", "SyncVectorEnv, steps/s", "Ours, steps/s", "mj_step, steps/s", "Over SyncVectorEnv", "Of mj_step"]


def tasks() -> list[str]:
    """Names of the tasks that `envs/mujoco.py` steps."""
    files = sorted((REPOSITORY / "conf" / "env").glob("*.yaml"))
    return [path.stem for path in files if "kind: mujoco" in path.read_text(encoding="utf-8").splitlines()]


def configured(name: str) -> EnvConfig:
    """The task of `python train.py env=NAME`."""
    with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
        return typed(compose("config", ["algorithm=ppo", f"env={name}"])).env


def play(envs: SyncVectorEnv, actions: Sequence[np.ndarray]) -> float:
    """Seconds that the steps take from the first initial states on."""
    envs.reset(seed=list(range(envs.num_envs)))
    start = time.perf_counter()
    for action in actions:
        envs.step(action)
    return time.perf_counter() - start


def recorded(envs: SyncVectorEnv, actions: Sequence[np.ndarray]) -> Callable[[], float]:
    """The same steps by MuJoCo alone: a function that takes them and gives the seconds."""
    originals: list[Any] = [env.unwrapped for env in envs.envs]
    model, frame_skip = originals[0].model, originals[0].frame_skip
    data = [mujoco.MjData(model) for _ in originals]

    def states() -> list[np.ndarray]:
        found = [np.empty(mujoco.mj_stateSize(model, STATE)) for _ in originals]
        for original, state in zip(originals, found, strict=True):
            mujoco.mj_getState(model, original.data, state, STATE)
        return found

    envs.reset(seed=list(range(envs.num_envs)))
    starts, resets = states(), []
    for action in actions:
        *_, terminated, truncated, _ = envs.step(action)
        ended = np.flatnonzero(terminated | truncated).tolist()
        resets.append([(i, state) for i, state in enumerate(states()) if i in ended] if ended else [])

    def again() -> float:
        for copy, state in zip(data, starts, strict=True):
            mujoco.mj_setState(model, copy, state, STATE)
        start = time.perf_counter()
        for action, ends in zip(actions, resets, strict=True):
            for copy, control in zip(data, action, strict=True):
                copy.ctrl[:] = control
                mujoco.mj_step(model, copy, nstep=frame_skip)
            for i, state in ends:
                mujoco.mj_setState(model, data[i], state, STATE)
        return time.perf_counter() - start

    again()
    for original, copy in zip(originals, data, strict=True):
        if not np.array_equal(original.data.qpos, copy.qpos):
            raise RuntimeError("MuJoCo alone went another way: what is compared here is not the same")
    return again


def row(name: str, num_envs: int, seconds: float, repeats: int) -> list[str]:
    """Of the table: one task. Each of the three takes as many steps as SyncVectorEnv does in some seconds."""
    task = configured(name)
    assert isinstance(task, GymConfig)
    ours, theirs = make(task, num_envs), GymConfig.make_all(task, num_envs)
    rng = np.random.default_rng(0)
    draws = [to_action_space(ours, random_actions(ours, rng)) for _ in range(100)]
    length = max(1, round(100 * seconds / play(theirs, draws)))
    actions = draws + [to_action_space(ours, random_actions(ours, rng)) for _ in range(length - 100)]
    actions = actions[:length]
    alone = recorded(ours, actions)
    ways = {"theirs": lambda: play(theirs, actions), "ours": lambda: play(ours, actions), "alone": alone}
    rates: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(repeats):
        for way, run in ways.items():
            rates[way].append(num_envs * length / run())
    ratios = [[a / b for a, b in zip(rates["ours"], rates[way], strict=True)] for way in ("theirs", "alone")]
    return [name, *(f"{statistics.median(values):,.0f}" for values in rates.values()), *map(spread, ratios)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-envs", type=int, default=16, help="copies of the task (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="TASK", help="of these tasks (default: all nine)")
    options = parser.parse_args()
    for name in ("num_envs", "seconds", "repeats"):
        if not getattr(options, name) > 0:
            raise ValueError(f"--{name.replace('_', '-')} {getattr(options, name)}: must be above 0")
    for task in options.only or ():
        if task not in tasks():
            raise ValueError(f"--only {task}: unknown; choose from {', '.join(tasks())}")
    caption = (
        f"{options.num_envs} copies with uniformly random actions, the same states for all three. Medians of "
        f"{options.repeats} rounds of some {options.seconds:g} s each in turn, median [min, max] of ratios within one. "
        f"One thread. Machine: {machine()}."
    )
    rows = [row(name, options.num_envs, options.seconds, options.repeats) for name in options.only or tasks()]
    title = "Steps of the MuJoCo tasks"
    print(Table(title, title, caption, [], HEADER, rows, benchmark(), (HEADER[0],)).markdown())


if __name__ == "__main__":
    try:
        main()
    except (ValueError, RuntimeError) as error:
        sys.exit(f"environments.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)

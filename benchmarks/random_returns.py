"""Returns of uniformly random actions, the zero of normalised scores: a line of CSV for each task.

    python benchmarks/random_returns.py ant halfcheetah ... --episodes 1000

The column `random` of analysis/references.csv was made by it.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the repository is not installed

from envs.evaluation import EvaluationConfig, play
from envs.tasks import random_actions
from settings import typed
from tracking.identity import REPOSITORY


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("envs", nargs="+", help="names in conf/env/")
    parser.add_argument("--episodes", type=int, default=1000, help="of each task (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("env,random,standard_error,episodes")
    for env in options.envs:
        with initialize_config_dir(str(REPOSITORY / "conf"), version_base="1.3"):
            task = typed(compose("config", ["algorithm=ppo", f"env={env}"])).env
        env_seeds, action_seeds = np.random.SeedSequence(options.seed).spawn(2)
        rng = np.random.default_rng(action_seeds)
        config = EvaluationConfig(episodes=options.episodes)
        returns, _ = play(task, config, lambda envs, _: random_actions(envs, rng), env_seeds)  # noqa: B023
        error = returns.std(ddof=1) / np.sqrt(len(returns))
        print(f"{env},{returns.mean():.6g},{error:.2g},{len(returns)}", flush=True)


if __name__ == "__main__":
    main()

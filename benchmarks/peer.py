"""One timed training of a peer library; prints its figures as one line of JSON.

    PEER_PYTHON benchmarks/peer.py PPO --steps 204800 --batch-size 2048 --num-envs 16 --seed 0

Runs in the environment of benchmarks/requirements.txt and imports nothing of this repository. Settings that cost
time are those of `benchmarks/throughput.py`; everything else, the critic included, is the library's default.
"""

import argparse
import json
import time
from importlib import metadata
from typing import Any

import torch
from sb3_contrib import TRPO  # type: ignore[import-not-found]
from stable_baselines3 import A2C, PPO  # type: ignore[import-not-found]
from stable_baselines3.common.env_util import make_vec_env  # type: ignore[import-not-found]
from stable_baselines3.common.vec_env import VecNormalize  # type: ignore[import-not-found]

CLASSES = {"A2C": A2C, "PPO": PPO, "TRPO": TRPO}
SETTINGS: dict[str, dict[str, Any]] = {
    "A2C": {},
    "PPO": {"n_epochs": 10, "batch_size": 64},
    "TRPO": {"cg_max_steps": 10, "cg_damping": 0.1, "target_kl": 0.02},
}
PACKAGES = ("torch", "gymnasium", "mujoco", "numpy", "stable-baselines3", "sb3-contrib")


def critic_steps(name: str, model: Any, batch_size: int) -> int:
    """Gradient steps of the critic per batch."""
    match name:
        case "PPO":  # together with the policy's
            return int(model.n_epochs * (batch_size // model.batch_size))
        case "TRPO":
            return int(model.n_critic_updates * (batch_size // model.batch_size))
    return 1


def main() -> None:
    """Set up, warm up with one batch, then time `learn`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=CLASSES)
    for option in ("--steps", "--batch-size", "--num-envs", "--seed"):
        parser.add_argument(option, type=int, required=True)
    options = parser.parse_args()

    torch.set_num_threads(1)
    # A DummyVecEnv: on one thread the fastest of the library's vector environments.
    envs = make_vec_env("HalfCheetah-v5", options.num_envs, seed=options.seed, env_kwargs={"disable_env_checker": True})
    model = CLASSES[options.name](
        "MlpPolicy",
        VecNormalize(envs, norm_obs=True, norm_reward=True, gamma=0.99),
        n_steps=options.batch_size // options.num_envs,
        gamma=0.99,
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
        seed=options.seed,
        device="cpu",
        verbose=0,
        **SETTINGS[options.name],
    )
    model.learn(options.batch_size, log_interval=None)
    start = time.perf_counter()
    model.learn(options.steps, log_interval=None, reset_num_timesteps=False)
    seconds = time.perf_counter() - start
    trained = model.num_timesteps - options.batch_size
    figures = {
        "steps_per_second": trained / seconds,
        "critic_steps": critic_steps(options.name, model, options.batch_size),
        "packages": {package: metadata.version(package) for package in PACKAGES},
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()

"""One timed training of a peer library; prints its figures as one line of JSON.

    PEER_PYTHON benchmarks/peer.py PPO --task pong --steps 204800 --batch-size 1024 --num-envs 16 --threads 1 --seed 0 \
        --device cpu

Runs in the environment of benchmarks/requirements.txt and imports nothing of this repository. Settings that cost
time are those of `benchmarks/throughput.py`; everything else, the critic included, is the library's default.
"""

import argparse
import json
import time
from importlib import metadata
from typing import Any

import ale_py
import cv2
import gymnasium as gym
import torch
from sb3_contrib import TRPO  # type: ignore[import-not-found]
from stable_baselines3 import A2C, PPO  # type: ignore[import-not-found]
from stable_baselines3.common.env_util import make_atari_env, make_vec_env  # type: ignore[import-not-found]
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize  # type: ignore[import-not-found]

CLASSES = {"A2C": A2C, "PPO": PPO, "TRPO": TRPO}
NATURAL = {"cg_max_steps": 10, "cg_damping": 0.1, "target_kl": 0.02}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "halfcheetah": {"A2C": {}, "PPO": {"n_epochs": 10, "batch_size": 64}, "TRPO": NATURAL},
    "pong": {"A2C": {}, "PPO": {"n_epochs": 3, "batch_size": 256}, "TRPO": NATURAL},
}
POLICIES: dict[str, tuple[str, dict[str, Any]]] = {
    "halfcheetah": ("MlpPolicy", {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}),
    "pong": ("CnnPolicy", {"share_features_extractor": False}),
}
PACKAGES = (
    "torch", "gymnasium", "mujoco", "ale-py", "opencv-python-headless", "numpy", "stable-baselines3", "sb3-contrib"
)  # fmt: skip

gym.register_envs(ale_py)
cv2.setNumThreads(1)  # as ours


def environments(task: str, num_envs: int, seed: int) -> Any:
    """The task as it is trained on, in a DummyVecEnv: on one thread the fastest of the library's."""
    unchecked = {"disable_env_checker": True}
    if task == "halfcheetah":
        envs = make_vec_env("HalfCheetah-v5", num_envs, seed=seed, env_kwargs=unchecked)
        return VecNormalize(envs, norm_obs=True, norm_reward=True, gamma=0.99)
    sticky = {"terminal_on_life_loss": False, "action_repeat_probability": 0.25}
    envs = make_atari_env("PongNoFrameskip-v4", num_envs, seed=seed, wrapper_kwargs=sticky, env_kwargs=unchecked)
    return VecFrameStack(envs, 4)


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
    parser.add_argument("--task", choices=POLICIES, required=True)
    for option in ("--steps", "--batch-size", "--num-envs", "--threads", "--seed"):
        parser.add_argument(option, type=int, required=True)
    parser.add_argument("--device", required=True)
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    policy, policy_kwargs = POLICIES[options.task]
    model = CLASSES[options.name](
        policy,
        environments(options.task, options.num_envs, options.seed),
        n_steps=options.batch_size // options.num_envs,
        gamma=0.99,
        policy_kwargs=policy_kwargs,
        seed=options.seed,
        device=options.device,
        verbose=0,
        **SETTINGS[options.task][options.name],
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

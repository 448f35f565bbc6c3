"""Replay a finished policy with the normaliser as training left it, and print the returns.

    python evaluate.py run_dir=results/adhoc/runs/hopper/trpo/seed-0

Settings: run_dir; episodes of each mode and max_steps of an episode (default: as in the run); seed (default: the run's
own evaluation seeds, which give its evaluation.parquet again).
"""

import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from command.refusals import refuse
from envs.evaluation import EvaluationConfig, evaluate
from envs.normalisers import ObservationNormaliser
from envs.tasks import make, spaces
from settings import typed
from tracking import checkpoint
from tracking.manifest import read_manifest
from tracking.record import CHECKPOINT, damage
from training.learner import build_policy, seed_sequences


@dataclass
class ReplayConfig:
    """Settings of a replay; None stands for what the run had."""

    run_dir: str = MISSING
    episodes: int | None = None
    max_steps: int | None = None
    seed: int | None = None


def replay(settings: ReplayConfig) -> list[dict[str, Any]]:
    """Rows as in `evaluation.parquet`.

    Raises:
        ValueError: run_dir holds no finished run, or a setting is out of range.
        tracking.checkpoint.CheckpointError: the run's checkpoint cannot be read.
    """
    if settings.seed is not None and settings.seed < 0:
        raise ValueError(f"seed={settings.seed}: must not be negative")
    run_dir = Path(settings.run_dir)
    manifest = read_manifest(run_dir)
    if manifest is None or manifest["state"] != "finished":
        holds = "no run" if manifest is None else f"a run that is {manifest['state']}"
        raise ValueError(f"run_dir={run_dir}: holds {holds}; give the directory of a finished run")
    if (harm := damage(run_dir, manifest, whole=True)) or manifest["config"] is None:
        raise ValueError(
            f"run_dir={run_dir}: damaged ({harm or 'manifest.json: without its settings'}); train it again"
        )
    config = typed(OmegaConf.create(manifest["config"]))
    evaluation = EvaluationConfig(
        config.evaluation.episodes if settings.episodes is None else settings.episodes,
        config.evaluation.max_steps if settings.max_steps is None else settings.max_steps,
    )
    seeds = (
        seed_sequences(config.seed)["evaluation"] if settings.seed is None else np.random.SeedSequence(settings.seed)
    )

    envs = make(config.env, 1)
    sizes = spaces(envs)
    envs.close()
    policy = build_policy(config, sizes, torch.Generator())
    rollout = config.rollout
    normaliser = ObservationNormaliser(sizes.observation_shape, rollout.normalise_observations, rollout.clip)
    content = checkpoint.load(run_dir / CHECKPOINT)
    try:
        learner = content["state"]["learner"]
        policy.load_state_dict(learner["policy"])
        normaliser.load_state_dict(learner["collector"]["observation_normaliser"])
    except (LookupError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise checkpoint.CheckpointError(f"{run_dir / CHECKPOINT}: not a state of this run ({reason})") from error
    torch.set_num_threads(config.threads)
    return evaluate(config.env, evaluation, policy.actor(), policy.distribution.noise, normaliser, seeds)


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    try:
        settings = OmegaConf.merge(OmegaConf.structured(ReplayConfig), OmegaConf.from_cli(arguments))
        rows = replay(OmegaConf.to_object(settings))  # type: ignore[arg-type]
    except (ValueError, OSError, checkpoint.CheckpointError, OmegaConfBaseException) as error:
        return refuse(error, "evaluate.py")
    for mode in dict.fromkeys(row["mode"] for row in rows):
        returns = [row["episode_return"] for row in rows if row["mode"] == mode]
        print(
            f"{mode:>13}: mean {statistics.fmean(returns):.1f}, from {min(returns):.1f} to {max(returns):.1f} "
            f"in {len(returns)} episodes: {' '.join(f'{r:.1f}' for r in returns)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

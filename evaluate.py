"""Replay a finished policy with the normaliser as training left it, and print the returns.

    python evaluate.py run_dir=results/adhoc/runs/hopper/trpo/seed-0

Settings: run_dir; episodes of each mode and max_steps of an episode (default: as in the run); seed (default: the run's
own evaluation seeds, which give its evaluation.parquet again). A task that is code of a module, env.id=module:Task, is
refused unless env.id=module:Task stands here, too: a run directory alone makes nothing run. Without the run's GPU it is
replayed on the CPU.

Exit codes: 0 replayed; 1 the task failed; 2 refused, in one line.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from command.failures import describe
from command.output import never_fail
from command.refusals import refuse
from envs.evaluation import EvaluationConfig, evaluate
from envs.normalisers import ObservationNormaliser
from envs.tasks import make, spaces
from settings import RunConfig, typed
from tracking import checkpoint
from tracking.manifest import MANIFEST, read_manifest
from tracking.record import CHECKPOINT, damage
from training.learner import build_policy, seed_sequences


@dataclass
class ReplayConfig:
    """Settings of a replay; None stands for what the run had."""

    run_dir: str = MISSING
    episodes: int | None = None
    max_steps: int | None = None
    seed: int | None = None


def replay(settings: ReplayConfig, task: str | None = None) -> list[dict[str, Any]]:
    """Rows as in `evaluation.parquet`. `task`: the `env.id` with a module that may be imported.

    Raises:
        ValueError: run_dir holds no finished run, its settings are none that can be replayed, or one is out of range.
        tracking.checkpoint.CheckpointError: the run's checkpoint cannot be read, or is not of these settings.
        FloatingPointError: the task went wrong.
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
    config = recorded_settings(run_dir / MANIFEST, manifest["config"], task)
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


def recorded_settings(manifest: Path, recorded: dict[str, Any] | None, task: str | None) -> RunConfig:
    """The settings of a run that a manifest records, for this machine. ValueError for what may not be taken from it.

    A run directory may come from anybody: no module that it names is imported unless the user names it as `task`, and
    nothing in it is looked up here.
    """
    if not recorded:
        raise ValueError(f"{manifest}: records no settings")
    if "${" in json.dumps(recorded):
        raise ValueError(f"{manifest}: a setting holds ${{...}}; a run records values, and nothing is looked up for it")
    config = OmegaConf.create(recorded)
    env_id = str(OmegaConf.select(config, "env.id", default=""))
    if task not in (None, env_id):
        raise ValueError(f"env.id={task}: the run's task is {env_id or 'another'}; leave env.id out, or repeat that")
    if ":" in env_id and task is None:
        raise ValueError(
            f"{manifest}: its task is code of the module {env_id.rpartition(':')[0]}; if you trust it, "
            f"add env.id={env_id}"
        )
    device, _, index = str(config.get("device")).partition(":")
    gpus = torch.cuda.device_count()
    if device == "cuda" and (index or "0").isdecimal() and int(index or 0) >= gpus:
        config.device = "cuda" if gpus else "cpu"
        print(f"the run's device is not here: replayed on {config.device}, where rounding differs", file=sys.stderr)
    try:
        return typed(config)
    except (AttributeError, TypeError, ImportError) as error:
        raise ValueError(f"{manifest}: its settings are not those of a run ({describe(error)})") from error


def read_arguments(arguments: Sequence[str]) -> tuple[ReplayConfig, str | None]:
    """The settings of a command line, and its `env.id`. Both this and run_dir are the text that they are."""
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    text = {key: given[key] for key in ("run_dir", "env.id") if key in given}
    others = [argument for argument in arguments if argument.partition("=")[0] not in text]
    settings = OmegaConf.merge(OmegaConf.structured(ReplayConfig), OmegaConf.from_cli(others))
    if "run_dir" in text:
        settings.run_dir = text["run_dir"]
    replay_config = OmegaConf.to_object(settings)
    assert isinstance(replay_config, ReplayConfig)
    if not replay_config.run_dir.strip():
        raise ValueError("run_dir: is empty; name the directory of a finished run")
    return replay_config, text.get("env.id")


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    never_fail()
    try:
        rows = replay(*read_arguments(arguments))
    except (ValueError, OSError, checkpoint.CheckpointError, OmegaConfBaseException) as error:
        return refuse(error, "evaluate.py")
    except FloatingPointError as error:
        print(f"evaluate.py: {describe(error)}", file=sys.stderr)
        return 1
    for mode in dict.fromkeys(row["mode"] for row in rows):
        returns = [row["episode_return"] for row in rows if row["mode"] == mode]
        print(
            f"{mode:>13}: mean {statistics.fmean(returns):.1f}, from {min(returns):.1f} to {max(returns):.1f} "
            f"in {len(returns)} episodes: {' '.join(f'{r:.1f}' for r in returns)}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The command line of `train.py`: settings checked, the run directory opened, the run trained and its end told."""

import logging
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import hydra
import numpy as np
import torch
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Quote, QuotedString
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from command.composition import conf_files
from command.failures import describe, is_shortage, remedy
from command.interrupt import Interrupt, Interrupted
from command.names import check_name
from command.output import never_fail
from command.refusals import COMPOSING, refuse
from command.sweep import sweep
from command.watch import Watch
from envs.normalisers import ObservationNormaliser
from envs.snapshot import unresumable
from envs.tasks import make, spaces
from settings import RunConfig, typed
from tracking.checkpoint import FormatError
from tracking.identity import REPOSITORY, identify
from tracking.lock import RunLocked
from tracking.run import IdentityMismatch, Run
from training.determinism import prepare_torch
from training.learner import build_policy
from training.loop import train

log = logging.getLogger(__name__)


def cli(interrupt: Interrupt) -> None:
    """Run `train.py`; settings that Hydra refuses are told in one line."""
    never_fail()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    sys.argv[1:] = [as_text(argument) for argument in sys.argv[1:]]
    given = get_args_parser().parse_intermixed_args()
    if given.multirun and not (given.help or given.hydra_help or given.info or given.cfg):
        sys.exit(sweep(given.overrides))
    if {"--help", "-h"} & set(sys.argv):  # there are no settings to show before these are chosen
        keys = {argument.partition("=")[0] for argument in sys.argv}
        sys.argv += [f"{key}={name}" for key, name in (("algorithm", "trpo"), ("env", "hopper")) if key not in keys]

    @hydra.main(config_path=str(REPOSITORY / "conf"), config_name="config", version_base="1.3")
    def main(composed: DictConfig) -> None:
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        overrides = cast(list[str], OmegaConf.to_container(HydraConfig.get().overrides.task, resolve=False))
        code = start(composed, interrupt, conf_files(overrides))
        if code:
            sys.exit(code)

    try:
        main()
    except COMPOSING as error:
        sys.exit(refuse(error))


def as_text(argument: str) -> str:
    """`run_dir=VALUE` with VALUE quoted: a path is text, whatever Hydra's grammar would take it for."""
    key, _, value = argument.partition("=")
    if key != "run_dir" or not value or value[0] in "'\"":
        return argument
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}"


def start(composed: DictConfig, interrupt: Interrupt, conf: Sequence[str] = ("conf",)) -> int:
    """Check the settings, open the run directory and train; returns the exit code. `conf`: files they come from."""
    try:
        config = typed(composed)
        check(config)
        resolved = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
        identity = identify(resolved)
        if config.identity not in (None, identity.hash):
            print("train.py: settings or code have changed since this run was planned; plan it again", file=sys.stderr)
            return 6
        gpu = prepare_torch(config.device, config.threads)
        run = Run.open(
            Path(config.run_dir),
            resolved,
            identity,
            threads=config.threads,
            gpu=gpu,
            conf=conf,
            tracker=config.tracker,
        )
    except (ValueError, OmegaConfBaseException) as error:
        return refuse(error)
    except (IdentityMismatch, FormatError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 3
    except RunLocked as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 4
    with run:
        if run.finished:
            run.write_status()
            print(f"already finished; files in {run.run_dir}")
            return 0
        return follow(config, run, interrupt)


def follow(config: RunConfig, run: Run, interrupt: Interrupt) -> int:
    """Train an open run, record how it ended and say so; returns the exit code."""
    label = f"{config.env.name} {config.algorithm.label or config.algorithm.name} seed {config.seed}"
    try:
        with interrupt.armed(), Watch(interrupt, label, config.algorithm.batch_size, config.updates) as watch:
            train(config, run, watch, resumable(config))
    except Interrupted as stop:
        run.stopped()
        print(f"stopped by {stop.signal.name}; {going_on(run)}", file=sys.stderr)
        return 128 + stop.signal
    except Exception as error:
        run.fail(describe(error))
        traceback.print_exc()
        if not is_shortage(error):
            return 1
        print(f"train.py: {describe(error)}; {remedy(error, config)}", file=sys.stderr)
        return 5
    if not run.finished:
        print(f"stopped after {run.env_steps:,} steps, as stop_after asks; {going_on(run)}")
        return 0
    score = run.manifest["episode_return"]
    print(
        f"{label}: episode_return "
        f"{'null (no episode has ended in every environment)' if score is None else f'{score:.1f}'} "
        f"after {run.env_steps:,} steps, {config.updates * config.algorithm.batch_size / run.wall_time:,.0f} steps/s; "
        f"files in {run.run_dir}"
    )
    return 0


def going_on(run: Run) -> str:
    """What the same command does with a run that has stopped."""
    if run.saved_updates:
        return f"update {run.saved_updates} is saved, and the same command goes on after it"
    return "no update is saved, and the same command starts from step 0"


def resumable(config: RunConfig) -> bool:
    """Whether the task's environments can be saved exactly; warns if not."""
    reason = unresumable(config.env)
    if reason is not None:
        log.warning(
            "%s: a run of it that is cut off starts again from its first step, and no batch is held out", reason
        )
    return reason is None


def check(config: RunConfig) -> None:
    """Make what the settings describe once, small and unused, so that its parts can refuse them before any compute."""
    if not config.run_dir.strip():
        raise ValueError("run_dir: is empty; name a directory")
    for part in re.split("[/:]", config.env.name):  # of a task with a namespace or a module
        check_name("env.name", part)
    env = make(config.env, 1)
    sizes = spaces(env)
    env.close()
    rollout = config.rollout
    normaliser = ObservationNormaliser(sizes.observation_shape, rollout.normalise_observations, rollout.clip)
    if normaliser.image_moments is not None and rollout.warmup_steps == 0:
        raise ValueError(
            "rollout.warmup_steps=0: images are normalised by those of the warm-up; give it steps, or set "
            "rollout.normalise_observations=false"
        )
    policy = build_policy(config, sizes, torch.Generator())
    config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(0))

"""Replay a finished policy with the normaliser as training left it, and print the returns; or watch it.

    python evaluate.py run_dir=results/adhoc/runs/hopper/trpo/seed-0
    python evaluate.py run_dir=results/adhoc/runs/hopper/trpo/seed-0 video=hopper.mp4 episodes=3

Settings: run_dir; episodes of each mode and max_steps of an episode (default: as in the run); seed (default: the run's
own evaluation seeds, which give its evaluation.parquet again). A task that is code of a module, env.id=module:Task, is
refused unless env.id=module:Task stands here, too, and so are wrappers without env.wrappers=module:Class,module:Class:
a run directory alone makes nothing run. Without the run's GPU it is replayed on the CPU.

With video=FILE.mp4 or FILE.gif its most likely actions are drawn for so many episodes (default: 3), the best and the
worst marked; with render=human they are shown in a window. These episodes have random streams of their own.

Exit codes: 0 replayed; 1 the task failed; 2 refused, in one line.
"""

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
from envs.tasks import RenderMode
from fisherbench.policy import LoadedPolicy, load_policy
from tracking import checkpoint
from training.learner import seed_sequences

WATCHED = 3  # episodes of a video


@dataclass
class ReplayConfig:
    """Settings of a replay; None stands for what the run had."""

    run_dir: str = MISSING
    episodes: int | None = None
    max_steps: int | None = None
    seed: int | None = None
    video: str | None = None
    render: str | None = None

    def __post_init__(self) -> None:
        if self.seed is not None and self.seed < 0:
            raise ValueError(f"seed={self.seed}: must not be negative")
        if self.render not in (None, "human"):
            raise ValueError(f"render={self.render}: unknown; choose human, or give video=FILE.mp4")
        if self.watches and self.episodes is not None and self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: must be at least 1 to be seen")
        if self.video is not None and self.render is not None:
            raise ValueError("render=human: shows a policy and writes no video; give one of video and render")

    @property
    def watches(self) -> bool:
        """Whether episodes are drawn instead of the evaluation played again."""
        return self.video is not None or self.render is not None


@dataclass(frozen=True)
class Trusted:
    """Code that the user names, which a run may ask for: its task's `env.id`, and classes of `env.wrappers`."""

    task: str | None = None
    wrappers: tuple[str, ...] = ()


def replay(settings: ReplayConfig, trusted: Trusted = Trusted()) -> list[dict[str, Any]]:
    """Rows as in `evaluation.parquet`.

    Raises:
        ValueError: run_dir holds no finished run, its settings are none that can be replayed, or one is out of range.
        tracking.checkpoint.CheckpointError: the run's checkpoint cannot be read, or is not of these settings.
        FloatingPointError: the task went wrong.
    """
    policy = load_policy(settings.run_dir, trusted.task, trusted.wrappers)
    config = policy.config
    seed = settings.seed
    seeds = seed_sequences(config.seed)["evaluation"] if seed is None else np.random.SeedSequence(seed)
    torch.set_num_threads(config.threads)
    return evaluate(
        config.env,
        _evaluation(settings, policy),
        policy.network.actor(),
        policy.network.distribution.noise,
        policy.normaliser,
        seeds,
    )


def watch(settings: ReplayConfig, trusted: Trusted = Trusted()) -> list[str]:
    """Draw episodes as the settings ask for; returns a line about each. Errors as `replay`."""
    from fisherbench import video  # which loads what draws

    file = None if settings.video is None else Path(settings.video)
    if file is None:
        video.check_screen()
    else:
        video.check_video(file)
    policy = load_policy(settings.run_dir, trusted.task, trusted.wrappers)
    torch.set_num_threads(policy.config.threads)
    count = WATCHED if settings.episodes is None else settings.episodes
    mode: RenderMode = "human" if file is None else "rgb_array"
    max_steps = _evaluation(settings, policy).max_steps
    episodes = list(video.play(policy, count, settings.seed or 0, mode, max_steps))
    if file is not None:
        video.write_video(file, episodes, video.frames_per_second(policy))
    return video.captions(episodes)


def _evaluation(settings: ReplayConfig, policy: LoadedPolicy) -> EvaluationConfig:
    own = policy.config.evaluation
    return EvaluationConfig(
        own.episodes if settings.episodes is None else settings.episodes,
        own.max_steps if settings.max_steps is None else settings.max_steps,
    )


def read_arguments(arguments: Sequence[str]) -> tuple[ReplayConfig, Trusted]:
    """The settings of a command line, and the code that it names. Paths and names are the text that they are."""
    given = {key: value for key, _, value in (argument.partition("=") for argument in arguments)}
    text = {key: given[key] for key in ("run_dir", "video", "env.id", "env.wrappers") if key in given}
    others = [argument for argument in arguments if argument.partition("=")[0] not in text]
    settings = OmegaConf.merge(OmegaConf.structured(ReplayConfig), OmegaConf.from_cli(others))
    for key in ("run_dir", "video"):
        if key in text:
            OmegaConf.update(settings, key, text[key])
    replay_config = OmegaConf.to_object(settings)
    assert isinstance(replay_config, ReplayConfig)
    if not replay_config.run_dir.strip():
        raise ValueError("run_dir: is empty; name the directory of a finished run")
    wrappers = tuple(name.strip() for name in text.get("env.wrappers", "").strip("[]").split(",") if name.strip())
    return replay_config, Trusted(text.get("env.id"), wrappers)


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    never_fail()
    rows: list[dict[str, Any]] = []
    try:
        settings, trusted = read_arguments(arguments)
        if settings.watches:
            print("\n".join(f"episode {line}" for line in watch(settings, trusted)))
        else:
            rows = replay(settings, trusted)
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

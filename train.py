"""Train one algorithm on one task with one seed.

    python train.py algorithm=trpo env=halfcheetah seed=0 total_steps=1000000

Exit codes: 0 finished, or stop_after reached; 1 failed, with the reason in status.json; 2 settings refused before any
compute; 3 run_dir holds a run of another identity or format; 4 another process holds run_dir; 5 failed for want of disk
or memory; 130 and 143 stopped by SIGINT and SIGTERM. After 1, 5, 130, 143 and any kill the same command goes on from
the last checkpoint.
"""

import logging
import math
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Self, cast

import hydra
import numpy as np
import torch
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import Tensor
from tqdm import tqdm

from algorithms.algorithm import Algorithm
from algorithms.batch import AdvantageConfig, Batch, gae, normalise_advantages, to_tensors
from algorithms.critic import Critic
from algorithms.diagnostics import alignment_curve, measure
from algorithms.policy import Policy, distribution_for, normalise_images
from algorithms.surrogate import Surrogate
from envs.normalisers import ObservationNormaliser
from envs.rollout import Collector, Rollout, evaluate
from envs.snapshot import unresumable
from envs.tasks import Spaces, make, spaces
from settings import CheckpointConfig, RunConfig, refuse, typed
from tracking.checkpoint import FormatError
from tracking.identity import identify
from tracking.lock import RunLocked
from tracking.run import IdentityMismatch, Run

log = logging.getLogger(__name__)


@dataclass
class Learner:
    """The parts of one run that learn, each with a random stream of its own."""

    collector: Collector
    policy: Policy
    critic: Critic
    algorithm: Algorithm
    evaluation_seeds: np.random.SeedSequence
    diagnostics_rng: np.random.Generator

    def state_dict(self) -> dict[str, Any]:
        """All that shapes the updates to come."""
        return {
            "collector": self.collector.state_dict(),
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "algorithm": self.algorithm.state_dict(),
            "diagnostics_rng": self.diagnostics_rng.bit_generator.state,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self.collector.load_state_dict(state["collector"])
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.algorithm.load_state_dict(state["algorithm"])
        self.diagnostics_rng.bit_generator.state = state["diagnostics_rng"]


def seed_sequences(seed: int) -> dict[str, np.random.SeedSequence]:
    """One independent source of randomness per purpose, so that changing the use of one moves no other."""
    names = ("networks", "environments", "actions", "warm_up", "algorithm", "critic", "evaluation", "diagnostics")
    return dict(zip(names, np.random.SeedSequence(seed).spawn(len(names)), strict=True))


def build(config: RunConfig) -> Learner:
    """Environments, networks and algorithm of a run, in their initial state, the normalisers warmed up."""
    seeds = seed_sequences(config.seed)
    generator = torch.Generator().manual_seed(int(seeds["networks"].generate_state(1)[0]))
    collector = Collector(config.env, config.rollout, seeds["environments"], seeds["actions"], config.workers)
    policy = build_policy(config, collector.spaces, generator)
    critic = config.critic_class(
        collector.spaces.observation_shape,
        config.network,
        config.critic,
        generator,
        np.random.default_rng(seeds["critic"]),
        torch.device(config.device),
    )
    rng = np.random.default_rng(seeds["algorithm"])
    algorithm = config.algorithm_class(config.algorithm, config.pair, policy, rng)
    collector.warm_up(config.rollout.warmup_steps, np.random.default_rng(seeds["warm_up"]))
    moments = collector.observation_normaliser.image_moments
    if moments is not None:
        for network in (policy.network, critic.network):
            normalise_images(network, moments.mean, moments.variance)
    diagnostics_rng = np.random.default_rng(seeds["diagnostics"])
    return Learner(collector, policy, critic, algorithm, seeds["evaluation"], diagnostics_rng)


def build_policy(config: RunConfig, spaces: Spaces, generator: torch.Generator) -> Policy:
    """The policy network of a run, initialised from the generator."""
    distribution = distribution_for(spaces.n_actions, spaces.discrete)
    return Policy(spaces.observation_shape, distribution, config.network, generator).to(config.device)


def to_batch(rollout: Rollout, critic: Critic, gamma: float, config: AdvantageConfig, device: torch.device) -> Batch:
    """Values, advantages and value targets of a rollout."""

    def values_of(observations: np.ndarray | Tensor) -> np.ndarray:
        return critic.values(torch.as_tensor(observations, device=device)).cpu().numpy().astype(np.float64)

    observations = torch.as_tensor(rollout.observations, device=device)
    values = values_of(observations.flatten(0, 1)).reshape(rollout.rewards.shape)
    next_values = np.concatenate((values[1:], values_of(rollout.last_observations)[None]))
    if len(rollout.cut_off):
        next_values[tuple(rollout.cut_off.T)] = values_of(rollout.cut_off_observations)
    done = rollout.terminated | rollout.truncated
    terminated = rollout.terminated if config.bootstrap_truncation else done
    advantages = gae(rollout.rewards, values, next_values, terminated, done, gamma, config.gae_lambda)
    normalised = normalise_advantages(advantages) if config.normalise else advantages
    return to_tensors(
        device,
        done.shape[1],
        observations=observations,
        actions=rollout.actions,
        advantages=normalised.astype(np.float32),
        values=values.astype(np.float32),
        targets=(values + advantages).astype(np.float32),
    )


def train(config: RunConfig, run: Run, interrupt: "Interrupt") -> None:
    """All updates of one run: collect, update, measure, log, checkpoint; then evaluate and finish.

    Whatever goes wrong is recorded as the run's failure and raised again.
    """
    env_steps, updates, wall_time = 0, 0, 0.0
    try:
        learner = build(config)
        if run.state is not None:
            learner.load_state_dict(run.state["learner"])
            updates, wall_time = run.state["updates"], run.state["wall_time"]
        collector, policy, critic = learner.collector, learner.policy, learner.critic
        env_steps = collector.episodes.env_steps
        batch_size, device = config.algorithm.batch_size, torch.device(config.device)
        diagnostics, rng = config.diagnostics, learner.diagnostics_rng
        snapshots = diagnostics.snapshot_updates(config.updates)
        is_resumable = resumable(config)
        saved, save_time = time.monotonic(), None

        def save() -> float:
            """Bring the files up to date, in so many seconds; a state of no use to go on with only at the end."""
            start = time.perf_counter()
            state = {"learner": learner.state_dict(), "updates": updates, "wall_time": wall_time}
            run.flush(state if is_resumable or updates == config.updates else None)
            return time.perf_counter() - start

        for i in progress(config, updates):
            with interrupt.deferred():
                lr_scale = 1.0 if config.learning_rate_schedule == "constant" else 1 - i / config.updates

                start = time.perf_counter()
                rollout = collector.collect(
                    policy.act, policy.distribution.noise, batch_size // config.rollout.num_envs
                )
                env_steps = collector.episodes.env_steps
                collected = time.perf_counter()

                batch = to_batch(rollout, critic, config.env.gamma, config.advantage, device)
                problem = Surrogate(policy, batch)
                update = learner.algorithm.update(problem, lr_scale)
                updated = time.perf_counter()

                critic_metrics = critic.fit(batch, lr_scale)
                if not math.isfinite(critic_metrics["critic_loss"]):
                    raise FloatingPointError(f"critic_loss is {critic_metrics['critic_loss']} in update {i + 1}")
                fitted = time.perf_counter()

                kpis = measure(problem, update, diagnostics, i, rng)
                curve = alignment_curve(problem, update, diagnostics, rng) if i in snapshots else []
                measured = time.perf_counter()

                updates, wall_time = i + 1, wall_time + measured - start
                row = (
                    {"env_steps": env_steps, "wall_time": wall_time, "episode_return": collector.episodes.score()}
                    | kpis
                    | critic_metrics
                    | {"learning_rate_scale": lr_scale}
                )
                timing = {
                    "rollout_time": collected - start,
                    "update_time": updated - collected,
                    "critic_time": fitted - updated,
                    "diagnostics_time": measured - fitted,
                    "checkpoint_time": save_time,  # of what was saved before this update
                    "steps_per_second": batch_size / (measured - start),
                }
                if taken := update.metrics.keys() & (row.keys() | timing.keys()):
                    raise ValueError(f"{config.algorithm.name} logs {', '.join(taken)}, which every run has; rename it")
                run.log(row | update.metrics | timing)
                run.log_alignment({"env_steps": env_steps} | point for point in curve)
                run.log_episodes(rollout.episodes)
                save_time = None
                if interrupt.signal or is_due(config.checkpoint, updates, saved):
                    save_time, saved = save(), time.monotonic()
        save()
        if updates < config.updates:
            run.stopped()
            print(f"stopped after {env_steps:,} steps, as stop_after asks; the same command without it goes on")
            return
        evaluation = evaluate(
            config.env,
            config.evaluation,
            policy.act,
            policy.distribution.noise,
            collector.observation_normaliser,
            learner.evaluation_seeds,
            config.workers,
        )
        run.finish(collector.episodes.score(), env_steps, evaluation)
    except Interrupted as stop:
        run.stopped()
        print(f"stopped by {stop.signal.name}; the same command goes on after update {updates}", file=sys.stderr)
        raise
    except Exception as error:
        run.fail(describe(error), env_steps)
        raise
    score = collector.episodes.score()
    print(
        f"{config.env.name} {config.algorithm.name} seed {config.seed}: episode_return "
        f"{'null (no episode has ended in every environment)' if score is None else f'{score:.1f}'} "
        f"after {env_steps:,} steps, {config.updates * batch_size / wall_time:,.0f} steps/s; files in {run.run_dir}"
    )


def resumable(config: RunConfig) -> bool:
    """Whether the task's environments can be saved exactly; warns if not."""
    reason = unresumable(config.env)
    if reason is not None:
        log.warning("%s: a run of it that is cut off starts again from its first step", reason)
    return reason is None


def is_due(config: CheckpointConfig, updates: int, saved: float) -> bool:
    """Whether files last written at `saved` (s, monotonic) are to be written again."""
    by_count = config.updates is not None and updates % config.updates == 0
    return by_count or time.monotonic() - saved >= config.interval


def progress(config: RunConfig, done: int) -> Iterator[int]:
    """Indices of the updates that remain, shown as a bar on a terminal and otherwise as a line per tenth of the run."""
    label = f"{config.env.name} {config.algorithm.name} seed {config.seed}"
    batch_size, updates = config.algorithm.batch_size, config.updates
    if sys.stderr.isatty():
        bar = tqdm(initial=done * batch_size, total=updates * batch_size, desc=label, unit=" steps", unit_scale=True)
        for i in range(done, config.updates_before_stop):
            yield i
            bar.update(batch_size)
        bar.close()
    else:
        for i in range(done, config.updates_before_stop):
            yield i
            if (i + 1) * 10 // updates > i * 10 // updates:
                print(f"{label}: {(i + 1) * batch_size:,} of {config.total_steps:,} steps", file=sys.stderr, flush=True)


class Interrupted(BaseException):
    """The user or the system asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


class Interrupt:
    """SIGINT and SIGTERM while it is entered: raised as `Interrupted`, but for the first in a block of `deferred`.

    Attributes:
        signal: the one that was received and waits for the end of such a block; 0: none.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        self._is_deferred = False

    def __enter__(self) -> Self:
        self._before = [signal.signal(number, self._receive) for number in self.SIGNALS]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in zip(self.SIGNALS, self._before, strict=True):
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_deferred or self.signal:
            raise Interrupted(number)
        self.signal = number

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait for the end of the block."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
        if self.signal:
            raise Interrupted(self.signal)


def check(config: RunConfig) -> None:
    """Make what the settings describe once, small and unused, so that its parts can refuse them before any compute."""
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


def training_modules(config: RunConfig) -> list[str]:
    """The files that shape this run's results, but for what they import."""
    files = [
        "train.py",
        f"envs/{config.env.kind}.py",
        f"algorithms/{config.algorithm.name}.py",
        f"algorithms/critic_{config.critic.name}.py",
    ]
    metrics = [config.fisher.name, config.fisher.preconditioner] if config.direction == "natural" else []
    return [*files, *(f"algorithms/fisher/{name}.py" for name in metrics if name)]


def start(composed: DictConfig) -> int:
    """Check the settings, open the run directory and train; returns the exit code."""
    try:
        config = typed(composed)
        check(config)
        resolved = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
        identity = identify(resolved, training_modules(config), config.device)
        gpu = prepare_torch(config)
        run = Run.open(
            Path(config.run_dir),
            resolved,
            identity,
            threads=config.threads,
            gpu=gpu,
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
        try:
            with Interrupt() as interrupt:
                train(config, run, interrupt)
        except Interrupted as stop:
            return 128 + stop.signal
        except Exception as error:
            traceback.print_exc()
            if not is_shortage(error):
                return 1
            print(f"train.py: {describe(error)}; {remedy(error, config)}", file=sys.stderr)
            return 5
    return 0


def prepare_torch(config: RunConfig) -> str | None:
    """Set torch to the run's threads, on a GPU to float32 that repeats itself bit for bit; returns the GPU's name."""
    torch.set_num_threads(config.threads)
    if config.device == "cpu":
        return None
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS may choose another order of sums
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # nothing reads it here
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.cuda.get_device_name(config.device)


def describe(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    # A GPU out of memory says first what it lacks, and then lists all that it holds, or how to debug.
    return ". ".join(text.split(". ")[:2]) if gpu_is_full(error) else text


def gpu_is_full(error: Exception) -> bool:
    """Whether a GPU was out of memory, for torch itself or for a library below it that has an error of its own."""
    texts = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def remedy(error: Exception, config: RunConfig) -> str:
    """What a user can do about a shortage."""
    if not gpu_is_full(error):
        return "make room, and the same command goes on from the last checkpoint"
    settings = {
        "network.states_per_pass": config.network.states_per_pass or f"null, all {config.algorithm.batch_size}",
        "critic.minibatch_size": config.critic.minibatch_size,
        "algorithm.minibatch_size": getattr(config.algorithm, "minibatch_size", None),
        "fisher.states": (config.fisher.states or "null, all") if config.direction == "natural" else None,
        "algorithm.batch_size": config.algorithm.batch_size,
    }
    lower = ", ".join(f"{name} ({value})" for name, value in settings.items() if value is not None)
    return f"run fewer processes on this GPU, or lower one of {lower}: a new run, in another run_dir"


def is_shortage(error: Exception) -> bool:
    """Whether a run failed for want of disk or memory, or for a file that could not be written: no fault of its own."""
    return isinstance(error, OSError | MemoryError) or gpu_is_full(error) or "can't allocate memory" in str(error)


@hydra.main(config_path=str(Path(__file__).resolve().parent / "conf"), config_name="config", version_base="1.3")
def main(composed: DictConfig) -> None:
    """Entry point behind Hydra's command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    code = start(composed)
    if code:
        sys.exit(code)


def cli() -> None:
    """The command line, with what Hydra finds wrong in the settings told in one line."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises instead of printing
    if {"--help", "-h"} & set(sys.argv):  # there are no settings to show before these are chosen
        given = {argument.partition("=")[0] for argument in sys.argv}
        sys.argv += [f"{key}={name}" for key, name in (("algorithm", "trpo"), ("env", "hopper")) if key not in given]
    try:
        main()
    except (HydraException, OmegaConfBaseException) as error:
        sys.exit(refuse(error))


if __name__ == "__main__":
    cli()

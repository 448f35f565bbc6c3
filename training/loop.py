"""All updates of one run: collect, update, fit, measure, log."""

import math
import time
from typing import Any

import torch

from algorithms.parts.alignment import alignment_curve, heldout_alignment
from algorithms.parts.diagnostics import measure
from algorithms.parts.surrogate import Surrogate
from command.watch import Watch
from envs.evaluation import evaluate
from settings import CheckpointConfig, RunConfig
from tracking.run import Run
from training.heldout import HeldOut
from training.learner import Learner, build, to_batch


def train(config: RunConfig, run: Run, watch: Watch, resumable: bool) -> None:
    """Train from where `run` stands to the end or `stop_after`; at the end evaluate and finish it.

    Args:
        config: the settings.
        run: where rows and states go.
        watch: holds signals back during an update and shows the progress.
        resumable: whether a state between two updates is worth saving.
    """
    learner = restored(config, run)
    updates, wall_time, cpu_time = run.saved_updates, run.wall_time, run.cpu_time
    collector, policy, critic = learner.collector, learner.policy, learner.critic
    batch_size, device = config.algorithm.batch_size, torch.device(config.device)
    diagnostics, rng = config.diagnostics, learner.diagnostics_rng
    heldout = HeldOut(config, learner, can_copy=resumable)
    snapshots = diagnostics.snapshot_updates(config.updates)
    saved, save_time = time.monotonic(), None

    def processors() -> float:
        """Seconds of processor time so far: this process and those that step its environments."""
        return time.process_time() + collector.cpu_time() + heldout.cpu_time()

    def save() -> float:
        """Bring the files up to date; returns how long that took, s."""
        start = time.perf_counter()
        run.flush({"learner": learner.state_dict()} if resumable or updates == config.updates else None)
        return time.perf_counter() - start

    for i in range(updates, config.updates_before_stop):
        with watch.update(i):
            lr_scale = 1.0 if config.learning_rate_schedule == "constant" else 1 - i / config.updates

            start, cpu_start = time.perf_counter(), processors()
            second = heldout.problem(i)
            held_out = time.perf_counter()

            rollout = collector.collect(
                policy.actor(), policy.distribution.noise, batch_size // config.rollout.num_envs
            )
            collected = time.perf_counter()

            batch = to_batch(rollout, critic, config.env.gamma, config.advantage, device)
            problem = Surrogate(policy, batch)
            update = learner.algorithm.update(problem, lr_scale)
            updated = time.perf_counter()

            critic_metrics = critic.fit(batch, lr_scale)
            if not math.isfinite(critic_metrics["critic_loss"]):
                raise FloatingPointError(f"critic_loss is {critic_metrics['critic_loss']} in update {i + 1}")
            fitted = time.perf_counter()

            renormalised = rollout.renormalised
            shifted = None if renormalised is None else torch.as_tensor(renormalised, device=device).flatten(0, 1)
            kpis = measure(problem, update, diagnostics, i, rng, shifted)
            if second is not None:
                kpis |= heldout_alignment(second, diagnostics, heldout.generator(i))
            curve = alignment_curve(problem, update, diagnostics, rng) if i in snapshots else []
            measured = time.perf_counter()

            updates, wall_time, cpu_time = i + 1, wall_time + measured - start, cpu_time + processors() - cpu_start
            position = {"env_steps": collector.episodes.env_steps}
            row = (
                position
                | {"wall_time": wall_time, "episode_return": collector.episodes.score()}
                | kpis
                | {"cpu_time": cpu_time}
                | critic_metrics
                | {"learning_rate_scale": lr_scale}
            )
            timing = {
                "rollout_time": collected - held_out,
                "update_time": updated - collected,
                "critic_time": fitted - updated,
                "diagnostics_time": measured - fitted + held_out - start,
                "checkpoint_time": save_time,  # of what was saved before this update
                "steps_per_second": batch_size / (measured - start),
            }
            refuse_taken(config.algorithm.name, update.metrics, row | timing)
            run.log(row | update.metrics | timing)
            run.log_alignment(position | point for point in curve)
            run.log_episodes(rollout.episodes)
            watch.tell(row)
            save_time = None
            if watch.is_stopping or is_due(config.checkpoint, updates, saved):
                save_time, saved = save(), time.monotonic()
    save()
    if updates < config.updates:
        run.stopped()
        return
    evaluation = evaluate(
        config.env,
        config.evaluation,
        policy.actor(),
        policy.distribution.noise,
        collector.observation_normaliser,
        learner.evaluation_seeds,
        config.workers,
    )
    run.finish(collector.episodes.score(), collector.episodes.env_steps, evaluation)


def restored(config: RunConfig, run: Run) -> Learner:
    """The parts of the run as its newest sound checkpoint has them; as they begin where there is none."""
    learner = build(config)
    while run.state is not None:
        try:
            learner.load_state_dict(run.state["learner"])
            break
        except torch.OutOfMemoryError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            run.fall_back(error)
            learner = build(config)
    return learner


def refuse_taken(algorithm: str, metrics: dict[str, Any], row: dict[str, Any]) -> None:
    """Raise ValueError for a column of an algorithm that has the name of one that every run has."""
    if taken := metrics.keys() & row.keys():
        raise ValueError(f"{algorithm} logs {', '.join(taken)}, which every run has; rename it")


def is_due(config: CheckpointConfig, updates: int, saved: float) -> bool:
    """Whether files last written at `saved` (s, monotonic) are to be written again."""
    by_count = config.updates is not None and updates % config.updates == 0
    return by_count or time.monotonic() - saved >= config.interval

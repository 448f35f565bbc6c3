"""Run directories as a suite leaves them, with curves and geometry like real ones, without training."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

# final score, speed, KL per step, alignment error, Fisher trace: roughly what the five algorithms show
ALGORITHMS = {
    "adam_pg": (0.45, 0.8, 2e-4, 0.65, 60.0),
    "npg": (1.0, 2.2, 0.019, 0.22, 45.0),
    "trpo": (1.0, 2.2, 0.018, 0.22, 45.0),
    "ppo": (0.85, 1.5, 0.011, 0.42, 52.0),
    "acktr": (0.8, 1.8, 0.016, 0.33, 48.0),
}
RHOS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
TOPS = {
    "halfcheetah": (-280, 3200),
    "hopper": (18, 2200),
    "walker2d": (2, 2600),
    "ant": (-60, 1500),
    "swimmer": (0, 110),
    "humanoid": (120, 620),
    "reacher": (-43, -5),
    "inverted_pendulum": (6, 1000),
    "inverted_double_pendulum": (55, 9300),
    "atari_pong": (-20.3, 19),
    "atari_breakout": (1.4, 60),
    "atari_space_invaders": (140, 700),
}
FRAME_SKIP = 4
TASKS = {"halfcheetah": "HalfCheetah-v5", "hopper": "Hopper-v5"}


def write_suite(
    root: Path,
    envs: list[str],
    variants: list[str],
    seeds: int,
    total_steps: int,
    batch: int = 2048,
    interval: int = 10,
    snapshots: int = 0,
    exceptions: dict[str, list[str]] | None = None,
    configurations: dict[str, list[str]] | None = None,
) -> Path:
    """Write results/synthetic with every cell finished; returns the suite's directory."""
    suite_dir = root / "results" / "synthetic"
    cells = []
    for env in envs:
        for variant in variants:
            for seed in range(seeds):
                run_dir = suite_dir / "runs" / env / variant / f"seed-{seed}"
                rng = np.random.default_rng([seed, len(env), len(variant), ord(variant[0])])
                write_run(run_dir, env, variant, seed, total_steps, batch, interval, rng)
                if snapshots:
                    write_alignment(run_dir, variant, total_steps, snapshots, rng)
                cells.append(
                    {
                        "env": env,
                        "variant": variant,
                        "algorithm": variant if variant in ALGORITHMS else "npg",
                        "seed": seed,
                        "run_dir": str(run_dir),
                    }
                )
    plan = {
        "suite": "synthetic",
        "baseline": "adam_pg",
        "delta_ref": 0.02,
        "total_steps": total_steps,
        "exceptions": exceptions or {},
        "cells": cells,
    } | ({"configurations": configurations} if configurations else {})
    (suite_dir / "suite.json").write_text(json.dumps(plan))
    return suite_dir


def write_run(
    run_dir: Path,
    env: str,
    variant: str,
    seed: int,
    total_steps: int,
    batch: int,
    interval: int,
    rng: np.random.Generator,
) -> None:
    """A finished run of one cell."""
    level, speed, kl, alignment, trace = ALGORITHMS.get(variant, (0.7, 1.2, 0.008, 0.5, 50.0))
    bottom, top = TOPS.get(env, (0, 500))
    updates = total_steps // batch
    steps = batch * np.arange(1, updates + 1)
    x = steps / total_steps
    share = level * (1 - np.exp(-speed * (1 + 0.25 * rng.standard_normal()) * 2 * x)) / (1 - np.exp(-2 * speed))
    wobble = 0.03 * np.cumsum(rng.standard_normal(updates)) / np.sqrt(updates)
    score = bottom + (top - bottom) * np.maximum(share + wobble * level * 2 + 0.008 * rng.standard_normal(updates), 0)
    measured = np.arange(updates) % interval == 0
    rejected = (rng.random(updates) < 0.02) & (variant == "trpo")
    log_trace = np.log(trace) + 1.2 * x + 0.1 * np.cumsum(rng.standard_normal(updates)) / np.sqrt(updates)
    columns: dict[str, tuple[Any, Any]] = {
        "env_steps": (steps, None),
        "wall_time": (steps / 9000, None),
        "episode_return": (score, steps < 6000),
        "kl": (
            np.where(rejected, 0.0, kl * np.exp(0.25 * rng.standard_normal(updates) * (variant != "trpo"))),
            None,
        ),
        "fisher_trace": (np.exp(log_trace + 0.02 * rng.standard_normal(updates)), ~measured),
        "alignment_error": (
            np.clip(alignment * (1 + 0.15 * rng.standard_normal(updates)) + 0.1 * x, 0, 2),
            ~measured | rejected,
        ),
        "alignment_outcome": (np.full(updates, "converged"), ~measured),
        "quadratic_error": (0.05 * np.abs(rng.standard_normal(updates)), ~measured | rejected),
        "step_accepted": (~rejected, None),
        "outcome": (np.where(rejected, "rejected", "stepped"), None),
        "fisher_trace_split": (0.04 * rng.standard_normal(updates), ~measured),
    }
    run_dir.mkdir(parents=True)
    write_progress(run_dir, columns)
    modes = {
        "deterministic": score[-1] * 1.05 + 20 * rng.standard_normal(20),
        "stochastic": score[-1] + 20 * rng.standard_normal(20),
        "random": bottom + 0.02 * (top - bottom) * np.random.default_rng(seed).standard_normal(20),
    }
    evaluation = {
        "mode": np.repeat(list(modes), 20),
        "episode_return": np.concatenate(list(modes.values())),
        "episode_length": np.full(60, 1000),
    }
    pq.write_table(pa.table(evaluation), run_dir / "evaluation.parquet")
    write_state(run_dir, "finished", None, int(steps[-1]), float(score[-1]))


def write_alignment(run_dir: Path, variant: str, total_steps: int, snapshots: int, rng: np.random.Generator) -> None:
    """Alignment errors of a run that rise as the damping falls below the algorithm's own, as real ones do."""
    alignment = ALGORITHMS.get(variant, (0.7, 1.2, 0.008, 0.5, 50.0))[3]
    damped = variant in ("npg", "trpo", "acktr")
    steps = np.repeat(np.linspace(0, total_steps, snapshots), len(RHOS)).round().astype(int)
    rho = np.tile(RHOS, snapshots)
    rho_own = 0.9 * np.exp(0.2 * rng.standard_normal()) * (1 + (variant == "acktr"))
    error = alignment + 0.15 * np.log10(0.1 / rho) * (1 if damped else 0.5) + 0.03 * rng.standard_normal()
    rows = {
        "env_steps": steps,
        "rho": rho,
        "damping": rho * 0.05,
        "rho_own": pa.array(np.full(len(rho), rho_own), mask=np.full(len(rho), not damped)),
        "alignment_error": np.clip(error + 0.01 * rng.standard_normal(len(rho)), 0, 2),
        "outcome": np.where(rho < 0.002, "capped", "converged"),
        "residual": np.full(len(rho), 1e-3),
        "iterations": (20 / np.sqrt(rho)).astype(int),
    }
    pq.write_table(pa.table(rows), run_dir / "alignment.parquet")


def write_progress(run_dir: Path, columns: dict[str, tuple[Any, Any]]) -> None:
    """`columns`: name -> (values, mask of nulls or None)."""
    arrays = {name: pa.array(values, mask=mask, from_pandas=False) for name, (values, mask) in columns.items()}
    pq.write_table(pa.table(arrays), run_dir / "progress.parquet")


def write_state(run_dir: Path, state: str, reason: str | None, env_steps: int, score: float | None) -> None:
    """manifest.json and, for a run that ended, status.json."""
    identity = f"{hash_of(run_dir)}"
    parts = {"config": settings_of(run_dir), "code": {}, "versions": {}, "device": "cpu"}
    manifest = {"state": state, "reason": reason, "identity": {"hash": identity, "parts": parts}}
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    if state != "running":
        status = {
            "status": state,
            "reason": reason,
            "identity": identity,
            "env_steps": env_steps,
            "episode_return": score,
        }
        (run_dir / "status.json").write_text(json.dumps(status))


def settings_of(run_dir: Path) -> dict[str, Any]:
    """Resolved settings of a cell by dotted name, as far as the analysis reads them."""
    env = run_dir.parts[-3]
    is_game = env.startswith("atari_")
    of_a_game = {"env.game": env.removeprefix("atari_"), "env.frame_skip": FRAME_SKIP} if is_game else {}
    of_a_task = {"env.id": TASKS[env]} if env in TASKS else {}
    return {"diagnostics.rho": 100 if is_game else 0.1, **of_a_game, **of_a_task}


def hash_of(run_dir: Path) -> str:
    """A stand-in for a cell's identity: 64 hexadecimal digits that depend on the cell."""
    return "".join(f"{byte:02x}" for byte in run_dir.as_posix().encode()[-32:]).rjust(64, "0")

"""What every algorithm must do, run over every algorithm found: a new one is held to this without a test of its own."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from algorithms.fisher.parameters import assign, flatten
from algorithms.parts.algorithm import Outcome
from pipeline.suites import find_algorithms
from tests.algorithms.problems import DISTRIBUTIONS, make_policy, make_problem
from tests.settings import PONG, compose, run
from tracking import checkpoint
from tracking.compare import differences
from tracking.tables import equal_tables

TASKS = {
    "mujoco": ("env=inverted_double_pendulum",),
    "cartpole": ("env=gym", "env.id=CartPole-v1"),
    "pong": PONG,
}
OUTCOMES = {outcome.value for outcome in Outcome}

each_algorithm = pytest.mark.parametrize("name", find_algorithms())
each_task = pytest.mark.parametrize("task", TASKS)


@pytest.fixture(scope="module")
def three_updates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Run directory of three updates with every KPI measured at each; trained once per algorithm and task."""
    made: dict[tuple[str, str], Path] = {}

    def get(name: str, task: str) -> Path:
        if (name, task) not in made:
            made[name, task] = tmp_path_factory.mktemp(f"{name}-{task}")
            assert run(made[name, task], f"algorithm={name}", *TASKS[task]) == 0
        return made[name, task]

    return get


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of progress.parquet with nulls as None and NaN as NaN."""
    result: list[dict[str, Any]] = pq.read_table(run_dir / "progress.parquet").to_pylist()
    return result


def test_the_five_algorithms_of_the_suite_are_found() -> None:
    assert {"adam_pg", "npg", "trpo", "ppo", "acktr"} <= set(find_algorithms())


@each_task
@each_algorithm
def test_every_kpi_is_finite_or_null_for_a_named_reason(
    three_updates: Callable[[str, str], Path], name: str, task: str
) -> None:
    updates, is_game = rows(three_updates(name, task)), task == "pong"
    assert [row["env_steps"] for row in updates] == [64 + 256, 64 + 512, 64 + 768]
    assert any(row["outcome"] == "stepped" for row in updates)
    for row in updates:
        stepped = row["outcome"] == "stepped"
        has_gradient = row["gradient_norm"] > 0
        named = {
            "episode_return": True,  # null until every environment has ended an episode
            "rho_own": True,  # null for updates that follow no damped metric
            "checkpoint_time": True,  # null when nothing was saved before the update
            "explained_variance": True,  # null when the targets do not vary
            "alignment_error": not (stepped and has_gradient),
            "quadratic_error": not (stepped and row["kl"] >= 1e-12),
            "alignment_error_heldout": not stepped or is_game,
            "alignment_noise": is_game,  # nothing is held out on games
        }
        for column in ("alignment_outcome", "alignment_residual", "alignment_cg_iterations",
                       "lambda_max", "condition_number", "effective_rank"):  # fmt: skip
            named[column] = not has_gradient
        assert row["outcome"] in OUTCOMES
        for column, value in row.items():
            if value is None:
                assert named.get(column) or not stepped, f"{column} is null without a reason"
            elif isinstance(value, float):
                assert math.isfinite(value), f"{column} is {value}"
        assert row["fisher_trace"] > 0
        for column in ("alignment_error", "alignment_error_heldout", "alignment_noise"):
            assert row[column] is None or 0 <= row[column] <= 2
        assert (row["kl_total"] == row["kl"]) == is_game


@pytest.mark.parametrize("task", sorted(TASKS.keys() - {"pong"}))  # whose runs tests/test_resume.py compares
@each_algorithm
def test_the_same_seed_gives_equal_files(
    three_updates: Callable[[str, str], Path], tmp_path: Path, name: str, task: str
) -> None:
    assert run(tmp_path, f"algorithm={name}", *TASKS[task]) == 0
    first = three_updates(name, task)
    assert differences(first, tmp_path) == []


@each_algorithm
def test_another_seed_gives_other_files(three_updates: Callable[[str, str], Path], tmp_path: Path, name: str) -> None:
    assert run(tmp_path, f"algorithm={name}", *TASKS["cartpole"], "seed=1") == 0
    assert not equal_tables(three_updates(name, "cartpole") / "progress.parquet", tmp_path / "progress.parquet")


@each_algorithm
def test_an_injected_nan_reaches_the_file_as_nan(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str) -> None:
    monkeypatch.setattr("algorithms.parts.states.fisher_trace", lambda *args: torch.full((8,), math.nan))
    assert run(tmp_path, f"algorithm={name}", *TASKS["cartpole"], "rollout.num_envs=8", "diagnostics.states=8") == 0
    for row in rows(tmp_path):
        assert math.isnan(row["fisher_trace"])
        assert math.isnan(row["alignment_error"])
        assert math.isfinite(row["kl"])


@each_algorithm
@pytest.mark.parametrize("distribution", DISTRIBUTIONS, ids=lambda d: type(d).__name__)
def test_the_state_goes_through_a_checkpoint(tmp_path: Path, name: str, distribution: Any) -> None:
    """Two updates in one go, and one before and one after a checkpoint into a fresh algorithm: the same parameters."""
    config = compose(f"algorithm={name}", "env=hopper", "algorithm.batch_size=128")
    policies = [make_policy(distribution).float() for _ in range(2)]
    going_on, restored = (
        config.algorithm_class(config.algorithm, config.pair, policy, np.random.default_rng(seed))
        for seed, policy in enumerate(policies)
    )
    going_on.update(make_problem(policies[0], n=128), 1.0)
    checkpoint.save(tmp_path / "checkpoint", going_on.state_dict())
    restored.load_state_dict(checkpoint.load(tmp_path / "checkpoint"))
    assign(policies[1], flatten(policies[0]))
    for algorithm, policy in zip((going_on, restored), policies, strict=True):
        algorithm.update(make_problem(policy, n=128, seed=2), 0.5)
    assert torch.equal(flatten(policies[0]), flatten(policies[1]))


@each_algorithm
def test_constant_rewards_are_a_named_outcome_and_move_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """Advantages of exactly 0, as constant ones are after normalisation, carry no gradient."""
    monkeypatch.setattr("training.learner.normalise_advantages", np.zeros_like)
    assert run(tmp_path, f"algorithm={name}", *TASKS["cartpole"]) == 0
    for row in rows(tmp_path):
        assert (row["outcome"], row["kl"], row["step_norm"]) == ("zero_gradient", 0.0, 0.0)
        assert (row["alignment_error"], row["quadratic_error"]) == (None, None)


class Locks(gym.Env[np.ndarray, np.ndarray]):
    """Two signs are seen; a dial of three and a switch or two pay 1 each where they stand as their sign says."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, binary: bool = False) -> None:
        self.lowest = np.array([0, 0] if binary else [1, -1])
        self.highest = np.array([1, 1] if binary else [3, 0])
        self.action_space: gym.spaces.Space[Any] = gym.spaces.MultiBinary(2)
        if not binary:
            self.action_space = gym.spaces.MultiDiscrete(np.array([3, 2]), start=self.lowest)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.signs = self.np_random.choice(np.array([-1, 1], np.float32), 2)
        return self.signs, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        right = action == np.where(self.signs > 0, self.highest, self.lowest)
        self.signs = self.np_random.choice(np.array([-1, 1], np.float32), 2)
        return self.signs, float(right.sum()), False, False, {}


gym.register("Locks-v0", f"{__name__}:Locks", max_episode_steps=20)
BINARY = "+env.kwargs.binary=true"


@pytest.mark.parametrize(("name", "more"), [*((name, []) for name in find_algorithms()), ("ppo", [BINARY])])
def test_several_choices_at_once_are_learned(name: str, more: list[str], tmp_path: Path) -> None:
    settings = ("env=gym", "env.id=Locks-v0", "total_steps=6144", "diagnostics.interval=6", "evaluation.episodes=10")
    assert run(tmp_path, f"algorithm={name}", *settings, *more) == 0
    for row in rows(tmp_path):
        assert row["outcome"] in OUTCOMES
        assert all(math.isfinite(value) for value in row.values() if isinstance(value, float))
    played = pq.read_table(tmp_path / "evaluation.parquet").to_pandas().groupby("mode")["episode_return"].mean()
    assert played["random"] < 20
    assert played["deterministic"] > 36  # of 40

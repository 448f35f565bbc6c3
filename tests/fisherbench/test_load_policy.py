"""A policy in Python: the actions of the run's own evaluation, its geometry, and one name that is installed."""

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from gymnasium.spaces import Box

from fisherbench import LoadedPolicy, load_policy
from tests.settings import run
from tracking.identity import REPOSITORY
from training.learner import seed_sequences


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("run")
    assert run(directory, "algorithm=trpo", "env=reacher", "evaluation.episodes=2") == 0
    return directory


@pytest.fixture(scope="module")
def policy(run_dir: Path) -> LoadedPolicy:
    return load_policy(run_dir)


def test_its_actions_give_the_returns_of_the_evaluation(policy: LoadedPolicy) -> None:
    rows = pq.read_table(policy.run_dir / "evaluation.parquet").to_pylist()
    seeds = seed_sequences(policy.config.seed)["evaluation"].spawn(3)[0].spawn(2)
    for row, seed in zip(rows, seeds, strict=False):
        env = policy.make_env()
        observation, _ = env.reset(seed=int(seed.generate_state(1)[0]))
        total, over = 0.0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(policy.act(observation))
            total, over = total + float(reward), terminated or truncated
        assert row["mode"] == "deterministic"
        assert total == pytest.approx(row["episode_return"], rel=1e-6)


def test_one_observation_or_a_batch_most_likely_or_sampled(policy: LoadedPolicy) -> None:
    observations = np.random.default_rng(0).normal(size=(3, 10))
    actions = policy.act(observations)
    assert actions.shape == (3, 2)
    np.testing.assert_allclose(policy.act(observations[1]), actions[1], rtol=1e-6)
    first, again, other = (policy.act(observations, False, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert isinstance(policy.action_space, Box)
    assert (np.abs(policy.act(observations * 1e6, False, np.random.default_rng(0))) <= policy.action_space.high).all()
    with pytest.raises(ValueError, match=r"act: observations of shape \(3, 4\), where \(10,\) or"):
        policy.act(np.zeros((3, 4)))


def test_a_sample_is_repeatable_and_moves_no_normaliser(policy: LoadedPolicy) -> None:
    before = policy.normaliser.moments.count
    first, again = policy.collect(64, seed=3), policy.collect(64, seed=3)
    assert torch.equal(first.batch.actions, again.batch.actions)
    assert policy.normaliser.moments.count == before
    np.testing.assert_array_equal(policy.normaliser(first.observations), first.batch.observations.numpy())
    with pytest.raises(ValueError, match=r"steps=65 must be a multiple of rollout\.num_envs=16"):
        policy.collect(65)


def test_the_geometry_agrees_with_the_dense_matrix(policy: LoadedPolicy) -> None:
    g = policy.geometry(policy.collect(64))
    fisher = g.problem.fisher.dense(0.0).double()
    assert g.fisher_trace == pytest.approx(float(fisher.trace()), rel=1e-4)
    natural = g.natural_gradient(rho=0.1, tolerance=1e-6)
    damped = fisher + g.damping(0.1) * torch.eye(len(fisher))
    expected = torch.linalg.solve(damped, g.gradient.double())
    torch.testing.assert_close(natural.double(), expected, rtol=1e-2, atol=1e-3 * float(expected.abs().max()))
    assert g.alignment_error(natural) == pytest.approx(0, abs=1e-2)
    assert g.alignment_error(-natural) == pytest.approx(2, abs=1e-2)
    step = natural * 1e-2 / natural.norm()
    assert g.kl(step) == pytest.approx(0.5 * float(step.double() @ fisher @ step.double()), rel=0.05)


def test_kl_between_policies_is_that_of_the_step_between_them(run_dir: Path, policy: LoadedPolicy) -> None:
    other = load_policy(run_dir)
    g = policy.geometry(policy.collect(64))
    assert g.kl(other) == 0
    step = 1e-2 * torch.randn(len(g.theta), generator=torch.Generator().manual_seed(0))
    torch.nn.utils.vector_to_parameters(g.theta + step, other.network.parameters())
    assert g.kl(other) == pytest.approx(g.kl(step), rel=1e-6)
    other.normaliser.moments.mean = other.normaliser.moments.mean + 1
    other.normaliser.load_state_dict(other.normaliser.state_dict())
    assert g.kl(other) != pytest.approx(g.kl(step), rel=1e-2)  # which has a normaliser of its own


def test_wrappers_that_are_code_run_for_who_names_them(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = Path(shutil.copytree(run_dir, tmp_path / "copied"))
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "somebodys_wrapper.py").write_text(
        "import gymnasium, pathlib\n"
        "class Own(gymnasium.Wrapper):\n    pass\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
    )
    manifest = json.loads((copied / "manifest.json").read_text())
    manifest["config"]["env"]["wrappers"] = [{"class": "somebodys_wrapper:Own"}]
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=r"wrappers that are code, somebodys_wrapper:Own; if you trust them, add env"):
        load_policy(copied)
    assert not (tmp_path / "ran").exists()
    load_policy(copied, wrappers=["somebodys_wrapper:Own"])
    assert (tmp_path / "ran").exists()


def test_it_installs_one_package_that_works_from_anywhere(run_dir: Path, tmp_path: Path) -> None:
    settings = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["tool"]["setuptools"]["packages"] == ["fisherbench"]
    # What an editable install does: the name fisherbench, and no other, leads to the checkout.
    (tmp_path / "fisherbench").symlink_to(REPOSITORY / "fisherbench")
    script = (
        "import os, sys; sys.path.insert(0, os.getcwd()); import fisherbench\n"
        f"print(fisherbench.load_policy({str(run_dir)!r}).act([0.0] * 10).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "(2,)\n"

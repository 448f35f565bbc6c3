"""Whole runs: what they leave on disk, how NPG and TRPO relate, and what is refused before any compute."""

import json
import math
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from omegaconf import OmegaConf

import evaluate
from command.cli import as_text, cli
from command.interrupt import Interrupt
from envs.rollout import Collector
from tests.settings import compose, compose_raw, run
from tracking import checkpoint
from tracking.identity import starts
from tracking.manifest import read_manifest, write_manifest
from tracking.record import files_of
from tracking.run import PROGRESS_COLUMNS
from tracking.tables import equal_tables
from training.heldout import HeldOut
from training.learner import build, seed_sequences

POINTMASS = ("env=inverted_pendulum",)


def progress(run_dir: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run_dir / "progress.parquet").to_pylist()
    return rows


def test_npg_and_trpo_are_bit_identical_until_the_first_backtrack(tmp_path: Path) -> None:
    """A wide trust region makes the line search backtrack after a few updates; up to there the two are one."""
    shared = ("env=hopper", "algorithm.delta=0.3", "total_steps=7680", "algorithm.batch_size=256")
    for name in ("npg", "trpo"):
        assert run(tmp_path / name, f"algorithm={name}", *shared) == 0
    npg, trpo = progress(tmp_path / "npg"), progress(tmp_path / "trpo")
    first = next((i for i, row in enumerate(trpo) if row["backtracks"]), None)
    assert first is not None, "no backtrack: the test shows nothing about the difference"
    assert first >= 3
    timing = ("_time", "_per_second")
    extra = {"backtracks", "surrogate_gain"}
    for a, b in zip(npg[:first], trpo[:first], strict=True):
        for column in b.keys() - extra:
            assert column.endswith(timing) or a[column] == b[column], column
    assert npg[first]["kl"] != trpo[first]["kl"]


def test_a_run_leaves_what_the_design_promises(tmp_path: Path) -> None:
    assert run(tmp_path, "algorithm=trpo", "env=inverted_pendulum") == 0
    status = json.loads((tmp_path / "status.json").read_text())
    assert set(status) == {"status", "reason", "identity", "env_steps", "episode_return"}
    assert (status["status"], status["reason"], status["env_steps"]) == ("finished", None, 64 + 768)
    rows = progress(tmp_path)
    assert list(rows[0])[:8] == [
        "env_steps", "wall_time", "episode_return", "kl",
        "fisher_trace", "alignment_error", "quadratic_error", "step_accepted",
    ]  # fmt: skip
    assert rows[-1]["episode_return"] == status["episode_return"]
    modes = pq.read_table(tmp_path / "evaluation.parquet")["mode"].to_pylist()
    assert modes == ["deterministic", "stochastic", "random"]
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["state"] == "finished"
    assert manifest["config"]["algorithm"]["delta"] == 0.02


def test_the_remainder_of_the_steps_is_not_sampled(tmp_path: Path) -> None:
    assert run(tmp_path, "algorithm=adam_pg", *POINTMASS, "total_steps=1000") == 0
    assert len(progress(tmp_path)) == 1000 // 256


def test_diagnostics_change_nothing_but_their_own_columns(tmp_path: Path) -> None:
    """How often they are made, whether they sample actions, with snapshots or without, a second batch or none."""
    variants = {
        "often": ("interval=1",),
        "seldom": ("interval=3",),
        "sampled": ("interval=1", "trace_samples=2", "snapshots=2"),
        "alone": ("interval=1", "trace_samples=2", "snapshots=2", "heldout_states=null"),
    }
    rows = {}
    for name, settings in variants.items():
        diagnostics = [f"diagnostics.{setting}" for setting in ("trace_interval=3", *settings)]
        assert run(tmp_path / name, "algorithm=acktr", *POINTMASS, *diagnostics) == 0
        rows[name] = progress(tmp_path / name)
    assert [row["fisher_trace"] is None for row in rows["seldom"]] == [False, True, True]
    second_batch = {
        "alignment_error_heldout", "alignment_noise", "heldout_states",
        "alignment_heldout_outcome", "alignment_heldout_residual",
    }  # fmt: skip
    assert rows["sampled"][0].keys() - rows["alone"][0].keys() == second_batch - {*PROGRESS_COLUMNS}
    for often, seldom, sampled, alone in zip(*rows.values(), strict=True):
        for column in ("kl", "kl_total", "step_norm", "episode_return", "critic_loss"):
            assert often[column] == seldom[column] == sampled[column]
        assert often["fisher_trace"] != sampled["fisher_trace"]
        for column in sampled.keys() - second_batch:
            assert column.endswith(("_time", "_per_second")) or sampled[column] == alone[column], column
        assert sampled["heldout_states"] == 128
        assert alone["alignment_error_heldout"] is None
        assert alone["alignment_noise"] is None
    for name in ("sampled", "alone"):
        assert equal_tables(tmp_path / "often" / "episodes.parquet", tmp_path / name / "episodes.parquet")


def test_a_second_batch_starts_where_the_batch_does_and_depends_on_seed_and_update_alone() -> None:
    config = compose("algorithm=trpo", "env=hopper", "diagnostics.interval=2", "diagnostics.heldout_states=320")
    learner = build(config)
    before = learner.collector.state_dict()
    one, other = HeldOut(config, learner, can_copy=True), HeldOut(config, learner, can_copy=True)
    first, again, later = one.problem(2), other.problem(2), one.problem(4)
    assert first is not None
    assert again is not None
    assert later is not None
    assert torch.equal(first.batch.actions, again.batch.actions)
    assert torch.equal(first.batch.advantages, again.batch.advantages)
    assert torch.equal(first.theta, later.theta)
    assert not torch.equal(first.batch.actions, later.batch.actions)
    assert one.problem(3) is None
    assert HeldOut(config, learner, can_copy=False).problem(2) is None
    np.testing.assert_equal(learner.collector.state_dict(), before)
    rollout = learner.collector.collect(learner.policy.actor(), learner.policy.distribution.noise, 20)
    observations = first.batch.observations.view(20, 16, -1).numpy()
    np.testing.assert_array_equal(observations[0], rollout.observations[0])
    assert (observations[1] != rollout.observations[1]).any(1).all()


def test_a_second_batch_whose_simulation_diverges_is_left_out_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = ("algorithm=npg", *POINTMASS)
    assert run(tmp_path / "whole", *settings) == 0
    collect, calls = Collector.collect, []

    def failing(self: Collector, *arguments: Any) -> Any:
        calls.append(self)
        if len(calls) == 3:  # the second batch of the second update
            raise FloatingPointError("the simulation diverged")
        return collect(self, *arguments)

    monkeypatch.setattr(Collector, "collect", failing)
    assert run(tmp_path / "parts", *settings) == 0
    assert "update 2: no second batch, the simulation diverged" in caplog.text
    whole, parts = progress(tmp_path / "whole"), progress(tmp_path / "parts")
    assert [row["alignment_noise"] is None for row in parts] == [False, True, False]
    assert [row["kl"] for row in parts] == [row["kl"] for row in whole]
    assert parts[2]["alignment_error_heldout"] == whole[2]["alignment_error_heldout"]


def test_the_total_divergence_is_another_where_observations_are_normalised_anew(tmp_path: Path) -> None:
    for name, settings in {"on": (), "off": ("rollout.normalise_observations=false",)}.items():
        assert run(tmp_path / name, "algorithm=trpo", *POINTMASS, *settings) == 0
    assert all(row["kl_total"] != row["kl"] for row in progress(tmp_path / "on"))
    assert all(row["kl_total"] == row["kl"] for row in progress(tmp_path / "off"))


def test_processor_time_grows_with_every_update_also_over_a_stop(tmp_path: Path) -> None:
    settings = ("algorithm=npg", "env=hopper", "rollout.num_envs=4", "workers=2")
    assert run(tmp_path, *settings, "stop_after=320") == 0
    first = progress(tmp_path)[0]["cpu_time"]
    assert run(tmp_path, *settings) == 0
    spent = [row["cpu_time"] for row in progress(tmp_path)]
    assert spent[0] == first
    assert 0 < spent[0] < spent[1] < spent[2]


def test_snapshots_leave_a_row_per_damping_and_runs_without_them_no_table(tmp_path: Path) -> None:
    shared = ("algorithm=npg", *POINTMASS, "diagnostics.tolerance=1e-4")
    for snapshots in (0, 2):
        assert run(tmp_path / str(snapshots), *shared, f"diagnostics.snapshots={snapshots}") == 0
    assert not (tmp_path / "0" / "alignment.parquet").exists()
    points = pq.read_table(tmp_path / "2" / "alignment.parquet").to_pylist()
    steps = [row["env_steps"] for row in progress(tmp_path / "2")]
    assert [point["env_steps"] for point in points] == [steps[0]] * 7 + [steps[-1]] * 7
    [headline] = [p["alignment_error"] for p in points if (p["env_steps"], p["rho"]) == (steps[0], 0.1)]
    assert headline == pytest.approx(progress(tmp_path / "2")[0]["alignment_error"], abs=1e-3)


def test_every_random_stream_keeps_its_place() -> None:
    """A new one goes to the end: results of earlier versions depend on the places of the others."""
    places = {name: sequence.spawn_key for name, sequence in seed_sequences(0).items()}
    names = (
        "networks", "environments", "actions", "warm_up", "algorithm", "critic", "evaluation", "diagnostics", "heldout",
    )  # fmt: skip
    assert places == {name: (place,) for place, name in enumerate(names)}


def test_the_linear_schedule_scales_learning_rates_down_to_the_last_update(tmp_path: Path) -> None:
    assert run(tmp_path, "algorithm=adam_pg", *POINTMASS, "learning_rate_schedule=linear") == 0
    rows = progress(tmp_path)
    assert [row["learning_rate_scale"] for row in rows] == pytest.approx([1, 2 / 3, 1 / 3])
    assert [row["step_size"] for row in rows] == pytest.approx([3e-3 * s for s in (1, 2 / 3, 1 / 3)])


def test_the_same_command_on_a_finished_run_rewrites_its_status_only(tmp_path: Path) -> None:
    assert run(tmp_path, "algorithm=npg", *POINTMASS) == 0
    status, table = (tmp_path / "status.json").read_text(), (tmp_path / "progress.parquet").stat().st_mtime_ns
    (tmp_path / "status.json").unlink()
    assert run(tmp_path, "algorithm=npg", *POINTMASS) == 0
    assert (tmp_path / "status.json").read_text() == status
    assert (tmp_path / "progress.parquet").stat().st_mtime_ns == table


def test_another_run_in_the_same_directory_is_refused_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "algorithm=npg", *POINTMASS) == 0
    assert run(tmp_path, "algorithm=npg", *POINTMASS, "algorithm.delta=0.01") == 3
    assert "algorithm.delta: 0.01 here, 0.02 there" in capsys.readouterr().err


def test_a_failing_run_records_its_reason_and_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("algorithm=npg", *POINTMASS, "diagnostics.heldout_states=null")
    collect, calls = Collector.collect, []

    def fail_at_the_third(self, *args):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 3:
            raise FloatingPointError("the simulation diverged")
        return collect(self, *args)

    monkeypatch.setattr(Collector, "collect", fail_at_the_third)
    assert run(tmp_path, *settings) == 1
    status = json.loads((tmp_path / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("failed", "FloatingPointError: the simulation diverged")
    assert len(progress(tmp_path)) == 2

    monkeypatch.setattr(Collector, "collect", collect)
    assert run(tmp_path, *settings) == 0
    assert run(tmp_path / "fresh", *settings) == 0
    assert equal_tables(tmp_path / "progress.parquet", tmp_path / "fresh" / "progress.parquet")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total of 8 GiB."),
            "OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
    ],
    ids=["torch", "cublas"],
)
def test_a_gpu_out_of_memory_names_the_settings_to_lower_and_counts_as_a_shortage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: RuntimeError,
    reason: str,
) -> None:
    def full(*args: object) -> None:
        raise error

    monkeypatch.setattr(Collector, "collect", full)
    assert run(tmp_path, "algorithm=ppo", *POINTMASS, "network.states_per_pass=32") == 5
    assert json.loads((tmp_path / "status.json").read_text())["reason"] == reason
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        f"train.py: {reason}; run fewer processes on this GPU, or lower one of network.states_per_pass (32), "
        "critic.minibatch_size (256), algorithm.minibatch_size (64), algorithm.batch_size (256): a new run, in another "
        "run_dir"
    )


def test_what_rooms_log_is_seen_by_a_user_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Hydra's own logging set-up must not silence ours."""
    monkeypatch.setattr(Collector, "collect", lambda *args: 1 / 0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", "algorithm=npg", *POINTMASS, "run_dir=run", "total_steps=2048"])
    for _ in range(2):
        with pytest.raises(SystemExit) as stop:
            cli(Interrupt())
        assert stop.value.code == 1
    assert "an earlier run failed here (ZeroDivisionError: division by zero); it starts again" in caplog.text


def test_nan_advantages_leave_the_policy_alone_and_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.learner.normalise_advantages", lambda a: a * math.nan)
    assert run(tmp_path, "algorithm=trpo", *POINTMASS) == 0
    assert {row["outcome"] for row in progress(tmp_path)} == {"non_finite"}


def test_replaying_a_finished_run_gives_its_evaluation_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "algorithm=ppo", *POINTMASS, "evaluation.episodes=2") == 0
    rows = evaluate.replay(evaluate.ReplayConfig(str(tmp_path)))
    assert rows == pq.read_table(tmp_path / "evaluation.parquet").to_pylist()
    assert evaluate.main([f"run_dir={tmp_path}", "seed=5", "episodes=1"]) == 0
    assert "stochastic: mean" in capsys.readouterr().out

    path, manifest = tmp_path / "checkpoint", read_manifest(tmp_path)
    assert manifest is not None
    checkpoint.save(path, {"state": {"learner": {}}})
    assert evaluate.main([f"run_dir={tmp_path}"]) == 2
    assert f"run_dir={tmp_path}: damaged (checkpoint: " in capsys.readouterr().err
    write_manifest(tmp_path, manifest | {"files": files_of(tmp_path)})
    assert evaluate.main([f"run_dir={tmp_path}"]) == 2
    assert capsys.readouterr().err == f"evaluate.py: {path}: not a state of this run ('policy')\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run_dir={}/nothing"], "holds no run"),
        (["run_dir={}", "seed=-1"], "seed=-1"),
        (["run_dir={}", "episode=3"], "episode: no such setting; python evaluate.py --help lists them all"),
        (["run_dir={}", "render=3d"], "render=3d: unknown; choose human"),
        (["run_dir="], "run_dir: is empty"),
        (["episodes=3"], "run_dir: must be given"),
        ([], "Settings:"),
    ],
)
def test_replays_that_cannot_be_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    code = evaluate.main([a.format(tmp_path) for a in arguments])
    output = capsys.readouterr()
    assert message in output.out + output.err
    assert code == (2 if arguments else 0)


def forge(run_dir: Path, **settings: Any) -> None:
    """Make a finished run's manifest say that it had other settings."""
    manifest = json.loads((run_dir / "manifest.json").read_text())
    config = OmegaConf.create(manifest["config"])
    for key, value in settings.items():
        OmegaConf.update(config, key.replace("__", "."), value)
    manifest["config"] = OmegaConf.to_container(config, resolve=False)
    (run_dir / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("finished") / "1.10 (ö)"
    assert run(Path("x"), "algorithm=ppo", "env=gym", "env.id=CartPole-v1", as_text(f"run_dir={run_dir}")) == 0
    return run_dir


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copied"))


def test_a_run_of_a_gpu_is_replayed_where_there_is_none(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for device in ("cuda", "cuda:3"):
        forge(copied, device=device)
        rows = evaluate.replay(evaluate.ReplayConfig(str(copied)))
        assert rows == pq.read_table(copied / "evaluation.parquet").to_pylist()
        assert "the run's device is not here: replayed on cpu" in capsys.readouterr().err
    forge(copied, device="cuda:x")
    assert evaluate.main([f"run_dir={copied}"]) == 2
    assert "device=cuda:x: unknown; choose cpu" in capsys.readouterr().err


def test_a_path_is_the_text_that_it_is(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finished.name == "1.10 (ö)"
    assert (finished / "status.json").exists()
    assert evaluate.main([f"run_dir={finished}"]) == 0
    assert evaluate.main([f"run_dir={finished.with_name('1.1')}"]) == 2
    assert "1.1: holds no run" in capsys.readouterr().err


def test_the_code_of_a_task_runs_for_who_names_it_and_never_for_the_run_directory_alone(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(copied))
    (copied / "somebodys.py").write_text(
        "import gymnasium, pathlib\n"
        "from gymnasium.envs.classic_control import CartPoleEnv\n"
        "gymnasium.register('Somebodys-v0', CartPoleEnv, max_episode_steps=500)\n"
        "pathlib.Path(__file__).with_name('ran').touch()\n"
    )
    forge(copied, env__id="somebodys:Somebodys-v0")
    for arguments, message in (
        ([], "its task is code of the module somebodys; if you trust it, add env.id=somebodys:Somebodys-v0"),
        (["env.id=CartPole-v1"], "env.id=CartPole-v1: the run's task is somebodys:Somebodys-v0"),
    ):
        assert evaluate.main([f"run_dir={copied}", *arguments]) == 2
        said = capsys.readouterr().err
        assert message in said
        assert said.count("\n") == 1
    assert not (copied / "ran").exists()
    assert evaluate.main([f"run_dir={copied}", "env.id=somebodys:Somebodys-v0"]) == 0
    assert (copied / "ran").exists()


def test_nothing_is_looked_up_for_a_stored_setting(
    copied: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SECRET", "CartPole-v1")
    for key, value in (("env__id", "${oc.env:SECRET}"), ("env__kwargs", {"x": ["${seed}"]})):
        forge(copied, **{key: value})
        assert evaluate.main([f"run_dir={copied}"]) == 2
        assert "a setting holds ${...}; a run records values" in capsys.readouterr().err


def test_a_checkpoint_that_is_not_of_the_settings_is_named(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    forge(copied, network__hidden=[8])
    assert evaluate.main([f"run_dir={copied}"]) == 2
    said = capsys.readouterr().err
    assert f"{copied / 'checkpoint'}: not a state of this run" in said
    assert said.count("\n") == 1
    (copied / "checkpoint").unlink()
    assert evaluate.main([f"run_dir={copied}"]) == 2
    assert "damaged (checkpoint: missing); train it again" in capsys.readouterr().err


REFUSED = {
    "algorithm=trop env=hopper": "algorithm=trop: unknown; did you mean trpo?",
    "algorithm=trpo env=hoper": "env=hoper: unknown; did you mean hopper?",
    "env=hopper": "algorithm: must be given; choose one of acktr",
    "algorithm=trpo": "env: must be given; choose one of ant",
    "algorithm=trpo env=gym": "env.id: must be given",
    "algorithm=trpo env=gym env.id=Walker-v9": "env.id=Walker-v9: no such task",
    "algorithm=trpo env=gym env.id=Blackjack-v1": "set env.flatten=true",
    "algorithm=trpo env=hopper fisher=diag": "fisher=diag: unknown; ",
    "algorithm=trpo env=hopper foo=1": "foo: no such setting",
    "algorithm=trpo env=hopper algorithm.clip=1": "algorithm.clip: no such setting",
    "algorithm=trpo env=hopper +algorithm.clip=1": "algorithm.clip: no such setting; python train.py --help lists",
    "algorithm=trpo env=hopper +env.render=1": "env.render: no such setting; python train.py --help lists them all",
    "algorithm=trpo env=hopper ++network=3": "one value for a group of settings; set one of the group, as in network.",
    "algorithm=trpo,npg env=hopper": "algorithm=trpo,npg: several values; -m trains them one after the other",
    "algorithm=trpo env=hopper seed": "seed: is no setting with a value; write KEY=VALUE",
    "algorithm=trpo env=hopper env.id=a=b": "takes for its own; quote it, as in 'env.id=\"a=b\"'",
    "algorithm=trpo env=hopper env.name=../..": "env.name: '..' is no name for a directory; use letters and digits",
    "algorithm=trpo env=hopper run_dir=": "run_dir: is empty; name a directory",
    "algorithm=trpo env=hopper run_dir=${oc.env:NO_SUCH_VARIABLE}": "run_dir: KeyError raised while resolving",
    "algorithm=trpo env=hopper env.kwargs.foo=1": "+env.kwargs.NAME=VALUE",
    "algorithm=trpo env=hopper env.wrappers=[a:B]": "+env.wrappers=[module:Class]",
    "algorithm=trpo env=hopper +env.wrappers=[no_such:B]": "env.wrappers=no_such:B: B of module no_such cannot be imp",
    "algorithm=trpo env=hopper seed=abc": "seed: Value 'abc'",
    "algorithm=trpo env=hopper algorithm.delta=wide": "algorithm.delta: Value 'wide'",
    "algorithm=trpo env=hopper seed=-1": "seed=-1: must not be negative",
    "algorithm=trpo env=hopper total_steps=0": "total_steps=0: must be at least algorithm.batch_size=2048",
    "algorithm=trpo env=hopper total_steps=-5": "total_steps=-5",
    "algorithm=trpo env=hopper total_steps=2047": "total_steps=2047",
    "algorithm=trpo env=hopper algorithm.batch_size=1000": "must be a multiple of rollout.num_envs=16, for example 992",
    "algorithm=trpo env=hopper algorithm.batch_size=0": "algorithm.batch_size=0: must be at least 1",
    "algorithm=ppo env=hopper algorithm.minibatch_size=4096": "between 1 and algorithm.batch_size=2048",
    "algorithm=ppo env=hopper direction=adam": "direction=adam: algorithm=ppo is no pair",
    "algorithm=ppo env=hopper step_rule=kl": "step_rule=kl: algorithm=ppo is no pair",
    "algorithm=npg env=hopper direction=east": "direction=east: unknown; choose one of",
    "algorithm=npg env=hopper solver=magic": "solver=magic: unknown; choose one of cg",
    "algorithm=npg env=hopper solver=woodbury": "solver=woodbury: does not apply to fisher=exact; choose one of cg",
    "algorithm=npg env=hopper solver=cholesky network.hidden=[150,150]": "are above its limit of 20,000; choose",
    "algorithm=npg env=hopper fisher.preconditioner=magic": "fisher.preconditioner=magic: choose null or one of diag",
    "algorithm=npg env=hopper fisher=lowrank fisher.rank=0": "fisher.rank=0: must be at least 1",
    "algorithm=npg env=hopper fisher=mc fisher.samples=0": "fisher.samples=0: must be at least 1",
    "algorithm=npg env=hopper fisher.states=0": "fisher.states=0: must be at least 1",
    "algorithm=npg env=hopper fisher=kfac fisher.rank=5": "fisher.rank: no such setting",
    "algorithm=acktr env=hopper fisher=diagonal": "fisher=diagonal: nothing here reads it; it needs direction=natural",
    "algorithm=adam_pg env=hopper solver=cholesky": "solver=cholesky: nothing here reads it; it needs direction=nat",
    "algorithm=acktr env=hopper critic=magic": "critic=magic: unknown; ",
    "algorithm=acktr env=hopper direction=natural": "direction=natural: algorithm=acktr is no pair",
    "algorithm=npg env=hopper algorithm.damping=-1": "algorithm.damping=-1.0: must not be negative",
    "algorithm=npg env=hopper algorithm.delta=0": "algorithm.delta=0.0: must be above 0",
    "algorithm=adam_pg env=hopper algorithm.optimiser=lion": "algorithm.optimiser=lion: choose one of",
    "algorithm=npg env=hopper workers=0": "workers=0: must lie between 1 and rollout.num_envs=16",
    "algorithm=npg env=hopper workers=17": "workers=17: must lie between 1 and rollout.num_envs=16",
    "algorithm=npg env=hopper device=cuda:99": "usable GPUs; choose device=cpu",
    "algorithm=npg env=hopper device=tpu": "device=tpu",
    "algorithm=npg env=hopper network.activation=gelu": "network.activation=gelu: choose one of",
    "algorithm=npg env=hopper advantage.gae_lambda=2": "advantage.gae_lambda=2.0: must lie in [0, 1]",
    "algorithm=npg env=hopper diagnostics.interval=0": "diagnostics.interval=0: must be at least 1",
    "algorithm=npg env=hopper checkpoint.interval=0": "checkpoint.interval=0.0: must be above 0",
    "algorithm=npg env=hopper rollout.rewards=clipped": "rollout.rewards=clipped: unknown; choose one of normalised, s",
    "algorithm=npg env=hopper network.convolutions=[[32,8,4]]": "does not suit observations of shape (11,); choose []",
    "algorithm=npg env=hopper network.states_per_pass=0": "network.states_per_pass=0: must be at least 1, or null",
    "algorithm=npg env=hopper diagnostics.geometry_states=0": "diagnostics.geometry_states=0: must be at least 1, or",
    "algorithm=npg env=hopper diagnostics.heldout_states=0": "diagnostics.heldout_states=0: must be at least 1, or",
    "algorithm=acktr env=hopper algorithm.states=0": "algorithm.states=0: must be at least 1, or null for all",
    "algorithm=acktr env=hopper critic.states=0": "critic.states=0: must be at least 1, or null for all",
    "algorithm=ppo env=atari": "env.game: must be given",
    "algorithm=ppo env=atari env.game=pongg": "env.game=pongg: no such game; nearest: pong",
    "algorithm=ppo env=atari env.game=pong +env.kwargs.continuous=true": "env.kwargs.continuous=True: only ALE's disc",
    "algorithm=ppo env=atari env.game=pong env.sticky_actions=2": "env.sticky_actions=2.0: must lie in [0, 1)",
    "algorithm=ppo env=atari env.game=pong rollout.warmup_steps=0": "rollout.warmup_steps=0: images are normalised by",
    "algorithm=ppo env=atari env.game=pong network.convolutions=[]": "observations of shape (4, 84, 84); choose [[",
    "algorithm=npg env=hopper tracker.name=files2": "tracker",
    "algorithm=npg env=hopper run_dir=/proc/nowhere": "run_dir /proc/nowhere: cannot be written",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_impossible_settings_are_refused_in_one_line_before_anything_is_written(
    arguments: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments.split()])
    with pytest.raises(SystemExit) as stop:
        cli(Interrupt())
    message = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert REFUSED[arguments] in message
    assert "\n" not in message
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "found_by_name"),
    [
        ("algorithm=npg", ["npg", "critics/adam", "fisher/metrics/exact"]),
        (
            "algorithm=npg fisher=mc fisher.preconditioner=kfac",
            ["npg", "critics/adam", "fisher/metrics/mc", "fisher/metrics/kfac"],
        ),
        ("algorithm=npg direction=adam", ["npg", "critics/adam"]),
        ("algorithm=acktr", ["acktr", "critics/kfac"]),
        ("algorithm=acktr critic=adam", ["acktr", "critics/adam"]),
        ("algorithm=ppo env=atari env.game=pong", ["ppo", "critics/adam"]),
    ],
)
def test_the_identity_covers_every_file_that_is_found_by_name(arguments: str, found_by_name: list[str]) -> None:
    task = [] if "env=" in arguments else ["env=gym", "env.id=CartPole-v1"]
    config = OmegaConf.to_container(compose_raw(*arguments.split(), *task), resolve=True)
    assert isinstance(config, dict)
    kind = "gym" if task else "atari"
    named = [f"algorithms/{name}.py" for name in found_by_name]
    assert starts(config) == ["training/loop.py", f"envs/{kind}.py", *named]  # type: ignore[arg-type]

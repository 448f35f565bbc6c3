"""MuJoCo tasks stepped together: bit for bit what Gymnasium's own vector environment does, one after the other."""

from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from envs import snapshot, workers
from envs.gym import GymConfig
from envs.mujoco import MujocoConfig, MujocoEnvs
from envs.mujoco_tasks import TASKS
from envs.tasks import make
from tests.envs.test_workers import assert_equal, play
from tracking import checkpoint

SEEDS: list[int | None] = [1, 2, 3, 4, 5]
ENDLESS = {"HalfCheetah-v5", "Reacher-v5", "Swimmer-v5"}
"""What only a time limit ends."""
TIME_LIMIT = 1  # among a snapshot's layers of an environment
BOUNDS = np.array([0.2, 0.7, 0.8, 1, 2, 10, 100])
"""Where tasks clip or end."""
EDGES = np.concatenate([sign * np.nextafter(BOUNDS, BOUNDS + side) for sign in (-1, 1) for side in (-1, 0, 1)])


def task(task_id: str, **kwargs: Any) -> MujocoConfig:
    return MujocoConfig("task", 0.99, id=task_id, kwargs=kwargs)


def reference(task_id: str, num_envs: int) -> SyncVectorEnv:
    envs = make(GymConfig("task", 0.99, id=task_id), num_envs)
    assert type(envs) is SyncVectorEnv
    return envs


def scramble(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Put numbers into everything that a task reads: plausible heights, some numbers at a bound or none at all."""
    for name in ("qpos", "qvel", "xpos", "xipos", "site_xpos", "cinert", "cvel", "qfrc_actuator", "qfrc_constraint"):
        values = getattr(data, name)
        values[:] = rng.uniform(-0.15, 0.15, values.shape)
        at_edge = rng.random(values.shape) < 0.1
        values[at_edge] = rng.choice(np.append(EDGES, [np.nan, np.inf]), at_edge.sum())
    data.cfrc_ext[:] = 10 ** rng.uniform(-2, 3) * rng.normal(size=data.cfrc_ext.shape)
    height = 2 if model.jnt_type[0] == mujoco.mjtJoint.mjJNT_FREE else 1
    if rng.random() < 0.9:
        data.qpos[height] = rng.choice([*BOUNDS[:5], *np.nextafter(BOUNDS[:5], 3), *np.nextafter(BOUNDS[:5], 0), 0.9])


def let_one_near_its_limit(envs: SyncVectorEnv) -> None:
    """The first environment is at most three steps from the end of its episode."""
    state = snapshot.save(envs)
    limit = state[0][TIME_LIMIT]
    limit["_elapsed_steps"] = limit["_max_episode_steps"] - 3
    snapshot.restore(envs, state)


@pytest.mark.parametrize("task_id", TASKS)
def test_every_bit_is_gymnasiums_over_ends_limits_and_resets(task_id: str) -> None:
    ours, theirs = make(task(task_id), 2), reference(task_id, 2)
    assert type(ours) is MujocoEnvs
    np.testing.assert_array_equal(ours.reset(seed=SEEDS[:2])[0], theirs.reset(seed=SEEDS[:2])[0])
    for envs in (ours, theirs):
        let_one_near_its_limit(envs)
    played = play(ours, 1020, 0)
    assert_equal(played, play(theirs, 1020, 0))
    _, _, terminated, truncated, _ = (np.array(values) for values in zip(*played, strict=True))
    assert terminated.any() == (task_id not in ENDLESS)
    assert truncated[2, 0]
    assert truncated[999, 1] == (task_id in ENDLESS)
    np.testing.assert_array_equal(ours.reset()[0], theirs.reset()[0])
    for _ in range(3):  # in another precision, of which rewards show the rounding
        actions = np.random.default_rng(1).normal(size=ours.action_space.shape or ())
        for a, b in zip(ours.step(actions)[:4], theirs.step(actions)[:4], strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("task_id", TASKS)
@pytest.mark.filterwarnings("ignore:invalid value")  # sin(inf), in both
def test_every_bit_is_gymnasiums_at_the_bounds_of_each_formula(task_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Physics that visits what real ones hardly ever do."""
    played = []
    for envs in (make(task(task_id), 4), reference(task_id, 4)):
        rng = np.random.default_rng(0)
        monkeypatch.setattr(mujoco, "mj_step", lambda model, data, nstep, rng=rng: scramble(model, data, rng))
        monkeypatch.setattr(mujoco, "mj_rnePostConstraint", lambda model, data: None)
        envs.reset(seed=SEEDS[:4])
        played.append(play(envs, 500, 0))
    assert_equal(*played)
    ends = np.array([terminated for _, _, terminated, _, _ in played[0]])
    assert 0.02 < ends.mean() < 0.98 or (task_id in ENDLESS and not ends.any())


@pytest.mark.parametrize("task_id", TASKS)
def test_a_snapshot_goes_on_bit_for_bit_in_other_processes_and_in_gymnasiums_environments(
    task_id: str, tmp_path: Path
) -> None:
    one, two, theirs = make(task(task_id), 3), workers.make_in(2, task(task_id), 3), reference(task_id, 3)
    for envs in (one, two):
        envs.reset(seed=SEEDS[:3])  # type: ignore[arg-type]
    assert_equal(play(one, 25, 0), play(two, 25, 0))
    theirs.reset(seed=SEEDS[2:])
    checkpoint.save(tmp_path / "state", workers.save(two))
    for envs in (one, theirs):
        if envs is one:
            play(one, 7, 1)
        workers.restore(envs, checkpoint.load(tmp_path / "state"))
    expected = play(theirs, 60, 2)
    assert_equal(expected, play(one, 60, 2))
    assert_equal(expected, play(two, 60, 2))
    two.close()


def test_arguments_of_the_task_and_other_ids_are_left_to_gymnasium() -> None:
    costly, free = make(task("HalfCheetah-v5", ctrl_cost_weight=1.0), 2), make(task("HalfCheetah-v5"), 2)
    assert type(costly) is SyncVectorEnv
    assert type(make(task("Pusher-v5"), 1)) is SyncVectorEnv
    for envs in (costly, free):
        envs.reset(seed=SEEDS[:2])
    actions = np.ones((2, 6), np.float32)
    np.testing.assert_allclose(free.step(actions)[1] - costly.step(actions)[1], 0.9 * 6)

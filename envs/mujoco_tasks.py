"""The nine MuJoCo v5 tasks of Gymnasium as expressions over all copies at once, with the bits of its own.

Formulas and constants are those of `gymnasium/envs/mujoco/<task>_v5.py` with its default arguments. Where NumPy rounds
a number and an array of them differently, the order of the original is kept. Resets are left to Gymnasium.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import mujoco
import numpy as np

Outcome = tuple[np.ndarray, np.ndarray]
"""Rewards, float64, and whether each copy's episode terminated, both (N,)."""


@dataclass
class Step:
    """One step of N copies.

    Attributes:
        model: of all of them.
        dt: seconds that a step takes.
        observations: (N, n); an `Outcome` is made while they are as MuJoCo has them, not clipped yet.
        actions: (N, nu), in the precision they were given in.
        before: fields of `MjData` before the step, (N, *shape of the field).
        after: fields after it.
    """

    model: mujoco.MjModel
    dt: float
    observations: np.ndarray
    actions: np.ndarray
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]


@dataclass(frozen=True)
class Task:
    """What one task computes after a step.

    Attributes:
        outcome: rewards and ends.
        observed: fields of `MjData` that an observation consists of, with the first index that is seen.
        finish: the rest of the observation, in place: what is clipped, or all of it where nothing is `observed`.
        before: fields that `outcome` reads as they were before the step.
        after: fields that `outcome` or `finish` read.
        contacts: whether forces of contacts are read, which a step of MuJoCo alone does not compute.
    """

    outcome: Callable[[Step], Outcome]
    observed: dict[str, int] = field(default_factory=dict)
    finish: Callable[[Step], None] | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    contacts: bool = False


def ant(s: Step) -> Outcome:
    """v + healthy - 0.5 Σ a² - 0.0005 Σ clip(force)²; healthy: a finite state at a height in [0.2, 1]."""
    speed = (s.after["xpos"][:, 1, 0] - s.before["xpos"][:, 1, 0]) / s.dt  # of the torso, as of the last kinematics
    height, velocities = s.observations[:, 0], s.observations[:, 13:27]
    healthy = np.isfinite(s.after["qpos"]).all(1) & np.isfinite(velocities).all(1) & (height >= 0.2) & (height <= 1)
    contact = 5e-4 * _sum_of_squares(s.after["cfrc_ext"].clip(-1, 1))
    return speed + healthy - (0.5 * _sum_of_squares(s.actions) + contact), ~healthy


def half_cheetah(s: Step) -> Outcome:
    """v - 0.1 Σ a²; no end."""
    return _speed(s) - 0.1 * _sum_of_squares(s.actions), _never(s)


def hopper(s: Step) -> Outcome:
    """v + healthy - 0.001 Σ a²; healthy: height above 0.7, |angle| < 0.2, all else of the state within ±100."""
    height, angle, state = s.observations[:, 0], s.observations[:, 1], s.observations[:, 1:]
    healthy = (height > 0.7) & (height < np.inf) & (np.abs(angle) < 0.2) & (np.abs(state) < 100).all(1)
    return _speed(s) + healthy - 1e-3 * _sum_of_squares(s.actions), ~healthy


def humanoid(s: Step) -> Outcome:
    """1.25 v of the centre of mass + 5 healthy - 0.1 Σ a² - min(5e-7 Σ force², 10); healthy: height in (1, 2)."""
    mass = s.model.body_mass
    start, end = (np.einsum("b,nbj->nj", mass, f["xipos"]) / mass.sum() for f in (s.before, s.after))
    speed = (end[:, 0] - start[:, 0]) / s.dt
    height = s.observations[:, 0]
    healthy = (height > 1) & (height < 2)
    contact = np.minimum(5e-7 * _sum_of_squares(s.after["cfrc_ext"]), 10)
    return 1.25 * speed + 5 * healthy - (0.1 * _sum_of_squares(s.after["ctrl"]) + contact), ~healthy


def inverted_double_pendulum(s: Step) -> Outcome:
    """10 standing - 0.01 x² - (y - 2)² - 0.001 v₁² - 0.005 v₂², of the tip; standing: y > 1."""
    x, y = s.after["site_xpos"][:, 0, 0], s.after["site_xpos"][:, 0, 2]
    fallen = y <= 1
    distance = 0.01 * _powers(x) + _powers(y - 2)
    velocity = 1e-3 * _powers(s.after["qvel"][:, 1]) + 5e-3 * _powers(s.after["qvel"][:, 2])
    return 10.0 * ~fallen - distance - velocity, fallen


def inverted_pendulum(s: Step) -> Outcome:
    """1 while standing: |angle| <= 0.2."""
    fallen = ~np.isfinite(s.observations).all(1) | (np.abs(s.observations[:, 1]) > 0.2)
    return (~fallen).astype(np.float64), fallen


def reacher(s: Step) -> Outcome:
    """-(distance of fingertip and target) - Σ a²; no end."""
    gap = _gap(s)
    return -np.sqrt(np.vecdot(gap, gap)) - _sum_of_squares(s.actions), _never(s)  # as the dot product of norm() rounds


def swimmer(s: Step) -> Outcome:
    """v - 0.0001 Σ a²; no end."""
    return _speed(s) - 1e-4 * _sum_of_squares(s.actions), _never(s)


def walker2d(s: Step) -> Outcome:
    """v + healthy - 0.001 Σ a²; healthy: height in (0.8, 2), |angle| < 1."""
    height, angle = s.observations[:, 0], s.observations[:, 1]
    healthy = (height > 0.8) & (height < 2) & (np.abs(angle) < 1)
    return _speed(s) + healthy - 1e-3 * _sum_of_squares(s.actions), ~healthy


def _clip_contacts(s: Step) -> None:
    forces = s.observations[:, 27:]
    forces.clip(-1, 1, out=forces)


def _clip_velocities(s: Step) -> None:
    velocities = s.observations[:, s.model.nq - 1 :]
    velocities.clip(-10, 10, out=velocities)


def _observe_double_pendulum(s: Step) -> None:
    o, qpos = s.observations, s.after["qpos"]
    o[:, 0] = qpos[:, 0]
    np.sin(qpos[:, 1:], out=o[:, 1:3])
    np.cos(qpos[:, 1:], out=o[:, 3:5])
    s.after["qvel"].clip(-10, 10, out=o[:, 5:8])
    s.after["qfrc_constraint"][:, :1].clip(-10, 10, out=o[:, 8:])


def _observe_reacher(s: Step) -> None:
    o, qpos = s.observations, s.after["qpos"]
    np.cos(qpos[:, :2], out=o[:, :2])
    np.sin(qpos[:, :2], out=o[:, 2:4])
    o[:, 4:6] = qpos[:, 2:]
    o[:, 6:8] = s.after["qvel"][:, :2]
    o[:, 8:] = _gap(s)[:, :2]


def _gap(s: Step) -> np.ndarray:
    """From the target, body 4, to the fingertip, body 3: (N, 3)."""
    return np.asarray(s.after["xpos"][:, 3] - s.after["xpos"][:, 4])


def _speed(s: Step) -> np.ndarray:
    """Along x, of the root joint."""
    return np.asarray((s.after["qpos"][:, 0] - s.before["qpos"][:, 0]) / s.dt)


def _never(s: Step) -> np.ndarray:
    return np.zeros(len(s.observations), dtype=bool)


def _sum_of_squares(values: np.ndarray) -> np.ndarray:
    """Of each copy, in the precision of the values: actions are float32."""
    return np.asarray(np.square(values).reshape(len(values), -1).sum(1))


def _powers(values: np.ndarray) -> np.ndarray:
    """Squares as `pow` rounds them, which scalars call; of arrays NumPy takes x * x, another bit once in 1,000."""
    return np.array([value**2 for value in values.tolist()])


_ROOT = ("qpos",)
TASKS = {
    "Ant-v5": Task(
        ant,
        {"qpos": 2, "qvel": 0, "cfrc_ext": 1},
        _clip_contacts,
        before=("xpos",),
        after=("xpos", "qpos", "cfrc_ext"),
        contacts=True,
    ),
    "HalfCheetah-v5": Task(half_cheetah, {"qpos": 1, "qvel": 0}, before=_ROOT, after=_ROOT),
    "Hopper-v5": Task(hopper, {"qpos": 1, "qvel": 0}, _clip_velocities, before=_ROOT, after=_ROOT),
    "Humanoid-v5": Task(
        humanoid,
        {"qpos": 2, "qvel": 0, "cinert": 1, "cvel": 1, "qfrc_actuator": 6, "cfrc_ext": 1},
        before=("xipos",),
        after=("xipos", "ctrl", "cfrc_ext"),
        contacts=True,
    ),
    "InvertedDoublePendulum-v5": Task(
        inverted_double_pendulum,
        finish=_observe_double_pendulum,
        after=("qpos", "qvel", "site_xpos", "qfrc_constraint"),
    ),
    "InvertedPendulum-v5": Task(inverted_pendulum, {"qpos": 0, "qvel": 0}),
    "Reacher-v5": Task(reacher, finish=_observe_reacher, after=("qpos", "qvel", "xpos")),
    "Swimmer-v5": Task(swimmer, {"qpos": 2, "qvel": 0}, before=_ROOT, after=_ROOT),
    "Walker2d-v5": Task(walker2d, {"qpos": 1, "qvel": 0}, _clip_velocities, before=_ROOT, after=_ROOT),
}
"""Gymnasium's id -> task."""

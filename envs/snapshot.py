"""Exact snapshots of environments: what shapes everything they do next, as plain data that no code is run to load.

A snapshot holds every attribute, of the task and of the wrappers around it, that is plain data, a deque, a random
generator, Gymnasium's running moments, MuJoCo's state or ALE's. What a task keeps in another form (a Box2D world,
another C++ simulator) is not in it; `unresumable` finds that out by trying, before a run relies on it.
"""

from collections import deque
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers.utils import RunningMeanStd
from numpy.random import MT19937, PCG64, PCG64DXSM, SFC64, BitGenerator, Philox

from envs.tasks import EnvConfig, make, random_actions, to_action_space

Env = gym.Env[Any, Any]

GENERATOR, DEQUE, MOMENTS, MUJOCO, ALE = "<generator>", "<deque>", "<moments>", "<mujoco>", "<ale>"
MJ_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
LAGGED = ("xpos", "xipos")
"""Positions of bodies that Ant and Humanoid read at the start of a step. They are those of the last simulation step but
one stage, no function of the integration state: without them the rewards after a resume differ."""
BIT_GENERATORS = {kind.__name__: kind for kind in (MT19937, PCG64, PCG64DXSM, SFC64, Philox)}
"""NumPy's, by the names that their states give."""
BEFORE, AFTER = 30, 200
"""Steps of random actions before the snapshot that `unresumable` tries, and after it."""


def save(envs: SyncVectorEnv) -> list[list[dict[str, Any]]]:
    """The state of every environment: for each of its layers, the task last, attribute -> value."""
    return [[_attributes(layer) for layer in _layers(env)] for env in envs.envs]


def restore(envs: SyncVectorEnv, state: list[list[dict[str, Any]]]) -> None:
    """Continue where `save(other)` was taken, `other` being made as `envs` was; both have been reset.

    ValueError, TypeError or KeyError where the state is none of such environments.
    """
    for env, layers in zip(envs.envs, state, strict=True):
        for layer, attributes in zip(_layers(env), layers, strict=True):
            for name, value in attributes.items():
                _set(layer, name, value)


def reseed(state: Any, seeds: np.random.SeedSequence) -> Any:
    """The same state with every random generator in it, in the order of the tree, started anew from these seeds."""
    if isinstance(state, dict) and GENERATOR in state:
        return {GENERATOR: _bit_generator(state[GENERATOR], seeds.spawn(1)[0]).state}
    if isinstance(state, dict):
        return {key: reseed(child, seeds) for key, child in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(reseed(child, seeds) for child in state)
    return state


def unresumable(task: EnvConfig) -> str | None:
    """Why runs of this task cannot be continued bit for bit; None if they can.

    An environment and one restored from its snapshot are given the same random actions and two resets.
    """
    if task.hides_state:
        return f"{task.name} is known to keep state that no snapshot holds"
    original, twin = (make(task, 1) for _ in range(2))
    try:
        original.reset(seed=[1])
        twin.reset(seed=[2])
        for _ in _random_steps(original, BEFORE):
            pass
        try:
            restore(twin, save(original))
        except Exception as error:
            return f"{task.name} keeps state that a copy does not take ({_words(error)})"
        steps = _random_steps(twin, AFTER)
        for n, mine in enumerate(_random_steps(original, AFTER)):
            try:
                theirs = next(steps)
            except Exception as error:  # where some of the state it relies on is missing
                return f"{task.name} keeps state that its copy lacks, which broke at step {n} ({_words(error)})"
            if not all(np.array_equal(x, y, equal_nan=True) for x, y in zip(mine, theirs, strict=True)):
                return f"{task.name} keeps state that its attributes do not show: a copy went another way at step {n}"
    finally:
        original.close()
        twin.close()
    return None


def _words(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _random_steps(envs: SyncVectorEnv, steps: int) -> Iterator[tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(0)
    for half in range(2):
        for _ in range(steps // 2):
            observation, reward, terminated, truncated, _ = envs.step(to_action_space(envs, random_actions(envs, rng)))
            yield observation.copy(), reward.copy(), terminated.copy(), truncated.copy()
        if half == 0:
            yield (envs.reset()[0].copy(),)


def _layers(env: Env) -> Iterator[Env]:
    while isinstance(env, gym.Wrapper):
        yield env
        env = env.env
    yield env


def _attributes(layer: Env) -> dict[str, Any]:
    found = {}
    for name, value in vars(layer).items():
        try:
            found[name] = _plain(value)
        except TypeError:  # models, spaces, renderers: made anew with the environment
            continue
    return found


def _plain(value: Any) -> Any:
    """A copy of `value` as a checkpoint can hold it. Raises TypeError."""
    match value:
        case None | bool() | int() | float() | str() | np.generic():
            return value
        case np.ndarray() if not value.dtype.hasobject:
            return value.copy()
        case list() | tuple():
            return type(value)(map(_plain, value)) if type(value) in (list, tuple) else _refuse(value)
        case dict() if all(type(key) in (str, int) for key in value):
            return {key: _plain(child) for key, child in value.items()}
        case deque():
            return {DEQUE: [_plain(child) for child in value], "maxlen": value.maxlen}
        case RunningMeanStd():
            return {MOMENTS: _plain(vars(value))}
        case np.random.Generator():
            return {GENERATOR: value.bit_generator.state}
        case mujoco.MjData():
            state = np.empty(mujoco.mj_stateSize(value.model, MJ_STATE))
            mujoco.mj_getState(value.model, value, state, MJ_STATE)
            return {MUJOCO: state} | {name: getattr(value, name).copy() for name in LAGGED}
        case _ if hasattr(value, "cloneState"):  # an ALEInterface; runs of other tasks do not load ale-py for this
            return {ALE: np.frombuffer(value.cloneState(include_rng=True).serialize(), dtype=np.uint8)}
    return _refuse(value)


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is no plain data")


def _set(layer: Env, name: str, value: Any) -> None:
    mine: Any = vars(layer).get(name)
    if name not in vars(layer) and hasattr(type(layer), name):
        raise ValueError(f"{type(layer).__name__}.{name} is no state of an environment")
    kinds = value.keys() if isinstance(value, dict) else ()
    if GENERATOR in kinds and mine is not None:  # which may have other names here, too
        mine.bit_generator.state = value[GENERATOR]
    elif MOMENTS in kinds and isinstance(mine, RunningMeanStd):
        mine.mean, mine.var, mine.count = (_plain(value[MOMENTS][key]) for key in ("mean", "var", "count"))
    elif MUJOCO in kinds:
        mujoco.mj_setState(mine.model, mine, value[MUJOCO], MJ_STATE)
        for key in LAGGED:
            getattr(mine, key)[:] = value[key]
    elif ALE in kinds:
        from ale_py import ALEState

        mine.restoreState(ALEState(value[ALE].tobytes()))
    elif value is None or mine is None or _kind(value) == _kind(mine):
        setattr(layer, name, _rebuilt(value))
    else:
        raise TypeError(f"{type(layer).__name__}.{name} is {_kind(mine)} here and {_kind(value)} in the state")


def _rebuilt(value: Any) -> Any:
    """What a value of a snapshot stands for, as a copy."""
    if isinstance(value, dict) and GENERATOR in value:
        generator = np.random.Generator(_bit_generator(value[GENERATOR]))
        generator.bit_generator.state = value[GENERATOR]
        return generator
    if isinstance(value, dict) and DEQUE in value:
        return deque(map(_rebuilt, value[DEQUE]), value["maxlen"])
    if isinstance(value, dict):
        return {key: _rebuilt(child) for key, child in value.items()}
    return type(value)(map(_rebuilt, value)) if isinstance(value, list | tuple) else _plain(value)


def _kind(value: Any) -> str:
    """What may take the place of what: a counter may start as an integer, and a vector as a list."""
    match value:
        case bool() | int() | float() | np.generic() | np.ndarray(shape=()):
            return "a number"
        case np.ndarray() | list() | tuple():
            return "a sequence"
        case dict() if DEQUE in value:
            return deque.__name__
    return type(value).__name__


def _bit_generator(state: dict[str, Any], seed: np.random.SeedSequence | None = None) -> BitGenerator:
    """A generator of the kind that a saved state names, which is one of `BIT_GENERATORS` and no other code."""
    name = state["bit_generator"]
    if name not in BIT_GENERATORS:
        raise ValueError(f"{name!r} is no bit generator of NumPy's; there are {', '.join(BIT_GENERATORS)}")
    return BIT_GENERATORS[name](seed)

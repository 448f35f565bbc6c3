"""Environments stepped by several processes, bit for bit as by one.

Simulators hold the interpreter's lock (ALE) or work in Python (Gymnasium's tasks), so threads would not help. Every
process has a slice of the environments, each with a random stream of its own; observations come back in shared memory.
"""

import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from envs import snapshot
from envs.tasks import EnvConfig, Envs, check_simulation, make

State = list[list[dict[str, Any]]]
_IS_FORKED = sys.platform == "linux"  # elsewhere forking is not safe, and a process starts anew
_CONTEXT = get_context("fork") if _IS_FORKED else get_context("spawn")


def make_in(workers: int, task: EnvConfig, num_envs: int) -> Envs:
    """`make(task, num_envs)`, stepped by that many processes, at most one per environment; 1: by this one."""
    return make(task, num_envs) if workers == 1 else WorkerEnvs(task, num_envs, min(workers, num_envs))


def save(envs: Envs) -> State:
    """`snapshot.save`, wherever the environments are."""
    if isinstance(envs, WorkerEnvs):
        return envs.save()
    assert isinstance(envs, SyncVectorEnv)
    return snapshot.save(envs)


def restore(envs: Envs, state: State) -> None:
    """`snapshot.restore`, wherever the environments are, and were when the state was saved."""
    if isinstance(envs, WorkerEnvs):
        envs.restore(state)
    else:
        assert isinstance(envs, SyncVectorEnv)
        snapshot.restore(envs, state)


def cpu_time(envs: Envs) -> float:
    """Seconds of processor time that processes of the environments' own have used; 0 where there are none."""
    return envs.cpu_time() if isinstance(envs, WorkerEnvs) else 0.0


class WorkerEnvs(VectorEnv[Any, Any, Any]):
    """What `make` gives, in processes of their own; an exception there is raised here.

    Raises:
        ChildProcessError: a process has died, in whichever method finds it out.
    """

    def __init__(self, task: EnvConfig, num_envs: int, workers: int) -> None:
        one = make(task, 1)
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = one.single_observation_space, one.single_action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        one.close()
        bounds = [num_envs * i // workers for i in range(workers + 1)]
        self._slices = [slice(*pair) for pair in pairwise(bounds)]
        shape, dtype = self.observation_space.shape, self.observation_space.dtype
        assert shape is not None
        assert dtype is not None
        size = int(np.prod(shape)) * dtype.itemsize
        shared = _CONTEXT.RawArray("B", size)
        self._observations = np.frombuffer(shared, dtype).reshape(shape)
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        self._end = Finalize(self, _end, (self._pipes, self._processes), exitpriority=0)
        for part in self._slices:
            here, there = _CONTEXT.Pipe()
            self._pipes.append(here)
            # A forked process holds copies of these ends, and would never see them closed.
            inherited = self._pipes if _IS_FORKED else []
            arguments = (task, num_envs, part, shared, there, inherited)
            process = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self._processes.append(process)

    def reset(self, *, seed: Any = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        """As SyncVectorEnv without copies: the observations are overwritten by the next step.

        Args:
            seed: a list, one per environment, or None.
            options: None, or {"reset_mask": which environments to reset, shape (num_envs,)}.
        """
        mask = np.ones(self.num_envs, dtype=bool) if options is None else options["reset_mask"]
        self._ask("reset", [(None if seed is None else seed[part], mask[part]) for part in self._slices])
        return self._observations, {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """As SyncVectorEnv without copies: the observations are overwritten by the next step."""
        answers = self._ask("step", [actions[part] for part in self._slices])
        rewards, terminated, truncated, infos = zip(*answers, strict=True)
        info = _join(infos, [part.stop - part.start for part in self._slices]) if any(infos) else {}
        return self._observations, np.concatenate(rewards), np.concatenate(terminated), np.concatenate(truncated), info

    def save(self) -> State:
        """What `snapshot.save` gives of all environments in one process."""
        return [state for states in self._ask("save", [None] * len(self._slices)) for state in states]

    def restore(self, state: State) -> None:
        """Continue where it was saved, by however many processes."""
        self._ask("restore", [state[part] for part in self._slices])

    def cpu_time(self) -> float:
        """Seconds of processor time that the processes have used."""
        return float(sum(self._ask("cpu_time", [None] * len(self._slices))))

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        self._end()

    def _ask(self, method: str, arguments: Sequence[Any]) -> list[Any]:
        try:
            for pipe, argument in zip(self._pipes, arguments, strict=True):
                pipe.send((method, argument))
            answers = [pipe.recv() for pipe in self._pipes]
        except (EOFError, OSError) as error:
            raise ChildProcessError(
                "a process that steps environments has died (killed for memory?); lower workers to have fewer"
            ) from error
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return answers


def _end(pipes: Iterable[Connection], processes: Iterable[BaseProcess]) -> None:
    for pipe in pipes:
        pipe.close()
    for process in processes:
        process.join()


def _serve(
    task: EnvConfig, num_envs: int, part: slice, shared: Any, pipe: Connection, inherited: Iterable[Connection]
) -> None:
    """Do what comes through the pipe with one slice of the environments, until it is closed."""
    for number in (signal.SIGINT, signal.SIGTERM):  # the run decides what they mean, and saves itself first
        signal.signal(number, signal.SIG_IGN)
    for connection in inherited:
        connection.close()
    envs = make(task, part.stop - part.start)
    shape, dtype = envs.single_observation_space.shape, envs.single_observation_space.dtype
    assert shape is not None
    observations = np.frombuffer(shared, dtype).reshape(num_envs, *shape)[part]

    def reset(argument: tuple[list[int | None] | None, np.ndarray]) -> None:
        seeds, mask = argument
        if mask.any():
            observations[:] = envs.reset(seed=seeds, options={"reset_mask": mask})[0]

    def step(actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        observations[:], rewards, terminated, truncated, info = envs.step(actions)
        check_simulation()
        return rewards, terminated, truncated, info

    methods: dict[str, Callable[[Any], Any]] = {
        "reset": reset,
        "step": step,
        "save": lambda _: snapshot.save(envs),
        "restore": lambda state: snapshot.restore(envs, state),
        "cpu_time": lambda _: time.process_time(),
    }
    while True:
        try:
            method, argument = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(methods[method](argument))
        except Exception as error:
            error.add_note(f"in a process that steps environments:\n{traceback.format_exc()}")
            pipe.send(error)


def _join(infos: Sequence[dict[str, Any]], sizes: Sequence[int]) -> dict[str, Any]:
    """The info of all environments from those of slices, each of which lacks what none of its environments said."""
    joined: dict[str, Any] = {}
    for key in dict.fromkeys(key for info in infos for key in info):
        parts = [info.get(key) for info in infos]
        example = next(part for part in parts if part is not None)
        if isinstance(example, dict):
            joined[key] = _join([part or {} for part in parts], sizes)
        else:
            filled = (
                np.zeros(n, example.dtype) if part is None else part for part, n in zip(parts, sizes, strict=True)
            )
            joined[key] = np.concatenate(list(filled))
    return joined

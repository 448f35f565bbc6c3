"""GPUs handed out to the cells of one machine: a place on a GPU is a lock that dies with the processes that hold it.

A GPU has `runs_per_gpu` places. A wrapper takes one for its cell and passes the lock on to the training process, so a
place is free when both are gone, however they ended. All grids of one user on a machine share the places.
"""

import errno
import fcntl
import os
import re
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracking.files import open_regular

VISIBLE = "CUDA_VISIBLE_DEVICES"
POLL = 0.2  # s between two looks for a free place
_LISTING = re.compile(r"\s*(?P<kind>GPU|MIG)\s.*\(UUID: (?P<uuid>[\w./-]+)\)\s*")


class GpuError(ValueError):
    """A GPU that is asked for and not there; the message is one line that names the option."""


@dataclass(frozen=True)
class Lease:
    """A place on a GPU, for as long as `descriptor` is open in any process."""

    gpu: str
    descriptor: int


def find_gpus(given: str = "", environment: Mapping[str, str] = os.environ) -> list[str]:
    """UUIDs of the GPUs that cells may use: those given (indices of nvidia-smi or UUIDs), else all that are visible.

    `CUDA_VISIBLE_DEVICES`, also as SLURM sets it, says what is visible. Of a GPU that is divided they are its MIG
    devices. Raises GpuError.
    """
    installed = _installed()
    visible = [uuid for uuids in installed for uuid in uuids]
    if VISIBLE in environment:
        visible = _named(VISIBLE, environment[VISIBLE], installed)
        if not visible:
            raise GpuError(f"{VISIBLE} is empty, which hides every GPU; unset it, or name one")
    if not given:
        if not visible:
            raise GpuError("there is no GPU on this machine, as nvidia-smi says; train the suite without @cuda")
        return visible
    chosen = _named("gpus", given, installed)
    if hidden := [uuid for uuid in chosen if uuid not in visible]:
        raise GpuError(f"gpus={given}: {VISIBLE}={environment[VISIBLE]} hides {hidden[0]}; name visible GPUs")
    return chosen


def _installed() -> list[list[str]]:
    """For every GPU by index its UUID, or those of its MIG devices. Raises GpuError."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        why = "it is not installed" if isinstance(error, FileNotFoundError) else str(error)
        raise GpuError(f"no GPU is found: nvidia-smi cannot say what there is ({why})") from error
    if done.returncode:
        said = " ".join((done.stdout + done.stderr).split())
        raise GpuError(f"no GPU is found: nvidia-smi ends with code {done.returncode}: {said}")
    gpus: list[list[str]] = []
    for match in filter(None, map(_LISTING.fullmatch, done.stdout.splitlines())):
        if match["kind"] == "GPU":
            gpus.append([match["uuid"]])
        elif gpus:
            parts = [uuid for uuid in gpus[-1] if uuid.startswith("MIG-")]
            gpus[-1] = [*parts, match["uuid"]]
    return gpus


def _named(setting: str, names: str, installed: Sequence[Sequence[str]]) -> list[str]:
    """UUIDs of a list of GPUs such as `0,1`. Raises GpuError for one that is unknown, ambiguous or there twice."""
    found: list[str] = []
    for name in filter(None, map(str.strip, names.split(","))):
        if name.isdecimal():
            matching = list(installed[int(name)]) if int(name) < len(installed) else []
        else:
            matching = [uuid for uuids in installed for uuid in uuids if uuid.startswith(name)]
            matching = matching if len(matching) == 1 else []
        if not matching:
            there = ", ".join(f"{index} ({' '.join(uuids)})" for index, uuids in enumerate(installed)) or "none"
            raise GpuError(f"{setting}={names}: there is no GPU {name}; there are: {there}")
        if repeated := [uuid for uuid in matching if uuid in found]:
            raise GpuError(f"{setting}={names}: {repeated[0]} is named twice; name every GPU once")
        found += matching
    return found


def places(gpus: int, runs_per_gpu: int, cores: int) -> int:
    """How many runs share a GPU; with `runs_per_gpu` 0 so many that every core has one. Raises GpuError."""
    if runs_per_gpu < 0:
        raise GpuError(f"runs_per_gpu={runs_per_gpu}: give 1 or more, or 0 for a run on every core")
    return runs_per_gpu or -(-cores // gpus)


def lease(
    gpus: Sequence[str],
    runs_per_gpu: int,
    interrupted: Callable[[], bool],
    directory: Path | None = None,
    poll: float = POLL,
) -> Lease | None:
    """Wait for a place on the GPU that has most of them free; None when interrupted before. Raises OSError, ValueError.

    Whoever looks holds the lock `queue`, so nobody takes a place for held that another only looks at.
    """
    directory = _directory() if directory is None else directory
    while not interrupted():
        with open_regular(directory / "queue", os.O_RDWR) as queue:
            fcntl.flock(queue, fcntl.LOCK_EX)
            free = {gpu: _free_places(directory, gpu, runs_per_gpu) for gpu in gpus}
            gpu = max(gpus, key=lambda gpu: len(free[gpu]))
            taken = free[gpu].pop(0) if free[gpu] else None
            for descriptor in (descriptor for rest in free.values() for descriptor in rest):
                os.close(descriptor)
        if taken is not None:
            return Lease(gpu, taken)
        time.sleep(poll)
    return None


def _free_places(directory: Path, gpu: str, runs_per_gpu: int) -> list[int]:
    """Descriptors of the places on a GPU that were free; they are locked now."""
    free = []
    for number in range(runs_per_gpu):
        with open_regular(directory / f"{gpu.replace('/', '_')}.{number}", os.O_RDWR) as file:
            descriptor = os.dup(file.fileno())
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free.append(descriptor)
        except BlockingIOError:
            os.close(descriptor)
    return free


def _directory() -> Path:
    """The folder of this user's places on this machine. Raises OSError when it is somebody else's."""
    path = Path(tempfile.gettempdir()) / f"fisherbench-gpus-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise OSError(errno.EPERM, "not a folder of this user's, so no GPU is handed out; remove it", str(path))
    return path

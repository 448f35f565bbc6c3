"""One process per run directory: an `flock` that dies with the process that holds it."""

import fcntl
import os
import time
from pathlib import Path

from tracking.files import open_regular

LOCK = "lock"
PATIENCE = 0.5  # s; a reader that probes the lock holds it for microseconds, which must not turn a run away


class RunLocked(RuntimeError):
    """Another process trains in this run directory."""


def acquire(run_dir: Path) -> int:
    """Take the lock of an existing directory and return its file descriptor; closing that releases the lock.

    Raises RunLocked when another process holds it, OSError when the directory cannot be written or locked, ValueError
    when the lock is a symbolic link or no file.
    The file stays when the lock is released: removing it would let two processes lock two files of one name.
    """
    with open_regular(run_dir / LOCK, os.O_RDWR) as file:
        descriptor = os.dup(file.fileno())
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise RunLocked(f"run_dir {run_dir} is locked: another process is training there") from error
            time.sleep(0.01)
        except OSError:
            os.close(descriptor)
            raise


def is_locked(run_dir: Path) -> bool:
    """Whether a live process holds the lock of this run directory."""
    try:
        with open_regular(run_dir / LOCK) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (FileNotFoundError, NotADirectoryError, ValueError):  # none, or nothing that could be held
        return False
    return False

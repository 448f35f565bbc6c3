"""Whether two runs are the same run: what exact resume and equal seeds are held to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracking import checkpoint
from tracking.manifest import read_status
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PROGRESS
from tracking.tables import first_difference


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two finished runs: tables but for their timing columns, every bit of state, the status."""
    found = []
    for name in (PROGRESS, EPISODES, ALIGNMENT, EVALUATION):
        if (a / name).exists() != (b / name).exists():
            found.append(f"{name}: in one run only")
        elif (a / name).exists() and (difference := first_difference(a / name, b / name)):
            found.append(f"{name}: {difference}")
    states = [checkpoint.load(run_dir / CHECKPOINT)["state"]["learner"] for run_dir in (a, b)]
    found += [f"checkpoint: {place}" for place in _unequal(states[0], states[1], "learner")]
    if read_status(a) != read_status(b):
        found.append(f"status: {read_status(a)} and {read_status(b)}")
    return found


def _unequal(a: Any, b: Any, place: str) -> Iterator[str]:
    """Places at which two states differ."""
    if type(a) is not type(b):
        yield place
    elif isinstance(a, dict):
        if list(a) != list(b):
            yield place
        else:
            for key in a:
                yield from _unequal(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, list | tuple):
        if len(a) != len(b):
            yield place
        else:
            for i, (x, y) in enumerate(zip(a, b, strict=True)):
                yield from _unequal(x, y, f"{place}.{i}")
    elif isinstance(a, torch.Tensor):
        if not torch.equal(a, b):
            yield place
    elif isinstance(a, np.ndarray):
        if not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            yield place
    elif a != b:
        yield place

"""Whether two runs are the same run: what exact resume, equal seeds and carried cells are held to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tracking import checkpoint
from tracking.manifest import read_status
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PROGRESS
from tracking.tables import TIMING, first_difference, read_arrow

TABLES = (PROGRESS, EPISODES, ALIGNMENT, EVALUATION)


def differences(a: Path, b: Path) -> list[str]:
    """What differs between two finished runs: in their tables except for timing, in any bit of state, in the status."""
    found = []
    for name in TABLES:
        if (a / name).exists() != (b / name).exists():
            found.append(f"{name}: in one run only")
        elif (a / name).exists() and (difference := first_difference(a / name, b / name)):
            found.append(f"{name}: {difference}")
    found += [f"checkpoint: {place}" for place in _unequal(_learner(a), _learner(b), "learner")]
    if read_status(a) != read_status(b):
        found.append(f"status: {read_status(a)} and {read_status(b)}")
    return found


def moved(then: Path, today: Path) -> str:
    """The first number of a run by earlier code that is another in the same run by today's; empty if none is.

    Compared are the columns that the earlier run has, timing aside, and the parameters of policy and critic. How else
    the state is laid out may have changed; what it holds shows in the rows after a resume.
    """
    for name in TABLES:
        if (then / name).exists():
            if not (today / name).exists():
                return f"{name}: not there any more"
            if difference := first_difference(then / name, today / name, shared=True):
                return f"{name}: {difference}"
    for part in ("policy", "critic"):
        one, other = (dict(_tensors(_learner(run)[part])) for run in (then, today))
        for place in one.keys() & other.keys():
            if not torch.equal(one[place], other[place]):
                return f"parameters: {part}{place}"
    return ""


def lacking(then: Path, today: Path) -> list[str]:
    """Columns of `progress.parquet` that today's run has and the earlier one had not, timing aside."""
    one, other = (read_arrow(run / PROGRESS).column_names for run in (then, today))
    return [name for name in other if name not in one and not name.endswith(TIMING)]


def _learner(run_dir: Path) -> Any:
    return checkpoint.load(run_dir / CHECKPOINT)["state"]["learner"]


def _tensors(state: Any, place: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The parameters in the state of a network, by place; an optimiser's or a generator's own state is left out."""
    if isinstance(state, torch.Tensor):
        yield place, state
    elif isinstance(state, dict):
        for name, value in state.items():
            if name not in ("optimiser", "step", "rng"):
                yield from _tensors(value, f"{place}.{name}")


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

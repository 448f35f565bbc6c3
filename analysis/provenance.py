"""Where a table or figure comes from: the version of the benchmark, and a hash of the cells behind it."""

import hashlib
import tomllib
from collections.abc import Iterable
from functools import cache
from typing import Any

from analysis.cells import Cell
from tracking.identity import REPOSITORY

DIGITS = 12
"""Of the hash that is shown."""


@cache
def benchmark() -> str:
    """Name and version of the benchmark, as in ``pyproject.toml``."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return f"FisherBench {project['version']}"


def cells_hash(cells: Iterable[Cell]) -> str:
    """First digits of the SHA-256 over what `describe` lists, in any order of the cells.

    It says which numbers were looked at, and nothing of machine, date and timing: where the same cells come out equal,
    so does the hash.
    """
    lines = sorted(" ".join(str(entry) for entry in describe(cell).values()) for cell in cells)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:DIGITS]


def describe(cell: Cell) -> dict[str, Any]:
    """What is hashed of a cell: which it is, how it ended, its identity and the SHA-256 of what was measured."""
    return {
        "env": cell.env,
        "variant": cell.variant,
        "seed": cell.seed,
        "state": cell.state,
        "identity": cell.identity,
        "content": cell.content,
    }


def stamp(cells: Iterable[Cell]) -> str:
    """The line under a table or figure."""
    return f"{benchmark()}, cells {cells_hash(cells)}"

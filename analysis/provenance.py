"""Where a table or figure comes from: the version of the benchmark, and a hash of the cells behind it."""

import hashlib
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from analysis.cells import Cell
from tracking.files import read_json
from tracking.identity import REPOSITORY
from tracking.schema import require

PROVENANCE = "provenance.json"
TOLD = ("finished", "mixed", "failed")
"""States of a run that has ended and can be read."""
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


def lost(cells: Iterable[Cell], tables: Path) -> list[Cell]:
    """The cells that the tables in a folder show as ended, and of which nothing is left to show.

    What is no longer planned is not among them, nor anything where the folder does not say what its tables show.
    """
    try:
        shown = read_json(tables / PROVENANCE) or {"cells": []}
        require(shown, {"cells": [{"env": str, "variant": str, "seed": int, "state": str}]})
    except (ValueError, OSError, RecursionError):
        return []
    told = {(entry["env"], entry["variant"], entry["seed"]) for entry in shown["cells"] if entry["state"] in TOLD}
    return [cell for cell in cells if cell.state not in TOLD and (cell.env, cell.variant, cell.seed) in told]

"""``suite.json``, a suite's cells as planned: checked once, where it is read, since anybody may have written it."""

import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from tracking.files import read_json
from tracking.schema import require

PLAN = "suite.json"
MOST_STEPS = 10**9
"""Of a run: a point of the grid every 10,000, in every resample of every group."""
MOST_CELLS = 20_000
LARGEST = 64 * 2**20
"""Bytes of the file."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}"  # a directory, and text in every format
_SCHEMA = {
    "suite": re.compile(rf"{_NAME}(@[a-z]+(:\d+)?)?"),
    "baseline": re.compile(_NAME),
    "delta_ref": float,
    "total_steps": int,
    "exceptions": {str: [str]},
    "configurations?": {str: [str]},
    "labels?": {str: str},
    "cells": [
        {
            "env": re.compile(_NAME),
            "variant": re.compile(_NAME),
            "algorithm": re.compile(_NAME),
            "seed": int,
            "published?": str,
            "identity?": str,
        }
    ],
}

Plan = dict[str, Any]


def load_plan(suite_dir: Path) -> Plan:
    """Read ``suite.json``. ValueError, one line that names the file, where it is absent or no plan."""
    path = suite_dir / PLAN
    if not path.is_file():
        raise ValueError(f"{path}: no such file; the pipeline writes it, so run the suite first")
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        plan = read_json(path) or {}
        require(plan, _SCHEMA)
        _check(plan)
    except (ValueError, RecursionError, OSError) as error:
        said = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        raise ValueError(f"{path}: {said}; let the pipeline write it again") from error
    return plan


def _check(plan: Plan) -> None:
    if not (math.isfinite(plan["delta_ref"]) and plan["delta_ref"] > 0):
        raise ValueError(f"delta_ref: {plan['delta_ref']} is not a positive number")
    if not 1 <= plan["total_steps"] <= MOST_STEPS:
        raise ValueError(f"total_steps: {plan['total_steps']:,} is not between 1 and {MOST_STEPS:,}")
    if not 1 <= len(plan["cells"]) <= MOST_CELLS:
        raise ValueError(f"cells: plans {len(plan['cells']) or 'no'} cells, not 1 to {MOST_CELLS:,}")
    planned = Counter((cell["env"], cell["variant"], cell["seed"]) for cell in plan["cells"])
    (env, variant, seed), times = planned.most_common(1)[0]
    if times > 1:
        raise ValueError(f"cells: {env}/{variant}/seed-{seed} is planned twice")
    if negative := [seed for _, _, seed in planned if seed < 0]:
        raise ValueError(f"cells: seed {negative[0]} is negative")

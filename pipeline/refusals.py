"""Cells that train.py would refuse: found once, before a grid is trained."""

import json
import subprocess
import sys
from collections.abc import Iterable, Sequence

from pipeline.cell import Contents, Refused, without_seed
from pipeline.run_cell import process_environment
from pipeline.suites import Cell

NAMED = 3  # cells of a refusal that a message lists before it counts the rest


def uncomposable(cells: Iterable[Cell], contents: Contents) -> dict[str, list[Cell]]:
    """The cells that have no identity, since Hydra refuses their settings or a file cannot be read, by reason."""
    refused: dict[str, list[Cell]] = {}
    for cell in cells:
        try:
            contents.identity(cell)
        except Refused as error:
            refused.setdefault(str(error), []).append(cell)
    return refused


def refused_by_train(cells: Sequence[Cell], contents: Contents) -> dict[str, list[Cell]]:
    """The cells that train.py would refuse, by reason: asked in one process, once for all seeds of a kind.

    That costs seconds, and nothing at all where there are no cells.
    """
    kinds: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        kinds.setdefault(without_seed(cell), []).append(cell)
    if not kinds:
        return {}
    done = subprocess.run(
        [sys.executable, "-m", "command.check"],
        cwd=contents.root,
        env=process_environment(),
        input=json.dumps([group[0].overrides for group in kinds.values()]),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        answers = json.loads(done.stdout.rpartition("\n")[2])  # a task may have printed before
    except ValueError:
        said = " ".join((done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1:])
        answers = [f"settings cannot be checked ({said})"] * len(kinds)
    refused: dict[str, list[Cell]] = {}
    for answer, group in zip(answers, kinds.values(), strict=True):
        if answer is not None:
            refused.setdefault(answer, []).extend(group)
    return refused


def describe(refused: dict[str, list[Cell]]) -> list[str]:
    """A line for each reason, with the variants and environments that it concerns."""
    lines = []
    for reason, cells in refused.items():
        kinds = list(dict.fromkeys(f"{cell.variant} on {cell.env}" for cell in cells))
        more = f" and {len(kinds) - NAMED} more" if len(kinds) > NAMED else ""
        lines.append(f"refused: {', '.join(kinds[:NAMED])}{more} ({len(cells)} cells): {reason}")
    return lines

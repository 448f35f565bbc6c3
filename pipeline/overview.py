"""What `snakemake` says before it trains: how much is done, what is out of date and why, what the rest will take."""

import ast
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path

from pipeline.forecast import forecast
from pipeline.suites import Cell
from tracking.identity import REPOSITORY
from tracking.manifest import STATUS, read_status

NAMED = 6  # changes that a message lists before it counts the rest


def overview(
    made_from: Mapping[Cell, Collection[str]],
    total_steps: int,
    recorded: Callable[[str], Collection[str] | None],
    retried: Collection[Cell] = (),
    root: Path = REPOSITORY,
) -> list[str]:
    """One or two lines: how many cells are done and to train, and their cost; what has changed since others were done.

    Args:
        made_from: every cell, and what it would be trained from today, as in the parameters of its rule.
        total_steps: of every run.
        recorded: the parameters that Snakemake made a file with, each written as Python; None if it knows none.
        retried: failed cells that are to be tried again.
        root: the repository.
    """
    changed: dict[Cell, list[str]] = {}
    to_train, failed = [], 0
    for cell, ingredients in made_from.items():
        status = f"{cell.run_dir}/{STATUS}"
        if not (root / status).exists():
            to_train.append(cell)
            continue
        before, now = recorded(status), {repr(cell.overrides), *map(repr, ingredients)}
        if before is not None and set(before) != now:
            changed[cell] = list(_differences(set(before) - now, now - set(before)))
        if cell in changed or cell in retried:
            to_train.append(cell)
        elif _has_failed(root / cell.run_dir):
            failed += 1
    line = f"{len(made_from)} cells, {len(made_from) - len(to_train)} done"
    if failed:
        line += f" ({failed} failed, which --config retry_failed=true tries again)"
    if to_train:
        line += f", {len(to_train)} to train"
        line += f" ({len(retried)} failed before)" if retried else ""
        line += f": {forecast(to_train, total_steps, {*changed}, root)}"
    return [line, _explain(changed)] if changed else [line]


def failed_cells(cells: Iterable[Cell], root: Path = REPOSITORY) -> list[Cell]:
    """Those whose status.json says that they failed."""
    return [cell for cell in cells if _has_failed(root / cell.run_dir)]


def _has_failed(run_dir: Path) -> bool:
    try:
        status = read_status(run_dir)
    except ValueError:  # damaged; a result to Snakemake, and the analysis says what is wrong with it
        return False
    return status is not None and status["status"] == "failed"


def _differences(before: Collection[str], now: Collection[str]) -> Iterator[str]:
    """In words, what differs between two sets of parameters: overrides in a tuple, `name: value` of all else."""
    old, new = _by_name(before), _by_name(now)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            yield f"{name} {'new' if name in new else 'gone'}"
        elif old[name] != new[name]:
            yield f"{name} changed" if name.endswith(".py") else f"{name} {old[name]} -> {new[name]}"


def _by_name(parameters: Collection[str]) -> dict[str, str]:
    named: dict[str, str] = {}
    for parameter in map(ast.literal_eval, parameters):
        if isinstance(parameter, tuple):
            named |= {f"override {key}": value for key, _, value in (entry.partition("=") for entry in parameter)}
        else:
            name, _, value = str(parameter).partition(": ")
            named[name] = value
    return named


def _explain(changed: Mapping[Cell, list[str]]) -> str:
    cells: dict[str, list[Cell]] = {}
    for cell, differences in changed.items():
        for difference in differences:
            cells.setdefault(difference, []).append(cell)
    texts = []
    for difference in sorted(cells, key=lambda difference: -len(cells[difference]))[:NAMED]:
        variants = sorted({cell.variant for cell in cells[difference]})
        texts.append(f"{difference} ({len(cells[difference])} of {', '.join(variants)})")
    more = [f"{len(cells) - NAMED} more changes"] if len(cells) > NAMED else []
    return f"{len(changed)} out of date: {'; '.join(texts + more)}"

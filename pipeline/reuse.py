"""Published cells that count as done, and what a suite's analysis reads for each cell.

`python -m pipeline.reuse NAME` prints what the pipeline writes to results/NAME/suite.json; with `--reuse` published
cells stand in for runs.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.cell import Contents
from pipeline.suite_file import SuiteError
from pipeline.suites import Cell, Suite, load_suite
from tracking.files import read_json
from tracking.published import PATH, PublishedError, read_header

PLAN = "suite.json"


def published_path(suite: Suite, cell: Cell) -> str:
    """Where a cell of the suite is published, relative to the repository's root."""
    return PATH.format(suite=suite.name, env=cell.env, variant=cell.variant, seed=cell.seed)


def reusable(suite: Suite, contents: Contents, refused: list[str] | None = None) -> dict[Cell, str]:
    """The cells that are published with today's identity, and the file of each; `refused` takes why others cannot be.

    The suite's δ counts too, since a published cell holds the share of steps above it.
    """
    files = {}
    for cell in suite.cells:
        file = published_path(suite, cell)
        try:
            if _is_of_today(suite, cell, contents, contents.root / file):
                files[cell] = file
        except PublishedError as error:
            if refused is not None:
                refused.append(f"{error}; it is not reused")
    return files


def _is_of_today(suite: Suite, cell: Cell, contents: Contents, path: Path) -> bool:
    if not path.is_file():
        return False
    header = read_header(path)
    if any(header[name] != getattr(cell, name) for name in ("env", "variant", "seed")):
        raise PublishedError(f"{path}: holds {header['env']}/{header['variant']}/seed-{header['seed']}")
    return bool(header["delta_ref"] == suite.delta_ref and header["identity"] == contents.hash(cell))


def plan(suite: Suite, published: Mapping[Cell, str]) -> dict[str, Any]:
    """What suite.json holds: for a cell of `published` also the file that is read in place of its run directory."""
    described = suite.describe()
    for cell, entry in zip(suite.cells, described["cells"], strict=True):
        if cell in published:
            entry["published"] = published[cell]
    return described


def digest(planned: Mapping[str, Any]) -> str:
    """What stands for a plan: two of them are one where this is equal."""
    return hashlib.sha256(json.dumps(planned).encode()).hexdigest()


def is_planned(results: Path, planned: Mapping[str, Any]) -> bool:
    """Whether the suite.json of a results directory, if there is any, is this plan."""
    try:
        found = read_json(results / PLAN)
    except (ValueError, OSError):
        return False
    return found in (None, json.loads(json.dumps(planned)))


def main(arguments: Sequence[str]) -> None:
    """Print suite.json of a suite; one line on stderr where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.reuse", description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    parser.add_argument("--reuse", action="store_true", help="published cells stand in for runs")
    parser.add_argument("--digest", help="what the plan must be")
    options = parser.parse_args(arguments)
    try:
        suite = load_suite(options.suite)
        planned = plan(suite, reusable(suite, Contents()) if options.reuse else {})
        if options.digest not in (None, digest(planned)):
            sys.exit(f"suite {suite.name}: has changed since it was planned; the same command plans it anew")
        print(json.dumps(planned, indent=1))
    except SuiteError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

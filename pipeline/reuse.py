"""Published cells that count as done, and what a suite's analysis reads for each cell.

`python -m pipeline.reuse NAME` prints what the pipeline writes to results/NAME/suite.json; with `--retrain` no
published cell stands in for a run.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.fingerprint import fingerprint
from pipeline.suites import Cell, Suite, SuiteError, load_suite
from tracking.identity import REPOSITORY
from tracking.published import PATH, PublishedError, read_header


def published_path(suite: Suite, cell: Cell) -> str:
    """Where a cell of the suite is published, relative to the repository's root."""
    return PATH.format(suite=suite.name, env=cell.env, variant=cell.variant, seed=cell.seed)


def reusable(suite: Suite, root: Path = REPOSITORY) -> dict[Cell, str]:
    """The cells that are published from today's overrides, code, versions and conf, and the file of each.

    The suite's δ counts too, since a published cell holds the share of steps above it. PublishedError names a file
    that cannot be read.
    """
    files = {cell: published_path(suite, cell) for cell in suite.cells}
    return {cell: file for cell, file in files.items() if _is_of_today(suite, cell, root / file, root)}


def _is_of_today(suite: Suite, cell: Cell, path: Path, root: Path) -> bool:
    if not path.is_file():
        return False
    header = read_header(path)
    return (
        tuple(header["overrides"]) == cell.overrides
        and header["delta_ref"] == suite.delta_ref
        and header["fingerprint"] == fingerprint(cell, root)
    )


def plan(suite: Suite, published: Mapping[Cell, str]) -> dict[str, Any]:
    """What suite.json holds: for a cell of `published` also the file that is read in place of its run directory."""
    described = suite.describe()
    for cell, entry in zip(suite.cells, described["cells"], strict=True):
        if cell in published:
            entry["published"] = published[cell]
    return described


def main(arguments: Sequence[str]) -> None:
    """Print suite.json of a suite; one line on stderr where that cannot be."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.reuse", description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    parser.add_argument("--retrain", action="store_true", help="no published cell stands in for a run")
    options = parser.parse_args(arguments)
    try:
        suite = load_suite(options.suite)
        print(json.dumps(plan(suite, {} if options.retrain else reusable(suite)), indent=1))
    except (SuiteError, PublishedError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Tables and figures of published suites made again from their cells: `python -m pipeline.rebuild [NAME ...]`.

Nothing is trained and no file in conf/ is read. What was built is compared with what was there, byte by byte, and takes
its place; with git the difference can be seen and undone. Figures are compared where the same version of Matplotlib has
drawn both, and left as they are otherwise.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from analysis.__main__ import FIGURES, TABLES, refuse_less, replace, written_aside
from analysis.cells import load_suite
from analysis.figures import SOFTWARE
from analysis.groups import gather
from analysis.report.overview import write_overview
from analysis.report.suite import REPORT
from pipeline.publish import writing
from tracking.identity import REPOSITORY

PUBLISHED = REPOSITORY / "results" / "published"


@dataclass(frozen=True)
class Comparison:
    """Names of the files that differ from what was there, are new, or are no longer made.

    `drawn_by` is what drew the figures that were there, if that is not what draws them here.
    """

    tables: list[str]
    figures: list[str]
    drawn_by: str = ""


def rebuild(suite_dir: Path) -> Comparison:
    """Make tables and figures of a published suite again. ValueError when its plan or cells cannot be read."""
    results = gather(load_suite(suite_dir))
    refuse_less(results, suite_dir)
    with written_aside(results, suite_dir) as aside:
        drawn_by = _other_software(suite_dir / FIGURES)
        compared = Comparison(
            tables=_different(suite_dir / TABLES, aside / TABLES),
            figures=[] if drawn_by else _different(suite_dir / FIGURES, aside / FIGURES),
            drawn_by=drawn_by,
        )
        replace(suite_dir / TABLES, aside / TABLES)
        if not drawn_by:
            replace(suite_dir / FIGURES, aside / FIGURES)
        os.replace(aside / REPORT, suite_dir / REPORT)
    return compared


def _other_software(figures: Path) -> str:
    """What drew the figures in a folder, as the first PNG has it; empty if that is what draws them here."""
    for path in sorted(figures.glob("*.png")):
        with Image.open(path) as image:
            software = str(image.info.get("Software", "something unknown"))
        return "" if software == SOFTWARE else software
    return ""


def _different(folder: Path, new: Path) -> list[str]:
    names = {path.name for place in (folder, new) if place.is_dir() for path in place.iterdir()}
    return [f"{new.name}/{name}" for name in sorted(names) if _bytes(folder / name) != _bytes(new / name)]


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def main(arguments: Sequence[str]) -> int:
    """Rebuild the suites named on the command line, all without a name; 1 when a table differs."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.rebuild", description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="*")
    published = sorted(path.parent.name for path in PUBLISHED.glob("*/suite.json"))
    names = parser.parse_args(arguments).suites or published
    if not names:
        print("nothing is published: there is no results/published/*/suite.json")
    code = 0
    for name in names:
        try:
            if not (PUBLISHED / name / "suite.json").is_file():
                raise ValueError("not published")
            with writing(PUBLISHED / name):
                compared = rebuild(PUBLISHED / name)
        except ValueError as error:
            print(f"published suite {name}: {error}", file=sys.stderr)
            code = 1
            continue
        for file in compared.tables + compared.figures:
            print(f"results/published/{name}/{file}: differs from what was there")
        tables, figures = ("differ" if files else "equal" for files in (compared.tables, compared.figures))
        if compared.drawn_by:
            figures = f"not compared: {compared.drawn_by} drew them, and here is {SOFTWARE}"
        print(f"published suite {name}: tables {tables}, figures {figures}")
        code = code or int(bool(compared.tables))
    if published:
        write_overview(PUBLISHED)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Tables and figures of a suite, from whatever cells exist: ``python -m analysis results/<suite>``."""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from analysis.cells import load_suite
from analysis.figures import alignment_curves as alignment_figure
from analysis.figures import geometry as geometry_figure
from analysis.figures import learning_curves, save_figure
from analysis.groups import Results, gather, source
from analysis.provenance import benchmark, cells_hash, describe
from analysis.statistics import RESAMPLES
from analysis.style import line_styles
from analysis.tables.alignment_curves import alignment_curves
from analysis.tables.cells import cells
from analysis.tables.final_scores import final_scores
from analysis.tables.geometry import geometry
from analysis.tables.human_normalised import human_normalised
from analysis.tables.index import index
from analysis.tables.sample_efficiency import sample_efficiency
from tracking.files import write_json

TABLES = "tables"
FIGURES = "figures"
ASIDE = ".analysis-"
"""How the name of a temporary folder begins."""


def analyse(suite_dir: Path, resamples: int = RESAMPLES) -> Results:
    """Write `tables/` and `figures/` of the suite in `suite_dir`.

    Everything is computed and written aside first, then each file takes the place of the old one, so that a
    reader finds complete files at any instant and a failure leaves the old ones. Files of an earlier analysis
    that this one does not make (an environment no longer in the suite) are removed.

    Raises:
        ValueError: there is no plan, or it is not complete.
    """
    results = gather(load_suite(suite_dir), resamples)
    with written_aside(results, suite_dir) as aside:
        for folder in (TABLES, FIGURES):
            replace(suite_dir / folder, aside / folder)
    return results


@contextmanager
def written_aside(results: Results, suite_dir: Path) -> Iterator[Path]:
    """A temporary folder in `suite_dir` that holds `tables/` and `figures/`."""
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=suite_dir) as folder:
        write_tables(results, Path(folder) / TABLES)
        write_figures(results, Path(folder) / FIGURES)
        yield Path(folder)


def write_tables(results: Results, folder: Path) -> None:
    """Each table as CSV, Markdown and LaTeX, `index.md` with all of them, and `provenance.json` with their source."""
    folder.mkdir()
    snapshots = [alignment_curves] if results.with_snapshots else []
    games = [human_normalised] if results.references else []
    tables = [table(results) for table in (final_scores, *games, sample_efficiency, geometry, *snapshots, cells)]
    for table in tables:
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(table.latex(), encoding="utf-8")
    (folder / "index.md").write_text(index(results, tables), encoding="utf-8")
    write_json(
        folder / "provenance.json",
        {
            "benchmark": benchmark(),
            "cells_hash": cells_hash(results.suite.cells),
            "cells": [describe(cell) for cell in results.suite.cells],
        },
    )


def write_figures(results: Results, folder: Path) -> None:
    """`learning_curves`, a `geometry_<env>` per environment and `alignment_curves`, each as PNG and PDF.

    The last one only where runs took snapshots.
    """
    folder.mkdir()
    suite = results.suite
    styles = line_styles(suite.variants)
    figure = learning_curves(results.groups, styles, suite.total_steps, results.random)
    save_figure(figure, folder / "learning_curves", results.source)
    if results.with_snapshots:
        save_figure(alignment_figure(results.groups, styles), folder / "alignment_curves", results.source)
    for env in suite.envs:
        groups = [group for group in results.groups if group.env == env]
        figure = geometry_figure(groups, styles, suite.total_steps, suite.delta_ref)
        save_figure(figure, folder / f"geometry_{env}", source(groups))


def replace(folder: Path, new: Path) -> None:
    """Let the files in `new` take the places of those in `folder`, and remove what is there beside them."""
    folder.mkdir(exist_ok=True)
    made = {path.name for path in new.iterdir()}
    for name in sorted(made):
        os.replace(new / name, folder / name)
    for path in folder.iterdir():
        if path.name not in made:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> int:
    """Analyse the suite named on the command line; 2 with one line on stderr when there is none to read."""
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("suite_dir", type=Path, help="results/<suite>, which holds suite.json")
    suite_dir = parser.parse_args().suite_dir
    try:
        results = analyse(suite_dir)
    except ValueError as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    finished = sum(cell.state == "finished" for cell in results.suite.cells)
    print(
        f"{results.suite.name}: {finished} of {len(results.suite.cells)} planned runs finished; "
        f"read {suite_dir / TABLES / 'index.md'}, figures in {suite_dir / FIGURES}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tables and figures of a suite, from whatever cells exist: ``python -m analysis results/<suite>``."""

import argparse
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from analysis.aggregate import over_all_tasks
from analysis.cells import load_suite
from analysis.external import External, read_external
from analysis.figures import X_AXES, learning_curves, save_figure
from analysis.figures import alignment_curves as alignment_figure
from analysis.figures import claims as claims_figure
from analysis.figures import geometry as geometry_figure
from analysis.figures import literature as literature_figure
from analysis.figures import tuning as tuning_figure
from analysis.groups import Results, gather, source
from analysis.literature import beside
from analysis.provenance import PROVENANCE, benchmark, cells_hash, describe, lost
from analysis.report.suite import REPORT, report
from analysis.statistics import RESAMPLES
from analysis.style import external_styles, labelled, line_styles
from analysis.tables.alignment_curves import alignment_curves
from analysis.tables.cells import cells
from analysis.tables.claims import claims
from analysis.tables.external import curves_csv
from analysis.tables.external import external as external_table
from analysis.tables.final_scores import final_scores
from analysis.tables.formats import Table
from analysis.tables.geometry import alignment, geometry
from analysis.tables.human_normalised import human_normalised
from analysis.tables.index import index
from analysis.tables.literature import literature
from analysis.tables.outcomes import aggregates, outcomes, planned_contrasts, thresholds
from analysis.tables.relations import correlations, model
from analysis.tables.sample_efficiency import sample_efficiency
from analysis.tables.tuning import tuning
from tracking.files import write_json

TABLES = "tables"
FIGURES = "figures"
NAMED = 3
"""Lost cells that a message names before it counts the rest."""
ASIDE = ".analysis-"
"""How the name of a temporary folder begins."""


def analyse(
    suite_dir: Path, resamples: int = RESAMPLES, replace_by_less: bool = False, external: Sequence[Path] = ()
) -> Results:
    """Write `tables/`, `figures/` and `report.html` of the suite in `suite_dir`; `external`: files of external curves.

    Everything is computed and written aside first, then each file takes the place of the old one, so that a
    reader finds complete files at any instant and a failure leaves the old ones. Files of an earlier analysis
    that this one does not make (an environment no longer in the suite) are removed.

    Raises:
        ValueError: there is no plan, or it is not complete; or the tables that are there show planned runs of which
            nothing is left, and `replace_by_less` does not say that this is meant; or a file of external curves
            cannot be read.
    """
    results = gather(load_suite(suite_dir), resamples)
    curves = read_external(external, results.suite.envs, results.suite.total_steps)
    if not replace_by_less:
        refuse_less(results, suite_dir)
    with written_aside(results, suite_dir, curves) as aside:
        for folder in (TABLES, FIGURES):
            replace(suite_dir / folder, aside / folder)
        os.replace(aside / REPORT, suite_dir / REPORT)
    return results


def refuse_less(results: Results, suite_dir: Path) -> None:
    """ValueError where the tables in `suite_dir` show planned runs of which nothing is left to show."""
    if gone := lost(results.suite.cells, suite_dir / TABLES):
        named = "; ".join(f"{cell.name} {cell.state}: {cell.remark}" for cell in gone[:NAMED])
        more = f"; and {len(gone) - NAMED} more" if len(gone) > NAMED else ""
        raise ValueError(
            f"{suite_dir / TABLES} shows {len(gone)} runs of which nothing is left ({named}{more}): tables and figures "
            "stay as they are; --replace makes them without these runs"
        )


@contextmanager
def written_aside(results: Results, suite_dir: Path, external: tuple[External, ...] = ()) -> Iterator[Path]:
    """A temporary folder in `suite_dir` that holds `tables/`, `figures/` and `report.html`."""
    with tempfile.TemporaryDirectory(prefix=ASIDE, dir=suite_dir) as name, labelled(results.suite.labels):
        folder = Path(name)
        tables = write_tables(results, folder / TABLES, external)
        write_figures(results, folder / FIGURES, external)
        (folder / REPORT).write_text(report(results, tables, folder / FIGURES, external), encoding="utf-8")
        yield folder


def write_tables(results: Results, folder: Path, external: tuple[External, ...] = ()) -> list[Table]:
    """Each table as CSV, Markdown and LaTeX, `index.md` with all, `curves.csv`, and `provenance.json`, their source."""
    folder.mkdir()
    snapshots = [alignment_curves] if results.with_snapshots else []
    games = [human_normalised] if results.references else []
    relations = (correlations, model)
    by_plan = (outcomes, aggregates, planned_contrasts, thresholds)
    compared = (
        (tuning,)
        if results.suite.configurations
        else (*by_plan, final_scores, *games, sample_efficiency, geometry, alignment, *relations, claims)
    )
    tables = [made for table in (*compared, *snapshots) if (made := table(results)).records]
    if beside(results) and not results.suite.configurations:
        tables.append(literature(results))
    if external:
        tables.append(external_table(results, external))
    tables.append(cells(results))
    for table in tables:
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
        (folder / f"{table.name}.md").write_text(table.markdown(), encoding="utf-8")
        (folder / f"{table.name}.tex").write_text(table.latex(results.suite.name), encoding="utf-8")
    (folder / "index.md").write_text(index(results, tables), encoding="utf-8")
    (folder / "curves.csv").write_text(curves_csv(results), encoding="utf-8")
    write_json(
        folder / PROVENANCE,
        {
            "benchmark": benchmark(),
            "cells_hash": cells_hash(results.suite.cells),
            "cells": [describe(cell) for cell in results.suite.cells],
        },
    )
    return tables


def write_figures(results: Results, folder: Path, external: tuple[External, ...] = ()) -> None:
    """`learning_curves` (also over updates and time), `literature`, `alignment_curves`, and a `geometry_<env>` each.

    As PNG and PDF; literature where it has the tasks, alignment curves where runs took snapshots. Of a search
    `tuning` alone.
    """
    folder.mkdir()
    suite = results.suite
    if suite.configurations:
        save_figure(tuning_figure(results), folder / "tuning", results.source)
        return
    if on_trial := claims_figure(results):
        save_figure(on_trial, folder / "claims", results.source)
    styles = line_styles(suite.variants) | external_styles(curves.variant for curves in external)
    over_all = over_all_tasks(results)
    timed = any(cell.run and cell.run.cpu_time is not None for group in results.groups for cell in group.runs)
    for x in (x for x in X_AXES if timed or x != "time"):
        figure = learning_curves(results.groups, styles, suite.total_steps, results.random, x, over_all, external)
        save_figure(figure, folder / ("learning_curves" if x == "steps" else f"learning_curves_{x}"), results.source)
    if found := beside(results):
        save_figure(literature_figure(found, styles), folder / "literature", results.source)
    if results.with_snapshots:
        save_figure(alignment_figure(results.groups, styles), folder / "alignment_curves", results.source)
    for env in suite.envs:
        groups = [group for group in results.groups if group.env == env]
        figure = geometry_figure(groups, styles, suite.total_steps)
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
    """Analyse the suite named on the command line; 2 with one line on stderr when there is none, or less."""
    for stream in (sys.stdout, sys.stderr):  # whatever encoding the session has: a path must not end the analysis
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(prog="python -m analysis", description=__doc__)
    parser.add_argument("suite_dir", type=Path, help="results/<suite>, which holds suite.json")
    parser.add_argument("--replace", action="store_true", help="also by tables that show fewer of the planned runs")
    parser.add_argument("--external", type=Path, nargs="+", default=[], help="files or folders of external curves")
    options = parser.parse_args()
    suite_dir: Path = options.suite_dir
    try:
        results = analyse(suite_dir, replace_by_less=options.replace, external=options.external)
    except (ValueError, OSError) as error:
        print(f"analysis: {error}", file=sys.stderr)
        return 2
    finished = sum(cell.state == "finished" for cell in results.suite.cells)
    print(
        f"{results.suite.name}: {finished} of {len(results.suite.cells)} planned runs finished; "
        f"read {suite_dir / REPORT} or {suite_dir / TABLES / 'index.md'}, figures in {suite_dir / FIGURES}"
    )
    for said in dict.fromkeys(f"{c.variant} on {c.env}: {c.reason}" for c in results.suite.cells if c.state == "mixed"):
        print(said)
    return 0


if __name__ == "__main__":
    sys.exit(main())

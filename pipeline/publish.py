"""Publish what suites have: `python -m pipeline.publish NAME ...` writes results/published/NAME/.

Every finished or failed run becomes a published cell, a small file with all that tables and figures need. Cells that
are published already and have no run here stay and count, so that a grid can be run in portions on several machines.
A run is refused if it does not come from committed code or is not the one that the suite describes today. A published
cell that is not of today is reported; it stays, and the tables keep it.
"""

import argparse
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from analysis.__main__ import ASIDE, TABLES, analyse
from analysis.condensed import condense
from analysis.plan import load_plan
from pipeline.cell import Contents
from pipeline.reuse import plan, published_path
from pipeline.suite_file import SuiteError
from pipeline.suites import Cell, Suite, load_suite
from tracking.files import TEMPORARY, sha256, write_json
from tracking.identity import REPOSITORY, CellIdentity, changes, difference
from tracking.lock import LOCK, RunLocked, acquire
from tracking.manifest import MANIFEST, recorded_identity
from tracking.published import PublishedError, read_header, read_published, write_published
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PROGRESS, RunRecord, damage, load_run

FILES = (MANIFEST, PROGRESS, EPISODES, ALIGNMENT, EVALUATION, CHECKPOINT)
"""Files of a run directory whose SHA-256 a published cell records."""
PROVENANCE = ("started", "resumed", "git", "packages", "python", "platform", "cpu", "gpu", "threads")
"""Entries of the manifest that a published cell repeats, beside the identity."""
NAMED = 3
"""Changes that a message lists before it counts the rest."""
NO_CURVES = pa.table({"env_steps": pa.array([], pa.int64())})
NOT_COMPARED = ("format", "run", "provenance", "files", "carried")
"""Parts of a published cell that may differ where its numbers, which `content` stands for, are the same."""


class Refused(ValueError):
    """A cell that is not published; the message says why and what would help."""


class Busy(ValueError):
    """Another process writes the published suite."""


class OfOtherCode(Refused):
    """A published cell that is not of today; it stays, and the tables keep it. `changes`: what has changed since."""

    def __init__(self, changed: list[str]) -> None:
        super().__init__("published from other code or settings than today's")
        self.changes = changed


@dataclass
class Report:
    """What became of the cells of a suite.

    Attributes:
        count: how many were published, kept and so on.
        refused: those that were not, by reason.
        changes: of those that are published from other code or settings, what has changed since.
        held: why tables and figures were left as they were; empty if they were renewed.
    """

    count: Counter[str] = field(default_factory=Counter)
    refused: dict[str, list[Cell]] = field(default_factory=dict)
    changes: list[list[str]] = field(default_factory=list)
    held: str = ""


@dataclass(frozen=True)
class Candidate:
    """A run that may be published: its header and curves."""

    header: dict[str, Any]
    curves: pa.Table


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder of a published suite, and remove what a killed writer left in it. Busy when another holds it."""
    was_there = folder.is_dir()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = acquire(folder)
    except RunLocked:
        raise Busy(
            f"results/published/{folder.name}: another process writes there; try again when it is done"
        ) from None
    try:
        for leftover in [*folder.rglob(f"*{TEMPORARY}"), *folder.glob(f"{ASIDE}*")]:
            shutil.rmtree(leftover) if leftover.is_dir() and not leftover.is_symlink() else leftover.unlink()
        yield
    finally:
        if not was_there and [path.name for path in folder.iterdir()] == [LOCK]:  # nothing was published
            shutil.rmtree(folder)
        os.close(descriptor)


def publish(suite: Suite, root: Path = REPOSITORY) -> Report:
    """Write the published cells of a suite, its plan, tables and figures. The working directory must be `root`.

    Raises Busy when another process does so.
    """
    with writing(root / "results" / "published" / suite.name):
        return _publish(suite, root)


def _publish(suite: Suite, root: Path) -> Report:
    report, contents = Report(), Contents(root)
    shown = _shown(suite, root)
    candidates: dict[Cell, Candidate] = {}
    stale: set[tuple[str, str]] = set()  # environments and variants with a published cell that is not of today

    def refuse(cell: Cell, reason: Exception) -> None:
        report.refused.setdefault(str(reason), []).append(cell)
        if isinstance(reason, OfOtherCode):
            report.changes.append(reason.changes)

    for cell in suite.cells:
        try:
            candidate = assess(suite, cell, contents)
            if candidate is not None:
                candidates[cell] = candidate
            else:
                report.count[_kept(suite, cell, contents)] += 1
        except (ValueError, OSError) as error:
            refuse(cell, error)
            if isinstance(error, OfOtherCode):
                stale.add((cell.env, cell.variant))
    for cell, candidate in candidates.items():
        if (cell.env, cell.variant) in stale:
            mixed = "other published seeds of its variant are of other code or settings; carry or train them first"
            refuse(cell, Refused(mixed))
            continue
        try:
            report.count[_write(root / published_path(suite, cell), candidate)] += 1
        except (ValueError, OSError) as error:  # what is there is damaged, or cannot be replaced
            refuse(cell, error)
    report.held = renew(suite, root, shown)
    return report


def assess(suite: Suite, cell: Cell, contents: Contents) -> Candidate | None:
    """The run of a cell as it would be published; None without one that has ended. ValueError says what forbids it."""
    record = load_run(contents.root / cell.run_dir)
    if record.status not in ("finished", "failed", "damaged"):
        return None
    identity, manifest = contents.identity(cell), record.manifest
    if manifest is None:
        raise Refused(f"its run left no manifest ({record.reason}); repair what stopped it and train it again")
    recorded = recorded_identity(manifest)
    if recorded.hash != identity.hash:
        raise Refused(f"its run is not of today's suite ({difference(identity, recorded)}); train it again")
    if manifest["git"] is None or manifest["git"]["dirty"]:
        state = "outside git" if manifest["git"] is None else "with uncommitted changes of what it is made from"
        raise Refused(
            f"published numbers come from committed code, and its run was trained {state}; "
            f"commit, remove its directory in results/{suite.name}/runs and train it again"
        )
    if harm := damage(record.run_dir, manifest, whole=True):
        first = f"remove its directory in results/{suite.name}/runs, and " if harm.file == CHECKPOINT else ""
        raise Refused(f"its run is damaged ({harm}); {first}snakemake --config suite={suite.name} trains it again")
    return _condensed(suite, cell, record, manifest)


def _condensed(suite: Suite, cell: Cell, record: RunRecord, manifest: Mapping[str, Any]) -> Candidate:
    run, recorded = condense(record, suite.total_steps, suite.delta_ref), recorded_identity(manifest)
    header = {
        "env": cell.env,
        "variant": cell.variant,
        "algorithm": cell.algorithm,
        "seed": cell.seed,
        "state": record.status,
        "reason": record.reason or "",
        "identity": recorded.hash,
        "content": run.content() if run else "",
        "total_steps": suite.total_steps,
        "delta_ref": suite.delta_ref,
        "overrides": list(cell.overrides),
        "run": run.header() if run else None,
        "provenance": {name: manifest.get(name) for name in PROVENANCE} | {"identity": recorded.parts},
        "files": {name: sha256(file) for name in FILES if (file := record.run_dir / name).is_file()},
    }
    return Candidate(header, run.table() if run else NO_CURVES)


def _write(path: Path, candidate: Candidate) -> str:
    """Publish a run, or find its numbers published; returns which. PublishedError where what is there is damaged."""
    before = _compared(read_published(path)[0]) if path.is_file() else None
    if before == _compared(candidate.header):
        return "unchanged"
    write_published(path, candidate.header, candidate.curves)
    return "new" if before is None else "replaced"


def _kept(suite: Suite, cell: Cell, contents: Contents) -> str:
    """What there is of a cell without a run here. Refused if that is not of today's suite."""
    path = contents.root / published_path(suite, cell)
    if not path.is_file():
        return "not there"
    header, identity = read_published(path)[0], contents.identity(cell)
    if header["identity"] != identity.hash:
        raise OfOtherCode(changes(CellIdentity(header["provenance"]["identity"]), identity))
    if header["delta_ref"] != suite.delta_ref:
        raise Refused(
            f"published for delta_ref {header['delta_ref']:g}; publish it where its run is, or train it again"
        )
    return "kept"


def renew(suite: Suite, root: Path, before: int = 0) -> str:
    """Write plan, tables and figures of the published cells; where these are fewer than before, say so and do not."""
    folder = root / "results" / "published" / suite.name
    files = {cell: published_path(suite, cell) for cell in suite.cells}
    planned = plan(suite, files)
    for entry in planned["cells"]:
        path = root / entry["published"]
        if (header := _header(path)) is not None and header["delta_ref"] == suite.delta_ref:
            entry["identity"] = header["identity"]
    shown = _named_in(planned)
    if shown < max(1, before):
        return f"tables and figures keep {before} published cells, since today's suite would show {shown}"
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "suite.json", planned)
    analyse(folder, replace_by_less=True)  # which was decided above
    return ""


def _header(path: Path) -> dict[str, Any] | None:
    """Of the published cell in a file; None without one that can be read."""
    try:
        return read_header(path) if path.is_file() else None
    except PublishedError:
        return None


def _shown(suite: Suite, root: Path) -> int:
    """How many cells the tables that are there show; 0 without a plan that says which."""
    try:
        return _named_in(load_plan(root / "results" / "published" / suite.name))
    except ValueError:
        return 0


def _named_in(planned: Mapping[str, Any]) -> int:
    """How many cells of a published plan were there when it was written."""
    return sum("identity" in entry for entry in planned["cells"])


def _compared(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name not in NOT_COMPARED}


def main(arguments: Sequence[str]) -> int:
    """Publish the suites named on the command line; 1 when cells were refused, with a line for each reason."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.publish", description=__doc__.splitlines()[0])
    parser.add_argument("suites", nargs="+")
    code = 0
    for name in parser.parse_args(arguments).suites:
        try:
            suite = load_suite(name)
            report = publish(suite)
        except (SuiteError, Busy) as error:
            sys.exit(str(error))
        refused = sum(map(len, report.refused.values()))
        done = ", ".join(f"{number} {what}" for what, number in sorted(report.count.items()))
        print(f"suite {suite.name}: {len(suite.cells)} cells: {done or 'none'}, {refused} refused")
        for reason, cells in report.refused.items():
            print(f"refused: {_named(cells)}: {reason}")
        if report.changes:
            print(f"{_shared(report.changes)}; snakemake carry --config suite={name} shows whether their numbers stand")
        if report.held:
            print(report.held)
        else:
            print(f"tables and figures of what is published: results/published/{suite.name}/{TABLES}/index.md")
        code = code or int(bool(refused))
    return code


def _shared(changed: Sequence[list[str]]) -> str:
    """What has changed since for all of these cells."""
    shared = [change for change in changed[0] if all(change in others for others in changed)]
    more = f" and {len(shared) - NAMED} more" if len(shared) > NAMED else ""
    return f"for all of these: {'; '.join(shared[:NAMED]) or 'nothing in common'}{more}"


def _named(cells: Sequence[Cell]) -> str:
    if len(cells) == 1:
        return f"{cells[0].env}/{cells[0].variant}/seed-{cells[0].seed}"
    variants, envs = ({getattr(cell, name) for cell in cells} for name in ("variant", "env"))
    return f"{len(cells)} cells of {', '.join(sorted(variants))} on {', '.join(sorted(envs))}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Published cells taken over to today's code, with proof that no bit moved: `python -m pipeline.carry NAME ...`.

For every task and variant with cells that are not of today, the commit that they were trained at and the code of today
both train the first part of one seed here: two points of the grid and three updates at least, with a checkpoint in the
middle and a resume from it, then a short whole run of the same settings up to its evaluation. Where the tables and the
parameters of the networks are equal to the last bit, and the versions of the packages are those of then, the cells get
today's identity, and `carried` in their headers says from which one, by which comparison and when. Where one bit
differs, they stay as they are, and the first difference is named.
"""

import argparse
import shutil
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.condensed import from_published
from pipeline.cell import Contents, Refused
from pipeline.publish import Busy, renew, writing
from pipeline.repeat import LEAST_UPDATES, checkout, first_part, train
from pipeline.reuse import published_path
from pipeline.suite_file import SuiteError
from pipeline.suites import Cell, Suite, load_suite
from tracking.compare import lacking, moved
from tracking.identity import REPOSITORY, CellIdentity
from tracking.manifest import now
from tracking.published import PublishedError, read_published, write_published
from tracking.record import load_run

SHORT = ("evaluation.episodes=2", "evaluation.max_steps=200")
"""Settings of the short whole run that is compared up to its evaluation."""


@dataclass(frozen=True)
class Stale:
    """Published cells of one task and variant. Except for their seeds they have one identity, which is not today's."""

    suite: Suite
    cells: tuple[Cell, ...]
    header: Mapping[str, Any]  # of the first one

    @property
    def commit(self) -> str:
        """Where they were trained."""
        return str(self.header["provenance"]["git"]["commit"])

    @property
    def name(self) -> str:
        """Task and variant."""
        return f"{self.cells[0].env}/{self.cells[0].variant}"


@dataclass(frozen=True)
class Proof:
    """What a comparison of then and today found: the first difference, empty if there was none."""

    difference: str
    compared: str = ""
    lacking: tuple[str, ...] = ()  # columns of today that then had not


def stale_cells(suite: Suite, contents: Contents) -> list[Stale]:
    """The published cells of a suite that are not of today, by task, variant and what they were made from.

    Raises:
        Refused: settings of the suite cannot be composed.
    """
    found: dict[tuple[str, ...], list[tuple[Cell, Mapping[str, Any]]]] = defaultdict(list)
    for cell in suite.cells:
        path = contents.root / published_path(suite, cell)
        if path.is_file():
            try:
                header = read_published(path)[0]
            except PublishedError as error:
                print(f"{error}; it is not carried", file=sys.stderr)
                continue
            if header["provenance"].get("git") is None:
                print(f"{path}: from outside git, so it cannot be carried", file=sys.stderr)
                continue
            if header["identity"] != contents.identity(cell).hash:
                found[cell.env, cell.variant, _without_seed(header)].append((cell, header))
    return [Stale(suite, tuple(cell for cell, _ in group), group[0][1]) for group in found.values()]


def _without_seed(header: Mapping[str, Any]) -> str:
    parts = dict(header["provenance"]["identity"])
    config = {name: value for name, value in parts["config"].items() if name != "seed"}
    return CellIdentity(parts | {"config": config}).hash


def prove(stale: Stale, then: Path, contents: Contents, folder: Path) -> Proof:
    """Train the first part of one seed by the code of then and by today's, and compare.

    Args:
        stale: the cells.
        then: the files of their commit.
        contents: today.
        folder: for the runs; what it holds is removed first.
    """
    header, cell = stale.header, stale.cells[0]
    versions = header["provenance"]["identity"]["versions"]
    today = contents.identity(cell).parts["versions"]
    if others := [
        f"{name} {versions.get(name)} then, {today[name]} here" for name in today if versions.get(name) != today[name]
    ]:
        return Proof(f"other packages: {', '.join(others)}")
    if header["run"] is None:
        return Proof("no update was made, so there is nothing to compare")
    if any(override.lstrip("+~").startswith("hydra") for override in header["overrides"]):
        return Proof("its overrides configure Hydra, which may run what they name")
    try:
        run = from_published(header["run"], read_published(contents.root / published_path(stale.suite, cell))[1])
    except ValueError as error:
        return Proof(str(error))
    stop, update = min(first_part(run), header["total_steps"]), -(-run.env_steps // run.counts["updates"])
    shutil.rmtree(folder, ignore_errors=True)
    lacks: set[str] = set()
    sides = {"then": (then, header["overrides"]), "today": (contents.root, cell.overrides)}
    for part, settings in {"part": (), "whole": (*SHORT, f"total_steps={LEAST_UPDATES * update}")}.items():
        for side, (root, overrides) in sides.items():
            run_dir = folder / side / part
            for stop_after in (stop // 2, stop) if part == "part" else (None,):
                # Today's code may be edited meanwhile; then it is not what the cells would be called.
                planned = contents.hash(cell) if (side, part) == ("today", "part") else None
                said = train([*overrides, *settings], run_dir, root, stop_after=stop_after, identity=planned)
            if load_run(run_dir).status not in ("killed", "finished"):
                return Proof(f"{side} could not be trained again ({said})")
        if difference := moved(folder / "then" / part, folder / "today" / part):
            return Proof(difference)
        lacks |= set(lacking(folder / "then" / part, folder / "today" / part))
    return Proof(
        "",
        f"{stop:,} steps of seed {cell.seed} with a resume, and a run of {LEAST_UPDATES} updates",
        tuple(sorted(lacks)),
    )


def take_over(stale: Stale, proof: Proof, contents: Contents) -> None:
    """Give the cells today's identity, and say in their headers by which proof."""
    for cell in stale.cells:
        path = contents.root / published_path(stale.suite, cell)
        header, curves = read_published(path)
        identity = contents.identity(cell)
        entry = {
            "from": header["identity"],
            "commit": stale.commit,
            "compared": proof.compared,
            "lacks": list(proof.lacking),
            "at": now(),
        }
        renewed = {
            **header,
            "identity": identity.hash,
            "overrides": list(cell.overrides),
            "provenance": header["provenance"] | {"identity": identity.parts},
            "carried": [*header.get("carried", []), entry],
        }
        write_published(path, renewed, curves)


def carry(suites: Sequence[Suite], jobs: int, root: Path = REPOSITORY) -> dict[str, list[tuple[Stale, Proof]]]:
    """Take over what can be, `jobs` comparisons at a time; returns what came of every task and variant, by suite."""
    contents = Contents(root)
    with ExitStack() as held:
        for suite in suites:
            held.enter_context(writing(root / "results" / "published" / suite.name))
        return _carry(suites, jobs, contents)


def _carry(suites: Sequence[Suite], jobs: int, contents: Contents) -> dict[str, list[tuple[Stale, Proof]]]:
    root = contents.root
    waiting = [stale for suite in suites for stale in stale_cells(suite, contents)]
    work = root / "results" / ".carry"
    proofs: dict[str, list[tuple[Stale, Proof]]] = {suite.name: [] for suite in suites}
    shutil.rmtree(work, ignore_errors=True)  # of a call that was killed
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        places = {commit: _checkout(stack, commit, work, root) for commit in {stale.commit for stale in waiting}}

        def compare(stale: Stale) -> Proof:
            place = places[stale.commit]
            if isinstance(place, str):
                return Proof(place)
            cell = stale.cells[0]
            return prove(stale, place, contents, work / stale.suite.name / cell.env / cell.variant / str(cell.seed))

        workers = stack.enter_context(ThreadPoolExecutor(jobs))
        compared = {workers.submit(compare, stale): stale for stale in waiting}
        for done in as_completed(compared):  # each is on disk as soon as it is proven
            stale, proof = compared[done], done.result()
            if not proof.difference:
                take_over(stale, proof, contents)
            proofs[stale.suite.name].append((stale, proof))
            print(_say(stale, proof), flush=True)
    for suite in suites:
        if any(not proof.difference for _, proof in proofs[suite.name]):
            renew(suite, root)  # tables and figures name the identities behind them
    return proofs


def _checkout(stack: ExitStack, commit: str, work: Path, root: Path) -> Path | str:
    """The files of a commit, or why there are none."""
    try:
        return stack.enter_context(checkout(commit, work, root))
    except ValueError as error:
        return str(error)


def _say(stale: Stale, proof: Proof) -> str:
    cells = f"{stale.name}, {len(stale.cells)} {'cell' if len(stale.cells) == 1 else 'cells'} of {stale.commit[:7]}"
    if proof.difference:
        return f"{cells}: stay as they are: {proof.difference}"
    lacks = f"; without {', '.join(proof.lacking)}, which runs of today have" if proof.lacking else ""
    return f"{cells}: carried: equal in {proof.compared}{lacks}"


def main(arguments: Sequence[str]) -> int:
    """Carry the suites named on the command line; 1 when cells stay that are not of today."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.carry", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--jobs", type=int, default=1, help="comparisons at a time")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        sys.exit(f"jobs={options.jobs}: must be at least 1")
    try:
        proofs = carry([load_suite(name) for name in options.suites], options.jobs)
    except (SuiteError, Refused, Busy) as error:
        sys.exit(str(error))
    for name, found in proofs.items():
        counts = [
            sum(len(stale.cells) for stale, proof in found if bool(proof.difference) == stays)
            for stays in (False, True)
        ]
        print(f"suite {name}: {counts[0]} cells carried, {counts[1]} stay that are not of today")
    return int(any(proof.difference for found in proofs.values() for _, proof in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What `snakemake` says before it trains: how much is done, what is out of date and why, what the rest will take."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.cell import Contents, Refused
from pipeline.forecast import forecast
from pipeline.suites import Cell, Suite
from tracking.identity import changes
from tracking.manifest import STATUS, git_fault, read_manifest, read_status, recorded_identity, uncommitted
from tracking.record import damage

NAMED = 6  # changes that a message lists before it counts the rest


@dataclass(frozen=True)
class State:
    """Where the cells of a suite stand. A cell is done if its status.json is of today's identity.

    Attributes:
        done: finished or failed.
        failed: those of `done` that failed.
        changed: trained from other settings, code or packages than today's, or damaged; what is wrong with each.
        new: without a result.
    """

    done: list[Cell]
    failed: list[Cell]
    changed: dict[Cell, list[str]]
    new: list[Cell]


def state_of(cells: Iterable[Cell], contents: Contents) -> State:
    """Ask the run directory of every cell."""
    state = State([], [], {}, [])
    for cell in cells:
        run_dir = contents.root / cell.run_dir
        try:
            status = read_status(run_dir)
        except (OSError, ValueError):  # damaged: nothing is known of it
            status = None
        if status is None:
            state.new.append(cell)
        elif status["identity"] == contents.hash(cell):
            if harm := _damage(run_dir):
                state.changed[cell] = [harm]
                continue
            state.done.append(cell)
            if status["status"] == "failed":
                state.failed.append(cell)
        else:
            state.changed[cell] = _changes(cell, contents)
    return state


def _damage(run_dir: Path) -> str | None:
    """What is wrong with the files of a run that has ended; None if nothing is, or the pipeline spoke for the run."""
    try:
        manifest = read_manifest(run_dir)
        harm = None if manifest is None else damage(run_dir, manifest)
        return f"damaged, {harm}" if harm else None
    except (OSError, ValueError) as error:
        return " ".join(str(error).split())


def _changes(cell: Cell, contents: Contents) -> list[str]:
    try:
        manifest = read_manifest(contents.root / cell.run_dir)
        if manifest is None:
            return ["its run left no manifest"]
        return changes(recorded_identity(manifest), contents.identity(cell)) or [f"its {STATUS} is of another run"]
    except (Refused, OSError, ValueError) as error:
        return [str(error)]


def overview(
    suite: Suite, state: State, contents: Contents, published: Collection[Cell] = (), retried: Collection[Cell] = ()
) -> list[str]:
    """A line each: what will keep new cells unpublishable; what is done and ahead, at what cost; what has changed.

    Args:
        suite: the suite.
        state: of its cells without those `published`.
        contents: what cells are made of.
        published: cells whose published results are reused.
        retried: failed cells that are tried again.
    """
    to_train = [*state.new, *state.changed, *retried]
    line = f"{len(suite.cells)} cells, {len(state.done) - len(retried) + len(published)} done"
    if published:
        line += f" ({len(published)} published)"
    if failed := len(state.failed) - len(retried):
        line += f" ({failed} failed, which --config retry_failed=true tries again)"
    if not to_train:
        return [line]
    line += f", {len(to_train)} to train"
    line += f" ({len(retried)} failed before)" if retried else ""
    line += f": {forecast(to_train, suite.total_steps, state.changed, contents.root)}"
    fault = _unpublishable(contents, to_train)
    changed = [_explain(state.changed)] if state.changed else []
    return [*([fault] if fault else []), line, *changed]


def _unpublishable(contents: Contents, cells: Collection[Cell]) -> str:
    """Why what is trained now could not be published, and what would help; empty if it could be."""
    lost = "what is trained now cannot be published"
    if fault := git_fault(contents.root):
        return f"{lost}, since it comes from no commit: {fault}"
    files = uncommitted(contents.files(cells), contents.root)
    more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
    return (
        f"{lost}: uncommitted changes in {', '.join(files[:NAMED])}{more}; commit first if it shall be" if files else ""
    )


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

"""Publish what a suite has: `python -m pipeline.publish NAME` writes results/published/NAME/.

Every finished or failed run becomes a published cell, a file of some 10 KB with all that tables and figures need.
Cells that are published already and have no run here stay and count, so that a grid can be run in portions on several
machines. A cell is refused, by name, if its run does not come from committed code or is not the one that the suite
describes today.
"""

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from analysis.__main__ import TABLES, analyse
from analysis.condensed import condense
from envs.tasks import EnvConfig
from pipeline.fingerprint import fingerprint
from pipeline.reuse import plan, published_path
from pipeline.suites import Cell, Suite, SuiteError, load_suite
from settings import RunConfig, explain
from tracking.files import write_json
from tracking.identity import REPOSITORY, CellIdentity, difference, identify
from tracking.manifest import MANIFEST, recorded_identity
from tracking.published import read_published, write_published
from tracking.record import ALIGNMENT, CHECKPOINT, EPISODES, EVALUATION, PROGRESS, load_run
from train import training_modules

FILES = (MANIFEST, PROGRESS, EPISODES, ALIGNMENT, EVALUATION, CHECKPOINT)
"""Files of a run directory whose SHA-256 a published cell records."""
PROVENANCE = ("started", "resumed", "git", "packages", "python", "platform", "cpu", "gpu", "threads")
"""Entries of the manifest that a published cell repeats, beside the identity."""
NO_CURVES = pa.table({"env_steps": pa.array([], pa.int64())})
NOT_COMPARED = ("format", "run", "provenance", "files")
"""Parts of a published cell that may differ where its numbers, which `content` stands for, are the same."""


class Refused(ValueError):
    """A cell that is not published; the message says why and what would help."""


@dataclass
class Report:
    """What became of the cells of a suite: how many of each, and a line for each that was refused."""

    count: Counter[str] = field(default_factory=Counter)
    refused: list[str] = field(default_factory=list)


def publish(suite: Suite, root: Path = REPOSITORY) -> Report:
    """Write the published cells of a suite, its plan, tables and figures. The working directory must be `root`."""
    report = Report()
    planned = plan(suite, {cell: published_path(suite, cell) for cell in suite.cells})
    for cell, entry in zip(suite.cells, planned["cells"], strict=True):
        try:
            identity = todays_identity(cell, root)
            entry["identity"] = identity.hash
            report.count[publish_cell(suite, cell, identity, root)] += 1
        except ValueError as error:
            report.refused.append(f"{cell.env}/{cell.variant}/seed-{cell.seed}: {error}")
    folder = root / "results" / "published" / suite.name
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "suite.json", planned)
    analyse(folder)
    return report


def publish_cell(suite: Suite, cell: Cell, identity: CellIdentity, root: Path = REPOSITORY) -> str:
    """Publish one cell, or find it published; returns what was done. ValueError says why it is refused."""
    path = root / published_path(suite, cell)
    record = load_run(root / cell.run_dir)
    if record.status not in ("finished", "failed"):
        return _keep(suite, cell, identity, path, root)
    manifest = record.manifest
    if manifest is None:
        raise Refused(f"its run left no manifest ({record.reason}); repair what stopped it and train it again")
    recorded = recorded_identity(manifest)
    if recorded.hash != identity.hash:
        raise Refused(f"its run is not of today's suite ({difference(identity, recorded)}); train it again")
    if manifest["git"] is None or manifest["git"]["dirty"]:
        state = "outside git" if manifest["git"] is None else "with uncommitted changes"
        raise Refused(
            f"published numbers come from a committed manifest, and its run was trained {state}; "
            f"commit, remove {cell.run_dir} and train it again"
        )
    run = condense(record, suite.total_steps, suite.delta_ref)
    header = {
        "env": cell.env,
        "variant": cell.variant,
        "algorithm": cell.algorithm,
        "seed": cell.seed,
        "state": record.status,
        "reason": record.reason or "",
        "identity": identity.hash,
        "content": run.content() if run else "",
        "total_steps": suite.total_steps,
        "delta_ref": suite.delta_ref,
        **_made_from(cell, root),
        "run": run.header() if run else None,
        "provenance": {name: manifest.get(name) for name in PROVENANCE} | {"identity": recorded.parts},
        "files": {name: _sha256(file) for name in FILES if (file := record.run_dir / name).is_file()},
    }
    before = _compared(read_published(path)[0]) if path.is_file() else None
    if before == _compared(header):
        return "unchanged"
    write_published(path, header, run.table() if run else NO_CURVES)
    return "new" if before is None else "replaced"


def todays_identity(cell: Cell, root: Path = REPOSITORY) -> CellIdentity:
    """The identity that train.py would give a cell now. ValueError when Hydra does not take its overrides."""
    try:
        with initialize_config_dir(str(root / "conf"), version_base="1.3"):
            composed = compose("config", list(cell.overrides))
        resolved = cast(dict[str, Any], OmegaConf.to_container(composed, resolve=True))
    except (HydraException, OmegaConfBaseException) as error:
        raise Refused(f"its settings are refused ({explain(error)})") from error
    complete = OmegaConf.merge({"env": {"kind": EnvConfig.kind}}, composed)  # with the one default that chooses code
    return identify(resolved, training_modules(cast(RunConfig, complete)), composed.device, root)


def _keep(suite: Suite, cell: Cell, identity: CellIdentity, path: Path, root: Path) -> str:
    """A cell without a finished run here: what is published of it stays, if it is of today's suite."""
    if not path.is_file():
        return "not there"
    header, curves = read_published(path)
    if header["identity"] != identity.hash:
        theirs = CellIdentity(header["provenance"]["identity"])
        raise Refused(f"published, but not of today's suite ({difference(identity, theirs)}); train it again")
    if header["delta_ref"] != suite.delta_ref:
        raise Refused(
            f"published for delta_ref {header['delta_ref']:g}; publish it where its run is, or train it again"
        )
    if header != (renewed := header | _made_from(cell, root)):  # the fingerprint may move where the identity does not
        write_published(path, renewed, curves)
        return "renewed"
    return "kept"


def _made_from(cell: Cell, root: Path) -> dict[str, Any]:
    return {"overrides": list(cell.overrides), "fingerprint": fingerprint(cell, root)}


def _compared(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in header.items() if name not in NOT_COMPARED}


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def main(arguments: Sequence[str]) -> int:
    """Publish the suite named on the command line; 1 with a line each when cells were refused."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.publish", description=__doc__.splitlines()[0])
    parser.add_argument("suite")
    try:
        suite = load_suite(parser.parse_args(arguments).suite)
    except SuiteError as error:
        sys.exit(str(error))
    report = publish(suite)
    done = ", ".join(f"{number} {what}" for what, number in sorted(report.count.items()))
    print(f"suite {suite.name}: {len(suite.cells)} cells: {done or 'none'}, {len(report.refused)} refused")
    for line in report.refused:
        print(f"refused: {line}")
    print(f"tables and figures of what is published: results/published/{suite.name}/{TABLES}/index.md")
    return 1 if report.refused else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Train some published cells again and compare: `python -m pipeline.verify NAME` writes results/NAME/verify/report.md.

Only the first part of a run is repeated. Where processor, platform and versions are those of the published run, the
points of the grid before the stop must come out equal to the last bit. Elsewhere that is not to be expected: rounding
that differs in one place makes other trajectories within a hundred steps. The rerun is then one more seed, and its last
point is held against the published seeds of the same task and variant: its score, and the logarithms of its KPIs, must
lie between a - 2w and b + 2w, a the lowest and b the highest of them and w = b - a. Each of the curves leaves that
band by chance once in 190 times with five normally distributed seeds, the fewest it is drawn from, and once in 16,000
with ten. It catches what is badly wrong, no more.
"""

import argparse
import random
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.condensed import CURVES, SCORE, Condensed, condense, from_published
from analysis.curves import Floats
from analysis.provenance import benchmark
from pipeline.cell import Contents
from pipeline.repeat import first_part, machine, train
from pipeline.reuse import published_path
from pipeline.suite_file import SuiteError
from pipeline.suites import Cell, Suite, load_suite
from tracking.files import replacing
from tracking.identity import REPOSITORY
from tracking.manifest import read_manifest
from tracking.published import read_published
from tracking.record import load_run

PART = 0.1
"""Share of the budget that is repeated, unless that is less than two points of the grid or three updates."""
MIN_SEEDS = 5
"""Fewest published seeds that a band is drawn from."""
EQUAL, INSIDE, NOT_COMPARABLE, CHANGED, MISMATCH = (
    "equal", "inside the band", "not comparable", "code or settings changed since", "MISMATCH"
)  # fmt: skip


@dataclass(frozen=True)
class Verdict:
    """What came of one cell: one of the five words, and what was compared or why nothing was."""

    cell: Cell
    word: str
    compared: str

    def __str__(self) -> str:
        return f"{_name(self.cell)}: {self.word}: {self.compared}"


def verify(
    suite: Suite, sample: int, sample_seed: int, stop_after: int | None = None, root: Path = REPOSITORY
) -> list[Verdict]:
    """Train a random sample of a suite's published cells again, say what comes of each and write the report.

    Args:
        suite: the suite as it is today.
        sample: how many cells; all if there are fewer.
        sample_seed: decides which.
        stop_after: environment steps to repeat; by default as `PART` says.
        root: the repository, which is the working directory.

    Raises:
        ValueError: no cell of the suite is published.
    """
    published = [cell for cell in suite.cells if (root / published_path(suite, cell)).is_file()]
    if not published:
        raise ValueError(f"suite {suite.name}: no cell is published; snakemake publish --config suite={suite.name}")
    contents = Contents(root)
    chosen = random.Random(sample_seed).sample(published, min(sample, len(published)))
    verdicts = []
    for cell in chosen:
        verdicts.append(verify_cell(suite, cell, stop_after, contents))
        print(verdicts[-1], flush=True)
    report = root / "results" / suite.name / "verify" / "report.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    with replacing(report) as file:
        file.write(_report(suite, verdicts, len(published), sample_seed).encode())
    return verdicts


def verify_cell(suite: Suite, cell: Cell, stop_after: int | None, contents: Contents) -> Verdict:
    """Train one published cell again, as far as `stop_after` says, and compare."""
    root = contents.root
    try:
        header, table = read_published(root / published_path(suite, cell))
        then = None if header["run"] is None else from_published(header["run"], table)
    except ValueError as error:
        return Verdict(cell, MISMATCH, str(error))
    if header["identity"] != contents.hash(cell):
        return Verdict(cell, CHANGED, f"snakemake carry --config suite={suite.name} shows whether its numbers stand")
    if then is None:
        return Verdict(cell, NOT_COMPARABLE, f"it {header['state']} before its first update")
    stop = stop_after or default_stop(then, suite.total_steps)
    run_dir = root / "results" / suite.name / "verify" / "runs" / cell.env / cell.variant / f"seed-{cell.seed}"
    shutil.rmtree(run_dir, ignore_errors=True)  # so that nothing is gone on with
    said = train(cell.overrides, run_dir, root, stop_after=stop if stop < suite.total_steps else None)
    record = load_run(run_dir)
    now = condense(record, suite.total_steps, header["delta_ref"])
    if now is None:
        return Verdict(cell, MISMATCH, f"it cannot be trained again ({said})")
    shared = shared_points(then, now)
    if not shared.any():
        return Verdict(cell, NOT_COMPARABLE, f"no point of the grid up to step {now.env_steps:,}")
    what = f"{shared.sum()} points of {len(then.curves)} curves up to step {then.curves[SCORE].steps[shared][-1]:,.0f}"
    different = [name for name in then.curves if not _equal(then, now, name, shared)]
    if not different:
        return Verdict(cell, EQUAL, what)
    manifest = read_manifest(run_dir) or {}
    elsewhere = [name for name, value in machine(manifest).items() if machine(header["provenance"])[name] != value]
    if not elsewhere:
        return Verdict(
            cell, MISMATCH, f"{what}: on the same machine and versions {_first(then, now, different, shared)}"
        )
    seeds = _seeds(suite, cell, contents)
    if len(seeds) < MIN_SEEDS:
        few = f"other {', '.join(elsewhere)}, and {len(seeds)} published seeds where a band takes {MIN_SEEDS}"
        return Verdict(cell, NOT_COMPARABLE, f"{what}: not equal; {few}")
    outside = outside_band(seeds, now, int(np.flatnonzero(shared)[-1]))
    where = f"{what}, the last against {len(seeds)} seeds (other {', '.join(elsewhere)})"
    return Verdict(cell, MISMATCH, f"{where}: {'; '.join(outside)}") if outside else Verdict(cell, INSIDE, where)


def default_stop(run: Condensed, total_steps: int) -> int:
    """Steps to repeat of a run: a share of its budget, but no less than its first part."""
    return max(int(PART * total_steps), first_part(run))


def shared_points(then: Condensed, now: Condensed) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which points of the grid both runs have behind them, (K,)."""
    one, other = then.curves[SCORE].steps, now.curves[SCORE].steps
    return np.asarray((one == other) & (one <= min(then.env_steps, now.env_steps)))


def outside_band(seeds: Sequence[Condensed], run: Condensed, place: int) -> list[str]:
    """The curves of a run that leave the band of the seeds at one point of the grid, in words."""
    outside = []
    for name in CURVES:
        curves = [seed.curves[name] for seed in seeds if name in seed.curves and seed.curves[name].measurements[place]]
        value = run.curves[name].values[place]
        if len(curves) < MIN_SEEDS or not run.curves[name].measurements[place]:
            continue
        low, high = band(np.array([curve.values[place] for curve in curves]), logarithmic=name != SCORE)
        if not low <= value <= high:
            outside.append(f"{name} {value:.6g} is outside [{low:.6g}, {high:.6g}]")
    return outside


def band(values: Floats, logarithmic: bool) -> tuple[float, float]:
    """Where one more of these values is expected: their range, widened by twice its width at either end.

    In logarithms where that is asked for and they are all positive.
    """
    in_logarithms = logarithmic and bool((values > 0).all())
    scaled = np.log(values) if in_logarithms else values
    low, high = scaled.min(), scaled.max()
    ends = np.array([low - 2 * (high - low), high + 2 * (high - low)])
    low, high = np.exp(ends) if in_logarithms else ends
    return float(low), float(high)


def _seeds(suite: Suite, cell: Cell, contents: Contents) -> list[Condensed]:
    """The finished published runs of the cell's task and variant, made from the same code and settings."""
    runs = []
    for other in suite.cells:
        path = contents.root / published_path(suite, other)
        if (other.env, other.variant) == (cell.env, cell.variant) and path.is_file():
            try:
                header, table = read_published(path)
                if header["state"] == "finished" and header["run"] and header["identity"] == contents.hash(other):
                    runs.append(from_published(header["run"], table))
            except ValueError:  # damaged: it says nothing of the others
                continue
    return runs


def _equal(then: Condensed, now: Condensed, name: str, shared: np.ndarray[Any, np.dtype[np.bool_]]) -> bool:
    one, other = then.curves[name], now.curves[name]
    same_values = np.array_equal(one.values[shared], other.values[shared], equal_nan=True)
    return same_values and np.array_equal(one.measurements[shared], other.measurements[shared])


def _first(
    then: Condensed, now: Condensed, different: Sequence[str], shared: np.ndarray[Any, np.dtype[np.bool_]]
) -> str:
    """The first place where the first of these curves differs, in words."""
    one, other = then.curves[different[0]], now.curves[different[0]]
    same = (one.values == other.values) | (np.isnan(one.values) & np.isnan(other.values))
    place = np.flatnonzero(shared & ~(same & (one.measurements == other.measurements)))[0]
    return (
        f"{different[0]} at step {one.steps[place]:,.0f} is {other.values[place]!r} "
        f"({other.measurements[place]} measurements), and was {one.values[place]!r} ({one.measurements[place]})"
    )


def _name(cell: Cell) -> str:
    return f"{cell.env}/{cell.variant}/seed-{cell.seed}"


def _report(suite: Suite, verdicts: Sequence[Verdict], published: int, sample_seed: int) -> str:
    rows = [f"| {_name(v.cell)} | {v.word} | {' '.join(v.compared.split()).replace('|', '/')} |" for v in verdicts]
    explained = " ".join((__doc__ or "").split("\n\n")[1].split())
    lines = [
        f"# Verification of suite {suite.name}",
        "",
        f"{benchmark()}; {len(verdicts)} of {published} published cells, drawn with sample_seed={sample_seed}.",
        "",
        explained,
        "",
        "| Cell | Verdict | Compared |",
        "| :-- | :-- | :-- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Verify the suites named on the command line; 1 when a cell does not come out as published."""
    parser = argparse.ArgumentParser(prog="python -m pipeline.verify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--sample", type=int, default=3, help="how many cells of each suite")
    parser.add_argument("--sample-seed", type=int, default=0, help="decides which")
    parser.add_argument("--stop-after", type=int, default=0, help="steps to repeat; 0: a tenth of the budget or more")
    options = parser.parse_args(arguments)
    if options.sample < 1:
        sys.exit(f"sample={options.sample}: must be at least 1")
    found: list[Verdict] = []
    for name in options.suites:
        try:
            verdicts = verify(load_suite(name), options.sample, options.sample_seed, options.stop_after or None)
        except (SuiteError, ValueError) as error:
            sys.exit(str(error))
        print(f"report: results/{name}/verify/report.md")
        if changed := sum(verdict.word == CHANGED for verdict in verdicts):
            print(f"{changed} of them from other code or settings: snakemake carry --config suite={name}")
        found += verdicts
    return int(any(verdict.word == MISMATCH for verdict in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Statistics of published cells computed again from their own updates and episodes: `python -m analysis.recompute DIR`.

What a cell's header states of its updates (KL, trace, errors, counts by outcome), its curves and its final score must
be what comes of the updates and episodes that are published with it. These are in float32, so the two agree to its
precision, and counts exactly.
"""

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from analysis.cells import Suite, load_suite
from analysis.condensed import SCORE, Condensed, summary
from analysis.curves import Floats

NUM_ENVS = "rollout.num_envs"
"""Setting that the score depends on."""
SPREADS = ("kl_cv", "trace_stability", "trace_noise_floor")
"""Statistics that are differences of numbers, or of logarithms, of some 1."""
PRECISION = 1e-6
"""Two statistics agree to this share of what they are made of; float32 has 6e-8."""


def recompute(run: Condensed, total_steps: int, delta_ref: float, num_envs: int) -> Condensed | None:
    """A condensed run with everything that follows from updates and episodes computed from them alone.

    Evaluation and snapshots are kept in full, and wall and processor time follow from nothing. None for a published
    cell of format 2, which has neither updates nor episodes.

    Args:
        run: a condensed run.
        total_steps: budget that its grid spans.
        delta_ref: KL per update, nats, above which it counts in `kl_share_above`.
        num_envs: environments that were stepped together.
    """
    if run.updates is None or run.episodes is None:
        return None
    score = run.episodes.scores(run.updates.env_steps, num_envs)
    progress = replace(run.updates, columns={SCORE: score, **run.updates.columns})
    return replace(run, **summary(progress, total_steps, delta_ref))


def differences(one: Condensed, other: Condensed) -> list[str]:
    """Names of the statistics of two condensed runs that differ by more than float32 explains."""
    if one.env_steps != other.env_steps:
        return ["env_steps"]
    scores = one.curves[SCORE].values
    numbers = {"final_score": (one.final_score, other.final_score, _size(scores))}
    for name, value in one.geometry.items():
        numbers[name] = (value, other.geometry[name], 1.0 if name in SPREADS else 0.0)
    different = [name for name, (a, b, size) in numbers.items() if not _close(a, b, size)]
    different += [name for name in one.counts if one.counts[name] != other.counts[name]]
    for name, curve in one.curves.items():
        again = other.curves[name]
        counted = np.array_equal(curve.measurements, again.measurements) and np.array_equal(curve.steps, again.steps)
        size = PRECISION * _size(curve.values)
        if not (counted and np.allclose(curve.values, again.values, PRECISION, size, equal_nan=True)):
            different.append(f"the curve {name}")
    return different


def check(suite: Suite) -> Mapping[str, list[str] | None]:
    """What differs in every cell of a suite that has a run, by name of the cell; None where it has no updates.

    Of a cell that cannot be read, why.
    """
    found: dict[str, list[str] | None] = {}
    for cell in suite.cells:
        name = cell.name
        if cell.state in ("unreadable", "damaged"):
            found[name] = [cell.reason]
        elif cell.run is not None and not isinstance(cell.settings.get(NUM_ENVS), int):
            found[name] = [f"no setting {NUM_ENVS} among those of its run"]
        elif cell.run is not None:
            again = recompute(cell.run, suite.total_steps, suite.delta_ref, cell.settings[NUM_ENVS])
            found[name] = None if again is None else differences(cell.run, again)
    return found


def _size(values: Floats) -> float:
    """The largest magnitude among the finite values."""
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def _close(one: float | None, other: float | None, size: float) -> bool:
    if one is None or other is None:
        return one is other
    return bool(np.isclose(one, other, PRECISION, PRECISION * size, equal_nan=True))


def main() -> int:
    """Check the suite named on the command line; 1 when a statistic differs, 2 when there is no suite to read."""
    parser = argparse.ArgumentParser(prog="python -m analysis.recompute", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("suite_dir", type=Path, help="results/published/<suite>, or any with a suite.json")
    try:
        found = check(load_suite(parser.parse_args().suite_dir))
    except ValueError as error:
        print(f"recompute: {error}", file=sys.stderr)
        return 2
    different = {name: names for name, names in found.items() if names}
    for name, names in different.items():
        print(f"{name}: {', '.join(names)}")
    without = sum(names is None for names in found.values())
    print(
        f"{len(found)} cells: {len(found) - without - len(different)} agree, {len(different)} differ, "
        f"{without} of format 2, without updates and episodes"
    )
    return int(bool(different))


if __name__ == "__main__":
    sys.exit(main())

"""Scores of MuJoCo tasks on the scale from random actions, 0, to the best published at a million steps, 1."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from analysis.curves import Curve, Floats

TABLE = Path(__file__).with_suffix(".csv")


class Scale(NamedTuple):
    """Where the scale of one task begins and ends."""

    random: float
    reference: float

    def normalise(self, scores: Floats) -> Floats:
        """(score − random) / (reference − random), of the same shape; above 1 beyond the reference."""
        return (scores - self.random) / (self.reference - self.random)

    def area(self, curve: Curve) -> float:
        """Normalised area under a learning curve: the mean over its grid of the normalised score.

        Where no score is reached yet it counts as that of random actions, 0. NaN where a score came out NaN.
        """
        values = np.where(curve.measurements > 0, self.normalise(curve.values), 0.0)
        return float(values.mean())


@cache
def scales() -> dict[str, Scale]:
    """The scale of every task by its id; the sources are in the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["id"]: Scale(float(row["random"]), float(row["reference"])) for row in rows}

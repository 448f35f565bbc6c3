"""Scores of MuJoCo tasks on the scale from random actions, 0, to the best published at a million steps, 1."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from analysis.curves import Floats

TABLE = Path(__file__).with_suffix(".csv")


class Scale(NamedTuple):
    """Where the scale of one task begins and ends."""

    random: float
    reference: float

    def normalise(self, scores: Floats) -> Floats:
        """(score − random) / (reference − random), of the same shape; above 1 beyond the reference."""
        return (scores - self.random) / (self.reference - self.random)


@cache
def scales() -> dict[str, Scale]:
    """The scale of every task by its id; the sources are in the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["id"]: Scale(float(row["random"]), float(row["reference"])) for row in rows}

"""Scores of Atari games on the scale from random actions, 0 %, to a human tester, 100 %, both as published."""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from analysis.curves import Floats

TABLE = Path(__file__).with_suffix(".csv")


class Reference(NamedTuple):
    """Published scores of one game."""

    random: float
    human: float

    def normalise(self, scores: Floats) -> Floats:
        """100 (score − random) / (human − random), in percent, of the same shape."""
        return 100 * (scores - self.random) / (self.human - self.random)


@cache
def reference_scores() -> dict[str, Reference]:
    """The published scores by game, as `env.game` names it; the source is in the table."""
    lines = TABLE.read_text(encoding="utf-8").splitlines()
    rows = csv.DictReader(line for line in lines if not line.startswith("#"))
    return {row["game"]: Reference(float(row["random"]), float(row["human"])) for row in rows}

"""Parts of a grid, for machines that share no disk: part 2/5 of a suite is every fifth cell from the second on."""

import re
from collections.abc import Sequence

from pipeline.suites import Cell


class PartError(ValueError):
    """A part that there cannot be; the message is one line that names the option."""


def portion(cells: Sequence[Cell], part: str) -> list[Cell]:
    """The cells of part K/N, K from 1 to N; all for an empty part. Raises PartError.

    Cells k, k + N, k + 2N, ... in the order of the suite: parts are disjoint, together the suite, and differ by one
    cell at most. As seeds come last in that order, every part has all kinds of cells where N divides the seeds.
    """
    if not part:
        return list(cells)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise PartError(f"--config part={part}: give K/N with K from 1 to N, such as part=2/5 for the second of five")
    return list(cells[int(match[1]) - 1 :: int(match[2])])

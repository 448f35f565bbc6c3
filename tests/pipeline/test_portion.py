"""Parts of a grid."""

import pytest

from pipeline.portion import PartError, portion
from pipeline.suites import load_suite

CELLS = load_suite("mujoco").cells


@pytest.mark.parametrize("parts", [1, 2, 7, len(CELLS) + 1])
def test_parts_are_disjoint_and_together_the_grid(parts: int) -> None:
    found = [portion(CELLS, f"{part}/{parts}") for part in range(1, parts + 1)]
    assert sorted((cell for part in found for cell in part), key=CELLS.index) == list(CELLS)
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_part_has_all_kinds_of_cells_where_it_can() -> None:
    kinds = {(cell.env, cell.variant) for cell in CELLS}
    assert all({(cell.env, cell.variant) for cell in portion(CELLS, f"{k}/10")} == kinds for k in range(1, 11))
    assert portion(CELLS, "") == list(CELLS)


@pytest.mark.parametrize("part", ["0/2", "3/2", "1/0", "2", "1/2/3", "-1/2", "a/b", "1/9999999999", "\u0661/2"])
def test_a_part_that_there_cannot_be_is_refused_in_one_line(part: str) -> None:
    with pytest.raises(PartError, match=f"--config part={part}: give K/N with K from 1 to N"):
        portion(CELLS, part)

"""The tables of the geometry's cost: ratios within a round, and every Fisher matrix and algorithm in them."""

from benchmarks.geometry_cost import fishers, relative, updates
from pipeline.suites import find_algorithms
from tests.settings import CONF


def test_ratios_are_taken_within_a_round() -> None:
    times = {"gradient": [1.0, 2.0, 4.0], "product": [2.0, 2.0, 2.0]}
    assert relative(times, "gradient")["product"] == ["2.00", "1.00 [0.50, 2.00]"]
    assert relative(times, "gradient")["gradient"][1] == "1.00 [1.00, 1.00]"


def test_every_fisher_matrix_is_timed() -> None:
    tasks = [row[0] for row in fishers(batch_size=64, repeats=1)]
    for path in (CONF / "fisher").glob("*.yaml"):
        for what in ("make", "product", "direction"):
            assert any(task.startswith(f"{path.stem}: {what}") for task in tasks), (path.stem, what)


def test_every_algorithm_is_timed_beside_adam_pg() -> None:
    rows = updates(batch_size=64, repeats=1)
    assert rows[0][0] == "adam_pg"
    assert {row[0] for row in rows} == set(find_algorithms())

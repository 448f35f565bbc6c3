import tomllib
from dataclasses import replace
from pathlib import Path

from analysis.cells import Cell, load_suite
from analysis.provenance import cells_hash, stamp
from tests.analysis.synthetic import write_suite

ROOT = Path(__file__).parents[2]


def cells(tmp_path: Path) -> list[Cell]:
    return list(load_suite(write_suite(tmp_path, ["hopper"], ["adam_pg", "npg"], 2, total_steps=20_480)).cells)


def test_the_hash_moves_with_every_cell_and_everything_that_says_what_a_cell_is(tmp_path: Path) -> None:
    some = cells(tmp_path)
    run = some[0].run
    assert run is not None
    changed = [
        some[:-1],
        [replace(some[0], seed=7), *some[1:]],
        [replace(some[0], env="ant"), *some[1:]],
        [replace(some[0], variant="x"), *some[1:]],
        [replace(some[0], state="failed"), *some[1:]],
        [replace(some[0], identity="0" * 64), *some[1:]],
        [replace(some[0], run=replace(run, final_score=1.0)), *some[1:]],
    ]
    assert len({cells_hash(some), *map(cells_hash, changed)}) == 1 + len(changed)


def test_order_place_and_timing_do_not_count(tmp_path: Path) -> None:
    some = cells(tmp_path)
    run = some[0].run
    assert run is not None
    moved = replace(some[0], run_dir="elsewhere", run=replace(run, wall_time=1.0))
    assert cells_hash([*reversed(some[1:]), moved]) == cells_hash(some)


def test_the_stamp_has_the_version_of_the_project(tmp_path: Path) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert stamp([]).startswith(f"FisherBench {version}, cells ")

from pathlib import Path

import pytest

from pipeline.fingerprint import _code, _values, fingerprint
from pipeline.suites import Cell

CELL = Cell("hopper", "trpo", "trpo", 0, ("algorithm=trpo", "env=hopper", "seed=0", "critic=plain"), "results/x")


@pytest.mark.parametrize(
    ("file", "line", "changes"),
    [
        ("algorithms/trpo.py", "step = 2", True),
        ("train.py", "step = 2", True),
        ("conf/algorithm/trpo.yaml", "clip: 0.2", True),
        ("conf/env/hopper.yaml", "gamma: 0.9", True),
        ("conf/config.yaml", "gamma: 0.9", True),
        ("algorithms/critic_plain.py", "step = 2", True),
        ("conf/critic/plain.yaml", "epochs: 2", True),
        ("algorithms/fisher/kfac.py", "step = 2", True),  # the cell chooses no fisher, so any may be its own
        ("algorithms/critic_kfac.py", "step = 2", False),
        ("conf/critic/kfac.yaml", "epochs: 2", False),
        ("algorithms/trpo.py", "# a comment", False),
        ("conf/algorithm/trpo.yaml", "# a comment", False),
        ("algorithms/adam_pg.py", "step = 2", False),
        ("conf/algorithm/adam_pg.yaml", "clip: 0.2", False),
        ("conf/env/halfcheetah.yaml", "gamma: 0.9", False),
        ("conf/suite/quick.yaml", "seeds: 3", False),
        ("pipeline/run_cell.py", "step = 2", False),
        ("tracking/files.py", "step = 2", False),
        ("Snakefile", "# a comment", False),
    ],
)
def test_what_makes_a_finished_cell_out_of_date(repository: Path, file: str, line: str, changes: bool) -> None:
    before = fingerprint(CELL, repository)
    with (repository / file).open("a") as text:
        text.write(f"\n{line}\n")
    _code.cache_clear()  # a process computes each once; here is the next one
    _values.cache_clear()
    assert (fingerprint(CELL, repository) != before) == changes

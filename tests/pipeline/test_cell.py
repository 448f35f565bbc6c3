"""What cells are made of today: identities as train.py records them, and the files behind them."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.cell import Contents, Refused
from pipeline.refusals import describe, refused_by_train, uncomposable
from pipeline.suites import Cell
from tracking.identity import REPOSITORY, changes

OVERRIDES = ("algorithm=trpo", "env=hopper", "seed=0", "total_steps=4096")
CELL = Cell("hopper", "trpo", "trpo", 0, OVERRIDES, "results/x")


@pytest.mark.parametrize(
    ("file", "line", "changed"),
    [
        ("algorithms/trpo.py", "step = 2", "algorithms/trpo.py changed"),
        ("training/loop.py", "step = 2", "training/loop.py changed"),
        ("envs/gym.py", "step = 2", "envs/gym.py changed"),
        ("algorithms/critics/plain.py", "step = 2", "algorithms/critics/plain.py changed"),
        ("algorithms/fisher/metrics/plain.py", "step = 2", "algorithms/fisher/metrics/plain.py changed"),
        ("conf/algorithm/trpo.yaml", "delta: 0.2", "algorithm.delta new"),
        ("conf/env/hopper.yaml", "kwargs: {speed: 0.9}", "env.kwargs.speed new"),
        ("conf/config.yaml", "rollout: {num_envs: 8}", "rollout.num_envs new"),
        ("conf/config.yaml", "threads: 2", "threads new"),
        ("algorithms/fisher/metrics/kfac.py", "step = 2", None),
        ("algorithms/critics/kfac.py", "step = 2", None),
        ("conf/critic/kfac.yaml", "epochs: 2", None),
        ("conf/tracker/files.yaml", "speed: 2", None),
        ("algorithms/trpo.py", "# a comment", None),
        ("conf/algorithm/trpo.yaml", "# a comment", None),
        ("algorithms/adam_pg.py", "step = 2", None),
        ("conf/env/halfcheetah.yaml", "gamma: 0.9", None),
        ("train.py", "step = 2", None),
        ("command/interrupt.py", "step = 2", None),
        ("pipeline/run_cell.py", "step = 2", None),
        ("tracking/files.py", "step = 2", None),
    ],
)
def test_what_makes_a_finished_cell_out_of_date_has_its_name(
    repository: Path, file: str, line: str, changed: str | None
) -> None:
    before = Contents(repository).identity(CELL)
    with (repository / file).open("a") as text:
        text.write(f"\n{line}\n")
    now = Contents(repository).identity(CELL)
    assert changes(before, now) == ([changed] if changed else [])
    assert (now.hash == before.hash) == (changed is None)


def test_seeds_share_everything_but_the_seed(repository: Path) -> None:
    contents = Contents(repository)
    other = Cell("hopper", "trpo", "trpo", 7, (*OVERRIDES[:2], "seed=7", OVERRIDES[3]), "results/y")
    one, two = contents.identity(CELL), contents.identity(other)
    assert changes(one, two) == ["seed 0 -> 7"]
    assert one.hash == Contents(repository).hash(CELL) != two.hash


def test_a_setting_made_from_the_seed_follows_it(repository: Path) -> None:
    with (repository / "conf/env/hopper.yaml").open("a") as text:
        text.write("kwargs: {noise: '${seed}'}\n")
    contents = Contents(repository)
    found = []
    for seed in (0, 1):
        overrides = (*OVERRIDES[:2], f"seed={seed}", OVERRIDES[3])
        identity = contents.identity(Cell("hopper", "trpo", "trpo", seed, overrides, "results/x"))
        found.append(identity.parts["config"]["env.kwargs.noise"])
    assert found == [0, 1]


def test_settings_that_hydra_refuses_are_named_in_place_of_a_hash(repository: Path) -> None:
    contents = Contents(repository)
    for override, message in {"clipp=1": "clipp: no such setting", "critic=plan": "did you mean plain?"}.items():
        wrong = Cell("hopper", "trpo", "trpo", 0, (*OVERRIDES, override), "results/x")
        with pytest.raises(Refused, match=re.escape(message)):
            contents.identity(wrong)
        assert message in contents.hash(wrong)
        assert contents.files([wrong]) == set()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "conf/algorithm/trpo.yaml",
            b"a: [1\n",
            "conf/algorithm/trpo.yaml, line 2: not valid YAML: expected ',' or ']'",
        ),
        ("conf/algorithm/trpo.yaml", b"a: 1\na: 2\n", "conf/algorithm/trpo.yaml, line 2: not valid YAML: found dupl"),
        ("conf/algorithm/trpo.yaml", b"a: \x07\n", "conf/algorithm/trpo.yaml: not valid YAML: special characters"),
        ("conf/env/hopper.yaml", "# größe\n".encode("latin-1"), "conf/env/hopper.yaml: not UTF-8 (byte 4); save it as"),
        ("conf/env/hopper.yaml", b"a: &a [*a]\n", "conf/: settings that nest without end"),
        ("conf/env/hopper.yaml", b"defaults: [nope]\n", "In 'env/hopper': Could not load 'env/nope'."),
        ("algorithms/trpo.py", b"def f(:\n", "algorithms/trpo.py, line 1: not valid Python: "),
        ("algorithms/trpo.py", b"# gr\xf6\n", "is not UTF-8"),
        ("conf/algorithm/trpo.yaml", b"name: tropo\n", "algorithms/tropo.py: there is no such file, and the settings"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(
    repository: Path, file: str, content: bytes, message: str
) -> None:
    (repository / file).write_bytes(content)
    (repository / "conf" / "env" / "._hopper.yaml").write_bytes(b"\xff")  # nobody's
    [(reason, cells)] = uncomposable([CELL], Contents(repository)).items()
    assert message in reason
    assert "\n" not in reason
    assert cells == [CELL]


def test_train_py_is_asked_once_for_all_seeds_of_a_kind(repository: Path) -> None:
    seeds = [Cell("hopper", "trpo", "trpo", k, (*OVERRIDES[:2], f"seed={k}", OVERRIDES[3]), "x") for k in range(3)]
    bad = [replace(cell, variant="bad", overrides=(*cell.overrides, "mode=refuse")) for cell in seeds]
    refused = refused_by_train([*seeds, *bad], Contents(repository))
    assert refused == {"total_steps: 5 is too few": bad}
    assert (repository / "checked").read_text() == "2\n"
    assert describe(refused) == ["refused: bad on hopper (3 cells): total_steps: 5 is too few"]
    assert refused_by_train([], Contents(repository)) == {}
    (repository / "command" / "check.py").write_text("import nothing_of_this_name")
    [reason] = refused_by_train(seeds, Contents(repository))
    assert reason == "settings cannot be checked (ModuleNotFoundError: No module named 'nothing_of_this_name')"


def test_the_files_of_a_cell_are_those_of_its_code_and_its_settings() -> None:
    overrides = ("algorithm=npg", "env=atari", "env.game=pong", "seed=0")
    files = Contents().files([Cell("atari_pong", "npg", "npg", 0, overrides, "results/x")])
    conf = {file for file in files if file.startswith("conf/")}
    names = (
        "config", "algorithm/npg", "critic/adam", "env/atari", "env_algorithm/atari_npg", "env_critic/atari_adam",
        "fisher/exact", "pair/defaults",
    )  # fmt: skip
    assert conf == {f"conf/{name}.yaml" for name in names}
    assert {"training/loop.py", "envs/atari.py", "algorithms/npg.py", "algorithms/fisher/metrics/exact.py"} < files
    assert not {file for file in files if file.startswith(("command/", "tracking/", "pipeline/", "train.py"))}


def test_the_identity_is_the_one_that_train_py_records(tmp_path: Path) -> None:
    overrides = ("algorithm=trpo", "env=inverted_pendulum", "seed=1", "total_steps=2048", "evaluation.episodes=1")
    cell = Cell("inverted_pendulum", "trpo", "trpo", 1, overrides, "elsewhere")
    planned = Contents().hash(cell)

    def train(*more: str) -> int:
        command = [sys.executable, "train.py", *overrides, f"run_dir={tmp_path}", f"identity={planned}", *more]
        return subprocess.run(command, cwd=REPOSITORY, check=False, capture_output=True, timeout=300).returncode

    assert train("algorithm.delta=0.5") == 6
    assert not list(tmp_path.iterdir())
    assert train() == 0
    assert json.loads((tmp_path / "manifest.json").read_text())["identity"]["hash"] == planned

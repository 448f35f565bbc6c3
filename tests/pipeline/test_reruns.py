"""The table in docs/reruns.md, row by row, on a copy of this repository with six cells that were really trained."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tracking.identity import REPOSITORY

SNAKEMAKE = str(Path(sys.executable).with_name("snakemake"))
SUITE = """
envs: [inverted_pendulum, {cartpole: [env=gym, env.id=CartPole-v1]}]
algorithms: [npg, acktr]
variants: {ppo: [algorithm=ppo]}
baseline: npg
delta_ref: 0.02
seeds: [1]
total_steps: 2048
overrides: [evaluation.episodes=1, evaluation.max_steps=100]
"""
CELLS = {(env, variant) for env in ("inverted_pendulum", "cartpole") for variant in ("npg", "ppo", "acktr")}

Edit = Callable[[str], str]


def append(line: str) -> Edit:
    return lambda text: f"{text}\n{line}\n"


def replace(old: str, new: str) -> Edit:
    def edit(text: str) -> str:
        assert text.count(old) == 1, f"{old!r} is there {text.count(old)} times"
        return text.replace(old, new)

    return edit


CODE = append("STEP = 2")
SUITE_FILE = "conf/suite/edited.yaml"
PPO_ON_CARTPOLE = "conf/env_algorithm/gym_ppo.yaml"
EDITS: dict[str, dict[str, Edit]] = {  # row of the table -> file -> edit
    "a comment, a docstring, formatting": {"algorithms/npg.py": append('# a comment\n"""A docstring."""\n\n')},
    "a comment in a YAML file": {"conf/algorithm/npg.yaml": append("# a comment")},
    "documentation": {"README.md": append("more"), "docs/protocol.md": append("more")},
    "a Fisher matrix that no cell uses": {
        "algorithms/fisher/metrics/ekfac.py": CODE,
        "conf/fisher/ekfac.yaml": replace("iterations: 10", "iterations: 11"),
    },
    "games, where no cell plays one": {
        "conf/env_algorithm/atari_ppo.yaml": append("threads: 2"),
        "conf/env/atari.yaml": append("threads: 2"),
        "envs/atari.py": CODE,
    },
    "a setting of saving or watching alone": {
        "conf/config.yaml": replace("interval: 60", "interval: 30"),
        "conf/tracker/wandb.yaml": replace("timeout: 20.0", "timeout: 10.0"),
    },
    "how a run is watched, stopped and reported": {
        "command/watch.py": CODE,
        "command/failures.py": CODE,
        "train.py": CODE,
    },
    "what an error says": {
        "settings.py": replace('must not be negative")', 'must be 0 or above")'),
    },
    "the code of the analysis": {"analysis/curves.py": CODE},
    "`baseline` or `delta_ref` of the suite": {SUITE_FILE: replace("delta_ref: 0.02", "delta_ref: 0.01")},
    "a value of one algorithm": {"conf/algorithm/ppo.yaml": replace("\nepochs: 10", "\nepochs: 5")},
    "the code of one algorithm": {"algorithms/npg.py": CODE},
    "what one algorithm alone imports or chooses": {"algorithms/critics/kfac.py": CODE},
    "a value that some algorithms start from": {"conf/pair/defaults.yaml": replace("delta: 0.02", "delta: 0.03")},
    "a value of one algorithm on one environment alone": {PPO_ON_CARTPOLE: replace("0.3", "0.4")},
    "a value of one task": {"conf/env/gym.yaml": replace("gamma: 0.99", "gamma: 0.9")},
    "shared code": {"algorithms/parts/batch.py": CODE},
    "a shared value": {"conf/config.yaml": replace("gae_lambda: 0.97", "gae_lambda: 0.5")},
    "an override of one variant": {SUITE_FILE: replace("[algorithm=ppo]", "[algorithm=ppo, algorithm.clip=0.5]")},
    "a seed added": {SUITE_FILE: replace("seeds: [1]", "seeds: [1, 2]")},
    "an algorithm added": {
        "algorithms/mine.py": lambda _: (REPOSITORY / "algorithms" / "npg.py").read_text(),
        "conf/algorithm/mine.yaml": lambda _: (
            (REPOSITORY / "conf" / "algorithm" / "npg.yaml").read_text().replace("name: npg", "name: mine")
        ),
        SUITE_FILE: replace("[npg, acktr]", "[npg, acktr, mine]"),
    },
}


ALONE = (  # each of another variant than the others
    "a value of one algorithm",
    "the code of one algorithm",
    "what one algorithm alone imports or chooses",
)


def table() -> dict[str, tuple[str, str, bool, str]]:
    """Rows of the table in docs/reruns.md: edit -> file, what trains again, whether it is analysed again, why."""
    rows = [
        [field.strip() for field in line.strip("|").split("|")]
        for line in (REPOSITORY / "docs" / "reruns.md").read_text().splitlines()
        if line.startswith("| ")
    ]
    return {
        edit: (file.strip("`"), trains, {"yes": True, "no": False}[analyses], why.strip("`"))
        for edit, file, trains, analyses, why in rows[1:]
    }


@contextmanager
def edited(root: Path, edits: dict[str, Edit]) -> Iterator[None]:
    """The repository with the edits in it, and without them again, the times of its files included."""
    paths = [root / file for file in edits]
    before = {path: (path.read_text(), path.stat()) for path in paths if path.exists()}
    for path, edit in zip(paths, edits.values(), strict=True):
        path.write_text(edit(path.read_text() if path in before else ""))
    yield
    for path in paths:
        if path in before:
            text, stat = before[path]
            path.write_text(text)
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        else:
            path.unlink()


def snakemake(root: Path, *arguments: str) -> str:
    """What Snakemake says."""
    command = [SNAKEMAKE, *arguments, "--config", "suite=edited"]
    done = subprocess.run(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout
    return done.stdout


def reasons(said: str) -> dict[tuple[str, str, str], str]:
    """Environment, variant and seed of every cell that would train -> why, as Snakemake has it."""
    found = re.findall(
        r"rule train:.*?reason: (.*?)\n +wildcards: suite=edited, env=(\w+), variant=(\w+), seed=(\d+)", said, re.DOTALL
    )
    return {(env, variant, seed): reason for reason, env, variant, seed in found}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("reruns") / "repository"
    others = shutil.ignore_patterns(".*", "__pycache__", "results", "build", "wandb", "tests", "*.egg-info")
    shutil.copytree(REPOSITORY, root, ignore=others)
    (root / SUITE_FILE).write_text(SUITE)
    (root / PPO_ON_CARTPOLE).write_text("# @package _global_\nalgorithm:\n  clip: 0.3\n")
    said = snakemake(root)
    assert len(list(root.glob("results/edited/runs/*/*/seed-1/progress.parquet"))) == len(CELLS), said
    return root


def test_the_table_has_every_edit_and_names_its_files() -> None:
    assert table().keys() == EDITS.keys()
    for edit, (file, *_) in table().items():
        assert file in EDITS[edit], edit


def dry_run(root: Path, *edits: str) -> str:
    """What Snakemake would do after all of the edits, which are undone again."""
    with ExitStack() as stack:
        for edit in edits:
            stack.enter_context(edited(root, EDITS[edit]))
        return snakemake(root, "-n", "--quiet", "host")


@pytest.mark.parametrize("analyses", [False, True])
def test_some_edits_train_nothing_again(trained: Path, analyses: bool) -> None:
    edits = [edit for edit, (_, trains, again, _) in table().items() if trains == "nothing" and again == analyses]
    assert len(edits) == (2 if analyses else 8)
    said = dry_run(trained, *edits)  # together: if none trains anything, each trains nothing
    assert "suite edited: 6 cells, 6 done\n" in said
    assert "out of date" not in said
    assert not reasons(said)
    assert ("rule analyse:" in said) == analyses
    assert ("Nothing to be done" in said) != analyses


@pytest.mark.parametrize(
    "edits",
    [
        # Together, since no cell meets more than one of them.
        list(ALONE),
        *[[edit] for edit, (_, trains, _, _) in table().items() if trains != "nothing" and edit not in ALONE],
    ],
    ids=", ".join,
)
def test_an_edit_trains_again_what_the_table_says_and_why(trained: Path, edits: list[str]) -> None:
    said = dry_run(trained, *edits)
    assert "rule analyse:" in said
    found = reasons(said)
    for edit in edits:
        _, trains, _, why = table()[edit]
        if trains == "the new cells":
            new = {("inverted_pendulum", "mine", "1"), ("cartpole", "mine", "1")}
            cells = new if "algorithm" in edit else {(*cell, "2") for cell in CELLS}
            assert all("Missing output files" in found[cell] for cell in cells)
            assert "out of date" not in said
        else:
            cells = {(*cell, "1") for cell in CELLS if trains == "everything" or {*trains.split(" on ")} <= {*cell}}
            assert cells
            assert why in said
            assert all("Forced execution" in found[cell] or "Params have changed" in found[cell] for cell in cells)
        assert found.keys() >= cells
        found = {cell: reason for cell, reason in found.items() if cell not in cells}
    assert not found

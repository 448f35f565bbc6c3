"""The identity changes with what can shape a result, and with nothing else."""

import json
import math
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from tracking import identity
from tracking.identity import REPOSITORY, CellIdentity, changes, code_hash, difference, identify, source_files, starts

# One of every construct that Pythons have parsed differently, or may.
SAMPLE = '''
"""Module."""
from __future__ import annotations
import os.path as p, sys
from . import x
@p.decorator(1, *sys.argv, key=None, **{"a": 1, **{}})
class A(object, metaclass=type):
    x: int = 0
    "doc of x"
async def f(a, /, b=1, *c, d: "int" = 2, e, **g) -> None:
    """Doc."""
    async with a as h, b:
        await h
    async for i in c:
        yield {k: v async for k, v in i if k}
    return
def g(x):
    global y
    match x:
        case [1, *rest] | {"k": _, **other} if rest:
            return f"a{x!r:>{y}}" f"{y}" "z" f"{x=}" f"{x:}" "" f""
        case A(x=1) | None | -1.5e300 | b"\\x00" as z:
            raise ValueError from None
    try:
        y = (n := 10 ** 30) + 0x1F + 1_000 + 2j + 1e400
    except (OSError, KeyError) as error:
        del y[1:2, ..., ::-1], error
    else:
        assert x is not None, u"\\N{GREEK SMALL LETTER PI}\U0001fae8"
    finally:
        lambda *q, r=1: (r if q else not r) < 2 <= 3 != 4
    while True:
        x @= [*x, *(j for j in x)] ; break
    return [None, "", (), {}, {1}, {**x}]
'''


def test_the_hash_does_not_depend_on_the_version_of_python() -> None:
    # Computed with Python 3.11, 3.12 and 3.13; where one disagrees, published cells would look outdated.
    assert code_hash(SAMPLE) == "eabb53461b2c4b9800e32242bd5330197c7cafe8bf530d5be0b05225f5048fcf"


SOURCE = '''
"""What it does."""

def f(x, y=1):
    """Doc."""
    return g("a", [x, y])  # why
'''


@pytest.mark.parametrize(
    "same",
    [
        'def f(x, y=1):\n    return g("a", [x, y])',
        "def f(x,y = 1):\n\n    return g(\n        u'a',\n        [x, (y),],\n    )\n",
        '"""Other."""\ndef f(x, y=1):\n    "Other."\n    return g("""a""", [x, y])  # other\n"a string alone"',
    ],
)
def test_cosmetics_change_nothing(same: str) -> None:
    assert code_hash(same) == code_hash(SOURCE)


@pytest.mark.parametrize(
    "other",
    [
        'def f(x, y=2):\n    return g("a", [x, y])',
        'def f(x, y=1.0):\n    return g("a", [x, y])',
        'def f(x, y=True):\n    return g("a", [x, y])',
        'def f(x, y=None):\n    return g("a", [x, y])',
        'def f(x, y):\n    return g("a", [x, y])',
        'def f(x, y=1):\n    return g(b"a", [x, y])',
        'def f(x, y=1):\n    return g("", [x, y])',
        'def f(x, y=1):\n    return g("a", [y, x])',
        'def f(x, y=1):\n    return g("a", (x, y))',
        'def f(x, y=1):\n    return g("a", [x, y, None])',
        'def f(x, y=1):\n    return h("a", [x, y])',
        'def f(x, y=1):\n    g("a", [x, y])',
        'def f(x, y=1):\n    return g("a", *[x, y])',
        'def f(x, *, y=1):\n    return g("a", [x, y])',
        '@f\ndef f(x, y=1):\n    return g("a", [x, y])',
    ],
)
def test_every_change_of_meaning_counts(other: str) -> None:
    assert code_hash(other) != code_hash(SOURCE)


@pytest.mark.parametrize("other", ['raise ValueError(f"{x} is wrong")', 'raise ValueError("other", x)'])
def test_what_an_error_says_does_not_count_but_its_kind_does(other: str) -> None:
    one = "def f(x):\n    if x:\n        {}\n    return x"
    said = code_hash(one.format('raise ValueError("wrong")'))
    assert code_hash(one.format(other)) == said
    assert code_hash(one.format(other.replace("Value", "Type"))) != said
    assert code_hash(one.format("raise")) != said


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    files = {
        "training/loop.py": "import numpy\nimport envs.tasks\nfrom tracking.run import Run\nimport algorithms",
        "envs/__init__.py": "",
        "envs/tasks.py": "def make():\n    from envs import wrappers",
        "envs/wrappers.py": "import training.loop",
        "envs/gym.py": "",
        "envs/unused.py": "",
        "algorithms/__init__.py": "import importlib",
        "algorithms/trpo.py": "from algorithms.fisher.solvers import cg\nfrom . import critic as c",
        "algorithms/ppo.py": "",
        "algorithms/critic.py": "from .fisher import trace",
        "algorithms/critics/adam.py": "",
        "algorithms/fisher/__init__.py": "from .. import shared",
        "algorithms/fisher/metrics/exact.py": "",
        "algorithms/fisher/metrics/kfac.py": "",
        "algorithms/fisher/solvers.py": "if True:\n    from ..batch import Batch",
        "algorithms/fisher/trace.py": "",
        "algorithms/batch.py": "",
        "algorithms/shared.py": "",
        "command/watch.py": "import analysis",
        "tracking/run.py": "import analysis",
        "analysis/__init__.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


CONFIG = {
    "seed": 0,
    "total_steps": 1000,
    "algorithm": {"name": "trpo", "delta": 0.02},
    "critic": {"name": "adam"},
    "env": {"kind": "gym"},
    "fisher": {"name": "exact", "preconditioner": None},
    "direction": "natural",
    "device": "cpu",
    "run_dir": "x",
    "threads": 1,
}


def test_the_import_graph_is_followed_from_the_loop_and_what_settings_name(repository: Path) -> None:
    named = {"algorithms/critics/adam.py", "algorithms/fisher/metrics/exact.py", "envs/gym.py"}
    assert source_files(starts(CONFIG), repository) == named | {
        "training/loop.py", "envs/__init__.py", "envs/tasks.py", "envs/wrappers.py", "algorithms/__init__.py",
        "algorithms/trpo.py", "algorithms/critic.py", "algorithms/batch.py", "algorithms/shared.py",
        "algorithms/fisher/__init__.py", "algorithms/fisher/solvers.py", "algorithms/fisher/trace.py",
    }  # fmt: skip
    preconditioned = CONFIG | {"fisher": {"name": "exact", "preconditioner": "kfac"}}
    assert set(starts(preconditioned)) - set(starts(CONFIG)) == {"algorithms/fisher/metrics/kfac.py"}
    assert "algorithms/fisher/metrics/exact.py" not in starts(CONFIG | {"direction": "adam"})


def test_the_graph_of_this_repository_is_what_python_imports() -> None:
    script = (
        "import sys, pathlib, training.loop, algorithms.trpo, algorithms.critics.adam; here = pathlib.Path.cwd()\n"
        "import algorithms.fisher.metrics.exact, envs.gym\n"
        "files = [pathlib.Path(m.__file__) for m in sys.modules.values() if getattr(m, '__file__', None)]\n"
        "print(*(f.relative_to(here) for f in files if f.is_relative_to(here)), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    shapeless = ("command/", "tracking/", "pipeline/", "analysis/")
    ours = [file for file in done.stdout.splitlines() if "site-packages" not in file]  # .venv lies here, too
    imported = {file for file in ours if not file.startswith(shapeless)}
    assert {"training/loop.py", "algorithms/trpo.py", "envs/rollout.py"} < imported
    found = source_files(starts(CONFIG))
    assert imported <= found
    assert not any(file.startswith((*shapeless, "tests/", "algorithms/ppo", "train.py")) for file in found)


def test_what_cannot_shape_a_result_is_left_out(repository: Path) -> None:
    mine = identify(CONFIG | {"device": "cuda:0"}, repository)
    for key in ("run_dir", "identity", "tracker", "suite", "checkpoint", "stop_after", "workers"):
        assert identify({**CONFIG, "device": "cuda", key: {"some": "other"}}, repository).hash == mine.hash
    for file in ("tracking/run.py", "command/watch.py"):
        (repository / file).write_text("import os")
    (repository / "algorithms/ppo.py").write_text("x = 1")
    loop = repository / "training/loop.py"
    loop.write_text('"""Doc."""\n' + loop.read_text() + "  # comment")
    assert identify(CONFIG | {"device": "cuda"}, repository).hash == mine.hash
    assert len(mine.hash) == 64
    assert mine.hash.startswith(mine.short)
    assert len(mine.short) == 12


def test_what_shapes_a_result_changes_the_hash_and_is_named(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = identify(CONFIG, repository)
    changed = identify(
        {**CONFIG, "total_steps": 300, "algorithm": {"name": "trpo", "delta": 0.02, "cg": 10}}, repository
    )
    assert difference(changed, mine) == "algorithm.cg: 10 here, absent there; total_steps: 300 here, 1000 there"
    assert changes(mine, changed) == ["algorithm.cg new", "total_steps 1000 -> 300"]
    assert changes(changed, mine) == ["algorithm.cg gone", "total_steps 300 -> 1000"]
    assert difference(identify({**CONFIG, "threads": 2}, repository), mine) == "threads: 2 here, 1 there"
    assert difference(identify({**CONFIG, "device": "cuda"}, repository), mine) == "device: cuda here, cpu there"

    (repository / "algorithms/trpo.py").write_text("import algorithms.critic")
    (repository / "algorithms/critic.py").write_text("import algorithms.ppo")
    code = identify(CONFIG, repository)
    assert code.hash != mine.hash
    assert difference(code, mine) == (
        "algorithms/batch.py only there; algorithms/critic.py changed; algorithms/fisher/__init__.py only there; "
        "algorithms/fisher/solvers.py only there; algorithms/fisher/trace.py only there; algorithms/ppo.py only here; "
        "and 2 more"
    )
    assert difference(mine, mine) == ""

    monkeypatch.setattr(metadata, "version", lambda package: "9.9")
    assert 'torch: "9.9" here' in difference(identify(CONFIG, repository), mine)


def test_the_build_of_a_package_does_not_count(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "ale-py":
            raise metadata.PackageNotFoundError
        return "2.13.0+cpu"

    monkeypatch.setattr(metadata, "version", version)
    versions = identify(CONFIG, repository).parts["versions"]
    assert versions == {
        "torch": "2.13.0",
        "numpy": "2.13.0",
        "mujoco": "2.13.0",
        "gymnasium": "2.13.0",
        "ale-py": None,
        "opencv-python-headless": "2.13.0",
    }


def test_an_identity_survives_its_record(repository: Path) -> None:
    mine = identify({**CONFIG, "sizes": (64, 64), "rate": 0.1 + 0.2}, repository)
    back = CellIdentity(json.loads(json.dumps(mine.parts)))
    assert back.hash == mine.hash
    assert difference(mine, back) == ""


@pytest.mark.parametrize("value", [math.inf, math.nan, [1.0, math.inf], Path("x")])
def test_settings_that_cannot_be_recorded_are_named(repository: Path, value: object) -> None:
    with pytest.raises(ValueError, match=r"checkpoint\.interval: .* cannot be recorded"):
        identify({**CONFIG, "checkpoint": {"interval": value}}, repository)


def test_the_number_of_listed_differences_is_bounded(repository: Path) -> None:
    mine, theirs = (identify(CONFIG | dict.fromkeys("abcdefghij", n), repository) for n in (0, 1))
    assert difference(mine, theirs).count(" here, ") == identity.NAMED
    assert difference(mine, theirs).endswith("and 4 more")

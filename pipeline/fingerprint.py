"""What a cell would be trained from today: so the pipeline notices finished cells that are out of date."""

import hashlib
import json
from functools import cache
from pathlib import Path

import yaml

from pipeline.suites import Cell
from tracking.identity import REPOSITORY, identify

_FOUND_BY_NAME = {"critic": "algorithms/critic_{}.py", "fisher": "algorithms/fisher/{}.py"}  # beside algorithms
_SHAPELESS_GROUPS = ("suite", "tracker")  # conf/ groups that cannot shape a result


def fingerprint(cell: Cell, root: Path = REPOSITORY) -> str:
    """Hash of the training code, package versions and conf/ values behind a cell, without its overrides.

    A coarse stand-in for the run's identity, which takes torch and Hydra to compute. It may change where the
    identity does not: train.py then finds the finished run and leaves it as it is.
    """
    choices = dict(override.partition("=")[::2] for override in cell.overrides)
    conf = hashlib.sha256()
    for group in (root / "conf", *sorted(path for path in (root / "conf").iterdir() if path.is_dir())):
        if group.name in _SHAPELESS_GROUPS:
            continue
        chosen = group / f"{choices.get(group.name)}.yaml"
        for file in [chosen] if chosen.is_file() else sorted(group.glob("*.yaml")):
            conf.update(f"{file.relative_to(root)} {_values(file)}\n".encode())
    code = [f"algorithms/{cell.algorithm}.py"]
    for kind, pattern in _FOUND_BY_NAME.items():
        names = [choices[kind]] if kind in choices else sorted(p.stem for p in (root / "conf" / kind).glob("*.yaml"))
        code += [pattern.format(name) for name in names if (root / pattern.format(name)).is_file()]
    return f"{_code(tuple(code), root)[:12]}-{conf.hexdigest()[:12]}"


@cache
def _code(files: tuple[str, ...], root: Path) -> str:
    return identify({}, ["train.py", *files], "cpu", root).hash


@cache
def _values(file: Path) -> str:
    return json.dumps(yaml.safe_load(file.read_text(encoding="utf-8")), default=str)

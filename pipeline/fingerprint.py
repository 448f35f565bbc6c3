"""What a cell would be trained from today: so the pipeline notices finished cells that are out of date, and why."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Collection, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipeline.suites import Cell
from tracking.identity import REPOSITORY, SHAPELESS_SETTINGS, identify

_CODE = {  # found by the name in a YAML instead of imported
    "algorithm": "algorithms/{}.py",
    "critic": "algorithms/critic_{}.py",
    "fisher": "algorithms/fisher/{}.py",
}
_SHAPELESS_GROUPS = ("hydra", "suite", "tracker")  # of conf/; hydra's own come with its package
_SHAPELESS_KEYS = SHAPELESS_SETTINGS - {"device"} | {"hydra"}  # of conf/config.yaml; of a device its type counts
Overrides = tuple[str, ...]  # of one cell, all but its seed, which shapes no choice
_UNSET = "$"  # a setting that a file leaves to others, or to its type; no file has this name


def made_from(cell: Cell, root: Path = REPOSITORY) -> dict[str, str]:
    """Everything in the repository and its packages that a cell is trained from, overrides aside: name -> value.

    Three kinds of names: files of code, with a hash that comments and formatting leave as it is; settings, as
    `conf/algorithm/ppo.yaml learning_rate`, of the files in conf/ that the cell uses; packages, with their versions.

    A stand-in for the run's identity that needs neither torch nor Hydra. Where a choice cannot be read off the YAML
    files and overrides, it covers all there is to choose from. So it may change where the identity does not: train.py
    then finds the finished run and leaves it as it is. It never stays where the identity changes.
    """
    return dict(_made_from(tuple(override for override in cell.overrides if not override.startswith("seed=")), root))


@cache
def _made_from(overrides: Overrides, root: Path) -> dict[str, str]:
    files = _conf_files(overrides, root)
    settings = {f"{file} {key}": value for file in files for key, value in _leaves(root / file)}
    set_by_cell = {f"conf/config.yaml {key}" for key in ("seed", *(key for key, _ in _given(overrides)))}
    parts = _identified(tuple(sorted(_code_files(overrides, files, root))), root)
    return {
        **{file: syntax_tree[:8] for file, syntax_tree in parts["code"].items()},
        **{key: value for key, value in settings.items() if key not in set_by_cell},
        **{package: str(version) for package, version in parts["versions"].items()},
    }


def fingerprint(cell: Cell, root: Path = REPOSITORY) -> str:
    """SHA-256 of `made_from`."""
    return hashlib.sha256(json.dumps(made_from(cell, root), sort_keys=True).encode()).hexdigest()


def _conf_files(overrides: Overrides, root: Path) -> list[str]:
    """The files of conf/ that Hydra composes for a cell, by their defaults lists and the overrides of groups in them.

    A group that two files override counts with both choices.
    """
    replaced: dict[str, set[str]] = defaultdict(set)  # by the command line, where it names the whole group
    added: dict[str, set[str]] = defaultdict(set)
    for key, value in _given(overrides):
        group, at, _ = key.lstrip("+").partition("@")
        if (root / "conf" / group).is_dir():
            (added if at or key.startswith("+") else replaced)[group] |= set(_names(yaml.safe_load(value)))
    overridden: dict[str, set[str]] = defaultdict(set)  # by a defaults list
    while True:
        known = {group: frozenset(names) for group, names in overridden.items()}
        found: dict[str, None] = {}
        waiting = ["conf/config.yaml"]
        while waiting:
            file = waiting.pop(0)
            if file in found:
                continue
            found[file] = None
            for is_override, group, names in _defaults(root / file, Path(file).parent.relative_to("conf")):
                if is_override:
                    overridden[group] |= set(names)
                else:
                    chosen = replaced.get(group) or known.get(group) or set(names)
                    waiting += [f"conf/{path}" for path in _choose(group, {*chosen, *added[group]}, root)]
        if known == overridden:
            return sorted(found)


def _choose(group: str, names: Collection[str], root: Path) -> Iterator[str]:
    """The files in conf/ that a group's names stand for; all of the group where one of them is no file."""
    conf = root / "conf"
    paths = [str(Path(group) / f"{name}.yaml") for name in sorted(names)]
    if all((conf / path).is_file() for path in paths):
        yield from paths
    else:
        yield from (str(path.relative_to(conf)) for path in sorted((conf / group).glob("*.yaml")))


def _defaults(file: Path, folder: Path) -> Iterator[tuple[bool, str, list[str]]]:
    """Of every entry in a file's defaults list: whether it overrides a choice made elsewhere, its group, its names."""

    def locate(path: str) -> str:
        return path[1:] if path.startswith("/") else str(folder / path)

    for entry in _read(file).get("defaults", []):
        if isinstance(entry, dict):  # [optional|override] group[@package]: names
            [(key, value)] = entry.items()
            *flags, group = key.split()
            if _can_shape(group):
                yield "override" in flags, locate(group.partition("@")[0]), list(_names(value))
        elif entry != "_self_":  # a file[@package]
            path = Path(locate(entry.partition("@")[0]))
            yield False, str(path.parent), [path.name]


def _can_shape(group: str) -> bool:
    return group.strip("/").split("/")[0] not in _SHAPELESS_GROUPS


def _names(value: Any) -> Iterator[str]:
    if value is not None:
        yield from map(str, value if isinstance(value, list) else [value])


def _code_files(overrides: Overrides, conf_files: Collection[str], root: Path) -> set[str]:
    """Where training starts: what train.py and the classes that the settings choose by name are in."""
    given = dict(_given(overrides))

    def values(group: str, key: str) -> list[Any]:
        """What the setting group.key may be: the override, or what the chosen files of the group say."""
        if f"{group}.{key}" in given:
            return [yaml.safe_load(given[f"{group}.{key}"])]
        return [_read(root / file).get(key, _UNSET) for file in conf_files if Path(file).parent.name == group]

    def code(kind: str, names: list[Any]) -> set[str]:
        files = {_CODE[kind].format(name) for name in names}
        if all((root / file).is_file() for file in files):
            return files
        known = {_CODE[kind].format(path.stem) for path in (root / "conf" / kind).glob("*.yaml")}
        return {file for file in known if (root / file).is_file()}

    files = {"train.py"} | code("algorithm", values("algorithm", "name")) | code("critic", values("critic", "name"))
    direction = yaml.safe_load(given.get("direction", "null")) or _read(root / "conf/config.yaml").get("direction")
    directions = values("algorithm", "direction") if direction == "${algorithm.direction}" else [direction]
    if any(name == "natural" or "$" in str(name) for name in directions):
        preconditioners = [name for name in values("fisher", "preconditioner") if name not in (None, _UNSET)]
        files |= code("fisher", values("fisher", "name") + preconditioners)
    return files


def _given(overrides: Overrides) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, _, value in (override.partition("=") for override in overrides))


@cache
def _leaves(file: Path) -> tuple[tuple[str, str], ...]:
    """Dotted key and JSON of every value in a file that can shape a result."""

    def leaves(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", json.dumps(value, default=str)

    values = dict(_read(file))
    if file.parent.name == "conf":
        values = {key: value for key, value in values.items() if key not in _SHAPELESS_KEYS}
    if "defaults" in values:
        values["defaults"] = [
            e for e in values["defaults"] if isinstance(e, str) or _can_shape(next(iter(e)).split()[-1])
        ]
    return tuple(leaves(values, ""))


@cache
def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


@cache
def _identified(files: tuple[str, ...], root: Path) -> dict[str, Any]:
    return identify({}, files, "cpu", root).parts

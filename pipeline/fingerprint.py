"""What a cell would be trained from today: so the pipeline notices finished cells that are out of date, and why."""

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from pipeline.suites import Cell
from tracking.identity import REPOSITORY, SHAPELESS_SETTINGS, identify

_CODE = {  # found by the name in a YAML instead of imported
    "algorithm": "algorithms/{}.py",
    "critic": "algorithms/critics/{}.py",
    "fisher": "algorithms/fisher/metrics/{}.py",
    "env": "envs/{}.py",
}
_KIND = "gym"  # of a task whose settings name none, as EnvConfig has it
_SHAPELESS_GROUPS = ("hydra", "suite", "tracker")  # of conf/; hydra's own come with its package
_SHAPELESS_KEYS = SHAPELESS_SETTINGS - {"device"} | {"hydra"}  # of conf/config.yaml; of a device its type counts
Overrides = tuple[str, ...]  # of one cell, all but its seed, which shapes no choice
_UNSET = "$"  # a setting that a file leaves to others, or to its type; no file has this name
_PACKAGE = re.compile(r"(?:\s*#\s*@(?!package\b).*\n)*\s*#\s*@package\s+(\S+)")  # of Hydra, at the head of a file
_CHOICE = re.compile(r"\$\{([\w/]+)\}")  # in a defaults list: what another group chose


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
    settings = {f"{file} {key}": value for file in files for key, value in _leaves(file, root)}
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


class _Default(NamedTuple):
    """An entry of a defaults list: [override|optional] group: names."""

    flags: list[str]
    group: str
    names: list[str]


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
    chosen: dict[str, set[str]] = defaultdict(set)
    while True:
        known = {group: frozenset(names) for group, names in overridden.items()}
        others, chosen = chosen, defaultdict(set)
        found: dict[str, None] = {}
        waiting = ["conf/config.yaml"]
        while waiting:
            file = waiting.pop(0)
            if file in found:
                continue
            found[file] = None
            for flags, group, names in _defaults(root / file, Path(file).parent.relative_to("conf")):
                if "override" in flags:
                    overridden[group] |= set(names)
                    continue
                named = {*(replaced.get(group) or known.get(group) or names), *added[group]}
                chosen[group] |= {each for name in named for each in _resolve(name, others)}
                waiting += [f"conf/{path}" for path in _choose(group, chosen[group], "optional" in flags, root)]
        if known == overridden and others == chosen:
            return sorted(found)


def _resolve(name: str, chosen: Mapping[str, Collection[str]]) -> Iterator[str]:
    """The names that a name in a defaults list stands for, by the choices that other groups have."""
    choice = _CHOICE.search(name)
    if choice is None or any("$" in other for other in chosen.get(choice[1], [_UNSET])):
        yield name  # as it is, and with a $ in it no file
    else:
        for other in chosen[choice[1]]:
            yield from _resolve(name.replace(choice[0], other), chosen)


def _choose(group: str, names: Collection[str], optional: bool, root: Path) -> Iterator[str]:
    """The files in conf/ that a group's names stand for; all of the group where one of them is no file.

    Of an optional group a name without a file stands for nothing, unless it is not known what it is.
    """
    conf = root / "conf"
    paths = [Path(group) / f"{name}.yaml" for name in sorted(names)]
    if optional:
        paths = [path for path in paths if "$" in path.name or (conf / path).is_file()]
    if not all((conf / path).is_file() for path in paths):
        paths = [path.relative_to(conf) for path in sorted((conf / group).glob("*.yaml"))]
    yield from map(str, paths)


def _defaults(file: Path, folder: Path) -> Iterator[_Default]:
    """A file's defaults list, of the groups that can shape a result."""

    def locate(path: str) -> str:
        return path[1:] if path.startswith("/") else str(folder / path)

    for entry in _read(file).get("defaults", []):
        if isinstance(entry, dict):  # [optional|override] group[@package]: names
            [(key, value)] = entry.items()
            *flags, group = key.split()
            if _can_shape(group):
                yield _Default(flags, locate(group.partition("@")[0]), list(_names(value)))
        elif entry != "_self_":  # [optional] file[@package]
            *flags, name = entry.split()
            path = Path(locate(name.partition("@")[0]))
            yield _Default(flags, str(path.parent), [path.name])


def _can_shape(group: str) -> bool:
    return group.strip("/").split("/")[0] not in _SHAPELESS_GROUPS


def _names(value: Any) -> Iterator[str]:
    if value is not None:
        yield from map(str, value if isinstance(value, list) else [value])


def _code_files(overrides: Overrides, conf_files: Collection[str], root: Path) -> set[str]:
    """Where training starts: what train.py and the classes that the settings choose by name are in."""
    given = dict(_given(overrides))

    def values(setting: str) -> list[Any]:
        """What a setting may be: the override, or what each file of its group and any other one that has it says."""
        if setting in given:
            return [yaml.safe_load(given[setting])]
        group = Path("conf", *setting.split(".")[:-1])
        found = [(file, _value(file, setting, root)) for file in conf_files]
        return [value for file, value in found if value != _UNSET or Path(file).parent == group]

    def code(kind: str, names: list[Any]) -> set[str]:
        files = {_CODE[kind].format(name) for name in names}
        if all((root / file).is_file() for file in files):
            return files
        known = {_CODE[kind].format(path.stem) for path in (root / "conf" / kind).glob("*.yaml")}
        return {file for file in known if (root / file).is_file()}

    files = {"train.py"} | code("algorithm", values("algorithm.name")) | code("critic", values("critic.name"))
    files |= code("env", [_KIND if kind == _UNSET else kind for kind in values("env.kind")])
    inherited = "${algorithm.direction}"
    directions = [values("algorithm.direction") if name == inherited else [name] for name in values("direction")]
    if any(name == "natural" or "$" in str(name) for names in directions for name in names):
        preconditioners = [name for name in values("fisher.preconditioner") if name not in (None, _UNSET)]
        files |= code("fisher", values("fisher.name") + preconditioners)
    return files


def _given(overrides: Overrides) -> Iterator[tuple[str, str]]:
    return ((key, value) for key, _, value in (override.partition("=") for override in overrides))


@cache
def _leaves(file: str, root: Path) -> tuple[tuple[str, str], ...]:
    """Dotted key and JSON of every value in a file that can shape a result."""

    def leaves(values: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
        for key, value in values.items():
            if isinstance(value, dict) and value:
                yield from leaves(value, f"{prefix}{key}.")
            else:
                yield f"{prefix}{key}", json.dumps(value, default=str)

    values = dict(_read(root / file))
    package = _package(file, root)
    if not package:
        values = {key: value for key, value in values.items() if key not in _SHAPELESS_KEYS}
    if "defaults" in values:
        values["defaults"] = [
            e for e in values["defaults"] if isinstance(e, str) or _can_shape(next(iter(e)).split()[-1])
        ]
    if package != _group(file):
        values["@package"] = package or "_global_"
    return tuple(leaves(values, ""))


def _value(file: str, setting: str, root: Path) -> Any:
    """What a file of conf/ says of a setting; `_UNSET` if it does not."""
    package = _package(file, root)
    keys, above = setting.split("."), package.split(".") if package else []
    if keys[: len(above)] != above:
        return _UNSET
    value: Any = _read(root / file)
    for key in keys[len(above) :]:
        value = value.get(key, _UNSET) if isinstance(value, dict) else _UNSET
    return value


@cache
def _package(file: str, root: Path) -> str:
    """Where the settings of a file of conf/ belong: `env` of conf/env/hopper.yaml, nothing of a global one."""
    header = _PACKAGE.match((root / file).read_text(encoding="utf-8"))
    package = header[1] if header else "_group_"
    return package.replace("_group_", _group(file)).replace("_global_", "").strip(".")


def _group(file: str) -> str:
    return ".".join(Path(file).parent.parts[1:])


@cache
def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


@cache
def _identified(files: tuple[str, ...], root: Path) -> dict[str, Any]:
    return identify({}, files, "cpu", root).parts

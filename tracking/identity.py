"""The identity of a cell: a hash of everything that can shape its result, and of nothing else."""

import ast
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]

# Settings that say where a run goes, how it is watched, stopped, saved or named, and how many processes step its
# environments.
# `device` enters by its type alone. The number of threads stays in: it changes the order of floating-point sums.
SHAPELESS_SETTINGS = frozenset(
    {"run_dir", "identity", "tracker", "suite", "checkpoint", "stop_after", "workers", "device", "algorithm.label"}
)
# Rooms whose code only records or reads what training has computed.
SHAPELESS_ROOMS = frozenset({"command", "tracking", "pipeline", "analysis"})
PACKAGES = ("torch", "numpy", "mujoco", "gymnasium", "ale-py", "opencv-python-headless")
NAMED = 6  # differences a message lists before it counts the rest


@dataclass(frozen=True)
class CellIdentity:
    """What a cell is made of; `parts` has the keys config, code, versions and device, all plain JSON.

    config: dotted setting -> value; code: file -> hash of its syntax tree; versions: package -> version.
    """

    parts: dict[str, Any]

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the parts, 64 hexadecimal digits."""
        return _sha256(json.dumps(self.parts, sort_keys=True, allow_nan=False))

    @property
    def short(self) -> str:
        """The first 12 digits of the hash."""
        return self.hash[:12]


def identify(
    config: Mapping[str, Any],
    root: Path = REPOSITORY,
    code: Mapping[str, str] | None = None,
    versions: Mapping[str, str | None] | None = None,
) -> CellIdentity:
    """Identify the cell that the resolved `config` describes.

    `code` is `code_of(starts(config), root)` and `versions` `package_versions()`, where the caller has them already.
    ValueError names a setting that JSON cannot record.
    """
    settings = dict(_flat(config))
    return CellIdentity(
        {
            "config": {key: settings[key] for key in settings if not {key, key.split(".")[0]} & SHAPELESS_SETTINGS},
            "code": dict(code_of(starts(config), root) if code is None else code),
            "versions": dict(package_versions() if versions is None else versions),
            "device": config["device"].split(":")[0],
        }
    )


def starts(config: Mapping[str, Any]) -> list[str]:
    """The files, relative to the repository, where training starts: the loop, and what settings find by name.

    What these import from the repository is found from there.
    """
    fisher = config["fisher"]
    metrics = [fisher["name"], fisher.get("preconditioner")] if config["direction"] == "natural" else []
    return [
        "training/loop.py",
        f"envs/{config['env']['kind']}.py",
        f"algorithms/{config['algorithm']['name']}.py",
        f"algorithms/critics/{config['critic']['name']}.py",
        *(f"algorithms/fisher/metrics/{name}.py" for name in metrics if name),
    ]


def difference(mine: CellIdentity, theirs: CellIdentity) -> str:
    """Name in one line what differs between an identity here and a recorded one; empty when nothing does."""
    found = [
        f"{name} {'changed' if here and there else 'only here' if here else 'only there'}"
        if name.endswith(".py")
        else f"{name}: {here or 'absent'} here, {there or 'absent'} there"
        for name, here, there in _differing(mine, theirs)
    ]
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return "; ".join(found[:NAMED] + more)


def changes(before: CellIdentity, now: CellIdentity) -> list[str]:
    """What has changed from one identity to another, in words, an entry for each."""
    return [
        f"{name} {'new' if there is None else 'gone' if here is None else 'changed'}"
        if name.endswith(".py") or there is None or here is None
        else f"{name} {there} -> {here}"
        for name, here, there in _differing(now, before)
    ]


def _differing(mine: CellIdentity, theirs: CellIdentity) -> Iterator[tuple[str, str | None, str | None]]:
    """Every name in the parts that has two values: settings and versions as JSON, hashes of code; None: absent."""
    for part in ("config", "versions", "code"):
        here, there = mine.parts[part], theirs.parts[part]
        for name in sorted(here.keys() | there.keys()):
            values = [json.dumps(side[name]) if name in side else None for side in (here, there)]
            if values[0] != values[1]:
                yield name, *values
    if mine.parts["device"] != theirs.parts["device"]:
        yield "device", mine.parts["device"], theirs.parts["device"]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            try:
                yield f"{prefix}{key}", json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise ValueError(
                    f"{prefix}{key}: {value!r} cannot be recorded; give a finite number, text, a bool or null"
                ) from error


def package_versions() -> dict[str, str | None]:
    """The versions that count, by package."""
    return {package: _base_version(package) for package in PACKAGES}


def _base_version(package: str) -> str | None:
    """Version without its build (2.13.0+cpu -> 2.13.0); None when the package is not installed."""
    try:
        return metadata.version(package).split("+")[0]
    except metadata.PackageNotFoundError:
        return None


def code_of(sources: Iterable[str], root: Path = REPOSITORY) -> dict[str, str]:
    """The hash of every file of `source_files`."""
    files = sorted(source_files(sources, root))
    return {file: code_hash((root / file).read_text(encoding="utf-8"), file) for file in files}


def source_files(sources: Iterable[str], root: Path = REPOSITORY) -> set[str]:
    """Collect `sources` and the files of the repository they import, at first or second hand, at any place.

    Found by reading, not by importing. Rooms that cannot shape a result stay out, packages' __init__ are in.
    """
    found: set[str] = set()
    waiting = list(sources)
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for module in _imported_modules((root / file).read_text(encoding="utf-8"), file):
            waiting.extend(_files_of(module, root))
    return found


@cache  # by the text: a process may identify many cells of the same code
def _imported_modules(source: str, file: str) -> tuple[tuple[str, ...], ...]:
    """Dotted names that the module `file` may load; `from x import y` may load x.y as well as x."""
    modules: list[tuple[str, ...]] = []
    package = Path(file).parent.parts
    for node in ast.walk(ast.parse(source, filename=file)):
        if isinstance(node, ast.Import):
            modules += [tuple(alias.name.split(".")) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            base = above + tuple(node.module.split(".") if node.module else ())
            modules += [(*base, alias.name) for alias in node.names]
    return tuple(modules)


def _files_of(module: tuple[str, ...], root: Path) -> Iterator[str]:
    """Files inside `root` that importing a dotted name runs: the packages on the way to it and the module."""
    if not module or module[0] in SHAPELESS_ROOMS:
        return
    for depth in range(1, len(module) + 1):
        name = "/".join(module[:depth])
        yield from (file for file in (f"{name}/__init__.py", f"{name}.py") if (root / file).is_file())


@cache
def code_hash(source: str, filename: str = "<code>") -> str:
    """Hash what a source does: comments, docstrings, formatting, words of errors and the Python do not count."""
    return _sha256(json.dumps(_canonical(ast.parse(source, filename=filename))))


def _canonical(node: Any) -> Any:
    """Write a syntax tree as nested lists: types of nodes, and those of their fields that hold something.

    `ast.dump` would not do: newer Pythons add fields and show empty ones differently.
    """
    match node:
        case ast.Raise(exc=ast.Call(func=kind)):  # what an error says shapes no number
            return ["Raise", _canonical(kind)]
        case ast.JoinedStr(values=parts):  # Python 3.12 leaves empty texts in f-strings
            texts = [part for part in parts if not (isinstance(part, ast.Constant) and part.value == "")]
            return ["JoinedStr", _canonical(texts)]
        case ast.AST():
            names = sorted(set(node._fields) - {"kind", "type_comment"})
            fields = [[name, _canonical(getattr(node, name, None))] for name in names]
            return [type(node).__name__, [field for field in fields if field[1] not in (None, [])]]
        case [*children]:
            return [_canonical(child) for child in children if not _is_void(child)]
        case None:
            return None
    return [type(node).__name__, ascii(node)]


def _is_void(node: Any) -> bool:
    """Whether a node does nothing: a docstring or other string standing alone as a statement."""
    match node:
        case ast.Expr(value=ast.Constant(value=str())):
            return True
    return False


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

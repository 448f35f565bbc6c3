"""Suites: conf/suite/<name>.yaml read, checked and unrolled into cells, one training run each.

    envs: [halfcheetah, {cartpole: [env=gym, env.id=CartPole-v1]}]  # conf/env/<name>.yaml; name: overrides
    algorithms: all              # every algorithm found, or a list of names
    variants:                    # beside or instead of `algorithms`; name: overrides
      npg_fixed: [algorithm=npg, step_rule=lr]
    seeds: 2                     # 0 .. n-1, or a list
    total_steps: 150000          # environment steps per run
    delta_ref: 0.02              # KL per step drawn in figures and used for shares
    baseline: adam_pg            # the variant that gains are measured against
    overrides: [evaluation.episodes=10]   # for every cell

    search: {...}                # beside or instead of them: variants drawn from a space (pipeline/search.py)

    suites: [mujoco, atari-1m]   # instead of all that: other suites, one after the other

`NAME@cuda` is the suite NAME on a GPU: `device=cuda` for every cell, and results of its own beside those of NAME.
Names are text, whatever they look like: a variant `0.10` is not `0.1`. Nothing here imports torch: a mistake in a suite
shows before anything is computed.
`python -m pipeline.suites NAME` prints the cells.
"""

import difflib
import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from command.names import check_name, is_hidden
from pipeline.search import SearchError, configurations
from pipeline.suite_file import SuiteError, read_suite_file
from tracking.identity import REPOSITORY

_KEYS = ("envs", "algorithms", "variants", "seeds", "total_steps", "delta_ref", "baseline", "overrides", "search")
_OVERRIDE = re.compile(r"\+{0,2}([A-Za-z_][\w./@]*)=.*", re.DOTALL)
_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_OF_THE_CELL = ("env", "algorithm", "seed", "total_steps", "run_dir", "identity")  # what the pipeline itself sets
_LABEL = "algorithm.label="
_RESOLVER = re.compile(r"\$\{[^}]*:")

MOST_CELLS = 20_000
MOST_SHOWN = 200  # characters of a value that a message repeats
LARGEST = 2**63 - 1  # whole numbers are written to tables as 64 bits
RUN_DIR = "results/{suite}/runs/{env}/{variant}/seed-{seed}"


@dataclass(frozen=True)
class Cell:
    """One training run of a suite. `overrides` are the arguments of train.py, all but `run_dir`."""

    env: str
    variant: str
    algorithm: str
    seed: int
    overrides: tuple[str, ...]
    run_dir: str  # relative to the repository root


@dataclass(frozen=True)
class Suite:
    """A grid of cells and how the analysis reads it."""

    name: str
    baseline: str
    delta_ref: float
    total_steps: int
    cells: tuple[Cell, ...]
    exceptions: Mapping[str, tuple[str, ...]]  # environment -> settings that runs have on it alone, the task's aside
    configurations: Mapping[str, tuple[str, ...]]  # variant that a search drew -> its overrides; none without a search
    labels: Mapping[str, str] = field(default_factory=dict)  # variant -> its display name, `algorithm.label`

    def describe(self) -> dict[str, Any]:
        """What suite.json holds: everything the analysis needs, nothing that only training reads."""
        cells = [{k: v for k, v in asdict(cell).items() if k != "overrides"} for cell in self.cells]
        return {
            "suite": self.name,
            "baseline": self.baseline,
            "delta_ref": self.delta_ref,
            "total_steps": self.total_steps,
            "exceptions": {env: list(settings) for env, settings in self.exceptions.items()},
            **({"configurations": {k: list(v) for k, v in self.configurations.items()}} if self.configurations else {}),
            **({"labels": dict(self.labels)} if self.labels else {}),
            "cells": cells,
        }


def load_suites(name: str, root: Path = REPOSITORY) -> tuple[Suite, ...]:
    """The suites that `name` stands for: those that it lists, or the one that it is. Raises SuiteError."""
    grid, at, device = name.partition("@")
    path = _path(grid, root)
    try:
        settings = read_suite_file(path) if path.is_file() else {}
        listed = _listed(settings)
    except SuiteError as error:
        raise SuiteError(f"suite {name}: {error}") from None
    if not listed:
        return (load_suite(name, root),)
    return tuple(load_suite(f"{suite}{at}{device}", root) for suite in listed)


def load_suite(name: str, root: Path = REPOSITORY) -> Suite:
    """Read and check the suite `name`, NAME or NAME@DEVICE, of the repository at `root`. Raises SuiteError."""
    suites = _stems(root / "conf" / "suite")
    grid, at, device = name.partition("@")
    path = _path(grid, root)
    if grid not in suites:
        raise SuiteError(f"suite {name}: unknown; {_offer(grid, suites)}")
    if at and not _DEVICE.fullmatch(device):
        raise SuiteError(f"suite {name}: unknown device {device!r}; {grid}@cuda trains {grid} on a GPU")
    try:
        settings = read_suite_file(path)
        if listed := _listed(settings):
            raise SuiteError(f"made of other suites; name one of {', '.join(listed)}")
        return _unroll(name, settings, [f"device={device}"] if at else [], root)
    except SuiteError as error:
        raise SuiteError(f"suite {name}: {error}") from None


def _path(grid: str, root: Path) -> Path:
    """The file of a suite. Raises SuiteError for what can be no name, before it is part of a path."""
    _check_name("suite", grid)
    return root / "conf" / "suite" / f"{grid}.yaml"


def _listed(settings: Mapping[str, Any]) -> list[str]:
    """The suites that a suite is made of; none of a grid."""
    listed = settings.get("suites", [])
    if "suites" in settings and (not isinstance(listed, list) or not listed or len(settings) > 1):
        raise SuiteError("suites: must be a list and the only key, such as [mujoco, atari-1m]")
    if repeated := _repeated(listed):
        raise SuiteError(f"suites: {repeated[0]} is listed twice; list every suite once")
    for suite in listed:
        _check_name("suites", suite)
    return list(listed)


def find_algorithms(root: Path = REPOSITORY) -> list[str]:
    """Names of all algorithms: those with both conf/algorithm/<name>.yaml and algorithms/<name>.py."""
    return sorted(_stems(root / "conf" / "algorithm") & _stems(root / "algorithms", ".py"))


def device_of(overrides: Iterable[str]) -> str:
    """The device that overrides of a run choose: the last one wins."""
    devices = [override.partition("=")[2] for override in overrides if override.startswith("device=")]
    return devices[-1] if devices else "cpu"


def _unroll(name: str, settings: Mapping[str, Any], device: list[str], root: Path) -> Suite:
    for key in settings:
        if key not in _KEYS:
            raise SuiteError(f"{key}: unknown key; {_offer(str(key), _KEYS)}")
    envs = _envs(settings.get("envs"), root)
    drawn = _drawn(settings["search"], root) if "search" in settings else {}
    variants = _variants(settings.get("algorithms"), settings.get("variants"), drawn, root)
    seeds = _seeds(settings.get("seeds"))
    total_steps = settings.get("total_steps")
    if not _is_int(total_steps) or not 1 <= total_steps <= LARGEST:
        raise SuiteError(f"total_steps: {_shown(total_steps)} is not a positive integer, such as 150000")
    delta_ref = settings.get("delta_ref", 0.02)
    if not (_is_int(delta_ref) or isinstance(delta_ref, float)) or not 0 < delta_ref < float("inf"):
        raise SuiteError(f"delta_ref: {_shown(delta_ref)} is not a positive number, such as 0.02")
    baseline = settings.get("baseline", next(iter(drawn), "adam_pg"))  # no gains are computed of a search
    if not isinstance(baseline, str) or baseline not in variants:
        raise SuiteError(f"baseline: no variant {_shown(baseline)} in this suite; {_offer(str(baseline), variants)}")
    if (count := len(envs) * len(variants) * len(seeds)) > MOST_CELLS:
        raise SuiteError(
            f"{len(envs)} envs x {len(variants)} variants x {len(seeds)} seeds are {count:,} cells, above the limit of "
            f"{MOST_CELLS:,}; make several suites of them"
        )
    common = [*_overrides("overrides", settings.get("overrides", []), chosen=None), *device]

    # The more specific override comes later, and the last one wins: suite, environment, variant.
    cells = tuple(
        Cell(
            env=env,
            variant=variant,
            algorithm=algorithm,
            seed=seed,
            overrides=(
                f"algorithm={algorithm}",
                f"env={env_conf}",
                f"seed={seed}",
                f"total_steps={total_steps}",
                *common,
                *env_overrides,
                *variant_overrides,
            ),
            run_dir=RUN_DIR.format(suite=name, env=env, variant=variant, seed=seed),
        )
        for env, (env_conf, env_overrides) in envs.items()
        for variant, (algorithm, variant_overrides) in variants.items()
        for seed in seeds
    )
    exceptions = {
        env: own
        for env, (_, overrides) in envs.items()
        if (own := tuple(override for override in overrides if not override.lstrip("+").startswith("env.")))
    }
    configurations = {variant: tuple(overrides) for variant, overrides in drawn.items()}
    labels = _labels(variants, root)
    return Suite(name, baseline, float(delta_ref), total_steps, cells, exceptions, configurations, labels)


def _labels(variants: Mapping[str, tuple[str, list[str]]], root: Path) -> dict[str, str]:
    """Display names: of an algorithm the one in its file, of a variant the one among its overrides."""
    labels = {}
    for variant, (algorithm, overrides) in variants.items():
        own = [override.partition("=")[2] for override in overrides if override.lstrip("+").startswith(_LABEL)]
        if not own and variant == algorithm:
            own = [_label_in(root / "conf" / "algorithm" / f"{algorithm}.yaml")]
        if own and isinstance(own[-1], str) and (label := own[-1].strip("'\"")):
            labels[variant] = label
    return labels


def _label_in(path: Path) -> Any:
    """The label in an algorithm's file; empty where it has none or is no mapping, which composing it will say."""
    try:
        return read_suite_file(path).get("label", "")
    except SuiteError:
        return ""


def _drawn(search: Any, root: Path) -> dict[str, list[str]]:
    """The configurations of a search. Raises SuiteError."""
    try:
        return configurations(search, lambda name: read_suite_file(_path(name, root)).get("search"))
    except (SearchError, OSError) as error:
        raise SuiteError(str(error)) from error


def _envs(entries: Any, root: Path) -> dict[str, tuple[str, list[str]]]:
    """Name in paths -> (name of conf/env/<name>.yaml, further overrides)."""
    if not entries:
        raise SuiteError("envs: no environment is listed; list at least one, such as [halfcheetah]")
    if not isinstance(entries, list):
        raise SuiteError(f"envs: {_shown(entries)} is not a list, such as [halfcheetah, hopper]")
    known = _stems(root / "conf" / "env")
    envs: dict[str, tuple[str, list[str]]] = {}
    for entry in entries:
        for name, overrides in entry.items() if isinstance(entry, dict) else [(entry, [f"env={entry}"])]:
            _check_name("envs", name)
            if name in envs:
                raise SuiteError(f"envs: {name} is listed twice; list every environment once")
            conf, *further = _overrides(f"envs: {name}", overrides, chosen="env")
            if conf not in known:
                raise SuiteError(f"envs: unknown environment {conf!r}; {_offer(conf, known)}")
            envs[name] = (conf, further)
    return envs


def _variants(
    algorithms: Any, variants: Any, drawn: Mapping[str, list[str]], root: Path
) -> dict[str, tuple[str, list[str]]]:
    """Name of the variant -> (algorithm, further overrides)."""
    known = find_algorithms(root)
    names = known if algorithms == "all" else algorithms or []
    if not isinstance(names, list):
        raise SuiteError(f"algorithms: {_shown(algorithms)} is neither `all` nor a list, such as [adam_pg, trpo]")
    if not isinstance(variants or {}, dict):
        raise SuiteError(f"variants: {_shown(variants)} is not a mapping from names to lists of overrides")
    found: dict[str, tuple[str, list[str]]] = {}
    entries = [("algorithms", name, [f"algorithm={name}"]) for name in names]
    entries += [("variants", name, overrides) for name, overrides in (variants or {}).items()]
    entries += [("search", name, overrides) for name, overrides in drawn.items()]
    for setting, name, overrides in entries:
        _check_name(setting, name)
        if name in found:
            raise SuiteError(f"{setting}: {name} names two variants; give every variant a name of its own")
        algorithm, *further = _overrides(f"{setting}: {name}", overrides, chosen="algorithm")
        if algorithm not in known:
            raise SuiteError(
                f"{setting}: unknown algorithm {algorithm!r}, which takes conf/algorithm/{algorithm}.yaml"
                f" and algorithms/{algorithm}.py; {_offer(algorithm, known)}"
            )
        found[name] = (algorithm, further)
    if not found:
        raise SuiteError("algorithms: no algorithm or variant is listed; list at least one, or write `all`")
    return found


def _seeds(entry: Any) -> list[int]:
    if _is_int(entry) and entry > MOST_CELLS:
        raise SuiteError(f"seeds: {_shown(entry)} of them are above the limit of {MOST_CELLS:,} cells")
    seeds = list(range(entry)) if _is_int(entry) and entry > 0 else entry
    if entry in (None, 0) or seeds == []:
        raise SuiteError("seeds: no seed is listed; give a number of seeds, such as 5, or a list")
    if not isinstance(seeds, list) or not all(_is_int(seed) for seed in seeds):
        raise SuiteError(f"seeds: {_shown(entry)} is neither a positive integer nor a list of integers")
    for seed in seeds:
        if seed < 0:
            raise SuiteError(f"seeds: {_shown(seed)} is negative; seeds are 0 or above")
        if seed > LARGEST:
            raise SuiteError(f"seeds: {_shown(seed)} is too large; seeds go up to {LARGEST}")
    if repeated := _repeated(seeds):
        raise SuiteError(f"seeds: {repeated[0]} is listed twice; list every seed once")
    return seeds


def _repeated(entries: Sequence[Any]) -> list[str]:
    """The entries that are listed more than once, as text."""
    return [entry for entry, count in Counter(map(str, entries)).items() if count > 1]


def _overrides(setting: str, entries: Any, chosen: str | None) -> list[str]:
    """Check a list of overrides; with `chosen`, put the value of that one required key first."""
    if not isinstance(entries, list):
        raise SuiteError(f"{setting}: {_shown(entries)} is not a list of overrides, such as [key=value]")
    values, further = [], []
    for entry in entries:
        match = _OVERRIDE.fullmatch(entry) if isinstance(entry, str) else None
        if match is None:
            raise SuiteError(f"{setting}: {_shown(entry)} is not an override of the form key=value")
        if "hydra" in re.split(r"[./@:]", match[1]):
            raise SuiteError(f"{setting}: {entry}: how Hydra itself runs is not for a suite to set; remove it here")
        if _RESOLVER.search(entry):
            raise SuiteError(
                f"{setting}: {entry}: a suite asks nothing of the machine it runs on; write the value, or ${{setting}}"
            )
        if match[1] == chosen:
            values.append(entry.partition("=")[2])
        elif match[1] in _OF_THE_CELL:
            raise SuiteError(f"{setting}: {entry}: the suite sets `{match[1]}` for each cell; remove it here")
        else:
            further.append(entry)
    if chosen and len(values) != 1:
        raise SuiteError(f"{setting}: {len(values) or 'no'} `{chosen}=` in its overrides; give exactly one")
    return values + further


def _check_name(setting: str, name: Any) -> None:
    try:
        check_name(setting, name)
    except ValueError as error:
        raise SuiteError(str(error)) from None


def _shown(value: Any) -> str:
    """A value as it stands in a message, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        text = "a huge number"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def _is_int(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool)


def _stems(directory: Path, suffix: str = ".yaml") -> set[str]:
    return {path.stem for path in directory.glob(f"*{suffix}") if not is_hidden(path.name)}


def _offer(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1)
    listed = f"there are: {', '.join(names) or 'none'}"
    return f"did you mean {close[0]}? ({listed})" if close else listed


def main(arguments: Sequence[str]) -> None:
    """Print suite.json of the suite named by the one argument."""
    if len(arguments) != 1:
        sys.exit("usage: python -m pipeline.suites NAME")
    try:
        suite = load_suite(arguments[0])
    except SuiteError as error:
        sys.exit(str(error))
    print(json.dumps(suite.describe(), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])

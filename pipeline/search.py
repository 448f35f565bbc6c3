"""A search for settings as part of a suite: configurations drawn at random from a stated space, equally many each.

    search:
      configurations: 16        # of every algorithm; number 0 is its defaults
      draws: 0                  # seed of the draws
      spaces:
        npg:
          algorithm.batch_size: [1024, 2048, 4096]
          step:                 # several settings at once: lists of overrides
            - [step_rule=normalised, algorithm.delta=0.02]
            - [step_rule=lr, algorithm.learning_rate=0.1]

    search:                     # or all of a space, which need not be of one algorithm's own
      configurations: all
      spaces:
        gradient_kl:
          pair: [[algorithm=npg, direction=gradient, step_rule=kl]]
          algorithm.delta: [0.01, 0.02]

    search:                     # or of another suite, those that are tried for longer
      of: tuning
      configurations: {npg: [0, 7, 9, 12]}

A configuration is the variant `npg-7`. Draws come from a hash and not from a generator, so they are the same everywhere
and a setting that is added moves no other.
"""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

Overrides = list[str]


class SearchError(ValueError):
    """A search that cannot be drawn; the message is one line that names the setting."""


def configurations(search: Any, load: Callable[[str], Any]) -> dict[str, Overrides]:
    """The variants of a suite's `search`: name -> overrides, the algorithm first.

    Args:
        search: what the suite's file has under that key.
        load: gives the `search` of another suite.

    Raises:
        SearchError: it is not as above, or the space holds fewer configurations than are asked for.
    """
    if not isinstance(search, dict):
        raise SearchError(f"search: {search!r} is no mapping; it needs configurations, draws and spaces")
    if "of" in search:
        _require(search, {"of", "configurations"})
        return _chosen(search["of"], search["configurations"], load)
    spaces = search.get("spaces")
    if not isinstance(spaces, dict) or not spaces:
        raise SearchError("search: spaces: must be a mapping from algorithms to their settings")
    if search.get("configurations") == "all":
        _require(search, {"configurations", "spaces"})
        points = {str(name): _product(_space(str(name), space)) for name, space in spaces.items()}
    else:
        _require(search, {"configurations", "draws", "spaces"})
        number, seed = search["configurations"], search["draws"]
        for key, value, least in (("configurations", number, 1), ("draws", seed, 0)):
            if type(value) is not int or value < least:
                raise SearchError(f"search: {key}: {value!r} is no integer of at least {least}")
        points = {
            str(name): _drawn(str(name), _space(str(name), space), number, seed) for name, space in spaces.items()
        }
    return {
        f"{name}-{i}": overrides if _names_algorithm(overrides) else [f"algorithm={name}", *overrides]
        for name, found in points.items()
        for i, overrides in enumerate(found)
    }


def _names_algorithm(overrides: Overrides) -> bool:
    return any(override.startswith("algorithm=") for override in overrides)


def _product(space: Mapping[str, Sequence[Overrides]]) -> list[Overrides]:
    """Every combination, the last setting varying fastest."""
    return [[override for part in point for override in part] for point in product(*space.values())]


def _chosen(suite: Any, chosen: Any, load: Callable[[str], Any]) -> dict[str, Overrides]:
    whole = load(str(suite))
    if not isinstance(whole, dict) or "of" in whole:
        raise SearchError(f"search: of: suite {suite} draws no configurations")
    drawn = configurations(whole, load)
    if not isinstance(chosen, dict) or not all(isinstance(numbers, list) for numbers in chosen.values()):
        raise SearchError("search: configurations: must be a mapping such as {npg: [0, 7]}")
    names = [f"{algorithm}-{number}" for algorithm, numbers in chosen.items() for number in numbers]
    for name in names:
        if name not in drawn:
            raise SearchError(f"search: configurations: {suite} has no {name}; there are {', '.join(drawn)}")
        if names.count(name) > 1:
            raise SearchError(f"search: configurations: {name} is listed twice; list it once")
    return {name: drawn[name] for name in names}


def _space(algorithm: str, space: Any) -> dict[str, list[Overrides]]:
    """Setting -> the overrides that each of its values stands for."""
    if not isinstance(space, dict) or not all(isinstance(values, list) and values for values in space.values()):
        raise SearchError(f"search: spaces: {algorithm}: must be a mapping from settings to lists of values")
    found: dict[str, list[Overrides]] = {}
    for setting, values in space.items():
        found[str(setting)] = [list(map(str, v)) if isinstance(v, list) else [f"{setting}={_text(v)}"] for v in values]
    return found


def _drawn(algorithm: str, space: Mapping[str, Sequence[Overrides]], number: int, seed: int) -> list[Overrides]:
    """The defaults, then draws that differ from one another."""
    size = math.prod(map(len, space.values()))
    if size < number - 1:
        raise SearchError(f"search: spaces: {algorithm}: has {size} configurations, too few for {number - 1} draws")
    drawn: list[Overrides] = [[]]
    attempt = 0
    while len(drawn) < number:
        point = [_pick(values, f"{seed}/{algorithm}/{attempt}/{setting}") for setting, values in space.items()]
        overrides = [override for part in point for override in part]
        if overrides not in drawn:
            drawn.append(overrides)
        attempt += 1
    return drawn


def _pick(values: Sequence[Overrides], key: str) -> Overrides:
    return values[int.from_bytes(hashlib.sha256(key.encode()).digest()) % len(values)]


def _text(value: Any) -> str:
    """As an override has it; YAML's own words for null and bools."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _require(search: Mapping[str, Any], keys: set[str]) -> None:
    if search.keys() != keys:
        raise SearchError(f"search: has the keys {', '.join(map(str, search))}; it needs {', '.join(sorted(keys))}")

"""The YAML of conf/suite/<name>.yaml: bounded in size, no key twice, and names as the text that they are."""

from pathlib import Path
from typing import Any

import yaml

_NAMES = ("envs", "algorithms", "variants", "baseline", "suites")  # keys whose scalars are names

MOST_BYTES = 1_000_000  # of a suite's file
MOST_NODES = 100_000  # of its YAML, with every alias written out


class SuiteError(ValueError):
    """A suite that cannot be run; the message is one line that names the setting."""


class _Names(yaml.SafeLoader):
    """Leaves scalars as the text that they are, but for null."""


_Names.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.endswith((":null", ":merge"))]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read_suite_file(path: Path) -> dict[str, Any]:
    """The mapping in a suite's file: names as text, numbers as numbers. Raises SuiteError, also for a repeated key."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise SuiteError(f"{path} is larger than {MOST_BYTES:,} bytes, the limit of a suite")
        text = path.read_text(encoding="utf-8")
        _check_nodes(yaml.compose(text, Loader=yaml.SafeLoader), path)
        typed, names = yaml.safe_load(text), yaml.load(text, Loader=_Names)
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise SuiteError(f"{path}: cannot be read ({error.strerror})") from None
    except RecursionError:
        raise SuiteError(f"{path}: nested too deeply") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise SuiteError(f"line {line} of {path}: not valid YAML: {error.problem}") from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, SuiteError):
            raise
        raise SuiteError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if typed is None:
        raise SuiteError(f"{path} is empty; it needs envs, algorithms, seeds and total_steps")
    if not isinstance(typed, dict):
        raise SuiteError(f"{path} holds no mapping; it needs envs, algorithms, seeds and total_steps")
    return {key: names[key] if key in _NAMES else value for key, value in typed.items()}


def _check_nodes(root: yaml.Node | None, path: Path) -> None:
    """Raise SuiteError for a key that is there twice, and for aliases that refer to themselves or multiply."""
    sizes: dict[int, int | None] = {}  # of every node, with its aliases written out; None: not known yet

    def size(node: yaml.Node, where: str) -> int:
        if id(node) in sizes:
            known = sizes[id(node)]
            if known is None:
                raise SuiteError(f"{path}: {where}an alias refers to what it is part of")
            return known
        sizes[id(node)], total, seen = None, 1, set()
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                name = str(key.value) if isinstance(key, yaml.ScalarNode) else ""
                if name in seen:
                    raise SuiteError(f"{where}{name} is listed twice; give every name once")
                seen.add(name)
                total += size(key, where) + size(value, f"{where}{name}: ")
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(item, where) for item in node.value)
        if total > MOST_NODES:
            raise SuiteError(f"{path}: {where}above {MOST_NODES:,} entries, aliases written out; write fewer")
        sizes[id(node)] = total
        return total

    if root is not None:
        size(root, "")

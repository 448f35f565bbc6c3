"""The update rules, one file each, and what they share. An algorithm is a file here and a YAML in `conf/algorithm/`."""

import inspect
from importlib import import_module

from algorithms.algorithm import Algorithm


def load(name: str) -> type[Algorithm]:
    """The `Algorithm` defined in `algorithms/<name>.py`. Only that file is imported.

    Raises:
        ValueError: the file is missing, or defines none or several algorithms.
    """
    try:
        module = import_module(f"algorithms.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"algorithms.{name}":
            raise
        raise ValueError(
            f"algorithm={name}: there is no algorithms/{name}.py beside conf/algorithm/{name}.yaml"
        ) from None
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, Algorithm) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        raise ValueError(f"algorithm={name}: algorithms/{name}.py must define one Algorithm, it defines {len(found)}")
    return found[0]

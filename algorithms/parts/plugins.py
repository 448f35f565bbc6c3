"""Classes found by the name of their file: a new one is a file, and no registry has to hear of it."""

import inspect
from importlib import import_module
from typing import Any


def load(setting: str, name: str, base: type[Any], module: str) -> type[Any]:
    """The subclass of `base` that the module defines. Only that module is imported.

    Args:
        setting: the setting that chooses it.
        name: its value.
        base: what it must be.
        module: dotted name of the module.

    Raises:
        ValueError: the file is missing, or defines none or several.
    """
    file = f"{module.replace('.', '/')}.py"
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module:
            raise
        raise ValueError(f"{setting}={name}: there is no {file}") from None
    classes = [
        value
        for value in vars(found).values()
        if inspect.isclass(value) and issubclass(value, base) and value is not base and value.__module__ == module
    ]
    if len(classes) != 1:
        raise ValueError(f"{setting}={name}: {file} must define one {base.__name__}, it defines {len(classes)}")
    return classes[0]

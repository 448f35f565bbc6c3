"""Classes found by the name of their file: a new one is a file, and no registry has to hear of it."""

import inspect
from importlib import import_module
from typing import Any


def load(kind: str, name: str, base: type[Any], module: str) -> type[Any]:
    """The subclass of `base` that the module defines. Only that module is imported.

    Args:
        kind: the setting that chooses it, and its folder in `conf/`.
        name: its name there.
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
        raise ValueError(f"{kind}={name}: there is no {file} beside conf/{kind}/{name}.yaml") from None
    classes = [
        value
        for value in vars(found).values()
        if inspect.isclass(value) and issubclass(value, base) and value.__module__ == module
    ]
    if len(classes) != 1:
        raise ValueError(f"{kind}={name}: {file} must define one {base.__name__}, it defines {len(classes)}")
    return classes[0]

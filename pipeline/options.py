"""What `snakemake --config KEY=VALUE` may say."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any


class OptionError(ValueError):
    """An option that there is not, or a value it cannot take; the message is one line that names it."""


def read_options(
    given: Mapping[str, Any], defaults: Mapping[str, Any], arguments: Sequence[str] = ()
) -> dict[str, Any]:
    """The values of all options: those given, else their defaults, whose types they must have. Raises OptionError.

    `arguments` are those of --config as they were written: Snakemake makes the number 1.1 of a suite `1.10`.
    """
    options = dict(defaults)
    written = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    for key, value in given.items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OptionError(f"--config {key}: unknown; {hint}there are: {', '.join(sorted(defaults))}")
        wanted = type(defaults[key])
        options[key] = _typed(key, written.get(key, value) if wanted is str else value, wanted)
    return options


def _typed(key: str, value: Any, wanted: type) -> Any:
    if wanted is bool and str(value).lower() in ("true", "false"):  # of these Snakemake knows True and False alone
        return str(value).lower() == "true"
    if type(value) is wanted and value != "":
        return value
    what = {bool: "true or false", int: "a whole number", str: "a name"}[wanted]
    quoted = ", with quotes around it" if wanted is str and value not in (None, "") else ""
    raise OptionError(f"--config {key}={'' if value is None else value}: give {what}{quoted}")

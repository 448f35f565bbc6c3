"""What `snakemake --config KEY=VALUE` may say."""

import difflib
from collections.abc import Mapping
from typing import Any


class OptionError(ValueError):
    """An option that there is not, or a value it cannot take; the message is one line that names it."""


def read_options(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of all options: those given, else their defaults, whose types they must have. Raises OptionError."""
    options = dict(defaults)
    for key, value in given.items():
        if key not in defaults:
            near = difflib.get_close_matches(key, defaults, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise OptionError(f"--config {key}: unknown; {hint}there are: {', '.join(sorted(defaults))}")
        options[key] = _typed(key, value, type(defaults[key]))
    return options


def _typed(key: str, value: Any, wanted: type) -> Any:
    if wanted is bool and str(value).lower() in ("true", "false"):  # of these Snakemake knows True and False alone
        return str(value).lower() == "true"
    if wanted is str or type(value) is wanted:
        return wanted(value)
    raise OptionError(f"--config {key}={value}: give {'true or false' if wanted is bool else 'a whole number'}")

"""What a suite, an environment or a variant may be called: it becomes a directory and stands in tables."""

import re
from typing import Any

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]*")
LONGEST = 100
RESERVED = ("adhoc", "logs", "published")  # folders of results/ with a meaning of their own


def check_name(setting: str, name: Any) -> None:
    """Raise ValueError, in one line that begins with `setting`, unless `name` is text that can be a name."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > LONGEST:
        shown = repr(name)
        if len(shown) > LONGEST:
            shown = f"{shown[:LONGEST]}..., more than {LONGEST} characters,"
        raise ValueError(
            f"{setting}: {shown} is no name for a directory; use letters and digits, and after the first _ . + -"
        )
    if name in RESERVED:
        raise ValueError(f"{setting}: {name} has a meaning of its own in results/; choose another name")


def is_hidden(name: str) -> bool:
    """Whether a file of this name is an editor's or the system's and no file of ours, as `.#a.yaml` and `._a.yaml`."""
    return name.startswith((".", "#")) or name.endswith(("~", "#"))

"""Text of other people's files, as far as it may be anything: on one line, printable, of a length that fits a table."""

import unicodedata

LONGEST = 500
"""Characters of a reason that tables and figures show."""


def one_line(text: str) -> str:
    """`text` with every run of spaces, line breaks and unprintable characters as one space, and none at its ends."""
    # C: control, format (as those that turn the direction of writing), surrogates; Z: all kinds of space.
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())


def shortened(text: str, longest: int = LONGEST) -> str:
    """`text` on one line, cut to `longest` characters, the last of which say so."""
    line = one_line(text)
    return line if len(line) <= longest else f"{line[: longest - 4]} ..."

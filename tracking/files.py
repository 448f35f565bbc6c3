"""Files that are either the old one or the new one, whatever happens in between."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

TEMPORARY = ".tmp"


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it takes its place when the block ends, or goes when that raises.

    The file that was there becomes `previous`, if that is given. One writer per path is assumed (a run directory's
    lock sees to it). A kill leaves at most a `*.tmp`, or `previous` alone.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous is not None and path.exists():
            os.replace(path, previous)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_leftovers(directory: Path) -> None:
    """Remove the temporary files a killed writer left in `directory`."""
    for temporary in directory.glob(f"*{TEMPORARY}"):
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as strict JSON: NaN and infinities raise ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the JSON object at `path`; None when there is no file, ValueError when it holds something else."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value

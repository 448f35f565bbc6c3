"""Files that are either the old one or the new one, whatever happens in between, and no other than the one named."""

import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

TEMPORARY = ".tmp"
LARGEST_JSON = 2**26  # bytes
DEEPEST_JSON = 64


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; it takes its place when the block ends, or goes when that raises.

    The file that was there becomes `previous`, if that is given. A symbolic link at `path` is replaced, not followed.
    A kill leaves at most a `*.tmp`, or `previous` alone.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}{TEMPORARY}")
    try:
        # A name that nobody can foresee, and no file that is there already; with the rights that the umask gives.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with open(descriptor, "wb") as file:
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
        remove(temporary)


def remove(path: Path) -> None:
    """Remove a file, if it is there. ValueError when it is a directory."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        if path.is_dir():
            raise ValueError(f"{path}: a directory where a file belongs; remove it") from error
        raise


def open_regular(path: Path, flags: int = os.O_RDONLY) -> BinaryIO:
    """Open a file, by default to read it. ValueError for a directory, pipe or device, which could hang; else OSError.

    Opened for anything but reading, it is made if need be, and a symbolic link is refused as well.
    """
    if flags != os.O_RDONLY:
        flags |= os.O_CREAT | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if path.is_symlink() and flags & os.O_NOFOLLOW:
            raise ValueError(f"{path}: a symbolic link, through which nothing is written; remove it") from error
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: not a regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path}: not a regular file")
    mode = "rb" if flags == os.O_RDONLY else "a+b" if flags & os.O_APPEND else "r+b"
    return cast(BinaryIO, open(descriptor, mode))


def sha256(path: Path) -> str:
    """Digest of a file's bytes. ValueError and OSError as `open_regular`."""
    with open_regular(path) as file:
        return hashlib.file_digest(cast(BufferedReader, file), "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write `value` as strict JSON: NaN and infinities raise ValueError."""
    text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    with replacing(path) as file:
        file.write(text.encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """Read the JSON object at `path`; None when there is no file, ValueError when it holds something else."""
    try:
        with open_regular(path) as file:
            text = file.read(LARGEST_JSON + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error})") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object")
    return value


def parse_json(text: bytes) -> Any:
    """Parse JSON that anybody may have written.

    ValueError for what is no strict JSON, and for what would make trouble later: too large, too deep, a number that is
    infinite or does not fit into a float, text that cannot be encoded.
    """
    if len(text) > LARGEST_JSON:
        raise ValueError(f"more than {LARGEST_JSON:,} bytes")
    try:
        value = json.loads(text.decode())
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    waiting = [(value, 0)]
    while waiting:
        node, depth = waiting.pop()
        if depth > DEEPEST_JSON:
            raise ValueError("nested too deep")
        match node:
            case dict():
                waiting += ((child, depth + 1) for pair in node.items() for child in pair)
            case list():
                waiting += ((child, depth + 1) for child in node)
            case str() if not node.isascii():
                node.encode()  # half of a surrogate pair cannot be written anywhere
            case int() | float() if not _is_finite(node):
                raise ValueError("a number that is not finite")
    return value


def _is_finite(number: float) -> bool:
    try:
        return math.isfinite(number)
    except OverflowError:
        return False

"""Saying things can never fail a run: a terminal that is gone, a pipe nobody reads or a full disk only silences it."""

import os
import sys
from contextlib import suppress
from typing import Any, TextIO


class Unfailing:
    """A text stream that goes on without a word where writing fails; in all else the stream that it wraps."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written; returns the length of the text."""
        try:
            self._stream.write(text)
        except OSError:
            self._silence()
        return len(text)

    def flush(self) -> None:
        """Flush, or go silent."""
        try:
            self._stream.flush()
        except OSError:
            self._silence()

    def _silence(self) -> None:
        """Let whatever follows, and what is buffered, disappear: Python itself flushes once more when it ends."""
        with suppress(OSError, ValueError):  # no file is behind it
            nothing = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nothing, self._stream.fileno())
            os.close(nothing)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def never_fail() -> None:
    """Let no `print`, log line or progress bar of this process raise from here on."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, Unfailing):
            continue
        if stream is None:  # closed by whoever started this process
            stream = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # for as long as the process lives
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # characters that the terminal's encoding lacks
        setattr(sys, name, Unfailing(stream))

"""SIGINT and SIGTERM: no signal is lost, and none cuts an update in two unless a second one follows."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_PR_SET_PDEATHSIG = 1
Handler = Callable[[int, FrameType | None], Any] | int | None


class Interrupted(BaseException):
    """The user or the system asked the run to stop."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


class Interrupt:
    """What a signal does.

    - From `listen` on, while libraries load and nothing is on disk: the process ends at once.
    - While `armed`: it is raised as `Interrupted`. Inside `deferred` the first signal waits for the end of the block.
    - An `Interrupted` that a library swallowed is raised again by the next `deferred` block.

    Attributes:
        signal: the signal received; 0: none.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.signal = 0
        self._is_armed = self._is_deferred = False

    def listen(self) -> None:
        """Take over the signals of this process."""
        self._take_over()

    def _take_over(self) -> list[Handler]:
        return [signal.signal(number, self._receive) for number in self.SIGNALS]

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if not self._is_armed:
            os._exit(128 + number)  # an exception could get lost in whichever import it hits
        is_first, self.signal = not self.signal, self.signal or number
        if not (self._is_deferred and is_first):
            raise Interrupted(number)

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Raise signals as `Interrupted` while a run is open; afterwards they do what they did before."""
        before = self._take_over()
        self._is_armed = True
        try:
            yield
        finally:
            self._is_armed = False
            for number, handler in zip(self.SIGNALS, before, strict=True):
                signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait for the end of the block. Raises `Interrupted` for one that came before or meanwhile."""
        self._is_deferred = True
        try:
            self.check()
            yield
        finally:
            self._is_deferred = False
        self.check()

    def check(self) -> None:
        """Raise `Interrupted` if a signal was received."""
        if self.signal:
            raise Interrupted(self.signal)


def die_with_parent() -> Callable[[], None] | None:
    """What a child does before exec so that it gets SIGTERM when this process dies, however that happens."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def arm() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os.kill(os.getpid(), signal.SIGTERM)

    return arm

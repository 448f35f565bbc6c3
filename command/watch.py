"""What goes along with the updates of a run: signals held back, progress shown."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from command.interrupt import Interrupt


class Watch:
    """Goes along with a run, update by update; use it as a context manager, which ends the progress bar.

    Progress is a bar on a terminal and otherwise a line per tenth of the run, with the return and the divergence of the
    last update and the rate since the line before.

    Args:
        interrupt: the signals of the process.
        label: names the run.
        batch_size: environment steps of an update.
        updates: number of updates of the whole run.
    """

    def __init__(self, interrupt: Interrupt, label: str, batch_size: int, updates: int) -> None:
        self.interrupt, self.label, self.batch_size, self.updates = interrupt, label, batch_size, updates
        self._bar: tqdm | None = None
        self._row: Mapping[str, Any] = {}
        self._line = (0, time.monotonic())  # updates and time at the last line

    @property
    def is_stopping(self) -> bool:
        """Whether a signal waits for the end of the update."""
        return self.interrupt.signal != 0

    @contextmanager
    def update(self, i: int) -> Iterator[None]:
        """Around update number i, from 0: a signal waits for its end, and it counts as done afterwards."""
        if self._bar is None and sys.stderr.isatty():
            size, label = self.batch_size, self.label
            self._bar = tqdm(initial=i * size, total=self.updates * size, desc=label, unit=" steps", unit_scale=True)
        if not self._row:
            self._line = (i, time.monotonic())
        with self.interrupt.deferred():
            yield
        if self._bar is not None:
            self._bar.update(self.batch_size)
        elif (i + 1) * 10 // self.updates > i * 10 // self.updates:
            self._print_line(i + 1)

    def tell(self, row: Mapping[str, Any]) -> None:
        """What an update came to, as `progress.parquet` has it."""
        self._row = row

    def _print_line(self, updates: int) -> None:
        before, then = self._line
        self._line = (updates, time.monotonic())
        done, all_steps = (n * self.batch_size for n in (updates, self.updates))
        rate = (updates - before) * self.batch_size / max(self._line[1] - then, 1e-9)
        names = {"episode_return": "return {:,.1f}", "kl": "KL {:.2g}"}
        known = {name: value for name in names if (value := self._row.get(name)) is not None}
        said = "".join(f", {names[name].format(value)}" for name, value in known.items())
        print(f"{self.label}: {done:,} of {all_steps:,} steps{said}, {rate:,.0f} steps/s", file=sys.stderr, flush=True)

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

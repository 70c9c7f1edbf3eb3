"""How far a long work is, on stderr: one line that updates itself on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from typing import Self

_SILENT_S = 2.0
"""What is done by then needs no progress."""

_TERMINAL_INTERVAL_S, _PLAIN_INTERVAL_S = 0.2, 10.0
"""Between two lines: as fast as one reads figures; in a log that keeps every line, six a minute."""


class Progress:
    """Tells how much of a known total is done, and how long the rest will take at that speed; a context around the work.

    Args:
        what: what is being done.
        total: of whatever is counted.
    """

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._begun = time.monotonic()
        self._next = self._begun + _SILENT_S
        self._terminal = sys.stderr.isatty()
        self._shown = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Leave the line to what comes next."""
        if self._shown and self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def at(self, done: int, note: str = "") -> None:
        """Show it, unless it was shown a moment ago; the note says what came of it so far."""
        now = time.monotonic()
        if now < self._next or not done:
            return
        self._next = now + (_TERMINAL_INTERVAL_S if self._terminal else _PLAIN_INTERVAL_S)
        left_s = round((now - self._begun) * (self._total - done) / done)
        minutes, seconds = divmod(max(left_s, 0), 60)
        line = f"{self._what}: {100 * done // max(self._total, 1)} %, {minutes}:{seconds:02} left{note and ', '}{note}"
        if self._terminal:
            line = f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
        else:
            line += "\n"
        sys.stderr.write(line)
        sys.stderr.flush()
        self._shown = True


class Pace:
    """Keeps a work to so many records a second, counted from its beginning."""

    def __init__(self, records_per_s: float) -> None:
        self._records_per_s = records_per_s
        self._begun = time.monotonic()
        self._done = 0

    async def after(self, records: int) -> None:
        """Wait until that many more may have been done."""
        self._done += records
        await asyncio.sleep(max(0.0, self._begun + self._done / self._records_per_s - time.monotonic()))

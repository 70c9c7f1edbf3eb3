"""How far a download is, on stderr: one line that updates itself on a terminal, a plain line every tenth elsewhere."""

from __future__ import annotations

import sys
import threading
from types import TracebackType
from typing import Self

MEGABYTE = 1_000_000
PLAIN_STEP_PERCENT = 10  # a log that is no terminal keeps every line: ten a download are enough


class Progress:
    """Counts bytes from any number of threads, as a context manager around the work."""

    def __init__(self, what: str, total_bytes: int) -> None:
        self._what = what
        self._total_bytes = max(total_bytes, 1)
        self._done_bytes = 0
        self._shown_percent = -1
        self._lock = threading.Lock()
        self._terminal = sys.stderr.isatty()

    def __enter__(self) -> Self:
        self.advance(0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._terminal:
            sys.stderr.write("\n")

    def advance(self, more_bytes: int) -> None:
        """Counts ``more_bytes`` more; shows them when that says something new."""
        with self._lock:
            self._done_bytes += more_bytes
            # A file that is fetched a second time counts twice: the line may stand at 100 for a while, never above.
            percent = min(100, 100 * self._done_bytes // self._total_bytes)
            if percent == self._shown_percent or (not self._terminal and percent < self._next_plain_percent()):
                return
            self._shown_percent = percent
            total = self._total_bytes / MEGABYTE
            line = f"fetching {self._what}: {percent * total / 100:.1f} of {total:.1f} MB"
            sys.stderr.write(f"\r{line}\x1b[K" if self._terminal else f"{line}\n")
            sys.stderr.flush()

    def _next_plain_percent(self) -> int:
        return self._shown_percent + PLAIN_STEP_PERCENT if self._shown_percent >= 0 else 0

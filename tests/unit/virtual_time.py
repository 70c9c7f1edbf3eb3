"""A loop in which time passes without anybody waiting: a pause is over at once, and the clock stands where it would."""

from __future__ import annotations

import asyncio
import selectors

POLLS_MAX = 100_000
"""Of a loop, more than any test needs: one that never comes to an end fails instead."""


class Clock:
    """Time that passes only when it is told to.

    Attributes:
        now: in seconds.
    """

    def __init__(self) -> None:
        self.now = 1024.0

    def monotonic(self) -> float:
        """In the place of `time.monotonic`."""
        return self.now


class _Selector(selectors.SelectSelector):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self._polls = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._polls += 1
        assert timeout is not None, "everybody waits for what nobody does"
        assert self._polls <= POLLS_MAX, "this never ends"
        self._clock.now += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop over that clock: with nothing to do it puts the clock forward to the next thing that there is."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        super().__init__(_Selector(clock))

    def time(self) -> float:
        """The clock's."""
        return self._clock.now

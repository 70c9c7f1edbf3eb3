"""What the page is told while it is open: figures no more often than they can be made, and the feed's newest events.

Whatever many readers ask alike is computed once. A reader holds only its place in the feed, not a queue of its own: one
that is too slow to take what is written to it is cut off, and nothing piles up for it.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol, TypeVar

import structlog

from consumers.analytics.feed import Feed
from consumers.analytics.periods import Period

TICK_S = 0.25  # how soon a new event shows; the eye does not need more
FIGURES_INTERVAL_S = 1.0  # between two computations of one question; numbers that change faster are not read
FIGURES_SHARE_MAX = 0.25  # of the time that computing one answer may take: ingest has the rest
FIGURES_AGE_MAX_S = 30.0  # conversations become unanswered, and a day ends, without any new event
KEEP_ALIVE_INTERVAL_S = 15.0  # proxies close a stream that is silent for a minute; also how a dead reader is noticed
STOP_INTERVAL_S = 0.05  # a query ends within milliseconds
STOP_TIMEOUT_S = 3.0  # a third of what `docker stop` leaves us
QUESTIONS_MAX = 100  # whose answers are kept: twice the readers there can be, 10 KB each

Read = TypeVar("Read")

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Readings(Protocol):
    """The numbers that analytics keeps. The first three are called in a thread, one at a time; JSON-ready all."""

    def accounts(self) -> list[str]:
        """The accounts that have events, sorted."""
        ...

    def figures(self, account_id: str | None, since: datetime, until: datetime, now: datetime) -> dict[str, Any]:
        """The figures of an account, or of all with None, from `since` on and before `until`."""
        ...

    def counts(self) -> dict[str, Any]:
        """Distinct events per account and webhook field, of all times."""
        ...

    def status(self) -> dict[str, Any]:
        """What only the running process knows: `topic_prefix`, `redeliveries`, `dead_letters`, `is_caught_up`."""
        ...

    def stop(self) -> None:
        """Ends the reading that is under way, if any, with an error; called on the loop."""
        ...


class UnknownAccountError(LookupError):
    """No event of this account is known."""


class UnreadableError(Exception):
    """The figures cannot be computed; the log has the reason."""


@dataclass(frozen=True, slots=True)
class _Answer:
    value: Any
    version: int
    made_at_s: float
    stale_at_s: float


class Figures:
    """Answers of `Readings`, each computed once for all who ask, in a thread, one after the other.

    They are at most a second old, or four times as old as computing them takes.

    Args:
        readings: The numbers.
        feed: Whose version tells that they may have changed.
    """

    def __init__(self, readings: Readings, feed: Feed) -> None:
        self._readings = readings
        self._feed = feed
        self._one = asyncio.Lock()
        self._answers: dict[Hashable, _Answer] = {}
        self._is_stopped = False

    async def accounts(self) -> list[str]:
        """The accounts that have events.

        Raises:
            UnreadableError: They cannot be read.
        """
        return await self._answer("accounts", self._readings.accounts)

    async def counts(self) -> dict[str, Any]:
        """What `/api/counts` answers.

        Raises:
            UnreadableError: They cannot be read.
        """
        return await self._answer("counts", self._readings.counts) | self.status()

    async def text(self, account_id: str | None, period: Period) -> str:
        """The figures as JSON.

        Raises:
            UnknownAccountError: There is no event of this account.
            UnreadableError: They cannot be computed.
        """
        if account_id is not None and account_id not in await self.accounts():
            raise UnknownAccountError
        now = datetime.now(UTC)
        since, until = period.bounds(now)
        end = now if since < now < until else until  # what claims to be from later today is in no chart

        def read() -> str:
            figures = self._readings.figures(account_id, since, end, now)
            return json.dumps(figures | {"period": period.name, "ends_at": until.isoformat()})

        return await self._answer((account_id, period.name, since, until), read)

    def status(self) -> dict[str, Any]:
        """What only the running process knows."""
        return self._readings.status()

    async def stop(self) -> None:
        """Computes nothing any more: a long period of many events must not hold up the end of the process."""
        self._is_stopped = True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                while self._one.locked():  # figures are several queries, and what comes between two of them is lost
                    self._readings.stop()
                    await asyncio.sleep(STOP_INTERVAL_S)

    async def _answer(self, question: Hashable, read: Callable[[], Read]) -> Read:
        clock = asyncio.get_running_loop().time
        async with self._one:
            if self._is_stopped:
                raise UnreadableError
            known = self._answers.get(question)
            if known is None or self._is_due(known, clock()):
                version, begin_s = self._feed.version, clock()
                value = await _in_thread(read)
                end_s = clock()
                pause_s = max(FIGURES_INTERVAL_S, (end_s - begin_s) * (1 / FIGURES_SHARE_MAX - 1))
                known = _Answer(value, version, end_s, end_s + pause_s)
                self._answers.pop(question, None)
                while len(self._answers) >= QUESTIONS_MAX:
                    del self._answers[next(iter(self._answers))]
                self._answers[question] = known
        answer: Read = known.value
        return answer

    def _is_due(self, known: _Answer, now_s: float) -> bool:
        has_changed = known.version != self._feed.version and now_s >= known.stale_at_s
        return has_changed or now_s >= known.made_at_s + FIGURES_AGE_MAX_S


async def _in_thread(read: Callable[[], Read]) -> Read:
    try:
        return await asyncio.to_thread(read)
    except Exception as error:  # noqa: BLE001 - a full disk, a fault of ours: the stream ends, ingest goes on
        # A traceback, or the error's own text, could hold what people wrote.
        log.error("figures_unreadable", reason=type(error).__name__)  # noqa: TRY400 - see above
        raise UnreadableError from None


async def messages(
    figures: Figures, feed: Feed, ending: asyncio.Event, account_id: str | None, period: Period, *, with_text: bool
) -> AsyncIterator[bytes]:
    """Server-sent events until the end: `status`, `accounts`, `figures` and `feed`, at first and when they change.

    Raises:
        UnknownAccountError: There is no event of this account.
        UnreadableError: The figures cannot be computed.
    """
    clock = asyncio.get_running_loop().time
    told: dict[str, str] = {}
    version, told_at_s = 0, clock()
    while not ending.is_set():
        newest = {
            "status": json.dumps(figures.status()),
            "accounts": json.dumps(await figures.accounts()),
            "figures": await figures.text(account_id, period),
        }
        entries = feed.after(version, account_id=account_id, with_text=with_text)
        version = feed.version
        changed = {event: data for event, data in newest.items() if told.get(event) != data}
        told |= changed
        if entries:
            changed["feed"] = json.dumps(entries)
        for event, data in changed.items():
            yield f"event: {event}\ndata: {data}\n\n".encode()
            told_at_s = clock()
        if clock() - told_at_s >= KEEP_ALIVE_INTERVAL_S:
            yield b": still here\n\n"
            told_at_s = clock()
        await asyncio.sleep(TICK_S)

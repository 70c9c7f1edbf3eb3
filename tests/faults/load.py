"""Senders that write to a bridge at a rate, whatever becomes of it, and keep a ledger."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import math
from collections.abc import AsyncIterator, Callable

from tests.faults.ledger import Ledger, Sent
from tests.http.wire import Answer, Connection, post
from tests.kafka.serving import APP_SECRET, message, notification

CONVERSATIONS = 8
PHASE_DEADLINE_S = 90
"""For what a test waits for: seconds, and ten times that on a busy machine."""

_numbers = itertools.count()
"""Of events: no two of one process have the same."""

_RECONNECT_S = 0.05
_POLL_S = 0.02


class Load:
    """Senders, each with a connection of its own: the next delivery leaves when the one before is answered.

    Args:
        port: the bridge's.
        senders: how many; several share a conversation.
        rate: deliveries a second, all senders together; None: as fast as they are answered.
        text: what every message says.
        ledger: to go on with.

    Attributes:
        ledger: what was sent so far.
    """

    def __init__(
        self,
        port: int,
        *,
        senders: int = 16,
        rate: float | None = 200,
        text: str | None = None,
        ledger: Ledger | None = None,
    ) -> None:
        self.ledger = ledger or Ledger()
        self._port = port
        self._senders = senders
        self._rate = rate
        self._text = {} if text is None else {"text": text}
        self._stopping = asyncio.Event()
        self._clock = asyncio.get_running_loop().time

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Send meanwhile; what is in flight at the end gets its answer."""
        tasks = [asyncio.create_task(self._send(number)) for number in range(self._senders)]
        try:
            yield self
        finally:
            self._stopping.set()
            await asyncio.gather(*tasks)

    async def until(self, condition: Callable[[Ledger], bool], what: str) -> None:
        """Wait until the ledger is as wanted."""
        try:
            async with asyncio.timeout(PHASE_DEADLINE_S):
                while not condition(self.ledger):  # noqa: ASYNC110 - the senders write into it
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}: {self.ledger.outcomes}") from None

    async def until_more(self, count: int, outcome: str) -> None:
        """Wait until that many more have this outcome."""
        wanted = self.ledger.outcomes[outcome] + count
        await self.until(lambda ledger: ledger.outcomes[outcome] >= wanted, f"{count} more with {outcome}")

    async def _send(self, sender: int) -> None:
        pace_s = 0.0 if self._rate is None else self._senders / self._rate
        due = self._clock() + pace_s * sender / self._senders
        customer_id = f"customer-{sender % CONVERSATIONS}"
        while not self._stopping.is_set():
            try:
                async with Connection.open(self._port) as connection:
                    while not self._stopping.is_set():
                        await asyncio.sleep(max(0.0, due - self._clock()))
                        due = max(due + pace_s, self._clock())
                        await self._exchange(connection, customer_id)
            except (EOFError, OSError):  # a time-out is an OSError
                await asyncio.sleep(_RECONNECT_S)

    async def _exchange(self, connection: Connection, customer_id: str) -> None:
        mid = f"m{next(_numbers):07}"
        body = notification(message(mid, customer_id=customer_id, **self._text))
        signature = hmac.new(APP_SECRET.encode(), body, hashlib.sha256).hexdigest()
        sent_at = self._clock()
        answer = None
        try:
            await connection.send(post(body, f"sha256={signature}"))
            answer = await connection.answer()
        finally:
            self.ledger.add(self._entry(mid, sent_at, answer))

    def _entry(self, mid: str, sent_at: float, answer: Answer | None) -> Sent:
        if answer is None:
            return Sent(mid, sent_at, math.inf, 0, None)
        return Sent(mid, sent_at, self._clock(), answer.status, answer.headers.get("x-acknowledged-by"))

"""Conversations that go on while something breaks, and what must be true of their topic afterwards.

Each customer sends one message after the other, the next when the one before was answered 200; what is refused is sent
again, as Meta would.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from tests.http.wire import Answer, Connection, post
from tests.kafka.reading import Record
from tests.kafka.serving import ACCOUNT, Serving, message, notification

CUSTOMERS = 6
SIGNED_AT_ONCE = 50  # openssl is started for each batch of signatures; two seconds of a customer's messages
PACE_S = 0.04  # 150 messages a second in all: some in flight at any moment, and CPU left for a broker that starts
RETRY_S = 0.1
PHASE_DEADLINE_S = 60  # a producer finds a restarted broker within seconds; a busy machine takes ten times that


class Load:
    """Customers who write until they are told to stop.

    Attributes:
        answers: how often each (status, acknowledged by) was seen.
        said: of every customer, the mids that were answered 200, in their order.
    """

    def __init__(self, serving: Serving) -> None:
        self._serving = serving
        self._stop = asyncio.Event()
        self.answers: Counter[tuple[int, str | None]] = Counter()
        self.said: dict[str, list[str]] = {f"customer-{number}": [] for number in range(CUSTOMERS)}
        self._tasks = [asyncio.create_task(self._write(customer)) for customer in self.said]

    async def until(self, condition: Callable[[Counter[tuple[int, str | None]]], bool]) -> None:
        """Waits until the answers are as wanted."""
        async with asyncio.timeout(PHASE_DEADLINE_S):
            while not condition(self.answers):
                failed = [task for task in self._tasks if task.done()]
                assert not failed, (failed, self.answers)
                await asyncio.sleep(PACE_S)

    async def until_more(self, count: int, *, by: str = "kafka") -> None:
        """Waits until so many more were answered 200 by this one."""
        wanted = self.answers[200, by] + count
        await self.until(lambda answers: answers[200, by] >= wanted)

    async def stop(self) -> None:
        """Let every customer have the answer to what was sent last."""
        self._stop.set()
        await asyncio.gather(*self._tasks)

    def assert_kept(self, records: Sequence[Record], mid_of: Callable[[Record], str]) -> None:
        """What was answered 200 is there, first copies in order; only what Kafka did not acknowledge is there twice."""
        copies = 0
        for customer, said in self.said.items():
            key = f"{ACCOUNT}:{customer}".encode()
            found = sorted((record for record in records if record.key == key), key=lambda record: record.offset)
            first_copies = list(dict.fromkeys(map(mid_of, found)))
            assert [mid for mid in first_copies if mid in set(said)] == said
            copies += len(found) - len(first_copies)
        assert copies <= self.answers.total() - self.answers[200, "kafka"]

    async def _write(self, customer: str) -> None:
        waiting = self._deliveries(customer)
        mid, delivery = next(waiting)
        while not self._stop.is_set():
            try:
                async with Connection.open(self._serving.port) as connection:
                    while not self._stop.is_set():
                        await connection.send(delivery)
                        answer = await connection.answer()
                        self._count(answer)
                        if answer.status == 200:
                            self.said[customer].append(mid)
                            mid, delivery = next(waiting)
                        await asyncio.sleep(PACE_S if answer.status == 200 else RETRY_S)
            except (EOFError, ConnectionError):
                self.answers[0, None] += 1
                await asyncio.sleep(RETRY_S)

    def _deliveries(self, customer: str) -> Iterator[tuple[str, bytes]]:
        """Message after message, for ever."""
        for first in itertools.count(step=SIGNED_AT_ONCE):
            mids = [f"{number:05}" for number in range(first, first + SIGNED_AT_ONCE)]
            bodies = [notification(message(mid, customer_id=customer)) for mid in mids]
            signatures = self._serving.signatures(bodies)
            yield from zip(mids, map(post, bodies, signatures), strict=True)

    def _count(self, answer: Answer) -> None:
        assert answer.status in (200, 503), answer
        if answer.status == 503:
            assert answer.headers["retry-after"].isdecimal()
        self.answers[answer.status, answer.headers.get("x-acknowledged-by")] += 1

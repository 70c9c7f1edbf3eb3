"""The publisher: one flush in flight, one acknowledgement per flush.

What arrives while a flush is in flight goes with the next, up to 1 MiB: batching follows from load and needs no linger. Read in
aiokafka 0.14 and reproduced (docs/decisions/0002-publisher.md):

- an idempotent producer retries for ever, so the deadline is ours;
- a failed batch has used up its sequence numbers, and every later one to that partition is then refused
  (aiokafka issue 1017), so any failure retires the producer and a new one takes over without a restart;
- a producer left alone may still deliver later, so it is silenced before anybody hears that it failed.

How a flush goes over the wire is `bridge.adapters.produce`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import structlog
from aiokafka import AIOKafkaProducer

from bridge.adapters.produce import Batch, Place, Sender
from bridge.errors import BridgeError, NotAcknowledged, Refused
from bridge.record import Record
from bridge.routing import partition

_log = structlog.get_logger()

_RETIRE_TIMEOUT_S = 1.0
"""For a silenced producer to end its tasks; with the deadline it stays under the five seconds that Meta waits."""

_START_TIMEOUT_S = 10.0
"""For a producer to find its brokers; then it is another try's turn."""

_RETRY_FIRST_S, _RETRY_MAX_S = 0.2, 2.0
"""Back-off between producers, until a flush is acknowledged: quick for a restarted broker, and no burden for one that is away
for an hour, or that is there and refuses everything."""

_FLUSH_BYTES_MAX = 1024 * 1024
"""Of records that are sent together, beyond which the next flush is opened: on their way to the socket they are copied twice, and each
copy is memory. Half as much saved 2 MB more and took a tenth more CPU; twice as much took no less."""

_PARTITION_CACHE_KEYS = 20_000
"""Conversations whose partition is remembered (2 µs in Python); 4 MB, then it starts afresh."""

Settled = Callable[[Refused | None], None]


class Topics(NamedTuple):
    """What the topics have in common: how many partitions, and the largest batch that all of them take."""

    partitions: int
    batch_bytes_max: int


class _Flush:
    """Records that are sent, and acknowledged, together."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.batches: dict[Place, list[Batch]] = {}
        self.bytes = 0
        self.settled: list[Settled] = []

    def settle(self, refused: Refused | None) -> None:
        settled, self.settled = self.settled, []
        for each in settled:
            each(refused)


class KafkaPublisher:
    """Publishes records in order, acknowledged by all in-sync replicas; keeps `bridge.intake.Publisher`.

    Args:
        prepare: checks topics and schemas before a producer is made; raises KafkaError or OSError while somebody is away,
            and a BridgeError for what a person must mend.
        new_producer: makes a producer that is not started: idempotent, acks=all.
        deadline_s: how long records wait for their acknowledgement, from the arrival of a flush's first.

    Attributes:
        rebuilds: producers that were given up.
    """

    def __init__(
        self,
        *,
        prepare: Callable[[], Awaitable[Topics]],
        new_producer: Callable[[], AIOKafkaProducer],
        deadline_s: float,
    ) -> None:
        self._prepare = prepare
        self._new_producer = new_producer
        self._deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._producer: AIOKafkaProducer | None = None
        self._topics = Topics(partitions=1, batch_bytes_max=0)
        self._partition_of: dict[bytes | None, int] = {}  # never has the key that is none
        self._unkeyed = 0
        self._connected = asyncio.Event()
        self._open: deque[_Flush] = deque()  # as many as the intake has deliveries in flight
        self._opened = asyncio.Event()
        self._stopping = asyncio.Event()
        self._retry_s = _RETRY_FIRST_S
        self.rebuilds = 0

    @property
    def ready(self) -> bool:
        """Whether a started producer is there, whose last flush, if any, was acknowledged."""
        return self._connected.is_set()

    async def until_ready(self) -> None:
        """Wait for that."""
        await self._connected.wait()

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """Put records into the last open flush; see `bridge.intake.Publisher`."""
        if not self._connected.is_set():
            settled(NotAcknowledged("no connection to Kafka"))
            return
        if self._open and self._open[-1].bytes < _FLUSH_BYTES_MAX:
            flush = self._open[-1]
        else:
            flush = _Flush(self._loop.time() + self._deadline_s)
            self._open.append(flush)
            self._opened.set()
        batches, partition_of = flush.batches, self._partition_of
        for record in records:
            number = partition_of.get(record.key)
            if number is None:
                number = self._partition(record.key)
            place = (record.topic, number)
            those = batches.get(place)
            if those is None:
                those = batches[place] = [Batch(self._topics.batch_bytes_max)]
            if not those[-1].append(record.content, record.timestamp):
                those.append(Batch(self._topics.batch_bytes_max))
                those[-1].append(record.content, record.timestamp)
            flush.bytes += len(record.content)
        flush.settled.append(settled)

    async def run(self) -> None:
        """Connect, send flushes one at a time, and connect anew after every failure, until `stop`."""
        try:
            while not self._stopping.is_set():
                sender = await self._connect()
                while sender is not None and self._connected.is_set():
                    if self._open:
                        await self._send(sender, self._open.popleft())
                    elif self._stopping.is_set():
                        self._connected.clear()
                    else:
                        self._opened.clear()
                        await self._opened.wait()
                await self._pause()
        finally:
            await self._retire()

    def stop(self) -> None:
        """Let `run` send what is open, close the producer, and end."""
        self._stopping.set()
        self._opened.set()

    async def _connect(self) -> Sender | None:
        """Try once."""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                found = await self._prepare()
                producer = self._producer = self._new_producer()
                await producer.start()
        except Exception as error:  # noqa: BLE001 - aiokafka has more than KafkaErrors: SCRAM's are a ValueError
            # A BridgeError's text is ours and says what to mend; a library's could hold anything.
            what = str(error) if isinstance(error, BridgeError) else type(error).__name__
            _log.warning("kafka_away", error=what, retry_in_s=self._retry_s)
            await self._retire()
            return None
        if found.partitions != self._topics.partitions:
            self._partition_of.clear()
        self._topics = found
        self._connected.set()
        return Sender(producer, round(self._deadline_s * 1000))

    async def _pause(self) -> None:
        """Wait before the next try, longer every time until a flush is acknowledged; not when told to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), self._retry_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter, no secret
        self._retry_s = min(self._retry_s * 2, _RETRY_MAX_S)

    async def _send(self, sender: Sender, flush: _Flush) -> None:
        try:
            async with asyncio.timeout_at(flush.deadline):
                await sender.send(flush.batches)
        except Exception as error:  # noqa: BLE001 - a KafkaError, a time-out, an assertion: aiokafka has all of them
            self._connected.clear()
            self.rebuilds += 1
            _log.error("producer_given_up", error=type(error).__name__)
            await self._retire()
            refused = NotAcknowledged(f"Kafka did not acknowledge in time ({type(error).__name__})")
            following, self._open = self._open, deque()
            flush.settle(refused)
            for each in following:
                each.settle(refused)
        else:
            self._retry_s = _RETRY_FIRST_S
            flush.settle(None)

    async def _retire(self) -> None:
        """Give the producer up, if there is one."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _silence(producer)

    def _partition(self, key: bytes | None) -> int:
        """Kafka's default partitioner, which is remembered; records without a key take turns."""
        if key is None:
            self._unkeyed = (self._unkeyed + 1) % self._topics.partitions
            return self._unkeyed
        if len(self._partition_of) >= _PARTITION_CACHE_KEYS:
            self._partition_of.clear()
        number = self._partition_of[key] = partition(key, self._topics.partitions)
        return number


async def _silence(producer: AIOKafkaProducer) -> None:
    """End a producer at once, and drop what is not with the kernel yet: nothing of its batches is sent later.

    It raises nothing, for who waits has to hear. What a task of the producer's ended with comes out of `stop`: no KafkaError, when
    SCRAM failed; a cancellation.
    """
    try:
        # Their own `close` leaves asyncio to send what is in the buffer, whenever the broker reads again.
        for connection in producer.client._conns.values():  # noqa: SLF001 - aiokafka has no public way to its transports
            if connection._writer is not None:  # noqa: SLF001 - as above
                connection._writer.transport.abort()  # noqa: SLF001 - as above
            connection.close()
        async with asyncio.timeout(_RETIRE_TIMEOUT_S):
            await producer.stop()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see above
        _log.warning("producer_not_closed", error=type(error).__name__)

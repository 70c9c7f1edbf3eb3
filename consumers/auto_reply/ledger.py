"""The ledger in Kafka: one partition of `<prefix>.auto_replies` and the transactional producer that alone may write to it.

Opening a partition fences whoever wrote to it before, and then reads what they wrote. Entries that come while a transaction is
under way share the next one; `write` returns when Kafka has committed it. Any error means that the partition is lost to us:
what was not committed then never will be, or its outcome is unknown, and the next owner reads which.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable, Mapping
from typing import Any

import aiokafka
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndTimestamp

from consumers.auto_reply.entries import Encoder, Entry, decoded
from consumers.auto_reply.memory import Memory
from consumers.decoding import Decoder
from consumers.errors import ConsumerError, UndecodableError

# For entries that nobody waits for, outcomes and skips: long enough for the next intent's transaction to take them along, as
# each costs a process 2 ms of its CPU; short enough that few outcomes are unknown after a crash.
LINGER_S = 0.25
# A batch has to fit the topic's max.message.bytes, which BRIDGE_RECORD_BYTES_MAX sets to 1 MiB.
BATCH_BYTES_MAX = 768 * 1024
# One transaction takes milliseconds. Kafka ends one that is older by itself, and fences us; we have given it up before.
TRANSACTION_TIMEOUT_MS = 30_000
WRITE_DEADLINE_S = 20.0
START_DEADLINE_S = 60.0  # for a producer to fence its predecessor, whose transaction may have to be ended first
READ_IDLE_S = 30.0  # without any progress while the ledger is read: Kafka is away
STOP_DEADLINE_S = 3.0  # for a producer or consumer to close its connections
READ_RECORDS_MAX = 2_000  # 20 ms of decoding, during which nothing else of this process runs

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class LedgerLostError(Exception):
    """A partition of the ledger cannot be written to any more by this process."""


class Ledger:
    """The writing side of one partition.

    Attributes:
        pending: How many entries are not committed yet.

    Args:
        producer: A started transactional producer, of nobody else.
        place: The ledger's topic and the partition.
        encoder: Makes the records' values.
        learn: Gets every entry as it is put in line, which is the ledger's order.
    """

    def __init__(
        self,
        producer: aiokafka.AIOKafkaProducer,
        place: TopicPartition,
        *,
        encoder: Encoder,
        learn: Callable[[Entry], None],
    ) -> None:
        self.pending = 0
        self._producer = producer
        self._place = place
        self._encoder = encoder
        self._learn = learn
        self._line: list[Entry] = []
        self._committed: asyncio.Future[None] = self._new_future()
        self._wanted = asyncio.Event()
        self._urgent = asyncio.Event()
        self._writing = asyncio.create_task(self._write_all())

    def add(self, entry: Entry, *, urgent: bool = False) -> asyncio.Future[None]:
        """Puts an entry in line; the future is done when it is committed, and fails with LedgerLostError when it may not be.

        Args:
            entry: The next one.
            urgent: Whether somebody waits for it.
        """
        self._learn(entry)
        self._line.append(entry)
        self.pending += 1
        self._wanted.set()
        if urgent:
            self._urgent.set()
        if self._writing.done():
            self._fail(self._committed)
        return self._committed

    async def flushed(self) -> None:
        """Returns when all that is in line now is committed.

        Raises:
            LedgerLostError: It may not be.
        """
        self._urgent.set()
        while self.pending and not self._writing.done():
            await asyncio.wait({self._committed, self._writing}, return_when=asyncio.FIRST_COMPLETED)
        if self._writing.done():
            raise LedgerLostError(f"partition {self._place.partition} of the ledger is lost")

    @property
    def is_lost(self) -> bool:
        """Whether nothing can be written any more."""
        return self._writing.done()

    async def close(self) -> None:
        """Ends at once; what is in line is not written."""
        self._writing.cancel()
        await asyncio.wait({self._writing})
        await closed(self._producer.stop)

    async def _write_all(self) -> None:
        line: list[Entry] = []
        committed = self._committed
        try:
            while True:
                await self._wanted.wait()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), LINGER_S)
                line, self._line = self._line, []
                committed, self._committed = self._committed, self._new_future()
                self._wanted.clear()
                self._urgent.clear()
                async with asyncio.timeout(WRITE_DEADLINE_S):
                    await self._transaction(line)
                self.pending -= len(line)
                committed.set_result(None)
        except (KafkaError, TimeoutError) as error:
            log.warning("ledger_lost", partition=self._place.partition, reason=type(error).__name__)
        finally:
            self._fail(committed)
            self._fail(self._committed)

    async def _transaction(self, line: Iterable[Entry]) -> None:
        await self._producer.begin_transaction()
        sent = []
        batch = self._producer.create_batch()
        for entry in line:
            record = {"key": entry.record_key, "value": self._encoder.encode(entry), "timestamp": entry.timestamp_ms}
            if batch.append(**record) is None:
                sent.append(await self._send(batch))
                batch = self._producer.create_batch()
                batch.append(**record)
        sent.append(await self._send(batch))
        for acknowledged in sent:
            await acknowledged
        await self._producer.commit_transaction()

    async def _send(self, batch: Any) -> asyncio.Future[Any]:  # noqa: ANN401 - aiokafka ships no types
        batch.close()
        return await self._producer.send_batch(batch, self._place.topic, partition=self._place.partition)  # type: ignore[no-any-return]  # aiokafka ships no types

    def _fail(self, future: asyncio.Future[None]) -> None:
        if not future.done():
            future.set_exception(LedgerLostError(f"partition {self._place.partition} of the ledger is lost"))

    @staticmethod
    def _new_future() -> asyncio.Future[None]:
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be waiting for it
        return future


async def fence(options: Mapping[str, Any], topic: str, numbers: Iterable[int]) -> dict[int, aiokafka.AIOKafkaProducer]:
    """Starts the producer of each partition, after which no earlier one can commit anything.

    Args:
        options: How aiokafka's clients connect.
        topic: The ledger's.
        numbers: The partitions.

    Raises:
        KafkaError, TimeoutError: Kafka is away, or does not let us.
    """
    producers = {
        number: aiokafka.AIOKafkaProducer(
            **options,
            transactional_id=f"{topic}-{number}",
            transaction_timeout_ms=TRANSACTION_TIMEOUT_MS,
            max_batch_size=BATCH_BYTES_MAX,
        )
        for number in numbers
    }
    starts = [asyncio.create_task(producer.start()) for producer in producers.values()]
    try:
        async with asyncio.timeout(START_DEADLINE_S):
            await asyncio.gather(*starts)
    except BaseException:
        for start in starts:
            start.cancel()
        await asyncio.gather(*(closed(producer.stop) for producer in producers.values()))
        raise
    return producers


async def read(options: Mapping[str, Any], topic: str, memories: Mapping[int, Memory], *, decoder: Decoder) -> None:
    """Reads each partition from its memory's `known_since` to its end. Their producers must have been started.

    Raises:
        KafkaError, TimeoutError: Kafka is away.
        RegistryUnavailableError: A writer's schema cannot be had now.
        ConsumerError: An entry cannot be read: without it nobody can say what was answered.
    """
    if not memories:
        return
    consumer = aiokafka.AIOKafkaConsumer(
        **options,
        isolation_level="read_committed",
        enable_auto_commit=False,
        max_poll_records=READ_RECORDS_MAX,
        # aiokafka looks for a first position by itself, beside our seeking: should it come last, too much is read, never too
        # little (with `latest` it skipped everything, now and then).
        auto_offset_reset="earliest",
    )
    await consumer.start()
    try:
        places = {TopicPartition(topic, number): memory for number, memory in memories.items()}
        consumer.assign(list(places))
        ends: dict[TopicPartition, int] = await consumer.end_offsets(list(places))
        starts: dict[TopicPartition, OffsetAndTimestamp | None] = await consumer.offsets_for_times(
            {place: int(memory.known_since.timestamp() * 1000) for place, memory in places.items()}
        )
        for place in places:
            begin = starts.get(place)
            consumer.seek(place, ends[place] if begin is None else begin.offset)
        left = {place for place in places if await consumer.position(place) < ends[place]}
        while left:
            batch = await asyncio.wait_for(consumer.getmany(*left, timeout_ms=1000), READ_IDLE_S)
            for place, records in batch.items():
                for record in records:
                    places[place].learn(await _entry(decoder, record))
            left = {place for place in left if await consumer.position(place) < ends[place]}
    finally:
        await closed(consumer.stop)


async def _entry(decoder: Decoder, record: aiokafka.ConsumerRecord[bytes, bytes]) -> Entry:
    try:
        return decoded((await decoder.decode(record)).value)
    except (UndecodableError, ValueError, KeyError, TypeError) as error:
        raise ConsumerError(
            f"{record.topic} partition {record.partition} offset {record.offset} is no entry of the ledger "
            f"({type(error).__name__}): is something else writing to this topic? It has to be removed before anything is answered"
        ) from None


async def closed(stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Stops an aiokafka client within a bound: while the broker is away its stop may hang."""
    stopping = asyncio.create_task(stop())
    await asyncio.wait({stopping}, timeout=STOP_DEADLINE_S)
    stopping.cancel()
    with contextlib.suppress(asyncio.CancelledError, KafkaError, Exception):
        await stopping

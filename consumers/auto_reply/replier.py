"""The loop of auto_reply: joins the group, opens what it is given, reads, commits what is decided, gives back in order.

A session is one membership. When anything breaks it (Kafka away, a partition fenced by a newer owner), everything is given
back and the next session begins from what Kafka has: there is one way to begin, and it is the way after a crash.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

import aiokafka
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from consumers.auto_reply import ledger
from consumers.auto_reply.entries import Encoder
from consumers.auto_reply.ledger import Ledger, LedgerLostError, closed
from consumers.auto_reply.memory import Memory
from consumers.auto_reply.partition import Partition
from consumers.auto_reply.tools import Tools
from consumers.dead_letters import DeadLetters
from consumers.decoding import AUTO_REPLIES, Decoder, Event
from consumers.errors import ConsumerError, RegistryUnavailableError, UndecodableError
from consumers.settings import ConsumerSettings
from consumers.tracing import Tracing

WEBHOOK_FIELDS = ("messages", "messaging_postbacks", "messaging_referral")  # what a customer may be answered for

POLL_TIMEOUT_MS = 100  # how long a stop may have to wait for an empty poll
BATCH_RECORDS_MAX = 200  # about 10 ms of decoding, during which nothing else of this process runs
PENDING_ENTRIES_MAX = 4_000  # a replay is decided faster than written: reading waits for writing
COMMIT_INTERVAL_S = 1.0  # what is not committed is read again and recognised
COMMIT_TIMEOUT_S = 10.0  # aiokafka tries for ever
START_TIMEOUT_S = 30.0  # a broker that accepts connections and says nothing
# How long the group waits for a process that was killed. aiokafka sends no heartbeat while partitions are given back, which takes
# up to six seconds (SETTLE_DEADLINE_S, twice).
SESSION_TIMEOUT_MS = 10_000
TALLY_INTERVAL_S = 10.0  # often enough for someone who watches, seldom enough for a log that is kept
RETRY_S_MIN, RETRY_S_MAX = 0.5, 15.0  # between two sessions, doubled each time
UNDECODABLE_IN_A_ROW_MAX = 100  # with no good record between them they are a wrong setting or a wrong topic

_BROKEN = (LedgerLostError, KafkaError, TimeoutError, OSError, RegistryUnavailableError)

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Replier(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """One member of the group.

    Args:
        settings: How to reach Kafka, and the names.
        tools: What the partitions work with.
        looks_back: How far the ledger is read.
        decoder: Of events and of the ledger.
        encoder: Of the ledger.
    """

    def __init__(
        self, settings: ConsumerSettings, tools: Tools, *, looks_back: timedelta, decoder: Decoder, encoder: Encoder
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self._settings = settings
        self._options = settings.kafka_options()
        self._tracing = Tracing(settings.group_id, enabled=settings.tracing)
        self._tools = tools
        self._looks_back = looks_back
        self._decoder = decoder
        self._encoder = encoder
        self._topics = [f"{settings.topic_prefix}.{name}" for name in WEBHOOK_FIELDS]
        self._ledger_topic = f"{settings.topic_prefix}.{AUTO_REPLIES}"
        self._busy = asyncio.Lock()
        self._generation = 0
        self._to_open: set[int] = set()
        self._consumer: aiokafka.AIOKafkaConsumer | None = None
        self._undecodable_in_a_row = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Answers until the event is set, then gives everything back.

        Raises:
            ConsumerError: Kafka cannot be reached at the start, or the topics are not as they must be.
        """
        try:
            await self._check_topics()
        except (KafkaError, TimeoutError, OSError) as error:
            raise ConsumerError(
                f"Kafka cannot be reached at {self._settings.kafka_bootstrap_servers} ({type(error).__name__}): "
                f"is it running, and is {self._settings.variable('kafka_bootstrap_servers')} right?"
            ) from None
        try:
            await self._sessions(stop)
        finally:
            await asyncio.to_thread(self._tracing.close)

    async def _sessions(self, stop: asyncio.Event) -> None:
        retry_s = RETRY_S_MIN
        while not stop.is_set():
            begin = asyncio.get_running_loop().time()
            try:
                await self._session(stop)
            except _BROKEN as error:
                if asyncio.get_running_loop().time() - begin > RETRY_S_MAX:
                    retry_s = RETRY_S_MIN
                log.warning("session_broken", reason=type(error).__name__, next_try_in_s=retry_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Gives back what we have; aiokafka calls it before the group divides the partitions anew."""
        if revoked:
            async with self._busy:
                await self._close_all()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Notes what we have; it is opened by the loop, because no heartbeat is sent in here."""
        self._generation += 1
        self._to_open = {place.partition for place in assigned}

    async def _check_topics(self) -> None:
        """Refuses topics that are missing, or whose partitions do not belong together."""
        admin = AIOKafkaAdminClient(**self._options)
        async with asyncio.timeout(START_TIMEOUT_S):
            try:
                await admin.start()
                described = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
            finally:
                await closed(admin.close)
        wanted = [*self._topics, self._ledger_topic]
        if missing := [topic for topic in wanted if topic not in described]:
            raise ConsumerError(f"missing topics: {', '.join(missing)}: run `bridge topics apply`")
        _refuse_unequal({topic: described[topic] for topic in wanted})

    async def _session(self, stop: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as exits:
            dead_letters = DeadLetters(kafka_options=self._options, group_id=self._settings.group_id)
            exits.push_async_callback(closed, dead_letters.stop)
            self._consumer = consumer = aiokafka.AIOKafkaConsumer(
                **self._options,
                group_id=self._settings.group_id,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                # Equal partition counts are divided alike: partition 7 of every topic, and of the ledger, is one member's.
                partition_assignment_strategy=(RangePartitionAssignor,),
                session_timeout_ms=SESSION_TIMEOUT_MS,
            )
            consumer.subscribe(self._topics, listener=self)
            exits.push_async_callback(closed, consumer.stop)
            exits.push_async_callback(self._close_all)
            async with asyncio.timeout(START_TIMEOUT_S):
                await consumer.start()
            log.info("reading", group_id=self._settings.group_id, topics=len(self._topics))
            await self._read(consumer, dead_letters, stop)

    async def _read(self, consumer: aiokafka.AIOKafkaConsumer, dead_letters: DeadLetters, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        commit_at = tally_at = loop.time()
        while not stop.is_set():
            generation = self._generation
            batch = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=BATCH_RECORDS_MAX)
            async with self._busy:
                if self._to_open:
                    await self._open(consumer)  # and begins to read at what is committed: this batch comes again
                elif generation == self._generation:
                    with self._tracing.handling(record for records in batch.values() for record in records):
                        await self._take(batch, dead_letters)
                if loop.time() >= commit_at:
                    await self._commit(consumer)
                    commit_at = loop.time() + COMMIT_INTERVAL_S
            self._raise_for_lost()
            if loop.time() >= tally_at:
                if tally := self._tools.figures.since_last():
                    log.info("decided", **tally)
                tally_at = loop.time() + TALLY_INTERVAL_S

    async def _open(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """Fences whoever had our partitions, reads what they wrote, and begins to work on them."""
        numbers, self._to_open = self._to_open, set()
        counts = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in self._topics}
        _refuse_unequal(counts)
        begin = asyncio.get_running_loop().time()
        producers = await ledger.fence(self._options, self._ledger_topic, numbers)
        memories = {number: Memory(self._tools.now() - self._looks_back) for number in numbers}
        try:
            await ledger.read(self._options, self._ledger_topic, memories, decoder=self._decoder)
        except BaseException:
            await asyncio.gather(*(closed(producer.stop) for producer in producers.values()))
            raise
        for number, producer in producers.items():
            place, memory = TopicPartition(self._ledger_topic, number), memories[number]
            written = Ledger(producer, place, encoder=self._encoder, learn=memory.learn)
            self.partitions[number] = Partition(memory, written, self._tools)
        await self._begin_at_committed(consumer)
        seconds = round(asyncio.get_running_loop().time() - begin, 2)
        log.info("assigned", partitions=sorted(numbers), ledger_read_s=seconds)

    async def _begin_at_committed(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        """What was fetched before everything was open is read again, and nothing between is passed over."""
        for place in consumer.assignment():
            offset = await consumer.committed(place)
            if offset is None:
                await consumer.seek_to_beginning(place)
            else:
                consumer.seek(place, offset)

    async def _take(
        self, batch: Mapping[TopicPartition, list[ConsumerRecord[bytes, bytes]]], dead_letters: DeadLetters
    ) -> None:
        # All of it is decoded before any of it has an effect: a registry that goes away leaves nothing half done.
        taken: list[tuple[Partition, ConsumerRecord[bytes, bytes], Event | None]] = []
        for place, records in batch.items():
            partition = self.partitions[place.partition]
            taken += [(partition, record, await self._decoded(record, dead_letters)) for record in records]
        for partition, record, event in taken:
            if event is None:
                partition.skip(record.topic, record.offset)
            else:
                partition.take(event)
        for partition in self.partitions.values():
            if partition.ledger.pending > PENDING_ENTRIES_MAX:
                await partition.ledger.flushed()

    async def _decoded(self, record: ConsumerRecord[bytes, bytes], dead_letters: DeadLetters) -> Event | None:
        try:
            event = await self._decoder.decode(record)
        except UndecodableError as error:
            self._undecodable_in_a_row += 1
            if self._undecodable_in_a_row >= UNDECODABLE_IN_A_ROW_MAX:
                raise ConsumerError(
                    f"{self._undecodable_in_a_row} records in a row cannot be decoded, the last one: {error}"
                ) from None
            await dead_letters.publish(record, error)
            self._tools.figures.decided("dead_lettered", error.reason)
            log.error("dead_lettered", record=str(error))  # noqa: TRY400 - the line says it, a traceback no more
            return None
        self._undecodable_in_a_row = 0
        return event

    async def _commit(self, consumer: aiokafka.AIOKafkaConsumer) -> None:
        offsets = {
            TopicPartition(topic, number): offset
            for number, partition in self.partitions.items()
            for topic, progress in partition.progress.items()
            if (offset := progress.to_commit()) is not None
        }
        if not offsets:
            return
        try:
            await asyncio.wait_for(consumer.commit(offsets), COMMIT_TIMEOUT_S)
        except (KafkaError, TimeoutError) as error:
            # The group moved on without us or Kafka is away: whoever reads these next finds them in the ledger.
            log.warning("not_committed", reason=type(error).__name__)
            return
        for place, offset in offsets.items():
            self.partitions[place.partition].progress[place.topic].committed(offset)

    async def _close_all(self) -> None:
        if not self.partitions:
            return
        await asyncio.gather(*(partition.close() for partition in self.partitions.values()))
        if self._consumer is not None:
            await self._commit(self._consumer)
        partitions, self.partitions = self.partitions, {}
        await asyncio.gather(*(partition.ledger.close() for partition in partitions.values()))
        log.info("given_back", partitions=sorted(partitions))

    def _raise_for_lost(self) -> None:
        for number, partition in self.partitions.items():
            if partition.fault is not None:
                raise partition.fault
            if partition.ledger.is_lost:
                raise LedgerLostError(f"partition {number} of the ledger is lost")


def _refuse_unequal(counts: Mapping[str, int]) -> None:
    if len(set(counts.values())) > 1:
        most = max(counts.values())
        named: Iterable[str] = (f"{topic} {count}" for topic, count in counts.items())
        raise ConsumerError(
            f"topics differ in partitions ({', '.join(named)}): nobody could say who answered what; "
            f"run `BRIDGE_TOPIC_PARTITIONS={most} bridge topics apply --break-order`"
        )

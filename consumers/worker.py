"""The loop of a consumer: poll, decode, handle, commit. At least once: an offset is committed when its effect is done.

Records of a partition are handled in order. A record that cannot be decoded goes to `<topic>-dlt`; when the registry
is away the whole batch is read again, later, before anything of it had an effect. Redeliveries and records that are
read again after a crash are the handler's to recognise, by event_id.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from typing import Any

import aiokafka
import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from consumers.dead_letters import DeadLetters
from consumers.decoding import Decoder, Event
from consumers.errors import ConsumerError, RegistryUnavailableError, UndecodableError
from consumers.registry import SchemaRegistry
from consumers.settings import ConsumerSettings
from consumers.tracing import Tracing

POLL_TIMEOUT_MS = 250  # how long a stop may have to wait for an empty poll
BATCH_RECORDS_MAX = 500  # about 20 ms of decoding, during which nothing else of this process runs
METADATA_AGE_MAX_MS = 10_000  # after this long at most a topic that was created later is read too
START_TIMEOUT_S = 30  # a broker that accepts connections and says nothing
COMMIT_TIMEOUT_S = 10  # aiokafka tries for ever; what is not committed is read again
STOP_TIMEOUT_S = 5  # half of what `docker stop` leaves us
REGISTRY_DELAY_MIN_S = 0.5  # between two tries while the registry is away, doubled each time …
REGISTRY_DELAY_MAX_S = 15  # … up to this, well under Kafka's five minutes between two polls
# That many undecodable records with no good one between them are a wrong setting or a wrong topic, not bad records.
UNDECODABLE_IN_A_ROW_MAX = 100

Handler = Callable[[list[Event]], Awaitable[None]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Worker:
    """One member of a consumer group over event topics.

    Attributes:
        dead_letters: How many records it has set aside since it started.

    Args:
        settings: How to reach Kafka and the registry, and the group's name.
        webhook_fields: Whose topics are read; one that is missing at start is read as soon as it exists.
        handle: Gets decoded events, in order within each partition; when it returns, their effect is done.
    """

    def __init__(
        self,
        settings: ConsumerSettings,
        *,
        webhook_fields: Iterable[str],
        handle: Handler,
    ) -> None:
        self._settings = settings
        self._topics = [f"{settings.topic_prefix}.{webhook_field}" for webhook_field in webhook_fields]
        self._handle = handle
        self._registry_delay_s = 0.0
        self._undecodable_in_a_row = 0
        self._busy = asyncio.Lock()
        self._tracing = Tracing(settings.group_id, enabled=settings.tracing)
        self.dead_letters = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Reads until the event is set, then leaves the group.

        Raises:
            ConsumerError: Kafka cannot be reached or refuses us, or a dead letter cannot be set aside.
        """
        async with contextlib.AsyncExitStack() as stack:
            url = self._settings.schema_registry_url
            registry = await stack.enter_async_context(SchemaRegistry(str(url))) if url else None
            decoder = Decoder(topic_prefix=self._settings.topic_prefix, registry=registry)
            options = self._settings.kafka_options()
            dead_letters = DeadLetters(kafka_options=options, group_id=self._settings.group_id)
            stack.push_async_callback(in_time, dead_letters.stop)
            stack.push_async_callback(asyncio.to_thread, self._tracing.close)
            consumer = await self._joined(stack, options)
            try:
                await self._read(consumer, decoder, dead_letters, stop)
            except KafkaError as error:
                raise ConsumerError(f"Kafka refuses this consumer: {type(error).__name__}") from None

    async def _joined(self, stack: contextlib.AsyncExitStack, options: dict[str, Any]) -> aiokafka.AIOKafkaConsumer:
        consumer = aiokafka.AIOKafkaConsumer(
            **options,
            group_id=self._settings.group_id,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # Topics with equal partition counts are then divided alike: a conversation is one member's in all of them.
            partition_assignment_strategy=(RangePartitionAssignor,),
            metadata_max_age_ms=METADATA_AGE_MAX_MS,
        )
        # A pattern, because naming a missing topic may create it, with the broker's defaults.
        pattern = f"^(?:{'|'.join(re.escape(topic) for topic in self._topics)})$"
        consumer.subscribe(pattern=pattern, listener=_Listener(self._busy))
        stack.push_async_callback(in_time, consumer.stop)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await consumer.start()
                missing = sorted(set(self._topics) - await consumer.topics())
        except (KafkaError, TimeoutError) as error:
            raise ConsumerError(
                f"Kafka cannot be reached at {self._settings.kafka_bootstrap_servers} ({type(error).__name__}): "
                f"is it running, and is {self._settings.variable('kafka_bootstrap_servers')} right?"
            ) from None
        if missing:
            log.warning("topics_missing", topics=missing, remedy="bridge topics apply")
        log.info("reading", group_id=self._settings.group_id, topics=len(self._topics) - len(missing))
        return consumer

    async def _read(
        self, consumer: aiokafka.AIOKafkaConsumer, decoder: Decoder, dead_letters: DeadLetters, stop: asyncio.Event
    ) -> None:
        while not stop.is_set():
            batch = await consumer.getmany(timeout_ms=POLL_TIMEOUT_MS, max_records=BATCH_RECORDS_MAX)
            if not batch:
                continue
            try:
                async with self._busy:
                    await self._process(consumer, decoder, dead_letters, batch)
            except RegistryUnavailableError as error:
                delay_s = min(max(REGISTRY_DELAY_MIN_S, 2 * self._registry_delay_s), REGISTRY_DELAY_MAX_S)
                self._registry_delay_s = delay_s
                log.warning("registry_unavailable", reason=str(error), next_try_in_s=delay_s)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), delay_s)
            else:
                self._registry_delay_s = 0.0

    async def _process(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        decoder: Decoder,
        dead_letters: DeadLetters,
        batch: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]],
    ) -> None:
        # All of the batch is decoded before any of it has an effect, so that a registry that goes away in the middle
        # leaves nothing half done.
        try:
            events, undecodable = await self._decode(decoder, batch)
        except RegistryUnavailableError:
            for partition in batch.keys() & consumer.assignment():
                consumer.seek(partition, batch[partition][0].offset)
            raise
        for record, error in undecodable:
            await dead_letters.publish(record, error)
            self.dead_letters += 1
            log.error("dead_lettered", record=str(error))
        if events:
            with self._tracing.handling(record for records in batch.values() for record in records):
                await self._handle(events)
        await _commit(consumer, {partition: records[-1].offset + 1 for partition, records in batch.items()})

    async def _decode(
        self, decoder: Decoder, batch: dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]
    ) -> tuple[list[Event], list[tuple[ConsumerRecord[bytes, bytes], UndecodableError]]]:
        events: list[Event] = []
        undecodable = []
        in_a_row = self._undecodable_in_a_row
        for record in (record for records in batch.values() for record in records):
            try:
                events.append(await decoder.decode(record))
                in_a_row = 0
            except UndecodableError as error:
                undecodable.append((record, error))
                in_a_row += 1
                if in_a_row >= UNDECODABLE_IN_A_ROW_MAX:
                    raise ConsumerError(
                        f"{in_a_row} records in a row cannot be decoded, the last one: {error}"
                    ) from None
        self._undecodable_in_a_row = in_a_row
        return events, undecodable


class _Listener(aiokafka.ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Lets a partition go only when the batch in hand is done and committed."""

    def __init__(self, busy: asyncio.Lock) -> None:
        self._busy = busy

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            async with self._busy:
                pass

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        log.info("assigned", partitions=len(assigned))


async def _commit(consumer: aiokafka.AIOKafkaConsumer, offsets: dict[TopicPartition, int]) -> None:
    try:
        await asyncio.wait_for(consumer.commit(offsets), COMMIT_TIMEOUT_S)
    except (CommitFailedError, IllegalStateError, TimeoutError) as error:
        # The group moved on without us or Kafka is away: whoever reads the partition next handles these records again.
        log.warning("not_committed", reason=type(error).__name__)


async def in_time(stop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Ends a client of Kafka's, or gives it up after a while."""
    # Not wait_for: while the broker is away aiokafka's stop may hang, or end as if we had been cancelled ourselves.
    stopping = asyncio.create_task(stop())
    done, _ = await asyncio.wait({stopping}, timeout=STOP_TIMEOUT_S)
    stopping.cancel()
    if not done or stopping.cancelled() or stopping.exception() is not None:
        log.warning("not_stopped_cleanly", remedy="none needed: the group goes on without us after its session timeout")

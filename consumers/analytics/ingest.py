"""The loop: a batch of records becomes rows, the rows and their offsets one transaction, the next batch comes meanwhile.

Nothing of a batch has an effect before all of it is decoded. Dead letters are published before the transaction: a crash
between the two publishes them again, and changes no number.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Protocol

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError

from consumers.analytics.rows import Decoded, Rows
from consumers.analytics.source import Records, Source
from consumers.analytics.source import opened as opened_source
from consumers.analytics.store import Absorbed, Batch, Store
from consumers.dead_letters import Brake, DeadLetters
from consumers.decoding import Decoder, Event, reader_schemas
from consumers.errors import ConsumerError, RegistryUnavailableError
from consumers.registry import SchemaRegistry
from consumers.settings import ConsumerSettings
from consumers.tracing import Tracing
from consumers.worker import REGISTRY_DELAY_MAX_S, REGISTRY_DELAY_MIN_S, in_time

PROGRESS_INTERVAL_S = 5.0  # between two lines while catching up

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Feed(Protocol):
    """Takes the newest events."""

    def add(self, events: Iterable[Event]) -> None:
        """At most a hundred events that were not seen before, oldest first."""
        ...


class Ingest:
    """Brings a source's events into a store.

    Attributes:
        dead_letters: Records since the start that were set aside.
        is_caught_up: Whether everything was read that lay in Kafka at the start.

    Args:
        source: Where records come from.
        store: Where events go.
        decoder: Reads them.
        rows: Makes rows of them.
        dead_letters: Takes what cannot be read.
        feed: Gets the newest events; None: nobody wants them.
        tracing: Follows what is brought in.
    """

    def __init__(
        self,
        source: Source,
        store: Store,
        *,
        decoder: Decoder,
        rows: Rows,
        dead_letters: DeadLetters | None,
        tracing: Tracing,
        feed: Feed | None = None,
    ) -> None:
        self._source, self._store, self._tracing = source, store, tracing
        self._decoder, self._rows = decoder, rows
        self._set_aside, self._feed = dead_letters, feed
        self._brake = Brake()
        self._offsets: dict[TopicPartition, int] = {}
        self._progress = _Progress()
        self._new = self._known = self.dead_letters = 0
        self.is_caught_up = False

    @property
    def events(self) -> int:
        """New events since the start."""
        return self._new - self._store.removed

    @property
    def redeliveries(self) -> int:
        """Records since the start whose event_id was known."""
        return self._known + self._store.removed

    async def run(self, is_done: Callable[[], bool]) -> None:
        """Reads until it is done, and finishes the batch in hand.

        Raises:
            ConsumerError: Kafka or the disk refuses us, or too much is undecodable.
        """
        try:
            await self._run(is_done)
        except KafkaError as error:
            raise ConsumerError(f"Kafka refuses this consumer: {type(error).__name__}") from None

    async def _run(self, is_done: Callable[[], bool]) -> None:
        coming = asyncio.create_task(self._source.batch())
        try:
            while not is_done():
                records = await coming
                coming = asyncio.create_task(self._source.batch())
                if records:
                    await self._take(records, is_done)
                await self._look_back()
        finally:
            coming.cancel()
            with contextlib.suppress(asyncio.CancelledError, KafkaError):
                await coming
            await self._source.end(self._offsets)

    async def _look_back(self) -> None:
        self._source.show_lag(self._offsets)
        left = self._source.left(self._offsets)
        self._progress.tell(left)
        if not self.is_caught_up and left == 0:
            await asyncio.to_thread(self._store.settle)  # before the numbers are called whole
            self.is_caught_up = True
            log.info("caught_up", events=self.events, redeliveries=self.redeliveries)

    async def _take(self, records: Records, is_done: Callable[[], bool]) -> None:
        decoded = await self._decoded(records, is_done)
        if decoded is None:
            return
        self._check(decoded)
        if self._set_aside is not None:
            for record, error, _ in decoded.undecodable:
                await self._set_aside.publish(record, error)
                self.dead_letters += 1
                log.error("dead_lettered", record=str(error))
        offsets = {place: of_one[-1].offset + 1 for place, of_one in records.items()}
        read_at_us = time.time_ns() // 1000
        arrivals = decoded.arrivals(read_at_us // 1000) if self.is_caught_up and not self._source.is_behind() else {}
        batch = Batch(list(decoded.rows.values()), offsets, arrivals, read_at_us, is_behind=not self.is_caught_up)
        with self._tracing.handling(record for of_one in records.values() for record in of_one):
            absorbed = await asyncio.to_thread(self._store.absorb, batch)
        self._offsets |= offsets
        self._new += absorbed.events
        self._known += decoded.records - absorbed.events
        if self._feed is not None and absorbed.tail:
            self._feed.add([await self._decoder.decode(record) for record in _chosen(records, absorbed)])

    async def _decoded(self, records: Records, is_done: Callable[[], bool]) -> Decoded | None:
        """Rows, as soon as the registry can be asked; None when we are to end before that."""
        delay_s = REGISTRY_DELAY_MIN_S
        while True:
            try:
                return await asyncio.to_thread(self._rows.decode, (one for some in records.values() for one in some))
            except RegistryUnavailableError as error:
                log.warning("registry_unavailable", reason=str(error), next_try_in_s=delay_s)
            until_s = time.monotonic() + delay_s
            while time.monotonic() < until_s:
                if is_done():
                    return None
                await asyncio.sleep(REGISTRY_DELAY_MIN_S / 2)
            delay_s = min(2 * delay_s, REGISTRY_DELAY_MAX_S)

    def _check(self, decoded: Decoded) -> None:
        good = decoded.records
        for _, error, good_before in decoded.undecodable:
            self._brake.good(good_before)
            self._brake.bad(error)
            good -= good_before
        self._brake.good(good)


@contextlib.asynccontextmanager
async def opened(
    settings: ConsumerSettings,
    path: Path,
    *,
    feed: Feed | None = None,
    since_ms: int | None = None,
    is_copy: bool = False,
) -> AsyncIterator[tuple[Ingest, Store]]:
    """An ingest into the database at a path, ready to run, and its store.

    Args:
        settings: How to reach Kafka and the registry, and the group's name.
        path: The database.
        feed: Gets the newest events.
        since_ms: Where a partition begins of which the database knows nothing, in milliseconds since the Unix epoch.
        is_copy: Whether all of this was read before: then no lag is shown, and nothing is set aside a second time.

    Raises:
        ConsumerError: Kafka cannot be reached, or the database cannot be had.
    """
    async with contextlib.AsyncExitStack() as stack:
        topics = [f"{settings.topic_prefix}.{webhook_field}" for webhook_field in reader_schemas()]
        source, cluster_id = await stack.enter_async_context(
            opened_source(settings, topics=topics, shows_lag=not is_copy)
        )
        store = Store.open(path, topic_prefix=settings.topic_prefix, cluster_id=cluster_id)
        stack.callback(store.close)
        url = settings.schema_registry_url
        registry = await stack.enter_async_context(SchemaRegistry(str(url))) if url else None
        decoder = Decoder(topic_prefix=settings.topic_prefix, registry=registry)
        dead_letters = DeadLetters(kafka_options=settings.kafka_options(), group_id=settings.group_id)
        stack.push_async_callback(in_time, dead_letters.stop)
        tracing = Tracing(settings.group_id, enabled=settings.tracing and not is_copy)
        stack.push_async_callback(asyncio.to_thread, tracing.close)
        try:
            await source.begin(store.offsets(), since_ms=since_ms)
        except KafkaError as error:
            raise ConsumerError(f"Kafka does not show its topics: {type(error).__name__}") from None
        yield (
            Ingest(
                source,
                store,
                decoder=decoder,
                rows=Rows(decoder, topic_prefix=settings.topic_prefix, loop=asyncio.get_running_loop()),
                dead_letters=None if is_copy else dead_letters,
                tracing=tracing,
                feed=feed,
            ),
            store,
        )


class _Progress:
    """One line now and then while there is something to catch up with, with the time that is left."""

    def __init__(self) -> None:
        self._told_at_s = time.monotonic()
        self._left_then: int | None = None

    def tell(self, left: int) -> None:
        """Says how many records are left, when it is time to."""
        now_s = time.monotonic()
        if now_s - self._told_at_s < PROGRESS_INTERVAL_S:
            return
        per_s = ((self._left_then or left) - left) / (now_s - self._told_at_s)
        if left and self._left_then is not None:
            left_s = round(left / per_s) if per_s > 0 else None
            log.info("catching_up", records_left=left, records_per_s=round(per_s), left_s=left_s)
        self._told_at_s, self._left_then = now_s, left


def _chosen(records: Records, absorbed: Absorbed) -> list[ConsumerRecord[bytes, bytes]]:
    """The records of the newest events, oldest first."""
    wanted = set(absorbed.tail)
    by_place = {
        (place.topic.rpartition(".")[2], place.partition, record.offset): record
        for place, of_one in records.items()
        for record in of_one
        if (place.topic.rpartition(".")[2], place.partition, record.offset) in wanted
    }
    return [by_place[place] for place in absorbed.tail]

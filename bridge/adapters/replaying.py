"""Reads ranges of topics as they were committed, and publishes again in transactions that remember what was published.

What was replayed is remembered in a topic of its own, the journal ``<prefix>.replays``: an entry is written in the same Kafka
transaction as the copies that it speaks of, so an interrupted replay knows exactly how far it came
(docs/decisions/0008-replay.md says why the journal is no consumer group).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import KafkaError, ProducerFenced, TopicAlreadyExistsError, for_code

from bridge.adapters.connection import CONNECT_TIMEOUT_S, admin, connection, consumer
from bridge.adapters.reader import OFFSETS_TIMEOUT_S, first_since, partitions_of, spans
from bridge.adapters.topics import DEAD_LETTER_MARGIN_BYTES
from bridge.errors import Misconfigured
from bridge.record import Header, Record
from bridge.routing import topic_name
from bridge.settings import KafkaSettings

JOURNAL = "replays"
"""What stands after the prefix in the journal's name; no webhook field is called so."""

REPLAY_ID_HEADER, REPLAYED_FROM_HEADER = "ig_replay_id", "ig_replayed_from"

TRANSACTION_RECORDS_MAX = 500
"""Copies that become visible together: half a second of the usual rate, and seldom more than some MB."""

_TRANSACTION_TIMEOUT_MS = 30_000
"""After which Kafka gives up what a killed replay left open; until then readers of committed records wait in that topic."""

_FIRST_TRANSACTION_TIMEOUT_S = 30.0
"""The first of a cluster makes Kafka's own topic for transactions, and one after a kill waits until what was open is undone."""

_FETCH_TIMEOUT_MS = 500
_STALL_S = 60.0
"""Without a record or a step: twice as long as a transaction of ours can stand open."""

_JOURNAL_TIMEOUT_S = 30.0
"""For a new topic to be created and to be seen by all brokers; a second on a healthy cluster."""


class Batch(NamedTuple):
    """Some records of a scan.

    Attributes:
        records: within their spans; in order within a partition.
        read_to: for every partition of the scan the offset up to which it was read.
    """

    records: list[ConsumerRecord]
    read_to: Mapping[TopicPartition, int]


async def committed_spans(
    settings: KafkaSettings, topic: str, since_ms: int | None = None
) -> dict[TopicPartition, range]:
    """The offsets of each partition up to its last committed record; from the first that is stamped ``since_ms`` or later.

    Timestamps do not grow from record to record (a spool is drained with the times of its deliveries), so nothing before that
    first one is stamped later, but what follows may be stamped earlier.

    Raises:
        Misconfigured: there is no such topic.
        KafkaError, OSError: Kafka cannot be reached.
    """
    partitions = await partitions_of(settings, [topic])
    async with asyncio.timeout(OFFSETS_TIMEOUT_S), consumer(settings, committed_only=True) as client:
        client.assign(partitions)
        found = await spans(client, partitions)
        starts = {} if since_ms is None else await first_since(client, partitions, since_ms)
    return {
        partition: range(min(starts.get(partition, span.start), span.stop), span.stop)
        for partition, span in found.items()
    }


async def scan(settings: KafkaSettings, wanted: Mapping[TopicPartition, range]) -> AsyncGenerator[Batch, None]:
    """All committed records of the spans, some at a time.

    Raises:
        Misconfigured: for a minute nothing could be read; a transaction of somebody stands open.
        KafkaError, OSError: Kafka cannot be reached.
    """
    left = {partition: span for partition, span in wanted.items() if span}
    read_to = {partition: span.start for partition, span in wanted.items()}
    if not left:
        return
    async with consumer(settings, committed_only=True) as client:
        client.assign(list(left))
        for partition, span in left.items():
            client.seek(partition, span.start)
        moved_at = time.monotonic()
        while left:
            fetched = await client.getmany(*left, timeout_ms=_FETCH_TIMEOUT_MS, max_records=TRANSACTION_RECORDS_MAX)
            records = [
                record for partition, some in fetched.items() for record in some if record.offset < left[partition].stop
            ]
            before = dict(read_to)
            for partition, span in list(
                left.items()
            ):  # by position: marks of transactions take offsets and are no records
                read_to[partition] = min(await client.position(partition), span.stop)
                if read_to[partition] == span.stop:
                    del left[partition]
                    client.pause(partition)
            if read_to != before:
                moved_at = time.monotonic()
                yield Batch(records, dict(read_to))
            elif time.monotonic() - moved_at > _STALL_S:
                raise Misconfigured(
                    f"nothing more can be read of {min(left).topic}: a transaction stands open in it; try again in a minute"
                )


async def journal(settings: KafkaSettings) -> dict[str, dict[str, Any]]:
    """The journal's entries: of each name the last; none when there is no journal yet.

    Raises:
        KafkaError, OSError: Kafka cannot be reached.
    """
    name = topic_name(settings.topic_prefix, JOURNAL)
    async with asyncio.timeout(OFFSETS_TIMEOUT_S), admin(settings) as client:
        if name not in await client.list_topics():
            return {}
    entries: dict[str, dict[str, Any]] = {}
    async for batch in scan(settings, await committed_spans(settings, name)):
        for record in batch.records:
            entries[record.key.decode()] = json.loads(record.value)
    return entries


async def make_journal(settings: KafkaSettings, like: str) -> None:
    """Create the journal when it is missing, with as many replicas as another topic has.

    One partition, compacted: the last entry of each name stays for ever.

    Raises:
        Misconfigured: Kafka does not let us.
        KafkaError, OSError: Kafka cannot be reached.
    """
    name = topic_name(settings.topic_prefix, JOURNAL)
    async with asyncio.timeout(_JOURNAL_TIMEOUT_S), admin(settings) as client:
        described = {topic["topic"]: topic for topic in await client.describe_topics()}
        if name in described:
            return
        replicas = min(len(partition["replicas"]) for partition in described[like]["partitions"])
        new = NewTopic(name, 1, replicas, topic_configs={"cleanup.policy": "compact"})
        [(_, code, *_)] = (await client.create_topics([new])).topic_errors
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise Misconfigured(
                f"Kafka does not create {name} ({error.__name__}), where replays remember what they did: create it, with one "
                "partition and cleanup.policy=compact, or let this user create it"
            )
        while name not in await client.list_topics():  # noqa: ASYNC110 - brokers learn of it from the controller
            await asyncio.sleep(0.1)


class Republisher:
    """Publishes in transactions, each with the journal's entries that go with it.

    Args:
        settings: how to reach Kafka.
        name: of the replay; whoever begins under the same name later ends this one.
    """

    def __init__(self, settings: KafkaSettings, name: str) -> None:
        self._journal = topic_name(settings.topic_prefix, JOURNAL)
        self._name = name
        self._producer = AIOKafkaProducer(
            **connection(settings),
            client_id="instagram-bridge-replay",
            transactional_id=f"instagram-bridge.{settings.topic_prefix}.replay.{name}",
            transaction_timeout_ms=_TRANSACTION_TIMEOUT_MS,
            max_request_size=settings.body_bytes_max + DEAD_LETTER_MARGIN_BYTES,
        )

    async def publish(
        self, records: Sequence[Record], entries: Mapping[str, Mapping[str, Any]], *, now_ms: int
    ) -> None:
        """Commit the records, stamped now, and the entries: all of them or nothing.

        Raises:
            Misconfigured: the same replay was begun elsewhere meanwhile.
            KafkaError, OSError: Kafka cannot be reached, or refuses; nothing is committed.
        """
        try:
            async with self._producer.transaction():
                sent = [
                    await self._producer.send(
                        record.topic, record.value, record.key, timestamp_ms=now_ms, headers=record.headers
                    )
                    for record in records
                ]
                for name, entry in entries.items():
                    text = json.dumps(entry).encode()
                    sent.append(
                        await self._producer.send(self._journal, text, name.encode(), partition=0, timestamp_ms=now_ms)
                    )
                await asyncio.gather(*sent)
        except ProducerFenced:
            raise Misconfigured(f"replay {self._name} goes on in another process: let that one end") from None


@contextlib.asynccontextmanager
async def republishing(settings: KafkaSettings, name: str) -> AsyncIterator[Republisher]:
    """A publisher that is the only one of its name: what another left open is undone before the context is entered.

    Raises:
        KafkaError, OSError: Kafka cannot be reached, or refuses.
    """
    republisher = Republisher(settings, name)
    producer = republisher._producer  # noqa: SLF001 - the context owns what it makes
    try:
        async with asyncio.timeout(_FIRST_TRANSACTION_TIMEOUT_S):
            await producer.start()
            async with producer.transaction():
                pass  # the first transaction asks for our producer id, which ends all others of this name
        yield republisher
    finally:
        with contextlib.suppress(KafkaError, TimeoutError):
            async with asyncio.timeout(CONNECT_TIMEOUT_S):  # it would wait for a broker that has gone
                await producer.stop()


def copy_headers(headers: Collection[Header], replay_id: str, source: tuple[str, int, int]) -> list[Header]:
    """A record's headers and those that tell of its replay; source is topic, partition and offset of what it repeats."""
    place = ":".join(map(str, source)).encode()
    kept = [header for header in headers if header[0] not in (REPLAY_ID_HEADER, REPLAYED_FROM_HEADER)]
    return [*kept, (REPLAY_ID_HEADER, replay_id.encode()), (REPLAYED_FROM_HEADER, place)]


def is_copy(record: ConsumerRecord) -> bool:
    """Whether a record repeats another of the same topic; a dead letter that was put back does not."""
    return any(
        name == REPLAYED_FROM_HEADER and place.startswith(f"{record.topic}:".encode()) for name, place in record.headers
    )

"""Kafka as analytics reads it: every partition of every event topic, from where the database says, in this one process.

Partitions are assigned by ourselves and not shared out by the group: half of the events would make half of the numbers. So
there is no rebalance; a second process with a database of its own reads everything too, and each has the whole numbers. What is
committed to the group is for others to see the lag, says so in its metadata, and is never read.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import aiokafka
import structlog
from aiokafka import ConsumerRecord, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, for_code

from consumers.errors import ConsumerError
from consumers.settings import ConsumerSettings
from consumers.worker import COMMIT_TIMEOUT_S, METADATA_AGE_MAX_MS, START_TIMEOUT_S, in_time

BATCH_RECORDS_MAX = (
    20_000  # some 40 MB of them and of their rows; the look for known event_ids costs the same for one as for all
)
LINGER_S = (
    0.25  # how long a batch is collected: few records make a transaction, and the page is four times a second new
)
# Of one partition in one answer: some 1,300 events. There may be one waiting of each of 156 partitions.
PARTITION_FETCH_BYTES_MAX = 1024 * 1024
COMMIT_INTERVAL_S = 1.0  # the lag that others see is at most this and a batch's linger older
COMMIT_RETRY_INTERVAL_S = 15.0  # after one that failed: aiokafka logs a refusal for each partition
METADATA_TIMEOUT_S = 5.0  # in which a stop may have to wait, while Kafka is away
COORDINATOR_RETRY_INTERVAL_S = 0.2  # a broker that just started loads its groups for a second
METADATA = "analytics: offsets are in DuckDB; use --rebuild"  # `bridge replay` refuses a group with this

Records = dict[TopicPartition, list[ConsumerRecord[bytes, bytes]]]

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Source:
    """Reads from offsets that it is given, in batches.

    Args:
        consumer: Started, without an assignment.
        admin: Started.
        topics: The topics that are read as soon as they exist.
        shows_lag: Whether offsets are committed to the consumer's group.
    """

    def __init__(
        self, consumer: aiokafka.AIOKafkaConsumer, admin: AIOKafkaAdminClient, *, topics: Iterable[str], shows_lag: bool
    ) -> None:
        self._consumer = consumer
        self._admin = admin
        self._topics = sorted(topics)
        self._shows_lag = shows_lag
        self._next: dict[TopicPartition, int] = {}
        self._looked_at_s = 0.0
        self._commit_after_s = 0.0
        self._committed: dict[TopicPartition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._is_shown = True
        self._spans: dict[TopicPartition, tuple[int, int]] = {}  # what there was to catch up with

    async def begin(self, stored: Mapping[TopicPartition, int], *, since_ms: int | None = None) -> None:
        """Goes to the stored offsets; to the first record that is not older than `since_ms` where none is stored."""
        self._stored, self._since_ms = stored, since_ms
        await self._look_for_partitions()
        missing = sorted(set(self._topics) - {place.topic for place in self._next})
        if missing:
            log.warning("topics_missing", topics=missing, remedy="bridge topics apply")

    def left(self, done: Mapping[TopicPartition, int]) -> int:
        """How many offsets are between where partitions are done, and where they ended when they were first looked at."""
        return sum(max(0, end - done.get(place, begin)) for place, (begin, end) in self._spans.items())

    def is_behind(self) -> bool:
        """Whether more is known to be waiting in Kafka than what was given out."""
        return any((self._consumer.highwater(place) or 0) > offset for place, offset in self._next.items())

    async def batch(self) -> Records:
        """What comes within the linger time; less long when it becomes many."""
        if asyncio.get_running_loop().time() - self._looked_at_s > METADATA_AGE_MAX_MS / 1000:
            with contextlib.suppress(KafkaError, TimeoutError):  # while Kafka is away there is nothing new
                async with asyncio.timeout(METADATA_TIMEOUT_S):
                    await self._look_for_partitions()
        deadline_s = asyncio.get_running_loop().time() + LINGER_S
        found: Records = {}
        room = BATCH_RECORDS_MAX
        while room and (left_s := deadline_s - asyncio.get_running_loop().time()) > 0:
            if not self._next:
                await asyncio.sleep(left_s)
                continue
            for place, records in (
                await self._consumer.getmany(timeout_ms=int(left_s * 1000), max_records=room)
            ).items():
                found.setdefault(place, []).extend(records)
                self._next[place] = records[-1].offset + 1
                room -= len(records)
        return found

    def show_lag(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commits to the group where partitions are done, in the background; that it fails changes no number.

        To be called again and again, also while nothing comes: not every call commits.

        Args:
            offsets: Where they are done; what is missing is where it began.
        """
        now_s = asyncio.get_running_loop().time()
        is_busy = self._committing is not None and not self._committing.done()
        if not self._shows_lag or is_busy or now_s < self._commit_after_s:
            return
        done = self._done(offsets)
        if done == self._committed:
            return
        self._commit_after_s = now_s + COMMIT_INTERVAL_S
        self._committing = asyncio.create_task(self._commit(done))

    async def end(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Shows the last offsets."""
        if self._committing is not None:
            await self._committing
        done = self._done(offsets)
        if self._shows_lag and done != self._committed:
            await self._commit(done)

    def _done(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {place: offsets.get(place, begin) for place, (begin, _) in self._spans.items()}

    async def _commit(self, done: dict[TopicPartition, int]) -> None:
        shown = {place: OffsetAndMetadata(offset, METADATA) for place, offset in done.items()}
        try:
            await asyncio.wait_for(self._consumer.commit(shown), COMMIT_TIMEOUT_S)
            self._committed = done
            self._is_shown = True
        except (KafkaError, TimeoutError) as error:
            if self._is_shown:  # said once, not every second
                log.warning("lag_not_shown", reason=type(error).__name__)
            self._is_shown = False
            self._commit_after_s = asyncio.get_running_loop().time() + COMMIT_RETRY_INTERVAL_S

    async def _look_for_partitions(self) -> None:
        # By all metadata, because asking for one missing topic may create it where the broker allows that.
        self._looked_at_s = asyncio.get_running_loop().time()
        present = set(self._topics) & await self._consumer.topics()
        known = await self._admin.describe_topics(sorted(present)) if present else []
        places = {
            TopicPartition(topic["topic"], partition["partition"])
            for topic in known
            for partition in topic["partitions"]
        }
        new = sorted(places - self._next.keys())
        if not new:
            return
        first, last = await self._consumer.beginning_offsets(new), await self._consumer.end_offsets(new)
        since = await self._since(new)
        for place in new:
            self._next[place] = _within(place, self._stored.get(place), since.get(place), first[place], last[place])
            self._spans[place] = self._next[place], last[place]
        self._consumer.assign(list(self._next))
        for place, offset in self._next.items():
            self._consumer.seek(place, offset)
        log.info("reading", topics=len({place.topic for place in self._next}), partitions=len(self._next))

    async def _since(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        if self._since_ms is None:
            return {}
        found = await self._consumer.offsets_for_times(dict.fromkeys(places, self._since_ms))
        ends = await self._consumer.end_offsets(places)
        return {place: ends[place] if at is None else at.offset for place, at in found.items()}


def _within(place: TopicPartition, stored: int | None, since: int | None, first: int, last: int) -> int:
    """Where to begin: at what is stored, when that still is what the partition holds."""
    if stored is None:
        return first if since is None else max(first, since)
    if stored > last:
        # Somebody made the topic anew. Nothing is counted twice: known event_ids stay known.
        log.warning("topic_made_anew", topic=place.topic, partition=place.partition, stored=stored, end=last)
        return first
    if stored < first:
        log.error("records_gone", topic=place.topic, partition=place.partition, records=first - stored)
    return max(stored, first)


@contextlib.asynccontextmanager
async def opened(
    settings: ConsumerSettings, *, topics: Iterable[str], shows_lag: bool = True
) -> AsyncIterator[tuple[Source, str]]:
    """A source, and the id of the Kafka cluster that it reads.

    Raises:
        ConsumerError: Kafka cannot be reached or refuses us, or the group belongs to somebody else.
    """
    options = settings.kafka_options()
    async with contextlib.AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(**options)
        stack.push_async_callback(in_time, admin.close)
        consumer = aiokafka.AIOKafkaConsumer(
            **options,
            group_id=settings.group_id if shows_lag else None,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=PARTITION_FETCH_BYTES_MAX,
            metadata_max_age_ms=METADATA_AGE_MAX_MS,
        )
        stack.push_async_callback(in_time, consumer.stop)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await admin.start()
                await consumer.start()
                cluster: dict[str, Any] = await admin.describe_cluster()
                members = await _members(admin, settings.group_id) if shows_lag else 0
        except (KafkaError, TimeoutError) as error:
            raise ConsumerError(
                f"Kafka cannot be reached at {settings.kafka_bootstrap_servers} ({type(error).__name__}): "
                f"is it running, and is {settings.variable('kafka_bootstrap_servers')} right?"
            ) from None
        if members:
            raise ConsumerError(
                f"group {settings.group_id} has {members} members of another program: "
                f"stop them, or name another group with {settings.variable('group_id')}"
            )
        yield Source(consumer, admin, topics=topics, shows_lag=shows_lag), str(cluster["cluster_id"])


async def _members(admin: AIOKafkaAdminClient, group_id: str) -> int:
    """How many consumers share the group out among themselves; we are never one of them."""
    while True:
        try:
            [answer] = await admin.describe_consumer_groups([group_id])
            code, _, _, _, _, members, *_ = answer.groups[0]
            if code:
                raise for_code(code)
            return len(members)
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(COORDINATOR_RETRY_INTERVAL_S)

"""Sets undecodable records aside on `<topic>-dlt`, byte for byte, with the headers that Spring for Apache Kafka uses."""

import asyncio
from typing import Any

import aiokafka
from aiokafka import ConsumerRecord
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, NoError, TopicAlreadyExistsError

from consumers.errors import ConsumerError, UndecodableError

SUFFIX = "-dlt"
# Spring's names (spring-kafka, KafkaHeaders.DLT_*): numbers are big-endian, texts UTF-8.
HEADER_PREFIX = "kafka_dlt-"
# A record of 1 MiB (BRIDGE_RECORD_BYTES_MAX) was accepted by its topic; the headers here add less than this.
REQUEST_BYTES_MAX = 1024 * 1024 + 64 * 1024

CREATED_POLL_INTERVAL_S = 0.1  # a topic that was just made is known to the other brokers a moment later

SHARE_MAX = 0.1  # of the records read lately; above it something is wrong with more than single records …
SHARE_RECORDS_MIN = 1000  # … as far as that can be told from so few
SHARE_RECORDS_MAX = 10_000  # what counts as lately: older records count half, then a quarter …
# That many undecodable records with no good one between them are a wrong setting or a wrong topic, not bad records.
IN_A_ROW_MAX = 100

# An idempotent producer never gives up by itself; ours does, before Kafka's five minutes between two polls are over.
PUBLISH_TIMEOUT_S = 60


class Brake:
    """Stops a consumer that would set too much aside, before it does so."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._records = self._undecodable = 0.0

    def good(self, records: int) -> None:
        """Counts decoded records."""
        if records:
            self._in_a_row = 0
            self._count(records, 0)

    def bad(self, error: UndecodableError) -> None:
        """Counts one that could not be decoded.

        Raises:
            ConsumerError: It is one too many, in a row or by share.
        """
        self._in_a_row += 1
        self._count(1, 1)
        if self._in_a_row >= IN_A_ROW_MAX:
            raise ConsumerError(f"{self._in_a_row} records in a row cannot be decoded, the last one: {error}")
        if self._records >= SHARE_RECORDS_MIN and self._undecodable > SHARE_MAX * self._records:
            share = self._undecodable / self._records
            raise ConsumerError(f"{share:.0%} of the newest records cannot be decoded, the last one: {error}")

    def _count(self, records: int, undecodable: int) -> None:
        self._records += records
        self._undecodable += undecodable
        if self._records > SHARE_RECORDS_MAX:
            self._undecodable *= SHARE_RECORDS_MAX / 2 / self._records
            self._records = SHARE_RECORDS_MAX / 2


class DeadLetters:
    """Publishes dead letters of one consumer group, with a producer that starts with the first of them.

    Args:
        kafka_options: How aiokafka's clients connect.
        group_id: Named in a header, because several groups share `<topic>-dlt`.
    """

    def __init__(self, *, kafka_options: dict[str, Any], group_id: str) -> None:
        self._options = kafka_options
        self._group_id = group_id
        self._producer: aiokafka.AIOKafkaProducer | None = None

    async def publish(self, record: ConsumerRecord[bytes, bytes], error: UndecodableError) -> None:
        """Returns when Kafka has acknowledged the dead letter (acks=all).

        Its topic is made when there is none, with the partitions and replicas of the record's.

        Raises:
            ConsumerError: We may not make its topic, or Kafka did not take it; the record is then not committed either.
        """
        topic = record.topic + SUFFIX
        try:
            async with asyncio.timeout(PUBLISH_TIMEOUT_S):
                producer = await self._started()
                partitions = await self._partitions(producer, topic)
                if not partitions and await self._create(producer, topic, like=record.topic):
                    partitions = await self._partitions(producer, topic)
                if not partitions:
                    raise ConsumerError(
                        f"{error}; to set it aside create the topic {topic} (as many partitions as {record.topic})"
                    )
                await producer.send_and_wait(
                    topic,
                    value=record.value,
                    key=record.key,
                    partition=record.partition if record.partition in partitions else None,
                    headers=headers(record, error, group_id=self._group_id),
                )
        except (KafkaError, TimeoutError) as refusal:
            raise ConsumerError(f"{error}; {topic} did not take it ({type(refusal).__name__})") from None

    async def stop(self) -> None:
        """Closes the producer, if there is one."""
        if self._producer is not None:
            await self._producer.stop()

    async def _started(self) -> aiokafka.AIOKafkaProducer:
        if self._producer is None:
            producer = aiokafka.AIOKafkaProducer(
                **self._options, acks="all", enable_idempotence=True, max_request_size=REQUEST_BYTES_MAX
            )
            await producer.start()
            self._producer = producer
        return self._producer

    async def _create(self, producer: aiokafka.AIOKafkaProducer, topic: str, *, like: str) -> bool:
        """Whether the topic is there now; it may not yet be known to every broker."""
        admin = AIOKafkaAdminClient(**self._options)
        await admin.start()
        try:
            [source] = await admin.describe_topics([like])
            replicas = min(len(partition["replicas"]) for partition in source["partitions"])
            answer = await admin.create_topics([NewTopic(topic, len(source["partitions"]), replicas)])
        finally:
            await admin.close()
        [(_, code, *_)] = answer.topic_errors
        if code not in {NoError.errno, TopicAlreadyExistsError.errno}:
            return False
        while not await self._partitions(producer, topic):  # noqa: ASYNC110 - no event of ours tells what brokers know
            await asyncio.sleep(CREATED_POLL_INTERVAL_S)
        return True

    @staticmethod
    async def _partitions(producer: aiokafka.AIOKafkaProducer, topic: str) -> set[int]:
        # Asking for all metadata, because asking for one missing topic may create it where the broker allows that.
        cluster = await producer.client.fetch_all_metadata()
        return cluster.partitions_for_topic(topic) or set()


def headers(record: ConsumerRecord[bytes, bytes], error: UndecodableError, *, group_id: str) -> list[tuple[str, bytes]]:
    """The record's own headers, without those of an earlier dead letter, and where and why it was set aside."""
    own = [(name, value) for name, value in record.headers if not name.startswith(HEADER_PREFIX)]
    return [
        *own,
        (f"{HEADER_PREFIX}original-topic", record.topic.encode()),
        (f"{HEADER_PREFIX}original-partition", record.partition.to_bytes(4, "big")),
        (f"{HEADER_PREFIX}original-offset", record.offset.to_bytes(8, "big")),
        (f"{HEADER_PREFIX}original-timestamp", record.timestamp.to_bytes(8, "big", signed=True)),
        (f"{HEADER_PREFIX}original-consumer-group", group_id.encode()),
        (f"{HEADER_PREFIX}exception-fqcn", f"{type(error).__module__}.{type(error).__qualname__}".encode()),
        (f"{HEADER_PREFIX}exception-message", str(error).encode()),
    ]

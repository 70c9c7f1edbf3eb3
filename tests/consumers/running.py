"""What the consumers' tests work with: topics of their own on the real Kafka, and the consumers as real processes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bridge.local.jvm import free_port
from bridge.local.service import Broker
from tests.processes import Process

DEADLINE_S = 60  # what takes a second here took ten times that on a busy machine
POLL_INTERVAL_S = 0.05
PARTITIONS = 2

Result = TypeVar("Result")


async def until(read: Callable[[], Awaitable[Result]], wanted: Callable[[Result], bool]) -> Result:
    """The first value that is as wanted; fails with the last one when the deadline has passed."""
    deadline = asyncio.get_running_loop().time() + DEADLINE_S
    while not wanted(value := await read()):
        assert asyncio.get_running_loop().time() < deadline, f"still {value!r} after {DEADLINE_S} s"
        await asyncio.sleep(POLL_INTERVAL_S)
    return value


class Topics:
    """The topics with one test's prefix."""

    def __init__(self, broker: Broker, prefix: str, admin: AIOKafkaAdminClient) -> None:
        self.bootstrap_servers = broker.bootstrap_servers
        self.prefix = prefix
        self.admin = admin

    async def create(self, *webhook_fields: str) -> None:
        """Creates `<prefix>.<webhook field>` for each."""
        topics = [NewTopic(f"{self.prefix}.{name}", PARTITIONS, 1) for name in webhook_fields]
        answer = await self.admin.create_topics(topics)
        assert [error[1] for error in answer.topic_errors] == [0] * len(topics)

    async def publish(
        self,
        webhook_field: str,
        *values: bytes | None,
        partition: int = 0,
        headers: Mapping[str, bytes] | None = None,
    ) -> None:
        """Returns when all are acknowledged, in this order."""
        topic = f"{self.prefix}.{webhook_field}"
        async with AIOKafkaProducer(bootstrap_servers=self.bootstrap_servers, acks="all") as producer:
            for value in values:
                await producer.send_and_wait(topic, value, b"key", partition, headers=list((headers or {}).items()))

    async def records(self, webhook_field: str) -> list[ConsumerRecord[bytes, bytes]]:
        """All that lies in a topic."""
        topic = f"{self.prefix}.{webhook_field}"
        partitions = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap_servers, auto_offset_reset="earliest")
        await consumer.start()
        try:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            found: list[ConsumerRecord[bytes, bytes]] = []
            while len(found) < sum(ends.values()):
                batch = await asyncio.wait_for(consumer.getmany(timeout_ms=1000), DEADLINE_S)
                found += [record for records in batch.values() for record in records]
            return found
        finally:
            await consumer.stop()

    async def committed(self, webhook_field: str, *, group_id: str) -> dict[int, int]:
        """The offsets that a group has committed in a topic, by partition."""
        offsets = await self.admin.list_consumer_group_offsets(group_id)
        topic = f"{self.prefix}.{webhook_field}"
        return {place.partition: known.offset for place, known in offsets.items() if place.topic == topic}


class Consumers:
    """Starts consumers on the test's topics, in a group of the test's own."""

    def __init__(self, topics: Topics, folder: Path) -> None:
        self._topics = topics
        self._folder = folder
        self.begun: list[Process] = []

    @property
    def group_id(self) -> str:
        """The group that each of them joins."""
        return f"{self._topics.prefix}-group"

    @property
    def given(self) -> dict[str, str]:
        """What each of them is told, without `ANALYTICS_` or `AUTO_REPLY_`."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self._topics.bootstrap_servers,
            "TOPIC_PREFIX": self._topics.prefix,
            "GROUP_ID": self.group_id,
            "LOG_FORMAT": "json",
        }

    async def begin(self, name: str, **variables: str) -> Process:
        """`python -m consumers.<name>`, with `ANALYTICS_…` or `AUTO_REPLY_…` for each variable."""
        given = self.given | variables
        environment = {f"{name.upper()}_{variable}": value for variable, value in given.items()}
        process = await Process.begin("-m", f"consumers.{name}", folder=self._folder, environment=environment)
        self.begun.append(process)
        return process

    async def begin_analytics(self, **variables: str) -> tuple[Process, Callable[[], Awaitable[dict[str, Any]]]]:
        """Analytics on a free port, and what reads its `/api/counts`; returns when its page is there."""
        port = free_port()
        process = await self.begin("analytics", PORT=str(port), **variables)
        await process.until_printed('"event": "page"')

        async def counts() -> dict[str, Any]:
            async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/api/counts") as answer:
                figures: dict[str, Any] = await answer.json()
                return figures

        return process, counts

"""Topics with a past: events that were received a while ago, and readers that see them as everybody else does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Consumer, Message, Producer, TopicPartition

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder
from bridge.local.service import Broker
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER
from tests.kafka.reading import Record as ReadRecord
from tests.kafka.reading import decode_single_object
from tests.unit.street import ENCODERS, PREFIXES, SCHEMAS

ANSWER_S = 30
BEGIN_MS = 1_763_800_000_000
RETENTION_MS = f"{100 * 365 * 24 * 3_600_000}"
"""Of the tests' topics: their events are old."""

ACCOUNT, CUSTOMER, OTHER_CUSTOMER = "17841400000000001", "1254459154682919", "998877"


def message(text: str, customer_id: str = CUSTOMER) -> dict[str, Any]:
    """An item of messaging[] with an attachment."""
    return {
        "sender": {"id": customer_id},
        "recipient": {"id": ACCOUNT},
        "timestamp": BEGIN_MS - 5000,
        "message": {"mid": f"m_{text}", "text": text, "attachments": [{"type": "image", "payload": {"url": "u"}}]},
    }


def notification(*items: dict[str, Any]) -> bytes:
    """A delivery's body with these messages."""
    return json.dumps(
        {"object": "instagram", "entry": [{"id": ACCOUNT, "time": BEGIN_MS, "messaging": items}]}
    ).encode()


def walked(
    topic_prefix: str, body: bytes, *, received_at: int = BEGIN_MS, record_bytes_max: int = 1 << 20
) -> list[Record]:
    """What the street makes of a body, in single-object encoding."""
    letters = DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER])
    street = Pipeline(
        topic_prefix=topic_prefix, encoders=ENCODERS, dead_letters=letters, record_bytes_max=record_bytes_max
    )
    return street.records(Delivery(body, received_at, "0" * 32, "main"), [])


async def produce(kafka: Broker, records: Iterable[Record], received_at: int = BEGIN_MS) -> None:
    """Puts records into Kafka as the bridge does, and waits until they are there."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    for record in records:
        headers: list[tuple[str, str | bytes | None]] = [*record.headers]
        producer.produce(record.topic, record.value, record.key, timestamp=received_at, headers=headers)
    assert await asyncio.to_thread(producer.flush, ANSWER_S) == 0


def committed(kafka: Broker, topic: str) -> list[Message]:
    """All records of a topic as a consumer of committed records sees them; librdkafka is one unless told otherwise."""
    consumer = Consumer(
        {"bootstrap.servers": kafka.bootstrap_servers, "group.id": "none", "enable.partition.eof": True}
    )
    partitions = consumer.list_topics(topic, timeout=ANSWER_S).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found, ended = [], 0
    while ended < len(partitions):
        message = consumer.poll(ANSWER_S)
        assert message is not None, "no more records come, and no end"
        if message.error():
            ended += 1
        else:
            found.append(message)
    consumer.close()
    return found


def headers(message: Message) -> dict[str, str]:
    """Names and texts."""
    return {name: bytes(content).decode() for name, content in message.headers() or ()}


def value(message: Message) -> dict[str, Any]:
    """The event in it, by Apache's avro."""
    topic_field = headers(message)["ce_type"].split(".")[1]
    return decode_single_object(ReadRecord(topic_field, 0, 0, None, 0, {}, bytes(message.value() or b"")))

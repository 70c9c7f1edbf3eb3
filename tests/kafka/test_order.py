"""One conversation stays in one partition of each topic, in the order in which its deliveries were answered."""

from __future__ import annotations

import asyncio
import secrets

from confluent_kafka import Producer

from tests.http.wire import Connection, post
from tests.kafka.reading import Record
from tests.kafka.serving import ACCOUNT, Street, message, notification

DELIVERIES = 500
CONVERSATIONS, EACH = 8, 60


def texts_in_order(street: Street, records: list[Record], key: bytes) -> list[str]:
    """The mids of one conversation by offset, all from one partition."""
    found = sorted((record for record in records if record.key == key), key=lambda record: record.offset)
    assert len({record.partition for record in found}) == 1
    return [street.decode(record)["message"]["mid"] for record in found]


async def test_deliveries_of_one_conversation_one_after_the_other_are_in_order(plain: Street) -> None:
    """Five hundred messages, each sent when the one before was answered, lie in the topic as they were sent."""
    mids = [f"{number:03}" for number in range(DELIVERIES)]
    bodies = [notification(message(mid)) for mid in mids]
    await plain.reader.new()
    async with Connection.open(plain.serving.port) as connection:
        for delivery in zip(bodies, plain.serving.signatures(bodies), strict=True):
            await connection.send(post(*delivery))
            assert (await connection.answer()).status == 200

    records = await plain.reader.new()

    assert len(records) == DELIVERIES
    assert texts_in_order(plain, records, f"{ACCOUNT}:1254459154682919".encode()) == mids


async def test_conversations_at_the_same_time_are_each_in_order(plain: Street) -> None:
    """Batches are shared by many deliveries, and that disorders none of them; connections may change in between."""
    customers = [f"{number}-{secrets.token_hex(4)}" for number in range(CONVERSATIONS)]
    mids = [f"{number:03}" for number in range(EACH)]
    await plain.reader.new()

    async def talk(customer: str) -> None:
        bodies = [notification(message(mid, customer_id=customer)) for mid in mids]
        deliveries = list(zip(bodies, plain.serving.signatures(bodies), strict=True))
        while deliveries:
            async with Connection.open(plain.serving.port) as connection:
                for delivery in deliveries[:7]:
                    await connection.send(post(*delivery))
                    assert (await connection.answer()).status == 200
            deliveries = deliveries[7:]

    await asyncio.gather(*map(talk, customers))

    records = await plain.reader.new()
    assert len(records) == CONVERSATIONS * EACH
    for customer in customers:
        assert texts_in_order(plain, records, f"{ACCOUNT}:{customer}".encode()) == mids


async def test_partition_of_a_key_is_where_every_kafka_client_would_put_it(plain: Street) -> None:
    """The default partitioner of Kafka's own clients (murmur2), so consumers that join topics find the same places."""
    customers = [f"käufer-{number}" for number in range(40)]
    delivery_id = await plain.serving.accepted(notification(*(message("m", customer_id=name) for name in customers)))
    ours = {record.key: record.partition for record in await plain.reader.of(delivery_id)}
    theirs: dict[bytes | None, int | None] = {}
    environment = plain.serving.environment
    producer = Producer(
        {"bootstrap.servers": environment["BRIDGE_KAFKA_BOOTSTRAP_SERVERS"], "partitioner": "murmur2_random"}
    )
    for key in ours:
        producer.produce(
            f"{environment['BRIDGE_TOPIC_PREFIX']}.other",
            b"probe",
            key,
            headers={"ig_delivery_id": "probe"},
            on_delivery=lambda _, sent: theirs.update({sent.key(): sent.partition()}),
        )
    await asyncio.to_thread(producer.flush)
    await plain.reader.new()  # the probes are nobody's

    assert theirs == ours
    assert len(set(ours.values())) > 1

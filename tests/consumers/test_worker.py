"""The loop on a real Kafka: what is committed when, what becomes of broken records, and who reads what."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from bridge.local.service import Broker
from consumers.dead_letters import IN_A_ROW_MAX, SHARE_MAX, SHARE_RECORDS_MIN, Brake
from consumers.decoding import Event
from consumers.errors import ConsumerError, UndecodableError
from consumers.settings import ConsumerSettings
from consumers.worker import UNDECODABLE_IN_A_ROW_MAX, Worker
from tests.consumers.running import Topics, until
from tests.consumers.samples import confluent, event, message, schema, single_object

BROKEN = b"private words"
TOPIC_CHARACTERS_MAX = 249  # Kafka's own limit


class Settings(ConsumerSettings):
    """The settings of the tests' consumer."""

    model_config = SettingsConfigDict(env_prefix="WORKER_TEST_")

    group_id: str = Field(default="worker-test", min_length=1)


class Reader:
    """A worker that keeps what it handled."""

    def __init__(self, topics: Topics, **settings: str) -> None:
        self.events: list[Event] = []
        given = {
            "kafka_bootstrap_servers": topics.bootstrap_servers,
            "topic_prefix": topics.prefix,
            "group_id": f"{topics.prefix}-group",
        }
        self.settings = Settings.model_validate(given | settings)
        self.worker = Worker(self.settings, webhook_fields=["messages", "comments"], handle=self._handle)

    async def _handle(self, events: list[Event]) -> None:
        self.events += events

    async def event_ids(self) -> list[str]:
        """The event_ids handled so far, in that order."""
        return [event.event_id for event in self.events]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The worker's loop, stopped at the end of the block as a signal would stop it."""
        stop = asyncio.Event()
        task = asyncio.create_task(self.worker.run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


def has(count: int) -> Callable[[list[str]], bool]:
    """Whether so many have come."""
    return lambda event_ids: len(event_ids) >= count


async def test_events_are_handled_in_order_and_committed(topics: Topics) -> None:
    """A second run of the group goes on where the first one stopped."""
    await topics.create("messages")
    values = [message(f"number {number}") for number in range(20)]
    await topics.publish("messages", *(single_object("Messages", value) for value in values[:15]))
    first, second = Reader(topics), Reader(topics)
    async with first.running():
        assert await until(first.event_ids, has(15)) == [value["event_id"] for value in values[:15]]
    await topics.publish("messages", *(single_object("Messages", value) for value in values[15:]))
    async with second.running():
        assert await until(second.event_ids, has(5)) == [value["event_id"] for value in values[15:]]
    assert await topics.committed("messages", group_id=first.settings.group_id) == {0: 20}


async def test_handler_that_fails_leaves_its_batch_uncommitted(topics: Topics) -> None:
    """What was not handled is read again by the next run: at least once."""
    await topics.create("messages")
    await topics.publish("messages", single_object("Messages", message()))
    reader = Reader(topics)

    async def failing(_: list[Event]) -> None:
        raise ConsumerError("the disk is full")

    worker = Worker(reader.settings, webhook_fields=["messages"], handle=failing)
    with pytest.raises(ConsumerError, match="the disk is full"):
        await worker.run(asyncio.Event())
    async with reader.running():
        await until(reader.event_ids, has(1))


async def test_topic_that_is_created_later_is_read(topics: Topics) -> None:
    """A missing topic is no reason to stop, and is not created by asking for it."""
    await topics.create("messages")
    await topics.publish("messages", single_object("Messages", message()))
    reader = Reader(topics)
    async with reader.running():
        await until(reader.event_ids, has(1))
        await topics.create("comments")  # answers "exists" if our asking had made it
        value = event("comments")
        await topics.publish("comments", single_object("Comments", value))
        assert (await until(reader.event_ids, has(2)))[1] == value["event_id"]


async def test_undecodable_record_is_set_aside_and_the_rest_goes_on(topics: Topics) -> None:
    """It lies on `<topic>-dlt` byte for byte, with Spring's headers and without those of an earlier time."""
    await topics.create("messages", "messages-dlt")
    good = message()
    old = {"ig_delivery_id": b"d1", "kafka_dlt-exception-message": b"an older story"}
    await topics.publish("messages", single_object("Messages", message()), BROKEN, partition=1, headers=old)
    await topics.publish("messages", None, single_object("Messages", good), partition=1)
    reader = Reader(topics)
    async with reader.running():
        assert (await until(reader.event_ids, has(2)))[1] == good["event_id"]
    assert reader.worker.dead_letters == 2
    set_aside = sorted(await topics.records("messages-dlt"), key=lambda record: record.offset)
    assert [(record.partition, record.key, record.value) for record in set_aside] == [
        (1, b"key", BROKEN),
        (1, b"key", None),
    ]
    headers = dict(set_aside[0].headers)
    assert len(headers) == len(set_aside[0].headers)
    message_text = headers.pop("kafka_dlt-exception-message").decode()
    assert "unknown_encoding" in message_text
    assert "private" not in message_text
    assert int.from_bytes(headers.pop("kafka_dlt-original-timestamp"), "big") > 0
    assert headers == {
        "ig_delivery_id": b"d1",
        "kafka_dlt-original-topic": f"{topics.prefix}.messages".encode(),
        "kafka_dlt-original-partition": b"\x00\x00\x00\x01",
        "kafka_dlt-original-offset": b"\x00\x00\x00\x00\x00\x00\x00\x01",
        "kafka_dlt-original-consumer-group": reader.settings.group_id.encode(),
        "kafka_dlt-exception-fqcn": b"consumers.errors.UndecodableError",
    }


async def test_dead_letter_topic_that_is_missing_is_made_like_its_source(topics: Topics) -> None:
    """With as many partitions, so that the record lies in its own; the consumer goes on."""
    await topics.create("messages")
    await topics.publish("messages", BROKEN, single_object("Messages", message()), partition=1)
    reader = Reader(topics)
    async with reader.running():
        await until(reader.event_ids, has(1))
    assert [(record.partition, record.value) for record in await topics.records("messages-dlt")] == [(1, BROKEN)]


async def test_undecodable_record_whose_dead_letter_topic_cannot_be_made_stops_the_consumer(
    kafka: Broker, topics: Topics
) -> None:
    """Nothing is swallowed: the error names the topic to create, and the record is read again. Here its name is too long."""
    prefix = topics.prefix + "-" * (TOPIC_CHARACTERS_MAX - len(topics.prefix) - len(".messages"))
    long = Topics(kafka, prefix, topics.admin)
    await long.create("messages")
    await long.publish("messages", BROKEN, single_object("Messages", message()))
    reader = Reader(long, group_id=f"{topics.prefix}-group")
    with pytest.raises(ConsumerError, match=rf"create the topic {prefix}\.messages-dlt") as caught:
        await reader.worker.run(asyncio.Event())
    assert len(str(caught.value).splitlines()) == 1
    assert await long.committed("messages", group_id=reader.settings.group_id) == {}


async def test_many_undecodable_records_in_a_row_stop_the_consumer_before_any_is_set_aside(topics: Topics) -> None:
    """A wrong setting must not move a topic's whole history to the dead letters."""
    await topics.create("messages", "messages-dlt")
    await topics.publish(
        "messages", *(confluent(1, schema("Messages"), message()) for _ in range(UNDECODABLE_IN_A_ROW_MAX))
    )
    reader = Reader(topics)
    with pytest.raises(ConsumerError, match=r"records in a row .*SCHEMA_REGISTRY_URL"):
        async with asyncio.timeout(60):
            await reader.worker.run(asyncio.Event())
    assert await topics.records("messages-dlt") == []


async def test_records_wait_while_the_registry_is_away(topics: Topics) -> None:
    """They are neither dead letters nor lost: they are handled, once and in order, when it is back."""
    await topics.create("messages")
    away = True
    asked = 0

    async def answer(_: web.Request) -> web.Response:
        nonlocal asked
        asked += 1
        return web.Response(status=503) if away else web.json_response({"schema": json.dumps(schema("Messages"))})

    async def times_asked() -> int:
        return asked

    app = web.Application()
    app.router.add_get("/schemas/ids/{id}", answer)
    values = [message() for _ in range(3)]
    await topics.publish("messages", single_object("Messages", values[0]))
    await topics.publish("messages", *(confluent(9, schema("Messages"), value) for value in values[1:]))
    async with TestServer(app) as server:
        reader = Reader(topics, schema_registry_url=str(server.make_url("/")))
        async with reader.running():
            await until(times_asked, lambda times: times >= 2)
            assert reader.worker.dead_letters == 0
            away = False
            assert await until(reader.event_ids, has(3)) == [value["event_id"] for value in values]


async def test_two_members_share_the_partitions(topics: Topics) -> None:
    """A member that joins takes a part, one that leaves gives its part back, and every event is handled."""
    await topics.create("messages")
    one, other = Reader(topics), Reader(topics)
    expected: set[str] = set()

    async def publish(count: int) -> None:
        for partition in range(2):
            values = [message() for _ in range(count)]
            await topics.publish(
                "messages", *(single_object("Messages", value) for value in values), partition=partition
            )
            expected.update(value["event_id"] for value in values)

    async def handled() -> set[str]:
        return {*await one.event_ids(), *await other.event_ids()}

    async with one.running():
        await publish(5)
        await until(handled, lambda found: found == expected)
        async with other.running():

            async def other_has_some() -> bool:
                await publish(1)
                return bool(other.events)

            await until(other_has_some, bool)
            await publish(5)
            await until(handled, lambda found: found == expected)
        await publish(5)
        await until(handled, lambda found: found == expected)


async def test_kafka_that_does_not_listen_is_said_in_one_line(topics: Topics) -> None:
    """The error names the address and the setting."""
    reader = Reader(topics, kafka_bootstrap_servers="127.0.0.1:1")
    with pytest.raises(ConsumerError, match=r"127\.0\.0\.1:1 .*WORKER_TEST_KAFKA_BOOTSTRAP_SERVERS"):
        await reader.worker.run(asyncio.Event())


def undecodable() -> UndecodableError:
    """A record that cannot be read."""
    return UndecodableError(topic="t", partition=0, offset=7, reason="broken_value", detail="its bytes are none")


def brake_on(brake: Brake, *, good_between: int, rounds: int = 100_000) -> int:
    """How many records are read, each undecodable one behind so many good ones, until the brake holds or the rounds are over."""
    for number in range(rounds):
        brake.good(good_between)
        try:
            brake.bad(undecodable())
        except ConsumerError as error:
            assert "t partition 0 offset 7" in str(error)  # noqa: PT017 - whether it comes at all is the caller's question
            return (number + 1) * (good_between + 1)
    return 0


def test_brake_holds_at_too_many_in_a_row() -> None:
    """One before that, and a good record between, are let through."""
    brake = Brake()
    for _ in range(3):
        assert brake_on(brake, good_between=0, rounds=IN_A_ROW_MAX - 1) == 0
        brake.good(20 * IN_A_ROW_MAX)
    assert brake_on(brake, good_between=0) == IN_A_ROW_MAX


@pytest.mark.parametrize("before", [0, 1_000_000])
def test_brake_holds_at_too_great_a_share_however_long_all_was_well(before: int) -> None:
    """Scattered among good records, a share that is too great is noticed within some thousand records; half of it is not."""
    brake = Brake()
    brake.good(before)
    assert brake_on(brake, good_between=round(2 / SHARE_MAX), rounds=10_000) == 0
    assert 0 < brake_on(brake, good_between=round(1 / SHARE_MAX / 2)) < 20 * SHARE_RECORDS_MIN

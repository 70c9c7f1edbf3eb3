"""Topics that are gone, come back otherwise, take less than before, or are not ours any more, while the bridge serves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AclOperation

from tests.faults.broker import ProxiedKafka
from tests.faults.ledger import mid_of
from tests.faults.load import Load
from tests.faults.test_outage import environment
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import Serving, message, notification, opened, run

RATE = 200
REFUSED_FOR_S = 4
LOWERED_BYTES = 20_000
LARGE = "l" * 2 * LOWERED_BYTES
MEDIUM = "m" * (LOWERED_BYTES // 4)


async def spooled(serving: Serving, mid: str) -> None:
    """A delivery that only the spool can take."""
    answer = await serving.deliver(notification(message(mid)))
    assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "spool")


async def direct(serving: Serving) -> None:
    """Wait until the spool is empty, and a delivery goes to Kafka itself."""
    await serving.until_counted("instagram_bridge_spool_deliveries", 0)
    async with asyncio.timeout(60):
        while (await serving.status())["mode"] != "direct":  # noqa: ASYNC110 - another process sets no event of ours
            await asyncio.sleep(0.02)
    answer = await serving.deliver(notification(message("direct")))
    assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")


async def test_topic_deleted_is_named_and_spooled_for(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """What cannot be published waits in the spool, the log says which topic is missing and what to do, and then it drains."""
    settings = environment(broken, topic_prefix, tmp_path)
    async with opened(tmp_path, settings, decode_single_object) as street:
        serving = street.serving
        await serving.accepted(notification(message("before")))
        broken.delete_topics(f"{topic_prefix}.messages")

        for number in range(5):
            await spooled(serving, f"during-{number}")
        assert (await serving.ask("/readyz"))[0] == 200
        await serving.process.until_printed(f"missing topics: {topic_prefix}.messages: run `bridge topics apply`")

        await run(tmp_path, settings, "topics", "apply")
        await direct(serving)
        found = list(dict.fromkeys(map(mid_of, await broken.records(topic_prefix))))
        assert found == [*(f"during-{number}" for number in range(5)), "direct"]


async def test_data_wiped_under_load_loses_nothing_that_came_after(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A broker that comes back empty: deliveries are spooled until the topics are made anew, with fewer partitions even."""
    settings = environment(broken, topic_prefix, tmp_path)
    async with opened(tmp_path, settings, decode_single_object) as street:
        serving = street.serving
        async with Load(serving.port).running() as load:
            await load.until_more(100, "kafka")
            await broken.wipe()
            wiped = len(load.ledger.sent)
            await load.until_more(100, "spool")
            await serving.process.until_printed("missing topics")
            await run(tmp_path, {**settings, "BRIDGE_TOPIC_PARTITIONS": "2"}, "topics", "apply")
            await load.until_more(100, "kafka")

        found = set(map(mid_of, await broken.records(topic_prefix)))
        assert {sent.mid for sent in load.ledger.sent[wiped:] if sent.status == 200} <= found
        assert set(load.ledger.outcomes) == {"kafka", "spool"}


async def test_data_wiped_while_idle_is_no_trap_for_the_next_delivery(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A producer that noticed nothing of it, nor of fewer partitions, is replaced at its first failure."""
    settings = environment(broken, topic_prefix, tmp_path)
    async with opened(tmp_path, settings, decode_single_object) as street:
        serving = street.serving
        customers = [f"customer-{number}" for number in range(20)]
        for customer in customers:
            await serving.accepted(notification(message(f"before {customer}", customer_id=customer)))
        await broken.wipe()
        await run(tmp_path, {**settings, "BRIDGE_TOPIC_PARTITIONS": "1"}, "topics", "apply")

        for customer in customers:
            await serving.accepted(notification(message(f"after {customer}", customer_id=customer)))
        await direct(serving)
        found = set(map(mid_of, await broken.records(topic_prefix)))
        assert found >= {f"after {customer}" for customer in customers}
        assert serving.process.exit_code is None


def sized(mid: str, text: str) -> dict[str, Any]:
    """A message of about this size."""
    return message(mid, text=text)


async def test_topic_that_takes_less_than_before_dead_letters_what_is_too_large(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """One refusal by the broker, and then records over the new size are dead letters, and all their neighbours published."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        serving = street.serving
        await serving.accepted(notification(sized("fits", LARGE)))
        broken.set_message_bytes(f"{topic_prefix}.messages", LOWERED_BYTES)

        await serving.accepted(notification(sized("one", "1"), sized("large", LARGE), sized("two", "2")))
        await direct(serving)
        medium = [notification(sized(f"medium-{number}", MEDIUM)) for number in range(20)]
        await asyncio.gather(*map(serving.accepted, medium))
        answer = await serving.deliver(notification(sized("three", "3"), sized("large too", LARGE)))
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")

        records = await street.reader.new()
        published = {mid_of(record) for record in records if record.topic_field == "messages"}
        assert published == {"fits", "one", "two", "three", "direct", *(f"medium-{number}" for number in range(20))}
        dead_letters = [street.decode(record) for record in records if record.topic_field == "dead_letter"]
        assert {letter["reason"] for letter in dead_letters} == {"record_too_large"}
        assert [json.loads(letter["body"])["message"]["mid"] for letter in dead_letters] == ["large", "large too"]
        assert "topics_take_less" in serving.process.stderr
        assert (await serving.status())["kafka"]["producer_rebuilds"] == 1


async def test_dead_letter_topic_that_takes_less_than_it_must_stops_publishing(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """There is nowhere to set a large delivery aside, so everything waits in the spool until the topic is mended."""
    settings = environment(broken, topic_prefix, tmp_path)
    async with opened(tmp_path, settings, decode_single_object) as street:
        serving = street.serving
        broken.set_message_bytes(f"{topic_prefix}.dead_letter", LOWERED_BYTES)
        answer = await serving.deliver(b"[" + b'"no json' + b"x" * 2 * LOWERED_BYTES)
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "spool")
        await serving.process.until_printed(f"{topic_prefix}.dead_letter has max.message.bytes={LOWERED_BYTES}")
        await spooled(serving, "behind it")

        await run(tmp_path, settings, "topics", "apply")
        await direct(serving)
        fields = [record.topic_field for record in await street.reader.new()]
        assert sorted(fields) == ["dead_letter", "messages", "messages"]


@pytest.mark.parametrize("operation", [AclOperation.WRITE, AclOperation.DESCRIBE], ids=["write", "describe"])
async def test_authorisation_lost_is_spooled_for_until_it_is_back(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path, operation: AclOperation
) -> None:
    """Nothing is refused or lost, the log tells, producers are not made in a tight loop, and it heals by itself."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        serving = street.serving
        async with Load(serving.port, rate=RATE).running() as load:
            await load.until_more(50, "kafka")
            broken.forbid(operation, f"{topic_prefix}.messages")
            await load.until_more(REFUSED_FOR_S * RATE, "spool")
            assert (await serving.ask("/readyz"))[0] == 200
            assert "TopicAuthorizationFailed" in serving.process.stderr
            assert 1 <= (await serving.status())["kafka"]["producer_rebuilds"] <= 2 + 2 * REFUSED_FOR_S
            broken.allow(operation, f"{topic_prefix}.messages")
            await load.until_more(50, "kafka")
        figures = load.ledger.figures(await broken.records(topic_prefix))
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)

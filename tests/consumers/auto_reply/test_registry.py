"""The ledger with a schema registry: entries in Confluent's wire format, under the id that the registry has for our schema."""

from __future__ import annotations

import signal
from pathlib import Path

import aiohttp
from aiokafka import AIOKafkaConsumer

from bridge.local.service import Broker, Registry
from tests.consumers.running import Topics
from tests.consumers.samples import confluent, message, schema
from tests.kafka.reading import Record, confluent_decoder
from tests.kafka.serving import run, serve_environment
from tests.processes import Process

RULES = "{version: 1, rules: [{name: all, when: {any_message: true}, reply: {text: Hi}}]}"


async def test_ledger_with_a_registry_is_in_its_wire_format_and_read_again(
    kafka: Broker, registry: Registry, topics: Topics, tmp_path: Path
) -> None:
    """Another reader finds the entry; a second process reads it back and decides nothing anew. Without a registration: one line."""
    bridge = serve_environment(kafka.bootstrap_servers, topics.prefix, SCHEMA_REGISTRY_URL=registry.url)
    await run(tmp_path, bridge, "topics", "apply")
    (tmp_path / "rules.yaml").write_text(RULES, "utf-8")
    given = {"KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers, "TOPIC_PREFIX": topics.prefix, "DRY_RUN": "true"}
    given |= {"RULES": str(tmp_path / "rules.yaml"), "SCHEMA_REGISTRY_URL": registry.url, "LOG_FORMAT": "json"}
    environment = {f"AUTO_REPLY_{name}": value for name, value in given.items()}

    early = await Process.begin("-m", "consumers.auto_reply", folder=tmp_path, environment=environment)
    assert await early.end() == 1
    assert "run `bridge schemas register`" in early.stderr

    await run(tmp_path, bridge, "schemas", "register")
    asked = message()
    known = await registered_id(registry, f"{topics.prefix}.messages-value")
    await topics.publish("messages", confluent(known, schema("Messages"), asked))
    for group_id in ("first", "second"):
        own = environment | {"AUTO_REPLY_GROUP_ID": f"{topics.prefix}-{group_id}"}
        process = await Process.begin("-m", "consumers.auto_reply", folder=tmp_path, environment=own)
        await process.until_printed("would_reply" if group_id == "first" else "decided_before")
        assert await process.end(signal.SIGTERM) == 0
    consumer = AIOKafkaConsumer(
        f"{topics.prefix}.auto_replies", bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        one = await consumer.getone()
    finally:
        await consumer.stop()
    found = Record("auto_replies", one.partition, one.offset, one.key, one.timestamp, {}, bytes(one.value or b""))
    entry = confluent_decoder(registry.url)(found)
    assert (entry["event_id"], entry["status"], entry["rule"]) == (asked["event_id"], "would_reply", "all")


async def registered_id(registry: Registry, subject: str) -> int:
    """The id of a subject's only version."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{registry.url}/subjects/{subject}/versions/latest") as answer,
    ):
        return int((await answer.json())["id"])

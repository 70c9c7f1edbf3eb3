"""`bridge topics` on a real Kafka, looked at with another client; what `bridge serve` asks of the topics; docs/topics.md."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from structlog.testing import capture_logs

from bridge.adapters import topics
from bridge.errors import Misconfigured
from bridge.local.jvm import free_port
from bridge.local.service import Broker
from bridge.routing import MANAGED_FIELDS, TOPIC_FIELDS
from bridge.settings import KafkaSettings
from tests.commands.conftest import PARTITIONS, Run

DOCS = Path(__file__).parents[2] / "docs" / "topics.md"
RETENTION = 30 * 24 * 60 * 60 * 1000
RECORD, BODY = 1024 * 1024, 16 * 1024 * 1024
ANSWER_S = 30


@pytest.fixture
def admin(kafka: Broker) -> AdminClient:
    """Another Kafka client than the one that the commands use."""
    return AdminClient({"bootstrap.servers": kafka.bootstrap_servers})


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> KafkaSettings:
    """The commands' settings in this process."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return KafkaSettings()


async def existing(admin: AdminClient, prefix: str) -> dict[str, int]:
    """Topics of a prefix and their partitions."""
    found = await asyncio.to_thread(admin.list_topics, timeout=ANSWER_S)
    return {name: len(topic.partitions) for name, topic in found.topics.items() if name.startswith(f"{prefix}.")}


async def config(admin: AdminClient, topic: str) -> dict[str, str]:
    """A topic's configuration in force."""
    [answer] = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
    entries: dict[str, Any] = await asyncio.to_thread(answer.result, ANSWER_S)
    return {name: entry.value for name, entry in entries.items()}


async def alter(admin: AdminClient, topic: str, **values: str) -> None:
    """Sets configurations of a topic as somebody else would, dots written as underscores."""
    entries = [
        ConfigEntry(name.replace("_", "."), value, incremental_operation=AlterConfigOpType.SET)
        for name, value in values.items()
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    [answer] = admin.incremental_alter_configs([resource]).values()
    await asyncio.to_thread(answer.result, ANSWER_S)


async def until_there_are(admin: AdminClient, prefix: str, partitions: int) -> None:
    """Waits until so many partitions are seen; brokers learn of a change a moment after the controller."""
    async with asyncio.timeout(ANSWER_S):
        while True:
            if sum((await existing(admin, prefix)).values()) == partitions:
                return
            await asyncio.sleep(0.05)


async def test_apply_without_topics_shows_then_creates_them_then_finds_nothing_to_do(
    run: Run, admin: AdminClient, topic_prefix: str
) -> None:
    """A dry run creates nothing; apply creates every topic of the contract as set; a second apply says so."""
    names = {f"{topic_prefix}.{topic_field}" for topic_field in MANAGED_FIELDS}

    shown = await run("topics", "apply", "--dry-run")
    assert shown.exit_code == 0
    assert names == {line.split(":")[0] for line in shown.stdout.splitlines()}
    assert await existing(admin, topic_prefix) == {}

    applied = await run("topics", "apply")
    assert applied.exit_code == 0
    assert applied.stdout == shown.stdout + "applied\n"
    assert await existing(admin, topic_prefix) == dict.fromkeys(names, PARTITIONS)
    for name in names:
        found = await config(admin, name)
        wanted_bytes = BODY + 65536 if name.endswith(".dead_letter") else RECORD
        assert (found["cleanup.policy"], found["retention.ms"]) == ("delete", str(RETENTION))
        assert (found["max.message.bytes"], found["min.insync.replicas"]) == (str(wanted_bytes), "1")

    again = await run("topics", "apply", "--output", "json")
    assert again.said == {"applied": False, "changes": [], "left": []}
    assert (await run("topics", "apply")).stdout == "nothing to change\n"


async def test_apply_over_a_config_of_somebody_else_keeps_it(run: Run, admin: AdminClient, topic_prefix: str) -> None:
    """What the settings say is set again, what they do not say stays, and so does more room than is needed."""
    await run("topics", "apply")
    changed, roomy = f"{topic_prefix}.messages", f"{topic_prefix}.comments"
    await alter(admin, changed, retention_ms="1000", cleanup_policy="compact", segment_bytes="104857600")
    await alter(admin, roomy, max_message_bytes=f"{4 * RECORD}")

    applied = await run("topics", "apply")
    assert applied.stdout == f"{changed}: cleanup.policy compact → delete, retention.ms 1000 → {RETENTION}\napplied\n"
    found = await config(admin, changed)
    assert (found["cleanup.policy"], found["retention.ms"]) == ("delete", str(RETENTION))
    assert found["segment.bytes"] == "104857600"
    assert (await config(admin, roomy))["max.message.bytes"] == str(4 * RECORD)


async def test_apply_with_more_partitions_refuses_until_told_to_break_order(
    run: Run, admin: AdminClient, topic_prefix: str
) -> None:
    """Partitions grow only with --break-order; before that nothing at all is changed, and it says what would happen."""
    await run("topics", "apply")
    refused = await run("topics", "apply", TOPIC_PARTITIONS="3", TOPIC_RETENTION_MS="5000")
    assert "keys move" in refused.complaint
    assert "--break-order" in refused.complaint
    assert set((await existing(admin, topic_prefix)).values()) == {PARTITIONS}
    assert (await config(admin, f"{topic_prefix}.messages"))["retention.ms"] == str(RETENTION)

    grown = await run("topics", "apply", "--break-order", TOPIC_PARTITIONS="3")
    assert grown.exit_code == 0
    assert set((await existing(admin, topic_prefix)).values()) == {3}


async def test_apply_with_fewer_partitions_refuses(run: Run, admin: AdminClient, topic_prefix: str) -> None:
    """Kafka cannot take partitions away, with or without --break-order; the setting that keeps them is named."""
    await run("topics", "apply")
    refused = await run("topics", "apply", "--break-order", TOPIC_PARTITIONS="1")
    assert f"BRIDGE_TOPIC_PARTITIONS={PARTITIONS}" in refused.complaint
    assert set((await existing(admin, topic_prefix)).values()) == {PARTITIONS}


async def test_apply_with_more_replicas_than_brokers_says_which_setting(run: Run) -> None:
    """Kafka's refusal is one line for all topics, with the setting to change."""
    refused = await run("topics", "apply", TOPIC_REPLICATION_FACTOR="32")
    assert "BRIDGE_TOPIC_REPLICATION_FACTOR" in refused.complaint


async def test_apply_with_other_replicas_than_there_are_leaves_them_and_says_so(run: Run) -> None:
    """Replicas of a topic that exists are not ours to move, and the operator hears it."""
    await run("topics", "apply")
    left = await run("topics", "apply", TOPIC_REPLICATION_FACTOR="2")
    assert left.exit_code == 0
    assert left.stdout == "nothing to change\n"
    assert "kafka-reassign-partitions" in left.stderr


async def test_list_counts_records_and_names_missing_topics(run: Run, kafka: Broker, topic_prefix: str) -> None:
    """Every topic is one row with its numbers; those that are missing come with the command that makes them."""
    missing = await run("topics", "list", "--output", "json")
    assert missing.said == {
        "topics": [],
        "missing": [f"{topic_prefix}.{topic_field}" for topic_field in MANAGED_FIELDS],
    }

    await run("topics", "apply")
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(5):
        producer.produce(f"{topic_prefix}.messages", str(number))
    assert await asyncio.to_thread(producer.flush, ANSWER_S) == 0
    listed = await run("topics", "list", "--output", "json")
    rows = {row["topic"]: row for row in listed.said["topics"]}
    assert listed.said["missing"] == []
    assert rows[f"{topic_prefix}.messages"] == {
        "topic": f"{topic_prefix}.messages",
        "partitions": PARTITIONS,
        "replicas": 1,
        "retention_ms": RETENTION,
        "max_message_bytes": RECORD,
        "min_insync_replicas": 1,
        "cleanup_policy": "delete",
        "records": 5,
    }
    assert [row["records"] for name, row in rows.items() if name != f"{topic_prefix}.messages"] == [0] * (
        len(MANAGED_FIELDS) - 1
    )
    text = (await run("topics", "list")).stdout.splitlines()
    assert text[0].split() == list(rows[f"{topic_prefix}.messages"])
    assert len(text) == 1 + len(MANAGED_FIELDS)


async def test_topics_without_kafka_fails_within_ten_seconds_in_one_line(run: Run) -> None:
    """An address where nothing listens is said at once, with the setting to correct."""
    begin = time.monotonic()
    failed = await run("topics", "list", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{free_port()}")
    assert "BRIDGE_KAFKA_BOOTSTRAP_SERVERS" in failed.complaint
    assert time.monotonic() - begin < 10 + ANSWER_S  # and a busy machine's start


async def test_topics_with_a_server_that_never_answers_fails_in_one_line(run: Run) -> None:
    """A port that accepts and says nothing ends the command after its bound."""

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()
        await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(say_nothing, "127.0.0.1", port):
        failed = await run("topics", "list", KAFKA_BOOTSTRAP_SERVERS=f"127.0.0.1:{port}")
    assert "no Kafka answers" in failed.complaint


async def test_topics_with_wrong_usage_exits_with_two(run: Run) -> None:
    """A wrong subcommand is usage, not failure."""
    assert (await run("topics", "aply")).exit_code == 2


async def test_check_without_topics_names_them_and_the_command(settings: KafkaSettings, topic_prefix: str) -> None:
    """`serve` hears which topics are missing, and asking has created none of them."""
    for _ in range(2):
        with pytest.raises(Misconfigured, match="bridge topics apply") as problem:
            await topics.check(settings)
        assert all(f"{topic_prefix}.{topic_field}" in str(problem.value) for topic_field in TOPIC_FIELDS)


async def test_check_with_topics_gives_their_partitions_and_says_how_safe_they_are(
    run: Run, settings: KafkaSettings
) -> None:
    """Topics of `topics apply` are good to start with; with one replica it warns."""
    await run("topics", "apply")
    with capture_logs() as logs:
        assert await topics.check(settings) == PARTITIONS
    [warning] = logs
    assert (warning["log_level"], warning["meaning"]) == ("warning", "a 200 is as safe as one broker")


async def test_check_with_several_faults_names_all_of_them(
    run: Run, settings: KafkaSettings, admin: AdminClient, topic_prefix: str
) -> None:
    """Policy, sizes, replicas, partitions and a missing topic are told at once, each with its remedy."""
    await run("topics", "apply")
    await alter(admin, f"{topic_prefix}.comments", cleanup_policy="compact")
    await alter(admin, f"{topic_prefix}.mentions", max_message_bytes=f"{RECORD - 1}")
    await alter(admin, f"{topic_prefix}.dead_letter", max_message_bytes=f"{BODY}")
    await alter(admin, f"{topic_prefix}.standby", min_insync_replicas="2")
    for answer in (
        admin.delete_topics([f"{topic_prefix}.other"]),
        admin.create_partitions([NewPartitions(f"{topic_prefix}.messages", PARTITIONS + 1)]),
    ):
        [done] = answer.values()
        await asyncio.to_thread(done.result, ANSWER_S)
    await until_there_are(admin, topic_prefix, (len(MANAGED_FIELDS) - 1) * PARTITIONS + 1)

    with pytest.raises(Misconfigured) as problem:
        await topics.check(settings)
    lines = str(problem.value).splitlines()
    assert all("bridge topics apply" in line for line in lines)
    told = {
        (name, word) for line in lines for name, word in FAULTS if f"{topic_prefix}.{name}" in line and word in line
    }
    assert told == set(FAULTS)
    assert sum("partitions" in line for line in lines) == len(TOPIC_FIELDS) - 2


FAULTS = [
    ("other", "missing"),
    ("comments", "cleanup.policy=compact"),
    ("mentions", "max.message.bytes=1048575"),
    ("dead_letter", "max.message.bytes=16777216"),
    ("standby", "min.insync.replicas=2"),
    ("standby", f"BRIDGE_TOPIC_PARTITIONS={PARTITIONS + 1}"),
]


def test_docs_name_the_same_topics_settings_and_sizes() -> None:
    """docs/topics.md has a row for every topic, and for every configuration that `topics apply` sets."""
    text = DOCS.read_text("utf-8")
    assert re.findall(r"^\| `instagram\.(\w+)` \|", text, re.MULTILINE) == list(MANAGED_FIELDS)
    changes = topics.plan(KafkaSettings(), {})
    settings = text.partition("## What `bridge topics apply` sets")[2]
    told = dict(re.findall(r"^\| `?(partitions|replicas|[a-z.]+\.[a-z.]+)`? \| ([^|]+?) \|", settings, re.MULTILINE))
    wanted: dict[str, set[str]] = {}
    for change in changes:
        wanted.setdefault(change.setting, set()).add(change.wanted)
    assert set(told) == set(wanted)
    for setting, values in wanted.items():
        assert {value for value in re.findall(r"`([^`]+)`", told[setting]) if not value.startswith("BRIDGE_")} == values

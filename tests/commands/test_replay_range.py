"""`bridge replay range` on a real Kafka: what is copied is read back by another client, files by their own readers."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import stat
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
import pyarrow.parquet
import pytest
from confluent_kafka import Message
from confluent_kafka.admin import AdminClient, NewTopic

from bridge.local.service import Broker
from tests.commands.conftest import Run
from tests.commands.past import (
    ACCOUNT,
    ANSWER_S,
    BEGIN_MS,
    CUSTOMER,
    OTHER_CUSTOMER,
    RETENTION_MS,
    committed,
    headers,
    message,
    notification,
    produce,
    value,
    walked,
)
from tests.conftest import BeginBridge

HOUR_MS = 3_600_000


def at(milliseconds: int) -> str:
    """As a person types it."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()


def texts(messages: list[Message]) -> list[str]:
    """What was written, sorted."""
    return sorted(value(one)["message"]["text"] for one in messages)


@pytest.fixture
async def topic(call: Run, kafka: Broker, topic_prefix: str) -> str:
    """Messages of two customers, one an hour, of which the last that was written is the oldest, as after a drain."""
    assert (await call("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    for hour in (1, 2, 3, 0):
        received_at = BEGIN_MS + hour * HOUR_MS
        body = notification(*(message(f"{customer} {hour}", customer) for customer in (CUSTOMER, OTHER_CUSTOMER)))
        await produce(kafka, walked(topic_prefix, body, received_at=received_at), received_at)
    return f"{topic_prefix}.messages"


@pytest.fixture
def copies(kafka: Broker, topic_prefix: str) -> str:
    """A topic of somebody's own."""
    name = f"{topic_prefix}-copies"
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap_servers})
    admin.create_topics([NewTopic(name, 3, 1)])[name].result(ANSWER_S)
    deadline = time.monotonic() + ANSWER_S
    while name not in admin.list_topics(timeout=ANSWER_S).topics:  # the controller knows it, the broker a moment later
        assert time.monotonic() < deadline, "the topic is not to be seen"
    return name


async def test_range_to_a_topic_copies_what_is_in_it_once_and_stamps_it_now(
    call: Run, kafka: Broker, topic: str, copies: str
) -> None:
    """By time of receipt, also what was written late; key, value and headers as they were; a second run adds nothing."""
    arguments = (
        *("replay", "range", "messages", "--to-topic", copies, "--id", "tuesday", "--output", "json"),
        *("--since", at(BEGIN_MS), "--until", at(BEGIN_MS + 2 * HOUR_MS), "--customer", CUSTOMER),
    )
    planned = await call(*arguments)
    assert (planned.said["execute"], planned.said["matching"]) == (False, 2)
    assert committed(kafka, copies) == []
    for _ in range(2):
        done = await call(*arguments, "--execute")
        assert (done.exit_code, done.said["copied"], done.said["replay_id"]) == (0, 2, "tuesday")
    originals = {record.value(): record for record in committed(kafka, topic)}
    copied = committed(kafka, copies)
    assert texts(copied) == [f"{CUSTOMER} 0", f"{CUSTOMER} 1"]
    for copy in copied:
        original = originals[copy.value()]
        assert copy.key() == original.key()
        place = f"{topic}:{original.partition()}:{original.offset()}"
        assert headers(copy) == headers(original) | {"ig_replay_id": "tuesday", "ig_replayed_from": place}
        assert abs(copy.timestamp()[1] - datetime.now(UTC).timestamp() * 1000) < 60_000
    other = await call(*arguments, "--account", ACCOUNT, "--execute")
    assert "begun with other options" in other.complaint


async def test_range_to_its_own_topic_repeats_the_originals_and_never_copies(
    call: Run, kafka: Broker, topic: str
) -> None:
    """Two replays of one range are two copies of each event, in the partition of its key, not copies of copies."""
    for replay_id in ("first", "second"):
        done = await call("replay", "range", "messages", "--to-topic", topic, "--id", replay_id, "--execute")
        assert done.stdout.splitlines()[-1] == f"8 records of {topic} were written to {topic}"
    everything = committed(kafka, topic)
    assert len(everything) == 3 * 8
    assert len({(record.key(), record.partition()) for record in everything}) == 2
    again = await call("replay", "range", "messages", "--to-topic", topic, "--output", "json")
    assert again.said["matching"] == 8


async def test_range_that_is_interrupted_goes_on_where_it_stopped(
    *,
    call: Run,
    bridge: BeginBridge,
    environment: Mapping[str, str],
    kafka: Broker,
    topic: str,
    topic_prefix: str,
    copies: str,
) -> None:
    """Ctrl-C ends it with 130 and says how to go on; killed, interrupted or overtaken, no copy is missing and none is twice."""
    many = 3000
    await produce(kafka, walked(topic_prefix, notification(*(message(f"{number}") for number in range(many)))))
    arguments = ("replay", "range", "messages", "--to-topic", copies, "--execute", "--id", "long")
    interrupted = await bridge(*arguments, "--rate", "400", environment=environment)
    await interrupted.until_printed(" left, ")
    assert await interrupted.end(signal.SIGINT) == 130
    assert re.search(r"^copying: \d+ %, \d+:\d\d left, \d+ copied$", interrupted.stderr, re.MULTILINE)
    assert "--id long goes on" in interrupted.stderr
    assert "Traceback" not in interrupted.stderr
    counts = [len(committed(kafka, copies))]
    for number in (signal.SIGKILL, None):
        process = await bridge(*arguments, "--rate", "400", environment=environment)
        async with asyncio.timeout(ANSWER_S):
            while (count := len(await asyncio.to_thread(committed, kafka, copies))) == counts[-1]:
                assert process.exit_code is None, process.stderr
        counts.append(count)
        if number:
            await process.end(number)
    assert 0 < counts[0] < counts[-1] < many + 8
    done = await call(*arguments, "--rate", "100000")
    assert done.stdout.splitlines()[-1] == f"{many + 8} records of {topic} were written to {copies}"
    assert len({value(copy)["raw"] for copy in committed(kafka, copies)}) == many + 8
    assert len(committed(kafka, copies)) == many + 8
    assert await process.end() == 1
    assert "goes on in another process" in process.stderr


@pytest.mark.parametrize("suffix", [".avro", ".jsonl", ".parquet"])
async def test_range_to_a_file_is_read_by_the_formats_own_reader(
    call: Run, topic: str, tmp_path: Path, suffix: str
) -> None:
    """All that the events hold, in the writer's schema; nothing is overwritten, and no half file is left."""
    file = tmp_path / f"range{suffix}"
    arguments = ("replay", "range", "messages", "--since", at(BEGIN_MS + 3 * HOUR_MS), "--to-file", str(file))
    assert not file.exists()
    planned = await call(*arguments)
    assert planned.stdout.splitlines()[-1] == f"nothing was written; add --execute to write them to {file}"
    done = await call(*arguments, "--execute")
    assert done.stdout.splitlines()[-1] == f"2 records of {topic} were written to {file}"
    rows: list[dict[str, Any]]
    if suffix == ".avro":
        with file.open("rb") as opened:
            container = fastavro.reader(opened)
            assert container.writer_schema is not None
            rows = [row for row in container if isinstance(row, dict)]
    elif suffix == ".parquet":
        rows = pyarrow.parquet.read_table(file).to_pylist()
    else:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    assert sorted(row["message"]["text"] for row in rows) == sorted(f"{who} 3" for who in (CUSTOMER, OTHER_CUSTOMER))
    received_at = BEGIN_MS + 3 * HOUR_MS
    expected = received_at if suffix == ".jsonl" else datetime.fromtimestamp(received_at / 1000, UTC)
    assert all(row["received_at"] == expected for row in rows)
    assert rows[0]["message"]["attachments"][0]["type"] == "image"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600, "it holds messages"
    assert not list(tmp_path.glob("*.partial"))  # noqa: ASYNC240 - a folder of the test's own
    assert "exists" in (await call(*arguments, "--execute")).complaint


async def test_range_that_makes_no_sense_is_told_in_one_line(call: Run, topic: str, topic_prefix: str) -> None:
    """Each wrong wish has its line; nothing is published."""
    nowhere = await call("replay", "range", "messages", "--to-topic", "nowhere")
    assert "no such topic: nowhere" in nowhere.complaint
    unknown = await call("replay", "range", "nosuch", "--to-topic", "messages", "--execute")
    assert unknown.complaint.startswith("bridge: no such topic: nosuch: ")
    mixed = await call("replay", "range", "messages", "--to-topic", "comments")
    assert "another field" in mixed.complaint
    letters = await call("replay", "range", "messages", "--to-topic", "dead_letter")
    assert "bridge replay dead-letters" in letters.complaint
    odd = await call("replay", "range", "messages", "--to-file", "range.csv")
    assert ".parquet" in odd.complaint
    for usage in (
        ("messages",),
        ("messages", "--to-topic", topic, "--to-file", "x.avro"),
        ("messages", "--to-topic", topic, "--since", "1h", "--until", "2h"),
        ("messages", "--to-topic", topic, "--rate", "0"),
        ("messages", "--to-topic", topic, "--id", "a b"),
        (),
    ):
        assert (await call("replay", "range", *usage)).exit_code == 2
    assert (await call("tail", f"{topic_prefix}.replays")).exit_code == 2

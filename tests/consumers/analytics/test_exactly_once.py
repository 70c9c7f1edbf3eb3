"""On a real Kafka: whatever ends the process, however often it reads, the tables are those of the events that happened."""

import json
import random
import signal
import time
from pathlib import Path
from typing import Any

import duckdb
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from consumers.analytics.source import METADATA
from consumers.decoding import reader_schemas
from tests.consumers.analytics.expected import facts, moment
from tests.consumers.analytics.stream import Stream, partition_of, stream
from tests.consumers.running import Consumers, Topics, until
from tests.consumers.samples import message, single_object
from tests.processes import Process

KILLS = 5
TABLES = ("events", "offsets", "unsent")
FIELDS = sorted(reader_schemas())


def two_days_ago() -> int:
    """In milliseconds since the Unix epoch. Much earlier, and the broker forgets records while the test reads them."""
    return time.time_ns() // 1_000_000 - 2 * 86_400_000


async def publish(topics: Topics, made: Stream, first: int, last: int) -> None:
    """Brings some of a stream's records to Kafka, in their order."""
    async with AIOKafkaProducer(bootstrap_servers=topics.bootstrap_servers, enable_idempotence=True) as producer:
        sent = [
            await producer.send(
                record.topic,
                record.value,
                record.key,
                partition_of(record),
                timestamp_ms=received_at,
                headers=record.headers,
            )
            for record, received_at in made.records[first:last]
        ]
        for acknowledged in sent:
            await acknowledged


def tables(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All rows that depend on what was read, in an order that does not."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return {name: sorted(connection.table(name).fetchall(), key=repr) for name in TABLES}


async def ended(process: Process, number: signal.Signals = signal.SIGTERM) -> None:
    """Ends a consumer as a person would."""
    assert await process.end(number) == 0, process.stderr
    assert "Traceback" not in process.stderr


async def test_consumer_killed_again_and_again_holds_each_event_once(
    topics: Topics, consumers: Consumers, tmp_path: Path
) -> None:
    """Killed in the middle of writing, and a second process that reads everything from the beginning beside it: equal tables.

    In them are exactly the events of the ledger.
    """
    made = stream(topics.prefix, count=1200, start_ms=two_days_ago(), speed=300, redeliver=0.1, quirks=0.05)
    wanted = {line["event_id"] for line in made.ledger.lines() if "event_id" in line}
    await topics.create(*FIELDS)
    one, two = tmp_path / "one.duckdb", tmp_path / "two.duckdb"
    step = len(made.records) // (KILLS + 2)
    chance = random.Random(1)  # noqa: S311 - when to kill
    for kill in range(KILLS):
        process, counts = await consumers.begin_analytics(DATABASE=str(one))
        before = (await counts())["events"]
        await publish(topics, made, kill * step, (kill + 1) * step)
        if kill % 2:  # else it is killed while it reads and writes what was just published
            await until(counts, lambda found, before=before: found["events"] > before)  # type: ignore[misc] # a lambda's default has no type
        if chance.random() < 0.5:
            await publish(topics, made, kill * step, kill * step + 50)  # redelivered, and perhaps half absorbed
        assert await process.end(signal.SIGKILL) == -signal.SIGKILL

    first, counts = await consumers.begin_analytics(DATABASE=str(one))
    second, counts_of_second = await consumers.begin_analytics(DATABASE=str(two))
    await publish(topics, made, KILLS * step, len(made.records))
    for count in (counts, counts_of_second):
        assert (await until(count, lambda found: found["events"] >= len(wanted)))["events"] == len(wanted)

    third = await consumers.begin("analytics", DATABASE=str(one), PORT="20099")
    assert await third.end() == 1
    assert f"error: {one} is open in another process" in third.stderr
    await ended(first)
    await ended(second, signal.SIGINT)
    assert await lag_shown(topics, consumers.group_id) == (0, {METADATA})
    found = tables(one)
    assert found == tables(two)
    assert {event_id.hex for event_id, *_ in found["events"]} == wanted
    records = [record for name in FIELDS for record in await topics.records(name)]
    assert len(records) > len(found["events"]), "there were redeliveries"
    assert {event.event_id for event in facts(records)} == wanted


async def lag_shown(topics: Topics, group_id: str) -> tuple[int, set[str]]:
    """The sum of the lags that the group's committed offsets show, and what stands beside them."""
    admin = AIOKafkaAdminClient(bootstrap_servers=topics.bootstrap_servers)
    await admin.start()
    async with AIOKafkaConsumer(bootstrap_servers=topics.bootstrap_servers) as consumer:
        committed = await admin.list_consumer_group_offsets(group_id)
        ends = await consumer.end_offsets(list(committed))
    await admin.close()
    return (
        sum(ends[place] - known.offset for place, known in committed.items()),
        {known.metadata for known in committed.values()},
    )


async def test_rebuild_beside_a_running_consumer_is_swapped_in_when_that_stops(
    topics: Topics, consumers: Consumers, tmp_path: Path
) -> None:
    """The topics are made after the start and found; the rebuilt tables are equal, the old file is kept, and export reads them."""
    database = tmp_path / "events.duckdb"
    running, counts = await consumers.begin_analytics(DATABASE=str(database))
    await running.until_printed('"event": "topics_missing"')
    await topics.create("messages", "comments")
    unsend = message(None, part={"mid": "m", "is_deleted": True})
    values = [message("gone", part={"mid": "m"}), unsend, *(message(f"number {number}") for number in range(40))]
    await topics.publish("messages", *(single_object("Messages", value) for value in values + values[:9]))
    await until(counts, lambda found: found["events"] == 42 and found["redeliveries"] == 9)

    given = {f"ANALYTICS_{name}": value for name, value in consumers.given.items()} | {
        "ANALYTICS_DATABASE": str(database)
    }
    rebuilding = await Process.begin("-m", "consumers.analytics", "--rebuild", folder=tmp_path, environment=given)
    await rebuilding.until_printed('"event": "waiting_for_database"')
    late = message("while the rebuild waits")
    await topics.publish("messages", single_object("Messages", late))
    await until(counts, lambda found: found["events"] == 43)
    await ended(running)
    before = tables(database)
    assert await rebuilding.end() == 0, rebuilding.stderr
    kept = database.with_name("events.duckdb.before-rebuild")
    assert {name: len(rows) for name, rows in tables(database).items()} == {"events": 43, "offsets": 1, "unsent": 1}
    assert before == tables(kept)
    assert tables(database)["events"] == before["events"]

    to = tmp_path / "parquet"
    exporting = await Process.begin(
        "-m", "consumers.analytics", "export", "--to", to, folder=tmp_path, environment=given
    )
    assert await exporting.end() == 0, exporting.stderr
    assert logged(exporting, "exported")[0]["events"] == 43
    assert len(duckdb.read_parquet(str(to / "**" / "*.parquet"))) == 43


def logged(process: Process, entry: str) -> list[dict[str, Any]]:
    """The log entries of one name."""
    entries = [json.loads(line) for line in process.stderr.splitlines() if line.startswith("{")]
    return [found for found in entries if found["event"] == entry]


async def test_rebuild_from_a_time_leaves_out_what_was_received_before(
    topics: Topics, consumers: Consumers, tmp_path: Path
) -> None:
    """By the records' timestamps; where there is no database yet, it is made."""
    await topics.create("messages")
    made = stream(topics.prefix, count=120, start_ms=two_days_ago(), speed=100, quirks=0, redeliver=0)
    made.records = [(record, at) for record, at in made.records if record.topic.endswith(".messages")]
    await publish(topics, made, 0, len(made.records))
    middle = made.records[len(made.records) // 2][1]
    wanted = sum(at >= middle for _, at in made.records)
    given = {f"ANALYTICS_{name}": value for name, value in consumers.given.items()}
    process = await Process.begin(
        "-m",
        "consumers.analytics",
        "--rebuild",
        "--from",
        moment(middle).isoformat(),
        folder=tmp_path,
        environment=given,
    )
    assert await process.end() == 0, process.stderr
    assert len(tables(tmp_path / "analytics.duckdb")["events"]) == wanted


async def test_group_that_others_share_out_is_refused(topics: Topics, consumers: Consumers) -> None:
    """Their commits and ours would be one lag; the line says what to do."""
    await topics.create("messages")
    async with AIOKafkaConsumer(
        f"{topics.prefix}.messages", bootstrap_servers=topics.bootstrap_servers, group_id=consumers.group_id
    ):
        process = await consumers.begin("analytics")
        assert await process.end() == 1
    assert f"error: group {consumers.group_id} has 1 members of another program" in process.stderr
    assert "ANALYTICS_GROUP_ID" in process.stderr

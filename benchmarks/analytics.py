"""How fast `python -m consumers.analytics` catches up from Kafka's disk, in what memory, and where its time goes.

A real Kafka in a temporary folder gets events of made-up conversations, each with an event_id of its own; then the consumer is
started as a user starts it. CPU seconds are of the consumer's process alone; the broker has the other core.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import analytics_page as page
from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer.message_accumulator import BatchBuilder
from console import progress, say
from copies import Copies
from procfs import cpu_seconds, peak_rss_bytes, rss_bytes

from bridge.event import WEBHOOK_FIELDS
from bridge.local.choice import choose_kafka
from bridge.local.jvm import free_port
from consumers.analytics.rows import Rows
from consumers.analytics.source import BATCH_RECORDS_MAX
from consumers.analytics.store import Batch, Store
from consumers.decoding import Decoder

PARTITIONS = 12
IN_FLIGHT_MAX = 20  # batches that wait for their acknowledgement
DEADLINE_S = 3600
POLL_INTERVAL_S = 0.1
MARKS = (500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000)  # events, at which memory and CPU are told
STARTED_EVENTS = 100_000  # after which buffers and readers are there, and the database has its first rows
READY_DEADLINE_S = 60  # for the leaders of 156 partitions


async def fill(bootstrap_servers: str, count: int) -> None:
    """Brings so many events to Kafka, the last of them of now; a conversation stays in its partition."""
    now_ms = time.time_ns() // 1_000_000
    copies = Copies.beginning(now_ms - Copies.beginning(now_ms).duration_ms(count))
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks=1, linger_ms=0) as producer:
        waiting: set[asyncio.Future[object]] = set()
        builders: dict[tuple[str, int], BatchBuilder | None] = {}
        for number, (template, value) in enumerate(copies.values(count)):
            place = topic, partition = template.topic, hash(template.key) % PARTITIONS
            while True:
                builder = builders.get(place) or producer.create_batch()
                builders[place] = builder
                if builder.append(key=template.key, value=value, timestamp=None) is not None:
                    break
                waiting.add(await producer.send_batch(builder, topic, partition=partition))
                builders[place] = None
                if len(waiting) >= IN_FLIGHT_MAX:
                    _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if number % 50_000 == 0:
                progress(f"filling Kafka: {number:,} of {count:,} events")
        for (topic, partition), builder in builders.items():
            if builder is not None:
                waiting.add(await producer.send_batch(builder, topic, partition=partition))
        await asyncio.gather(*waiting)


class Marks:
    """Tells memory and CPU of a process whenever its log says that it has read so many events."""

    def __init__(self, pid: int, count: int) -> None:
        self._pid = pid
        self._count = count
        self._left = [mark for mark in (STARTED_EVENTS, *MARKS) if mark < count] + [count]
        self._events_then, self._cpu_s_then = 0, 0.0

    def tell(self, text: str, *, is_done: bool) -> None:
        """Looks at the log as it is now."""
        entries = [json.loads(line) for line in text.splitlines() if '"event": "catching_up"' in line]
        events = self._count if is_done else self._count - entries[-1]["records_left"] if entries else 0
        if not self._left or events < self._left[0]:
            return
        while self._left and self._left[0] <= events:
            del self._left[0]
        cpu_s = cpu_seconds(self._pid)
        if self._events_then:
            each_us = 1e6 * (cpu_s - self._cpu_s_then) / (events - self._events_then)
            say(
                f"  {events:12,} events: {rss_bytes(self._pid) >> 20:5} MiB, since the line before {each_us:.1f} CPU µs an event"
            )
        self._events_then, self._cpu_s_then = events, cpu_s


async def said(process: asyncio.subprocess.Process, log: Path, entry: str, marks: Marks | None = None) -> None:
    """Waits until the consumer's log has an entry."""
    is_said = False
    while not is_said:
        is_said = f'"event": "{entry}"' in (text := log.read_text())  # noqa: ASYNC240 - a short file
        if process.returncode is not None:
            raise SystemExit(text)
        if marks is not None:
            marks.tell(text, is_done=is_said)
        await asyncio.sleep(POLL_INTERVAL_S)


async def catch_up(bootstrap_servers: str, folder: Path, count: int) -> None:
    """Runs the consumer until it has caught up, and says how it went."""
    log = folder / "analytics.log"
    environment = {
        **os.environ,
        "ANALYTICS_KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "ANALYTICS_DATABASE": str(folder / "bench.duckdb"),
        "ANALYTICS_PORT": str(free_port()),
        "ANALYTICS_LOG_FORMAT": "json",
    }
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "consumers.analytics", env=environment, stderr=stderr
        )
    try:
        await said(process, log, "page")
        began_s, cpu_s = time.monotonic(), cpu_seconds(process.pid)
        await said(process, log, "caught_up", Marks(process.pid, count))
        took_s, cpu_s = time.monotonic() - began_s, cpu_seconds(process.pid) - cpu_s
        say(
            f"{count:,} events in {took_s:.1f} s: {count / took_s:,.0f} events/s, {count / cpu_s:,.0f} events per CPU second "
            f"({1e6 * cpu_s / count:.1f} µs each), peak memory {peak_rss_bytes(process.pid) >> 20} MiB"
        )
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    say(f"database {(folder / 'bench.duckdb').stat().st_size / count:.0f} bytes an event")


async def profile(folder: Path) -> None:
    """CPU µs per event of each step, without Kafka, on an empty database."""
    loop = asyncio.get_running_loop()
    decoder = Decoder(topic_prefix="instagram", registry=None)
    rows = Rows(decoder, topic_prefix="instagram", loop=loop)
    copies = Copies.beginning(time.time_ns() // 1_000_000)
    records = [
        ConsumerRecord(one.topic, 0, offset, 0, 0, one.key, value, None, len(one.key), len(value), ())
        for offset, (one, value) in enumerate(copies.values(BATCH_RECORDS_MAX))
    ]

    def timed(name: str, step: object) -> object:
        began = time.process_time_ns()
        result = step()  # type: ignore[operator]
        say(f"  {name:28} {(time.process_time_ns() - began) / 1000 / len(records):5.1f} µs")
        return result

    await asyncio.to_thread(rows.decode, records)
    decoded = await asyncio.to_thread(timed, "Avro to rows", lambda: rows.decode(records))
    sample = records[:2000]
    began = time.process_time_ns()
    for record in sample:
        await decoder.decode(record)
    say(f"  {'(the whole event by fastavro)':28} {(time.process_time_ns() - began) / 1000 / len(sample):5.1f} µs")
    store = Store.open(folder / "profile.duckdb", topic_prefix="instagram", cluster_id="none")
    batch = Batch(list(decoded.rows.values()), {TopicPartition("t", 0): 1}, {}, 0)  # type: ignore[attr-defined]
    timed("rows to DuckDB, committed", lambda: store.absorb(batch))
    store.close()


async def main() -> None:
    """Profile, fill, catch up; or measure the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000, help="that Kafka is filled with")
    parser.add_argument("--kafka", metavar="HOST:PORT", help="that so many events are in already, from a run before")
    parser.add_argument("--page", action="store_true", help="instead: what an update of the page costs, in Chromium")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-analytics-"))
    try:
        if arguments.page:
            await page.measure(folder)
            return
        say("CPU per event and step:")
        await profile(folder)
        async with choose_kafka(arguments.kafka, data_dir=folder / "kafka", port=None) as broker:
            if arguments.kafka is None:
                await make_topics(broker.bootstrap_servers)
                await fill(broker.bootstrap_servers, arguments.events)
            async with asyncio.timeout(DEADLINE_S):
                await catch_up(broker.bootstrap_servers, folder, arguments.events)
    finally:
        shutil.rmtree(folder)


async def make_topics(bootstrap_servers: str) -> None:
    """Makes the topics, and waits until each partition has a leader: a producer that comes earlier only asks again and again."""
    topics = [f"instagram.{name}" for name in WEBHOOK_FIELDS]
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in topics])
        async with asyncio.timeout(READY_DEADLINE_S):
            while True:
                found = await admin.describe_topics(topics)
                partitions = [one for topic in found for one in topic["partitions"]]
                if len(partitions) == len(topics) * PARTITIONS and all(one["leader"] >= 0 for one in partitions):
                    return
                await asyncio.sleep(POLL_INTERVAL_S)
    finally:
        await admin.close()


if __name__ == "__main__":
    asyncio.run(main())

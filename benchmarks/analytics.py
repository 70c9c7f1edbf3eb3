"""How fast `python -m consumers.analytics` catches up from Kafka's disk, in what memory, and where its time goes.

A real Kafka in a temporary folder gets events of made-up conversations, each with an event_id of its own; then the consumer is
started as a user starts it. CPU seconds are of the consumer's process alone; the broker has the other core.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from aiokafka import AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.producer.message_accumulator import BatchBuilder
from console import progress, say
from procfs import cpu_seconds, peak_rss_bytes

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, single_object_prefix
from bridge.event import WEBHOOK_FIELDS
from bridge.local.choice import choose_kafka
from bridge.local.jvm import free_port
from bridge.local.meta.deliveries import Plan, deliveries
from bridge.pipeline import Pipeline, Record
from bridge.routing import DEAD_LETTER
from bridge.schemas import load
from consumers.analytics.rows import Rows
from consumers.analytics.source import BATCH_RECORDS_MAX
from consumers.analytics.store import Batch, Store
from consumers.decoding import Decoder

PARTITIONS = 12
TEMPLATES = 20_000  # different events; the others repeat them under new event_ids and at later times
EVENT_ID_AT = slice(11, 43)  # in a value: behind ten bytes of single-object encoding and one of length
RECORD_BYTES_MAX = 1024 * 1024
IN_FLIGHT_MAX = 20  # batches that wait for their acknowledgement
DEADLINE_S = 3600
POLL_INTERVAL_S = 0.1
TELL_INTERVAL_S = 5.0


def templates() -> list[Record]:
    """Records of realistic conversations, as the bridge makes them."""
    prefixes = {name: single_object_prefix(load(name)) for name in (*WEBHOOK_FIELDS, DEAD_LETTER)}
    street = Pipeline(
        topic_prefix="instagram",
        encoders={name: Encoder(name, load(name), prefixes[name]) for name in WEBHOOK_FIELDS},
        dead_letters=DeadLetterEncoder(load(DEAD_LETTER), prefixes[DEAD_LETTER]),
        record_bytes_max=RECORD_BYTES_MAX,
    )
    now = time.time_ns() // 1_000_000
    plan = Plan(seed=1, start_ms=now - 3_600_000, accounts=100, customers=100, rate=0, quirks=0, redeliver=0)
    found: list[Record] = []
    for delivery in deliveries(plan):
        found += street.records(Delivery(delivery.body, now, secrets.token_hex(16), "bench"), [])
        if len(found) >= TEMPLATES:
            return [record for record in found if record.key is not None]
    raise AssertionError("the stream of deliveries is endless")


def events(made: list[Record]) -> Iterator[tuple[str, int, bytes, bytes]]:
    """Topic, partition, key and value, without end; a conversation stays in its partition."""
    for record in itertools.cycle(made):
        value = bytearray(record.value)
        value[EVENT_ID_AT] = secrets.token_hex(16).encode()
        key = record.key or b""
        yield record.topic, hash(key) % PARTITIONS, key, bytes(value)


async def fill(bootstrap_servers: str, made: list[Record], count: int) -> None:
    """Brings so many events to Kafka."""
    async with AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks=1, linger_ms=0) as producer:
        waiting: set[asyncio.Future[object]] = set()
        builders: dict[tuple[str, int], BatchBuilder | None] = {}
        for number, (topic, partition, key, value) in enumerate(itertools.islice(events(made), count)):
            place = (topic, partition)
            while True:
                builder = builders.setdefault(place, None) or producer.create_batch()
                builders[place] = builder
                if builder.append(key=key, value=value, timestamp=None) is not None:
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


async def said(process: asyncio.subprocess.Process, log: Path, entry: str) -> None:
    """Waits until the consumer's log has an entry."""
    began_s = told_s = time.monotonic()
    while f'"event": "{entry}"' not in (text := log.read_text()):  # noqa: ASYNC240 - a short file
        if process.returncode is not None:
            raise SystemExit(text)
        await asyncio.sleep(POLL_INTERVAL_S)
        if time.monotonic() - told_s > TELL_INTERVAL_S:
            told_s = time.monotonic()
            progress(f"{told_s - began_s:.0f} s, memory at most {peak_rss_bytes(process.pid) >> 20} MiB")


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
        await said(process, log, "caught_up")
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


async def profile(folder: Path, made: list[Record]) -> None:
    """CPU µs per event of each step, without Kafka, on an empty database."""
    loop = asyncio.get_running_loop()
    decoder = Decoder(topic_prefix="instagram", registry=None)
    rows = Rows(decoder, topic_prefix="instagram", loop=loop)
    records = [
        ConsumerRecord(topic, partition, offset, 0, 0, key, value, None, len(key), len(value), ())
        for offset, (topic, partition, key, value) in enumerate(itertools.islice(events(made), BATCH_RECORDS_MAX))
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
    """Fill, catch up, profile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=500_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-analytics-"))
    try:
        made = templates()
        say("CPU per event and step:")
        await profile(folder, made)
        async with choose_kafka(None, data_dir=folder / "kafka", port=None) as broker:
            admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
            await admin.start()
            await admin.create_topics([NewTopic(f"instagram.{name}", PARTITIONS, 1) for name in WEBHOOK_FIELDS])
            await admin.close()
            await fill(broker.bootstrap_servers, made, arguments.events)
            async with asyncio.timeout(DEADLINE_S):
                await catch_up(broker.bootstrap_servers, folder, arguments.events)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    asyncio.run(main())

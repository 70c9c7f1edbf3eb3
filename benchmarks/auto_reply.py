"""auto_reply against the stand-in for Graph API: how soon an event is answered, and how many a process answers in a second.

    make bench-replies

One Kafka, one process of auto_reply, and in this process the stand-in and what puts events into Kafka, as the bridge would; all
on this machine. An event's clock begins when Kafka has acknowledged its record, and stops when the request for it arrives. First
a steady rate, for the latency; then a backlog, for the rate.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import secrets
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
from aiokafka import AIOKafkaProducer
from console import progress, say
from topics import existing

from bridge.encoding import single_object_prefix
from bridge.local.jvm import free_port
from bridge.local.kafka import LocalKafka
from bridge.local.meta.graph import Behaviour, GraphStandIn
from bridge.schemas import load
from bridge.settings import KafkaSettings

ACCOUNTS = [f"1784140000000{number:04}" for number in range(20)]
RULES = "{version: 1, human_pause_s: 0, rules: [{name: all, when: {any_message: true}, reply: {text: Hello}}]}"
READY_DEADLINE_S = 60.0
ANSWERED_DEADLINE_S = 120.0
WARM_UP_S = 3.0
"""For connections and Python's adaptive interpreter; not measured."""


class Load:
    """Puts messages of customers into Kafka, each of a conversation of its own, and knows when Kafka had them."""

    def __init__(self, producer: AIOKafkaProducer, settings: KafkaSettings) -> None:
        self.acknowledged: dict[str, float] = {}
        self._producer = producer
        self._topic = f"{settings.topic_prefix}.messages"
        schema = load("messages")
        self._prefix, self._schema = single_object_prefix(schema), fastavro.parse_schema(schema)

    async def put(self, count: int) -> None:
        """Returns when all are acknowledged."""
        events = [(f"9{secrets.randbelow(10**15):015}", ACCOUNTS[number % len(ACCOUNTS)]) for number in range(count)]
        sent = [
            await self._producer.send(self._topic, self._value(account, customer), f"{account}:{customer}".encode())
            for customer, account in events
        ]
        for (customer, _), acknowledgement in zip(events, sent, strict=True):
            await acknowledgement
            self.acknowledged[customer] = time.time()

    def _value(self, account: str, customer: str) -> bytes:
        now = datetime.now(UTC)
        value: dict[str, Any] = {
            "event_id": secrets.token_hex(16),
            "webhook_field": "messages",
            "origin": "messaging",
            "entry_id": account,
            "account_id": account,
            "customer_id": customer,
            "sender_id": customer,
            "recipient_id": account,
            "occurred_at": now,
            "sent_at": now,
            "received_at": now,
            "delivery_id": secrets.token_hex(8),
            "message": {"mid": secrets.token_hex(40), "text": "Are you open on Sunday?"},
            "raw": '{"message":{"text":"Are you open on Sunday?"}}' * 4,
        }
        stream = io.BytesIO()
        stream.write(self._prefix)
        fastavro.schemaless_writer(stream, self._schema, value)
        return stream.getvalue()


@asynccontextmanager
async def replying(settings: KafkaSettings, graph: GraphStandIn, folder: Path, python: list[str]) -> AsyncIterator[int]:
    """A running auto_reply; its process id."""
    (folder / "rules.yaml").write_text(RULES, "utf-8")
    given = {
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "TOPIC_PREFIX": settings.topic_prefix,
        "RULES": str(folder / "rules.yaml"),
        "GRAPH_URL": graph.url,
        "TOKENS": ",".join(f"{account}=token" for account in ACCOUNTS),
        "ACCOUNT_RATE_PER_S": "1000",
    }
    environment = os.environ | {f"AUTO_REPLY_{name}": value for name, value in given.items()}
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, *python, "-m", "consumers.auto_reply"),
            env=environment,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        if await process.wait() != 0:
            say((folder / "log").read_text("utf-8")[-2000:])


async def answered(graph: GraphStandIn, count: int) -> None:
    """Returns when so many requests arrived."""
    async with asyncio.timeout(ANSWERED_DEADLINE_S):
        while len(graph.requests) < count:  # noqa: ASYNC110 - the stand-in sets no event of ours
            await asyncio.sleep(0.01)


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(given: argparse.Namespace, folder: Path) -> None:
    """Both measurements."""
    progress("starting Kafka")
    async with LocalKafka(data_dir=folder / "kafka", port=None) as broker:
        settings = KafkaSettings(
            kafka_bootstrap_servers=broker.bootstrap_servers,
            topic_prefix="bench",
            topic_partitions=12,
            topic_replication_factor=1,
        )
        async with (
            existing(settings),
            GraphStandIn(free_port(), tokens=dict.fromkeys(ACCOUNTS, "token")) as graph,
            AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, linger_ms=0) as producer,
            replying(settings, graph, folder, given.python.split()) as pid,
        ):
            graph.behaviours[""] = Behaviour(latency_s=given.latency_ms / 1000)
            producing = Load(producer, settings)
            await producing.put(1)
            async with asyncio.timeout(READY_DEADLINE_S):
                await answered(graph, 1)
            await steady(given.rate, WARM_UP_S, producing, graph)
            before = cpu_s(pid)
            latencies = await steady(given.rate, given.seconds, producing, graph)
            used = (cpu_s(pid) - before) / len(latencies) * 1000
            p50, p99 = (1000 * latencies[min(int(share * len(latencies)), len(latencies) - 1)] for share in (0.5, 0.99))
            say(f"steady {given.rate}/s: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {used:.2f} CPU s per 1000 answers")
            arrived = len(graph.requests)
            before = cpu_s(pid)
            begin = time.monotonic()
            await asyncio.gather(producing.put(given.backlog), answered(graph, arrived + given.backlog))
            seconds = time.monotonic() - begin
            used = (cpu_s(pid) - before) / given.backlog * 1000
            say(
                f"backlog of {given.backlog}: {given.backlog / seconds:.0f} answers/s, {used:.2f} CPU s per 1000 answers"
            )
            twice = len(graph.requests) - len({request.customer_id for request in graph.requests})
            say(f"requests {len(graph.requests)}, events {len(producing.acknowledged)}, answered twice {twice}")


async def steady(rate: int, seconds: float, producing: Load, graph: GraphStandIn) -> list[float]:
    """Seconds from Kafka's acknowledgement to the request, sorted, of the events of this stretch."""
    arrived, count = len(graph.requests), int(rate * seconds)
    begin = time.monotonic()
    async with asyncio.TaskGroup() as puts:
        for number in range(count):
            await asyncio.sleep(max(0.0, begin + number / rate - time.monotonic()))
            puts.create_task(producing.put(1))
    await answered(graph, arrived + count)
    return sorted(
        max(0.0, request.at - producing.acknowledged[request.customer_id]) for request in list(graph.requests)[arrived:]
    )


def main() -> None:
    """Measure, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=int, default=100, help="events a second, for the latency [%(default)s]")
    parser.add_argument("--seconds", type=float, default=15.0, help="at that rate [%(default)s]")
    parser.add_argument("--backlog", type=int, default=10_000, help="events at once, for the rate [%(default)s]")
    parser.add_argument("--latency-ms", type=float, default=0, help="of the stand-in's answers [%(default)s]")
    parser.add_argument(
        "--python", default="", help="options for auto_reply's interpreter, such as -m cProfile -o FILE"
    )
    with tempfile.TemporaryDirectory(prefix="bridge-replies-", ignore_cleanup_errors=True) as folder:
        asyncio.run(measure(parser.parse_args(), Path(folder)))


if __name__ == "__main__":
    main()

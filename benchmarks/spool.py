"""How fast the spool takes deliveries while Kafka hangs, how fast it is drained, and what live traffic feels of that.

`make bench-spool`. One bridge on the first core, Kafka and load on the others: (1) direct, as fast as it goes, then at half
of that; (2) the broker is stopped as SIGSTOP stops it, and deliveries go to the spool; (3) the broker goes on, and while
the spool is drained live traffic comes at the same half. At the end every delivery that was answered 200 is in Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import signal
import tempfile
import time
from pathlib import Path
from statistics import median

import aiohttp
from bench import machine
from console import progress, say
from job import Job, Result
from rounds import IN_FLIGHT_MAX, WARM_UP_S
from servers import OTHER_CORES, Place, Server, Servers, run_load
from topics import existing, records

from bridge.errors import Misconfigured
from bridge.local.kafka import LocalKafka
from bridge.settings import KafkaSettings

LIVE_SHARE = 0.5
"""Of the direct maximum: what comes while the spool is drained."""

DRAIN_WINDOW_S = 2.0
"""Latency during the drain is told of windows this long: the worst holds Kafka's return, or the handover."""

DRAIN_DEADLINE_S = 300.0

_SPOOLED = re.compile(rb"^instagram_bridge_spool_deliveries (\S+)", re.MULTILINE)


async def measure(seconds: float) -> None:
    """Run all three, and print a table."""
    os.sched_setaffinity(0, OTHER_CORES)
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", ignore_cleanup_errors=True) as folder:
        progress("starting Kafka")
        async with LocalKafka(data_dir=Path(folder) / "kafka", port=None) as broker:
            kafka = KafkaSettings(
                kafka_bootstrap_servers=broker.bootstrap_servers,
                topic_prefix=f"bench-{secrets.token_hex(4)}",
                topic_replication_factor=1,
            )
            place = Place(kafka, secrets.token_hex(16))
            servers = Servers(Path(folder), (), {"BRIDGE_SPOOL_BYTES_MAX": str(8 * 1024**3)})
            async with existing(kafka), servers.running("bridge", place) as server:
                await Phases(broker, place, server, seconds).run()


class Phases:
    """The three, one after the other, on one bridge and one broker."""

    def __init__(self, broker: LocalKafka, place: Place, server: Server, seconds: float) -> None:
        self._broker = broker
        self._place = place
        self._server = server
        self._seconds = seconds
        self._acknowledged = 0

    async def run(self) -> None:
        """Measure, print, and count what is in Kafka."""
        direct = await self._load("direct", None, self._seconds)
        live = LIVE_SHARE * direct.deliveries / direct.seconds
        calm = await self._load("direct, half of that", live, self._seconds)
        os.kill(self._broker.pid, signal.SIGSTOP)
        try:
            spooled = await self._load("Kafka hangs", None, self._seconds)
        finally:
            os.kill(self._broker.pid, signal.SIGCONT)
        waiting = await self._spooled()
        began = time.monotonic()
        windows_ms: list[float] = []
        while await self._spooled() and time.monotonic() < began + DRAIN_DEADLINE_S:
            result = await self._load("draining", live, DRAIN_WINDOW_S)
            windows_ms.append(result.p99_ms)
        drained_s = time.monotonic() - began
        found, _ = await records(self._place.kafka)
        if found < self._acknowledged:
            raise Misconfigured(
                f"{self._acknowledged} deliveries were answered 200, and Kafka holds {found}: some are lost"
            )
        rate, spool_rate = (each.deliveries / each.seconds for each in (direct, spooled))
        say("\n" + ", ".join(f"{name} {value}" for name, value in machine(None).items()))
        say(
            f"direct                     {rate:9,.0f} deliveries/s   p50/p99 {direct.p50_ms:.1f} / {direct.p99_ms:.1f} ms"
        )
        say(f"direct at half             {live:9,.0f}                p50/p99 {calm.p50_ms:.1f} / {calm.p99_ms:.1f} ms")
        say(
            f"spooled while Kafka hangs  {spool_rate:9,.0f}                p50/p99 {spooled.p50_ms:.1f} / {spooled.p99_ms:.1f} ms, "
            f"{spool_rate / rate:.2f} of direct"
        )
        say(
            f"drained                    {waiting:9,.0f} deliveries in {drained_s:.1f} s at most, while live ones came at {live:,.0f}/s"
        )
        say(
            f"live meanwhile             p99 {median(windows_ms):.1f} ms in the middle one of {len(windows_ms)} windows of "
            f"{DRAIN_WINDOW_S:g} s, {max(windows_ms):.1f} ms in the worst"
        )
        say(f"answered 200: {self._acknowledged:,}; in Kafka: {found:,}")

    async def _load(self, title: str, rate: float | None, seconds: float) -> Result:
        progress(title)
        result = await run_load(
            Job(
                port=self._server.port,
                secret=self._place.secret,
                seed=1,
                events=1,
                accounts=10,
                connections=IN_FLIGHT_MAX,
                in_flight=IN_FLIGHT_MAX,
                rate=rate,
                # What the first time-out costs belongs to no rate; and while it drains there is no time to warm up.
                warm_up_s=4 * WARM_UP_S if title == "Kafka hangs" else 0.1 if title == "draining" else WARM_UP_S,
                seconds=seconds,
                server_pid=self._server.pid,
                broker_pid=self._broker.pid,
            )
        )
        if result.refused:
            raise Misconfigured(f"{title}: refused, by status: {result.refused}")
        self._acknowledged += result.acknowledged
        return result

    async def _spooled(self) -> float:
        url = f"http://127.0.0.1:{self._server.management_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            match = _SPOOLED.search(await answer.read())
        return float(match[1]) if match else 0.0


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="make bench-spool ARGS=…", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8.0, help="length of a phase [%(default)s]")
    asyncio.run(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    main()

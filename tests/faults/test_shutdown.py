"""SIGTERM, whatever else is going on: readiness at once, service as long as was set, then a clean end within a bound."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

from tests.faults.broker import ProxiedKafka
from tests.faults.load import Load
from tests.faults.test_crash import LONG, prepared, settled
from tests.faults.test_outage import DEADLINE_MS
from tests.kafka.serving import message, notification

SHUTDOWN_DELAY_MS = 2000
END_BOUND_S = 2 * (DEADLINE_MS / 1000 + 2) + 3
"""Answers in flight and the producer have the deadline and two seconds each; a busy machine needs some more."""


async def test_stop_fails_readiness_at_once_and_serves_on(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A load balancer has the time to look elsewhere: deliveries are taken until the delay is over."""
    async with prepared(broken, topic_prefix, tmp_path, SHUTDOWN_DELAY_MS=f"{SHUTDOWN_DELAY_MS}") as bridge:
        serving = bridge.serving
        began = time.monotonic()
        ending = asyncio.create_task(bridge.stop())
        await serving.until_asked("/readyz", 503)
        assert time.monotonic() - began < SHUTDOWN_DELAY_MS / 1000 / 2
        assert (await serving.ask("/livez"))[0] == 200
        assert (await serving.status())["stopping"]
        answer = await serving.deliver(notification(message("last")))
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
        assert await ending == 0
        assert SHUTDOWN_DELAY_MS / 1000 <= time.monotonic() - began < SHUTDOWN_DELAY_MS / 1000 + END_BOUND_S


async def test_stop_while_kafka_hangs_spools_what_is_in_flight(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Nobody is left without an answer, and what was answered is found by the next process."""
    async with prepared(broken, topic_prefix, tmp_path) as bridge:
        async with Load(bridge.port, senders=8).running() as load:
            await load.until_more(50, "kafka")
            broken.network.hang()
            await bridge.serving.until_counted("instagram_bridge_deliveries_in_flight", 8)
            began = time.monotonic()
            assert await bridge.stop() == 0
            assert time.monotonic() - began < END_BOUND_S
        assert load.ledger.outcomes["spool"] == 8
        broken.network.heal()
        await bridge.start()
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered, figures.refused) == (0, 0, 0)


async def test_stop_while_kafka_is_away_ends_soon(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """No connection that is tried again and again keeps it."""
    async with prepared(broken, topic_prefix, tmp_path) as bridge:
        broken.network.cut()
        async with Load(bridge.port).running() as load:
            await load.until_more(100, "spool")
            began = time.monotonic()
            assert await bridge.stop() == 0
            seconds = time.monotonic() - began
        assert seconds < DEADLINE_MS / 1000, "nothing is in flight but what the disk takes at once"
        broken.network.heal()
        await bridge.start()
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered, figures.refused) == (0, 0, 0)


async def test_stop_in_the_drain_ends_soon(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """What is not drained yet is the next process's."""
    async with prepared(broken, topic_prefix, tmp_path) as bridge:
        broken.network.cut()
        async with Load(bridge.port, senders=64, rate=None, text=LONG).running() as load:
            await load.until_more(2000, "spool")
        broken.network.heal()
        serving = bridge.serving
        async with asyncio.timeout(60):
            while await serving.counted("instagram_bridge_spool_deliveries") >= 2000:
                pass
        began = time.monotonic()
        assert await bridge.stop() == 0
        assert time.monotonic() - began < DEADLINE_MS / 1000
        await bridge.start()
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered, figures.refused) == (0, 0, 0)


async def test_second_signal_changes_nothing(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Whoever is impatient gets the same clean end."""
    async with prepared(broken, topic_prefix, tmp_path, SHUTDOWN_DELAY_MS="1000") as bridge:
        serving = bridge.serving
        ending = asyncio.create_task(bridge.stop())
        await serving.until_asked("/readyz", 503)
        assert await serving.process.end(signal.SIGTERM) == 0
        assert await ending == 0

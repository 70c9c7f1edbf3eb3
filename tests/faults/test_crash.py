"""kill -9 of the bridge at random moments: everything that was answered 200 is in Kafka when the next one has drained."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest

from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.ledger import Figures
from tests.faults.load import Load
from tests.faults.test_outage import environment
from tests.http.wire import DEADLINE_S, Connection
from tests.kafka.serving import run
from tests.processes import Process

KILLS = 4
LIFE_MAX_S = 0.6
BATCH_S = 0.1
SENDERS = 16
LONG = "l" * 4000
"""So that what is spooled takes several rounds of draining."""


@asynccontextmanager
async def prepared(broken: ProxiedKafka, prefix: str, folder: Path, **variables: str) -> AsyncIterator[Bridge]:
    """A bridge over new topics."""
    settings = environment(broken, prefix, folder, **variables)
    await run(folder, settings, "topics", "apply")
    async with Bridge.opened(folder, settings) as bridge:
        yield bridge


async def settled(bridge: Bridge, load: Load, broken: ProxiedKafka) -> Figures:
    """What came of it, once nothing is spooled any more."""
    await bridge.serving.until_counted("instagram_bridge_spool_deliveries", 0)
    figures = load.ledger.figures(await broken.records(bridge.environment["BRIDGE_TOPIC_PREFIX"]))
    print(figures)
    return figures


@pytest.mark.parametrize(("kafka", "workers"), [("there", "1"), ("away", "1"), ("away", "2")])
async def test_bridge_killed_at_random_moments_loses_nothing(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path, kafka: str, workers: str
) -> None:
    """Whoever was answered 200 by Kafka or by the spool is found, in order, after the restart."""
    moments = Random(f"{kafka} {workers}")  # noqa: S311 - repeatable
    async with prepared(broken, topic_prefix, tmp_path, WORKERS=workers) as bridge:
        if kafka == "away":
            broken.network.cut()
        async with Load(bridge.port, senders=SENDERS, rate=400).running() as load:
            for _ in range(KILLS):
                await load.until_more(10, "kafka" if kafka == "there" else "spool")
                await asyncio.sleep(moments.uniform(0, LIFE_MAX_S))
                await bridge.kill()
                await bridge.start()
            broken.network.heal()
            await load.until_more(50, "kafka")

        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered) == (0, 0)
        assert figures.refused == 0 or workers != "1", "a worker whose keeper was killed refuses, if it says anything"
        assert figures.unanswered > 0
        assert figures.by_spool > 0 or kafka == "there"


async def test_bridge_killed_in_its_drain_loses_nothing(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A kill between publishing and forgetting repeats some; the order of first copies stays."""
    moments = Random("drain")  # noqa: S311 - repeatable
    async with prepared(broken, topic_prefix, tmp_path) as bridge:
        broken.network.cut()
        async with Load(bridge.port, senders=64, rate=None, text=LONG).running() as load:
            await load.until_more(3000, "spool")
        broken.network.heal()
        for _ in range(3):
            left = await bridge.serving.counted("instagram_bridge_spool_deliveries")
            async with asyncio.timeout(60):
                while await bridge.serving.counted("instagram_bridge_spool_deliveries") >= left > 0:
                    pass
            await asyncio.sleep(moments.uniform(0, BATCH_S))
            await bridge.kill()
            await bridge.start()
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered, figures.refused) == (0, 0, 0)


async def test_spool_is_taken_up_by_another_number_of_workers(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """One spool for all workers, however many there are after a restart."""
    async with prepared(broken, topic_prefix, tmp_path, WORKERS="3") as bridge:
        broken.network.cut()
        async with Load(bridge.port, senders=SENDERS).running() as load:
            await load.until_more(100, "spool")
            await bridge.kill()
            await bridge.start(WORKERS="1")
            await load.until_more(100, "spool")
            assert await bridge.stop() == 0
            await bridge.start(WORKERS="2")
            await load.until_more(100, "spool")
            broken.network.heal()
            await load.until_more(100, "kafka")
        figures = await settled(bridge, load, broken)
        assert (figures.lost, figures.disordered) == (0, 0)


async def test_second_bridge_over_the_spool_is_refused(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """It ends with one line that says why, and the first one serves on."""
    async with prepared(broken, topic_prefix, tmp_path) as bridge:
        other = environment(broken, topic_prefix, tmp_path)
        second = await Process.begin("-m", "bridge", "serve", folder=tmp_path, environment=other)
        assert await second.end() == 1
        [line] = [line for line in second.stderr.splitlines() if line.startswith("bridge: ")]
        assert "another bridge" in line
        assert (await bridge.serving.ask("/readyz"))[0] == 200


async def test_workers_whose_keeper_was_killed_take_no_more(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """They would not see where the next keeper's deliveries go, and could overtake its spool: nothing is answered 200."""
    async with (
        prepared(broken, topic_prefix, tmp_path, WORKERS="2", SHUTDOWN_DELAY_MS="5000") as bridge,
        Load(bridge.port, senders=SENDERS).running() as load,
    ):
        await load.until_more(50, "kafka")
        unanswered = load.ledger.outcomes["0"] + SENDERS
        await bridge.kill()
        answered = load.ledger.outcomes["kafka"] + SENDERS
        await load.until(lambda ledger: ledger.outcomes["0"] >= unanswered, "an end of every connection")
        async with asyncio.timeout(DEADLINE_S):
            while await _listens(bridge.port):  # noqa: ASYNC110 - another process sets no event of ours
                await asyncio.sleep(0)
        assert load.ledger.outcomes["kafka"] <= answered


async def _listens(port: int) -> bool:
    try:
        async with Connection.open(port):
            return True
    except ConnectionError:
        return False

"""A new version goes out, one bridge after the other, while deliveries come: the sender notices nothing."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack
from pathlib import Path

from tests.faults.balancer import Balancer
from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.load import Load
from tests.faults.test_outage import environment
from tests.kafka.serving import run
from tests.processes import until

SHUTDOWN_DELAY_MS = 3000
WORKERS = ("1", "2")
"""Of the two bridges: both ways to serve are restarted."""


async def test_rolling_restart_refuses_and_loses_nothing(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Two bridges behind a balancer: every answer is 200 by Kafka, once each, in order; both take deliveries again after it."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    environments = [
        environment(broken, topic_prefix, folder, WORKERS=workers, SHUTDOWN_DELAY_MS=f"{SHUTDOWN_DELAY_MS}")
        for folder, workers in zip(folders, WORKERS, strict=True)
    ]
    await run(tmp_path, environments[0], "topics", "apply")
    async with AsyncExitStack() as stack:
        bridges = [
            await stack.enter_async_context(Bridge.opened(*each)) for each in zip(folders, environments, strict=True)
        ]
        balancer = await stack.enter_async_context(Balancer(environments).running())
        await until(lambda: len(balancer.ready) == len(bridges), "the balancer to find both")
        async with Load(balancer.port).running() as load:
            for bridge in bridges:
                await load.until_more(100, "kafka")
                began = time.monotonic()
                assert await bridge.stop() == 0
                seconds = time.monotonic() - began
                assert seconds < 2 * SHUTDOWN_DELAY_MS / 1000, "the delay is waited for once, not by each process"
                before = dict(balancer.passed_on)
                await load.until_more(50, "kafka")
                assert balancer.passed_on[bridge.port] == before[bridge.port]
                await bridge.start()
                await until(lambda: len(balancer.ready) == len(bridges), "the balancer to find it again")
            await load.until_more(100, "kafka")
            assert all(balancer.passed_on[bridge.port] > before[bridge.port] for bridge in bridges)

        assert load.ledger.outcomes.keys() == {"kafka"}, load.ledger.outcomes
        figures = load.ledger.figures(await broken.records(topic_prefix))
        print(figures)
        assert (figures.lost, figures.disordered, figures.duplicated) == (0, 0, 0)

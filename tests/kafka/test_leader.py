"""Two brokers, and one of them goes: the leaders of its partitions move, and the promise stays."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from bridge.local.kafka import LocalKafka
from tests.kafka.reading import Reader
from tests.kafka.serving import begun, message, notification, run, serve_environment

CUSTOMERS = [f"90000000000000{number}" for number in range(8)]  # in several partitions, whose leaders are both brokers


@pytest.mark.parametrize("ended", [LocalKafka.stop, LocalKafka.kill], ids=["in order", "killed"])
async def test_leader_that_moves_loses_nothing_and_keeps_the_order(
    ended: Callable[[LocalKafka], Awaitable[None]], topic_prefix: str, tmp_path: Path
) -> None:
    """Sent one after the other, before and after a broker leaves: all answered 200, all there, each conversation in order."""
    first = LocalKafka(data_dir=tmp_path / "first", port=None)
    second = LocalKafka(data_dir=tmp_path / "second", port=None, joins=first)
    sent: list[str] = []
    try:
        await first.start()
        await second.start()
        environment = serve_environment(
            first.bootstrap_servers, topic_prefix, TOPIC_REPLICATION_FACTOR="2", SPOOL_DIR=str(tmp_path / "spool")
        )
        await run(tmp_path, environment, "topics", "apply")
        async with begun(tmp_path, environment) as serving:
            await serving.until_ready()

            async def send(rounds: int) -> None:
                for _ in range(rounds):
                    for customer_id in CUSTOMERS:
                        body = notification(message(f"{customer_id}-{len(sent)}", customer_id=customer_id))
                        sent.append(await serving.accepted(body))

            await send(5)
            await ended(second)
            await send(10)
            await serving.until_counted("instagram_bridge_spool_deliveries", 0)
            await send(1)
            reader = Reader(first.bootstrap_servers, topic_prefix)
            try:
                records = await reader.new()
            finally:
                reader.close()
        for customer in range(len(CUSTOMERS)):
            first_copies = dict.fromkeys(
                record.delivery_id
                for record in records
                if record.key and record.key.endswith(CUSTOMERS[customer].encode())
            )
            assert list(first_copies) == sent[customer :: len(CUSTOMERS)]
    finally:
        await second.stop()
        await first.stop()

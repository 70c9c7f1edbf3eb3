"""Three brokers with replication 3, as in production, under load: one is killed, then a second, then both come back."""

from __future__ import annotations

import asyncio
from pathlib import Path

from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType

from bridge.local.kafka import LocalKafka
from tests.faults.load import Load
from tests.kafka.reading import Reader
from tests.kafka.serving import begun, run, serve_environment
from tests.processes import until

RATE = 150
_ADMIN_DEADLINE_S = 60


async def test_broker_killed_out_of_three_loses_nothing_and_a_second_one_fills_the_spool(
    topic_prefix: str, tmp_path: Path
) -> None:
    """Two in sync acknowledge on; one alone may not, so the spool does; everything is there at the end, in order."""
    first = LocalKafka(data_dir=tmp_path / "first", port=None)  # the only controller, so it stays
    others = [LocalKafka(data_dir=tmp_path / name, port=None, joins=first) for name in ("second", "third")]
    try:
        await first.start()
        await asyncio.gather(*(broker.start() for broker in others))
        servers = ",".join(broker.bootstrap_servers for broker in (first, *others))
        environment = serve_environment(
            servers, topic_prefix, TOPIC_REPLICATION_FACTOR="3", SPOOL_DIR=str(tmp_path / "spool")
        )
        await run(tmp_path, environment, "topics", "apply")
        admin = AdminClient({"bootstrap.servers": first.bootstrap_servers, "log_level": 0})
        topic = f"{topic_prefix}.messages"
        assert min_insync_replicas(admin, topic) == 2
        async with begun(tmp_path, environment) as serving:
            await serving.until_ready()
            async with Load(serving.port, rate=RATE).running() as load:
                await load.until_more(RATE, "kafka")
                await others[0].kill()
                await until(lambda: in_sync(admin, topic) == {2}, "the killed broker to be out of sync everywhere")
                await load.until_more(RATE, "kafka")

                await others[1].kill()
                await until(lambda: in_sync(admin, topic) == {1}, "the first broker to be alone")
                direct = load.ledger.outcomes["kafka"]
                await load.until_more(RATE, "spool")
                assert load.ledger.outcomes["kafka"] == direct, "one copy is not safe"

                await asyncio.gather(*(broker.start() for broker in others))
                await load.until_more(RATE, "kafka")
            await serving.until_counted("instagram_bridge_spool_deliveries", 0)
        reader = Reader(servers, topic_prefix)
        try:
            figures = load.ledger.figures(await reader.new())
        finally:
            reader.close()
        print(figures)
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)
    finally:
        await asyncio.gather(*(broker.stop() for broker in others))
        await first.stop()


def min_insync_replicas(admin: AdminClient, topic: str) -> int:
    """As Kafka has it for the topic, told by another client than ours."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    (described,) = admin.describe_configs([resource]).values()
    return int(described.result(_ADMIN_DEADLINE_S)["min.insync.replicas"].value)


def in_sync(admin: AdminClient, topic: str) -> set[int]:
    """How many replicas of each of its partitions are in sync."""
    partitions = admin.list_topics(topic, timeout=_ADMIN_DEADLINE_S).topics[topic].partitions
    return {len(partition.isrs) for partition in partitions.values()}

"""A broker of its own that crashes and comes back while a consumer runs."""

import signal
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from bridge.local.kafka import LocalKafka
from tests.consumers.running import Consumers, Topics, until
from tests.consumers.samples import message, single_object

LOG_LINES_MAX = 100  # of an outage of some seconds, in which aiokafka alone would have written hundreds


async def test_consumer_goes_on_after_an_outage_and_stops_during_one(tmp_path: Path, topic_prefix: str) -> None:
    """A crash of the broker costs no event and no flood of log lines, and never keeps the consumer from stopping."""
    async with LocalKafka(data_dir=tmp_path / "kafka", port=None) as broker:
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
        await admin.start()
        topics = Topics(broker, topic_prefix, admin)
        await topics.create("messages")
        await admin.close()
        process, counts = await Consumers(topics, tmp_path).begin_analytics()
        await topics.publish("messages", single_object("Messages", message()))
        await until(counts, lambda found: found["events"] == 1)
        await broker.kill()
        await broker.start()
        await topics.publish("messages", single_object("Messages", message()))
        await until(counts, lambda found: found["events"] == 2)
        complaints = process.stderr.count("Connect call failed")
        await broker.kill()

        async def complaints_now() -> int:
            return process.stderr.count("Connect call failed")

        await until(complaints_now, lambda found: found > complaints)
        assert await process.end(signal.SIGTERM) == 0
    assert "Traceback" not in process.stderr
    assert len(process.stderr.splitlines()) < LOG_LINES_MAX

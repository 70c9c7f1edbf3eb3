"""Kafka away under load: what is answered, what is told, how it heals, and that nothing is lost or overtaken."""

from __future__ import annotations

import time
from pathlib import Path

from yarl import URL

from bridge.local.jvm import free_port
from bridge.local.service import Registry
from tests.faults.broker import ProxiedKafka
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import begun, opened, run, serve_environment

DEADLINE_MS = 2000
SENDERS = 16
BACKLOG = 4000
LIVE_RATE = 150


def environment(broken: ProxiedKafka, prefix: str, folder: Path, **variables: str) -> dict[str, str]:
    """A bridge over the broker, with a spool."""
    given = {"SPOOL_DIR": str(folder / "spool"), "PUBLISH_DEADLINE_MS": f"{DEADLINE_MS}", **variables}
    return serve_environment(broken.bootstrap_servers, prefix, **given)


async def test_broker_killed_under_load_costs_the_deadline_once(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Everything is answered 200, all but those in flight at once; depth, bytes and age are told; then direct again."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        serving = street.serving
        async with Load(serving.port, senders=SENDERS).running() as load:
            await load.until_more(200, "kafka")
            assert await serving.counted("instagram_bridge_spool_deliveries") == 0

            await broken.kill()
            await load.until_more(300, "spool")
            assert (await serving.ask("/readyz"))[0] == 200
            status = await serving.status()
            assert (status["mode"], status["kafka"]["connected"]) == ("spooling", False)
            assert status["spool"]["deliveries"] > 200
            assert status["spool"]["bytes"] > 200 * status["spool"]["deliveries"]
            assert status["spool"]["oldest_age_seconds"] >= 0
            assert await serving.counted("instagram_bridge_spool_deliveries") > 200
            assert await serving.counted("instagram_bridge_spool_bytes") > 0
            oldest = await serving.counted("instagram_bridge_spool_oldest_timestamp_seconds")
            assert 0 < time.time() - oldest < 60

            await broken.start()
            await load.until_more(300, "kafka")

        figures = load.ledger.figures(await street.reader.new())
        print(figures)
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)
        assert figures.duplicated <= SENDERS
        slow = [sent for sent in load.ledger.sent if sent.answered_at - sent.sent_at > DEADLINE_MS / 2000]
        assert len(slow) <= SENDERS, "only those that were in flight when it was killed wait for the deadline"
        status = await serving.status()
        assert (status["mode"], status["kafka"]["connected"]) == ("direct", True)
        assert (status["spool"]["deliveries"], status["spool"]["oldest_age_seconds"]) == (0, None)
        assert status["kafka"]["producer_rebuilds"] >= 1
        for line in ("producer_given_up", "spooling", "kafka_away", "direct"):
            assert line in serving.process.stderr


async def test_spool_is_drained_under_live_load(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """Draining ends while deliveries go on to come, every conversation in its order."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        serving = street.serving
        broken.network.cut()
        async with Load(serving.port, senders=64, rate=None).running() as flood:
            await flood.until_more(BACKLOG, "spool")
        async with Load(serving.port, rate=LIVE_RATE, ledger=flood.ledger).running() as load:
            await load.until_more(LIVE_RATE // 2, "spool")
            backlog = (await serving.status())["spool"]["deliveries"]
            broken.network.heal()
            began = time.monotonic()
            await load.until_more(1, "kafka")
            seconds = time.monotonic() - began
            await load.until_more(LIVE_RATE, "kafka")
        drained = (await serving.status())["spool"]["drained"]
        print(
            f"{backlog} spooled; drained {drained} in {seconds:.1f} s ({drained / seconds:.0f}/s) beside {LIVE_RATE}/s live"
        )

        figures = load.ledger.figures(await street.reader.new())
        assert backlog >= BACKLOG
        assert (figures.lost, figures.disordered, figures.refused) == (0, 0, 0)


async def test_kafka_that_hangs_is_spooled_for_and_what_arrives_late_is_a_copy(
    broken: ProxiedKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A request that the broker reads after its producer was given up does not overtake, nor is anything lost."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        serving = street.serving
        async with Load(serving.port, senders=SENDERS).running() as load:
            for _ in range(2):
                await load.until_more(100, "kafka")
                broken.network.hang()
                await load.until_more(200, "spool")
                assert (await serving.ask("/readyz"))[0] == 200
                broken.network.heal()
            await load.until_more(100, "kafka")
        figures = load.ledger.figures(await street.reader.new())
        print(figures)
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)
        assert figures.duplicated > 0, "else this test shows nothing"


async def test_broker_restarted_in_order_is_no_loss(broken: ProxiedKafka, topic_prefix: str, tmp_path: Path) -> None:
    """An update of the broker: whether it comes back within the deadline or not, every answer is 200."""
    async with opened(tmp_path, environment(broken, topic_prefix, tmp_path), decode_single_object) as street:
        async with Load(street.serving.port).running() as load:
            await load.until_more(100, "kafka")
            await broken.restart()
            await load.until_more(100, "kafka")
        figures = load.ledger.figures(await street.reader.new())
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)


async def test_registry_away_at_the_start_is_not_waited_for(
    broken: ProxiedKafka, registry: Registry, topic_prefix: str, tmp_path: Path
) -> None:
    """Ready without it, and nothing is published in another encoding: what came first is drained when it is there."""
    url = URL(registry.url)
    between = Proxy(free_port())
    between.start(url.port or 0)
    try:
        settings = environment(broken, topic_prefix, tmp_path, SCHEMA_REGISTRY_URL=str(url.with_port(between.port)))
        await run(tmp_path, settings, "topics", "apply")
        await run(tmp_path, settings, "schemas", "register")
        between.cut()
        async with begun(tmp_path, settings) as serving:
            await serving.until_ready()
            async with Load(serving.port).running() as load:
                await load.until_more(50, "spool")
                assert "kafka_or_registry_away" in serving.process.stderr
                between.heal()
                await load.until_more(50, "kafka")
        records = await broken.records(topic_prefix)
        figures = load.ledger.figures(records)
        assert (figures.lost, figures.disordered, figures.refused, figures.unanswered) == (0, 0, 0, 0)
        assert {record.value[0] for record in records} == {0}, "Confluent's magic byte"
    finally:
        between.stop()

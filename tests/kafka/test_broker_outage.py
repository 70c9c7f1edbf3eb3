"""A broker that dies, hangs or is not there yet: what is answered 200 is kept, and nobody restarts the bridge.

One form for all: steady, inject, look at answers and state, heal; then the topic holds what was answered 200.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from bridge.local.kafka import LocalKafka
from tests.http.wire import Connection, exchange, request
from tests.kafka.load import Load
from tests.kafka.reading import Reader, Record, decode_single_object
from tests.kafka.serving import begun, message, notification, opened, run, serve_environment

META_WAITS_S = 5.0
STEADY = 120


@pytest.fixture(scope="module")
async def broker(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalKafka]:
    """A broker of our own, to be broken."""
    async with LocalKafka(data_dir=tmp_path_factory.mktemp("broken"), port=None) as started:
        yield started


@asynccontextmanager
async def away(broker: LocalKafka) -> AsyncIterator[None]:
    """The broker is killed, and comes back on its port."""
    await broker.kill()
    try:
        yield
    finally:
        await broker.start()


@contextmanager
def frozen(broker: LocalKafka) -> Iterator[None]:
    """The broker is there and does nothing."""
    os.kill(broker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(broker.pid, signal.SIGCONT)


def mid_of(record: Record) -> str:
    mid: str = decode_single_object(record)["message"]["mid"]
    return mid


async def test_broker_killed_without_a_spool_is_503_until_it_is_back(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Refused while it is away, acknowledged again when it is back, by the same process; nothing is missing."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix)
    async with opened(tmp_path, environment, decode_single_object) as street:
        load = Load(street.serving)
        await load.until_more(STEADY)

        async with away(broker):
            await load.until(lambda answers: answers[503, None] >= 10)
            assert (await street.serving.ask("/readyz"))[0] == 503
            assert (await street.serving.ask("/livez"))[0] == 200

        await load.until_more(STEADY)
        await load.stop()
        assert (await street.serving.ask("/readyz"))[0] == 200
        status = await street.serving.status()
        assert status["kafka"]["connected"]
        assert status["kafka"]["producer_rebuilds"] >= 1
        assert status["deliveries_in_flight"] == status["bytes_held"] == 0
        load.assert_kept(await street.reader.new(), mid_of)
        assert set(load.answers) == {(200, "kafka"), (503, None)}


async def test_broker_killed_with_a_spool_is_200_all_along_and_in_order(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """No delivery is refused: the spool takes them, is drained under load, and newer ones never overtake."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix, SPOOL_DIR=str(tmp_path / "spool"))
    async with opened(tmp_path, environment, decode_single_object) as street:
        load = Load(street.serving)
        await load.until_more(STEADY)

        async with away(broker):
            await load.until_more(STEADY, by="spool")
            assert (await street.serving.ask("/readyz"))[0] == 200
            assert (await street.serving.status())["spool"]["deliveries"] >= STEADY

        await load.until_more(STEADY)
        await load.stop()
        assert (await street.serving.status())["spool"]["deliveries"] == 0
        load.assert_kept(await street.reader.new(), mid_of)
        assert set(load.answers) == {(200, "kafka"), (200, "spool")}


async def test_broker_away_at_the_start_without_a_spool_is_waited_for(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Alive but not ready, and nothing is answered 200, until it comes."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix)
    await run(tmp_path, environment, "topics", "apply")
    async with away(broker):
        starting = begun(tmp_path, environment)
        serving = await starting.__aenter__()
        await serving.until_asked("/livez", 200)
        await serving.process.until_printed("away")
        assert (await serving.ask("/readyz"))[0] == 503
        with pytest.raises(ConnectionError):
            await serving.deliver(notification(message("early")))

    await serving.until_ready()
    await serving.accepted(notification(message("now")))
    await starting.__aexit__(None, None, None)
    reader = Reader(broker.bootstrap_servers, topic_prefix)
    assert list(map(mid_of, await reader.new())) == ["now"]
    reader.close()


async def test_broker_away_at_the_start_with_a_spool_is_not_waited_for(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """Ready without it; what came first lies first in the topic when it is there."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix, SPOOL_DIR=str(tmp_path / "spool"))
    await run(tmp_path, environment, "topics", "apply")
    async with away(broker):
        starting = begun(tmp_path, environment)
        serving = await starting.__aenter__()
        await serving.until_ready()
        for number in range(5):
            answer = await serving.deliver(notification(message(f"spooled-{number}")))
            assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "spool")

    await serving.until_counted("instagram_bridge_spool_deliveries", 0)
    answer = await serving.deliver(notification(message("direct")))
    assert answer.headers["x-acknowledged-by"] == "kafka"
    await starting.__aexit__(None, None, None)
    reader = Reader(broker.bootstrap_servers, topic_prefix)
    records = sorted(await reader.new(), key=lambda record: record.offset)
    assert list(map(mid_of, records)) == [*(f"spooled-{number}" for number in range(5)), "direct"]
    reader.close()


async def test_broker_that_hangs_is_503_before_meta_gives_up(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A deadline of our own ends the wait; others are answered meanwhile; it heals when the broker goes on."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix)
    async with opened(tmp_path, environment, decode_single_object) as street:
        bodies = [notification(message(f"hung-{number}")) for number in range(50)]
        deliveries = [street.serving.signed(body) for body in bodies]
        with frozen(broker):
            began = time.monotonic()
            answers = asyncio.gather(*(exchange(street.serving.port, delivery) for delivery in deliveries))
            await street.serving.until_counted("instagram_bridge_deliveries_in_flight", len(bodies))
            assert (await exchange(street.serving.port, request("GET", "/nowhere"))).status == 404
            statuses = {answer.status for answer in await answers}
            seconds = time.monotonic() - began
        assert statuses == {503}
        assert seconds < META_WAITS_S

        await street.serving.until_accepted(notification(message("healed")))
        found = {mid_of(record) for record in await street.reader.new()}
        assert "healed" in found


async def test_stop_with_a_delivery_in_flight_finishes_it(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """SIGTERM fails readiness at once; what is in flight gets its answer; then the exit is clean."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix)
    async with opened(tmp_path, environment, decode_single_object) as street:
        async with Connection.open(street.serving.port) as idle, Connection.open(street.serving.port) as busy:
            with frozen(broker):
                await busy.send(street.serving.signed(notification(message("last"))))
                await street.serving.until_counted("instagram_bridge_deliveries_in_flight", 1)
                ending = asyncio.create_task(street.serving.process.end(signal.SIGTERM))
                await street.serving.until_asked("/readyz", 503)
                assert await idle.until_closed() == b""
                with pytest.raises(ConnectionError):
                    await exchange(street.serving.port, request("GET", "/nowhere"))
            answer = await busy.answer()
            assert answer.status == 200
            assert await busy.until_closed() == b""
        assert await ending == 0
        assert list(map(mid_of, await street.reader.new())) == ["last"]


async def test_stop_while_the_broker_hangs_ends_all_the_same(
    broker: LocalKafka, topic_prefix: str, tmp_path: Path
) -> None:
    """A broker that never answers cannot keep a bridge from ending, cleanly and within a bound."""
    environment = serve_environment(broker.bootstrap_servers, topic_prefix)
    async with opened(tmp_path, environment, decode_single_object) as street:
        with frozen(broker):
            async with Connection.open(street.serving.port) as connection:
                await connection.send(street.serving.signed(notification(message("never"))))
                await street.serving.until_counted("instagram_bridge_deliveries_in_flight", 1)
                exit_code = await street.serving.process.end(signal.SIGTERM)
                assert (await connection.answer()).status == 503
        assert exit_code == 0

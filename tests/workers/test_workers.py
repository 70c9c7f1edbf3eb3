"""Several workers behind one port look like one bridge: one order, one spool, one management port, no gap when one dies."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bridge.local.kafka import LocalKafka
from bridge.local.service import Broker
from tests.http.wire import exchange
from tests.kafka.reading import Reader, decode_single_object
from tests.kafka.serving import (
    ACCOUNT,
    POLL_INTERVAL_S,
    Serving,
    Street,
    begun,
    message,
    notification,
    opened,
    run,
    serve_environment,
)
from tests.processes import until

WORKERS = "2"
DEADLINE_S = 60  # for what takes a second on a quiet machine


@pytest.fixture
async def street(kafka: Broker, topic_prefix: str, tmp_path: Path) -> AsyncIterator[Street]:
    """Two workers with a spool, over topics of the test's own."""
    environment = serve_environment(
        kafka.bootstrap_servers, topic_prefix, WORKERS=WORKERS, SPOOL_DIR=str(tmp_path / "spool")
    )
    async with opened(tmp_path, environment, decode_single_object) as opened_street:
        yield opened_street


def worker_pids(serving: Serving) -> set[int]:
    """The keeper's children, as the kernel has them."""
    children = Path(f"/proc/{serving.process.pid}/task/{serving.process.pid}/children").read_text("ascii")
    return set(map(int, children.split()))


async def until_both_serve(serving: Serving) -> None:
    """Waits until two workers take deliveries."""
    async with asyncio.timeout(DEADLINE_S):
        while [worker["ready"] for worker in (await serving.status())["workers"]] != [True, True]:  # noqa: ASYNC110 - as in `until`
            await asyncio.sleep(POLL_INTERVAL_S)


def not_started(serving: Serving) -> set[tuple[int, str]]:
    """The workers that the keeper could not start, and the errors' types."""
    lines = [
        line for line in serving.process.stderr.splitlines() if "worker_not_started" in line and line.endswith("}")
    ]
    return {(line["worker"], line["error"]) for line in map(json.loads, lines)}


async def test_deliveries_over_many_connections_are_published_and_counted_once(street: Street) -> None:
    """Each delivery is one record, whichever worker took it; metrics of all workers add up, and both took some."""
    bodies = [notification(message(f"m{number}")) for number in range(64)]
    signed = [street.serving.signed(body) for body in bodies]
    answers = await asyncio.gather(*(exchange(street.serving.port, request) for request in signed))
    assert {answer.status for answer in answers} == {200}
    records = await street.reader.new()
    assert sorted(record.delivery_id for record in records) == sorted(
        answer.headers["x-delivery-id"] for answer in answers
    )
    assert await street.serving.counted('instagram_bridge_deliveries_total{outcome="kafka"}') == len(bodies)
    status = await street.serving.status()
    assert [worker["ready"] for worker in status["workers"]] == [True, True]
    assert status["accounts"][ACCOUNT]["last_event_seconds_ago"] >= 0
    assert all(worker["app_secrets"]["new"]["last_matched_seconds_ago"] is not None for worker in status["workers"])


async def test_worker_that_is_killed_is_replaced(street: Street) -> None:
    """The other worker serves on, and soon there are two again."""
    before = worker_pids(street.serving)
    os.kill(min(before), signal.SIGKILL)
    await until(lambda: len(worker_pids(street.serving) - before) == 1, "another worker")
    await until_both_serve(street.serving)
    delivery_ids = [await street.serving.accepted(notification(message(f"after-{number}"))) for number in range(8)]
    assert {record.delivery_id for record in await street.reader.new()} == set(delivery_ids)


async def test_workers_that_cannot_be_started_are_tried_again(street: Street) -> None:
    """A keeper that is out of descriptors is not ready without its workers, says why, and has both again when it may."""
    serving = street.serving
    pid = serving.process.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    url = f"http://127.0.0.1:{serving.environment['BRIDGE_MANAGEMENT_PORT']}/readyz"
    async with aiohttp.ClientSession() as session:  # one connection: no other could be accepted meanwhile
        async with session.get(url) as answer:
            assert (answer.status, await answer.text()) == (200, "ready\n")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
        for worker in worker_pids(serving):
            os.kill(worker, signal.SIGKILL)
        await until(lambda: not_started(serving) == {(0, "OSError"), (1, "OSError")}, "an attempt at each worker")
        async with session.get(url) as answer:
            assert (answer.status, await answer.text()) == (503, "not ready\n")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))
    await until_both_serve(serving)
    await serving.until_ready()
    await serving.accepted(notification(message("after")))


async def test_keeper_that_is_killed_takes_its_workers_along(street: Street) -> None:
    """Nothing goes on answering 200 that has no spool and no management port."""
    pids = worker_pids(street.serving)
    assert len(pids) == 2
    await street.serving.process.end(signal.SIGKILL)
    await until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "the end of the workers")


async def test_sigterm_answers_what_is_in_flight_and_ends_with_0(street: Street) -> None:
    """The end is as orderly as that of one process."""
    await street.serving.accepted(notification(message("last")))
    assert await street.serving.process.end(signal.SIGTERM) == 0


async def test_outage_across_workers_keeps_the_order_of_a_conversation(topic_prefix: str, tmp_path: Path) -> None:
    """Sent one after the other, over connections to both workers, before, during and after the broker's absence."""
    kafka = LocalKafka(data_dir=tmp_path / "kafka", port=None)
    await kafka.start()
    try:
        environment = serve_environment(
            kafka.bootstrap_servers,
            topic_prefix,
            WORKERS=WORKERS,
            SPOOL_DIR=str(tmp_path / "spool"),
            PUBLISH_DEADLINE_MS="1000",
        )
        await run(tmp_path, environment, "topics", "apply")
        async with begun(tmp_path, environment) as serving:
            await serving.until_ready()
            sent = [await _deliver(serving, number) for number in range(20)]
            await kafka.kill()
            sent += [await _deliver(serving, number) for number in range(20, 60)]
            await kafka.start()
            async with asyncio.timeout(DEADLINE_S):
                while (await serving.status())["mode"] != "direct":
                    sent.append(await _deliver(serving, len(sent)))
            sent += [await _deliver(serving, number) for number in range(len(sent), len(sent) + 20)]
            acknowledgers = [acknowledger for _, acknowledger in sent]
            assert acknowledgers[:20] == ["kafka"] * 20
            assert acknowledgers[20:60] == ["spool"] * 40
            assert acknowledgers[-1] == "kafka"
            reader = Reader(kafka.bootstrap_servers, topic_prefix)
            try:
                first_copies = list(dict.fromkeys(record.delivery_id for record in await reader.new()))
            finally:
                reader.close()
        assert first_copies == [delivery_id for delivery_id, _ in sent]
    finally:
        await kafka.stop()


async def _deliver(serving: Serving, number: int) -> tuple[str, str]:
    """Delivery id and acknowledger of the conversation's next message, on a connection of its own."""
    answer = await serving.deliver(notification(message(f"in-order-{number}")))
    assert answer.status == 200, answer
    return answer.headers["x-delivery-id"], answer.headers["x-acknowledged-by"]

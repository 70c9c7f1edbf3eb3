"""Clients that are slow, silent, rude or many: none of them stands in the way of the others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.http.conftest import SlowClients
from tests.http.slow import BEHAVIOURS, BODY, DRIP_S, HALF, IDLE_CUT_OFF_S, kept
from tests.http.wire import DEADLINE_S, MARKER, Connection, post, request
from tests.kafka.reading import Record
from tests.kafka.serving import Street, message, notification

Published = Callable[[], Awaitable[list[Record]]]

FAST, SLOW = 300, 100


async def test_fast_clients_beside_slow_ones_are_served(street: Street, published: Published) -> None:
    """Three hundred at once get their answers while a hundred others hang in every state that there is."""
    bodies = [notification(message(f"fast-{number}")) for number in range(FAST)]
    deliveries = [post(*each) for each in zip(bodies, street.serving.signatures(bodies), strict=True)]
    states = [behaviour.first for behaviour in BEHAVIOURS.values()]

    async def status(connection: Connection, delivery: bytes) -> int:
        await connection.send(delivery)
        return (await connection.answer()).status

    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(Connection.open(street.serving.port)) for _ in range(SLOW)]
        for number, connection in enumerate(slow):
            await connection.send(states[number % len(states)])
        fast = [await stack.enter_async_context(Connection.open(street.serving.port)) for _ in range(FAST)]
        async with asyncio.timeout(DEADLINE_S):
            statuses = await asyncio.gather(*map(status, fast, deliveries))

    assert statuses == [200] * FAST
    assert len(await published()) == FAST


@pytest.mark.parametrize("reset", [True, False])
async def test_client_that_hangs_up_in_its_body_leaves_nothing(
    street: Street, published: Published, *, reset: bool
) -> None:
    """A body that ends early is nobody's delivery, and nothing of it is held."""
    delivery = street.serving.signed(BODY)
    for end in (len(delivery) - 1, len(delivery) - HALF, len(delivery) - len(BODY)):
        async with Connection.open(street.serving.port) as connection:
            await connection.send(delivery[:end])
            if reset:
                connection.abort()
            else:
                await connection.end()
                assert (await connection.until_closed())[9:12] in (b"", b"400")
    await street.serving.until_counted("instagram_bridge_deliveries_in_flight", 0)
    await street.serving.until_counted("instagram_bridge_held_bytes", 0)
    assert await published() == []


async def test_client_that_hangs_up_before_its_answer_harms_nobody(street: Street, published: Published) -> None:
    """The delivery was whole, so it is published, once; the next one is served."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(street.serving.signed(notification(message("left"))))
        connection.abort()
    delivery_id = await street.serving.accepted(notification(message("stayed")))

    records = [street.decode(record) for record in await published()]

    assert [record["message"]["mid"] for record in records if record["delivery_id"] == delivery_id] == ["stayed"]
    assert [record["message"]["mid"] for record in records if record["delivery_id"] != delivery_id] in (["left"], [])


async def test_client_that_shuts_its_sending_side_gets_its_answer(street: Street, published: Published) -> None:
    """Half of a connection is enough to be answered on."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(street.serving.signed(BODY))
        await connection.end()
        assert (await connection.answer()).status == 200
        assert await connection.until_closed() == b""
    assert len(await published()) == 1


async def test_client_that_reads_no_answers_is_cut_off(street: Street) -> None:
    """Answers that pile up are not kept for ever, nor do they keep others waiting."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)  # noqa: FBT003 - the method's own signature
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", street.serving.port))

        async def ask_for_ever() -> None:
            while True:
                await loop.sock_sendall(client, request("GET", "/nowhere") * 500)

        with pytest.raises(ConnectionError):
            await asyncio.wait_for(ask_for_ever(), IDLE_CUT_OFF_S)
        assert (await street.serving.deliver(BODY)).status == 200


@pytest.mark.parametrize("name", BEHAVIOURS)
async def test_slow_client_is_cut_off_in_the_end(slow_clients: SlowClients, name: str) -> None:
    """Whoever is slow, in whatever way, is told so where there is something to answer, and let go."""
    behaviour = BEHAVIOURS[name]

    seconds, said = await slow_clients[name]

    assert seconds < behaviour.cut_off_s
    assert said[9:12] in behaviour.statuses
    assert said.count(b"HTTP/1.1 ") <= 1
    assert MARKER.encode() not in said


async def test_slow_client_that_reads_nothing_is_cut_off_in_the_end(
    street: Street, unread_client: socket.socket
) -> None:
    """Closing waits for what is written to be read, and even that has an end."""
    deadline = time.monotonic() + 2 * IDLE_CUT_OFF_S
    while kept(street.serving.port, unread_client)[0]:
        assert time.monotonic() < deadline
        await asyncio.sleep(DRIP_S)

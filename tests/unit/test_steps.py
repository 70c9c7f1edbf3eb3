"""Steps: which deliveries are taken together, and what waits for others."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

from bridge.adapters.http_messages import Request
from bridge.adapters.webhook import _TOGETHER_BYTES, _TOGETHER_DELIVERIES, PATH
from bridge.errors import Refused, SignatureMismatch
from bridge.intake import Acknowledger
from tests.unit.port import BODY, DEADLINE_S, DELIVERY, STALLED_TURNS, Port, opened, statuses


async def test_few_deliveries_wait_for_others_and_a_full_step_does_not(port: Port) -> None:
    """A step and its flush cost the same however few are in it; the first after a pause finds nobody before it."""
    port.webhook.step_interval_s = 2 * DEADLINE_S
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(port.client()) for _ in range(_TOGETHER_DELIVERIES)]
        await loop.sock_sendall(clients[0], DELIVERY)
        assert await statuses(clients[0], 1) == [b"200"]
        for client in clients[:-1]:
            await loop.sock_sendall(client, DELIVERY)
        await port.until(lambda: port.intake.bytes_held == len(BODY) * len(clients[:-1]))
        for _ in range(STALLED_TURNS):
            await asyncio.sleep(0)
        assert port.intake.deliveries_in_flight == 0
        await loop.sock_sendall(clients[-1], DELIVERY)
        for client in clients:
            assert await statuses(client, 1) == [b"200"]


async def test_what_is_left_by_a_full_step_does_not_wait(port: Port) -> None:
    """Large bodies fill one before there are many of them; and who sends them is not even known yet."""
    port.webhook.step_interval_s = 2 * DEADLINE_S
    outcomes: list[Acknowledger | Refused] = []
    for _ in range(4):
        request = Request(b"POST", PATH.encode(), "1.1", [], is_last=False, upgrades=False)
        port.webhook.take(request, bytes(_TOGETHER_BYTES), outcomes.append)
    await port.until(lambda: len(outcomes) == 4)
    assert {type(outcome) for outcome in outcomes} == {SignatureMismatch}


async def test_few_deliveries_go_when_the_interval_is_over(port: Port) -> None:
    """Also when nothing follows them."""
    with port.client() as client:
        for _ in range(20):
            await asyncio.get_running_loop().sock_sendall(client, DELIVERY)
            assert await statuses(client, 1) == [b"200"]


async def test_with_several_workers_few_deliveries_wait_longer() -> None:
    """Each worker has a part of them, so its steps would be small; the broker has the flushes of all. There is an end to it."""
    intervals_s = []
    for workers in (1, 2, 64):
        async with opened(workers) as port:
            intervals_s.append(port.webhook.step_interval_s)
    one, two, many = intervals_s
    assert two == 2 * one
    assert many <= 0.01


async def test_stopping_hands_over_a_delivery_whose_client_is_gone(port: Port) -> None:
    """Nobody waits for its answer, but it has arrived, and what comes after `stop` closes the publisher and the spool."""
    port.webhook.step_interval_s = 0.2
    loop = asyncio.get_running_loop()
    with port.client() as client:
        await loop.sock_sendall(client, DELIVERY)
        assert await statuses(client, 1) == [b"200"]
        await loop.sock_sendall(client, DELIVERY)
        await port.until(lambda: port.intake.bytes_held == len(BODY))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closing it is a reset
    await port.until(lambda: not port.webhook.connections)
    assert not port.webhook.is_idle
    await port.webhook.stop(DEADLINE_S)
    await port.until(lambda: port.intake.deliveries_in_flight == 0)
    assert port.intake.bytes_held == 0

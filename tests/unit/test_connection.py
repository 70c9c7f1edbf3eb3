"""What one client may cost, and that nobody else pays for it: real sockets, and a bridge without Kafka in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import tracemalloc
import weakref
from collections.abc import Callable
from time import monotonic

import pytest

from bridge.adapters import http
from bridge.adapters.http import HEAD_TIMEOUT_S
from bridge.adapters.http_messages import Request
from bridge.errors import Refused
from tests.unit.port import (
    BODY,
    BODY_BYTES_MAX,
    DELIVERY,
    STALLED_TURNS,
    Kafka,
    Port,
    Wire,
    head,
    statuses,
)

KERNEL_BYTES_MAX = 24 << 20
"""What the sockets' buffers of both sides may take, and some."""


def fail_at(port: Port, monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """Let our own code fail over requests for a path."""
    begin = port.webhook.begin

    def begin_or_fail(request: Request) -> bytes | None:
        if request.path == path:
            raise RuntimeError("a text with what the client sent")
        return begin(request)

    monkeypatch.setattr(port.webhook, "begin", begin_or_fail)


async def test_fault_in_a_later_turn_ends_its_connection(
    port: Port, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody else would: a connection whose turn is over waits for no client, so it has no deadline."""
    fail_at(port, monkeypatch, b"/fault")
    with port.client() as client:
        many = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100
        await asyncio.get_running_loop().sock_sendall(client, many + b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await statuses(client, 101) == [b"404"] * 100
        await port.until(lambda: not port.webhook.connections)
    assert capfd.readouterr().out.count("connection_failed") == 1


async def test_bad_requests_behind_a_bad_delivery_leave_the_others_their_turns(port: Port) -> None:
    """Each is answered as soon as the one before it, which must not begin the taking of all once more."""
    wire = Wire()
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(head("Content-Length: 0") * 300)
    while wire.answers < 300:
        before = wire.answers
        await asyncio.sleep(0)
        assert wire.answers - before <= 32
    connection.connection_lost(None)


async def test_fault_over_one_connection_leaves_the_others_their_answers(
    port: Port, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A request that our own code fails over, behind refused ones that are answered in one turn with honest deliveries."""
    fail_at(port, monkeypatch, b"/fault")
    loop = asyncio.get_running_loop()
    refused = head("Content-Length: 2") + b"{}" + head("Content-Length: 0", path="/fault")
    with contextlib.ExitStack() as stack:
        bad = [stack.enter_context(port.client()) for _ in range(3)]
        good = [stack.enter_context(port.client()) for _ in range(3)]
        await port.until(lambda: len(port.webhook.connections) == len(bad) + len(good))
        for one, other in zip(bad, good, strict=True):
            one.send(refused)  # all of them are there when the loop looks next
            other.send(DELIVERY)
        assert [await statuses(client, 1) for client in good] == [[b"200"]] * 3
        assert [await statuses(client, 2) for client in bad] == [[b"401"]] * 3, (
            "the port hung up instead of a second answer"
        )
        for client in good:
            await loop.sock_sendall(client, DELIVERY)
        assert [await statuses(client, 1) for client in good] == [[b"200"]] * 3
    await port.until(lambda: not port.webhook.connections)
    assert (port.intake.deliveries_in_flight, port.intake.bytes_held) == (0, 0)
    said = "".join(capfd.readouterr())
    assert said.count("connection_failed") == len(bad)
    assert "what the client sent" not in said


async def test_body_in_very_small_chunks_costs_little_more_than_its_bytes(port: Port) -> None:
    """A byte in a chunk is a byte of the bound, not forty."""
    loop, pieces, chunks = asyncio.get_running_loop(), 50, 4000
    with port.client() as client:
        await loop.sock_sendall(client, head("Transfer-Encoding: chunked"))
        tracemalloc.start()
        try:
            for piece in range(1, pieces + 1):
                await loop.sock_sendall(client, b"1\r\nx\r\n" * chunks)
                await port.until(lambda piece=piece: port.intake.bytes_held == piece * chunks)  # type: ignore[misc]
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await loop.sock_sendall(client, b"0\r\n\r\n")
        assert await statuses(client, 1) == [b"401"]
    assert kept_bytes < 5 * pieces * chunks


async def sent_until_stalled(client: socket.socket, piece: bytes, most: int) -> int:
    """Send for as long as the bridge reads, or until it has read that many bytes."""
    sent = stalled = 0
    while stalled < STALLED_TURNS and sent < most:
        try:
            sent += client.send(piece)
            stalled = 0
        except BlockingIOError:
            stalled += 1
        await asyncio.sleep(0)
    return sent


async def test_client_that_reads_no_answers_is_not_read_either(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends then would be kept, and nobody would count it."""
    begun, begin = 0, port.webhook.begin

    def counting(request: Request) -> bytes | None:
        nonlocal begun
        begun += 1
        return begin(request)

    monkeypatch.setattr(port.webhook, "begin", counting)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", port.port))
        client.setblocking(False)  # noqa: FBT003 - the method's own signature
        await port.until(lambda: len(port.webhook.connections) == 1)
        (connection,) = port.webhook.connections
        sent = 0
        while not connection.writing_paused:  # one after the other: too many at once are not read for another reason
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            sent += 1
            await port.until(lambda: begun == sent)  # noqa: B023 - called before the next is sent
        unread = head(f"Content-Length: {BODY_BYTES_MAX - 1}")
        assert client.send(unread) == len(unread)
        assert await sent_until_stalled(client, bytes(1 << 16), 2 * KERNEL_BYTES_MAX) < KERNEL_BYTES_MAX


async def test_client_that_sends_on_before_its_answer_waits_with_it(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One delivery at a time: what comes behind it is read when it is answered, and then all of it."""
    waiting: list[Callable[[Refused | None], None]] = []
    monkeypatch.setattr(Kafka, "publish", lambda _self, _records, settled: waiting.append(settled))
    body = bytes(2 * KERNEL_BYTES_MAX)
    loop = asyncio.get_running_loop()
    with port.client() as client:
        await loop.sock_sendall(client, DELIVERY)
        await port.until(lambda: len(waiting) == 1)
        sending = asyncio.create_task(loop.sock_sendall(client, head(f"Content-Length: {len(body)}") + body))
        for _ in range(STALLED_TURNS):
            await asyncio.sleep(0)
        assert not sending.done(), "the bridge has read what it has no room for"
        assert port.intake.bytes_held == len(BODY)
        waiting.pop()(None)
        assert await statuses(client, 2) == [b"200", b"401"]
        await sending


async def test_connections_beyond_the_limit_are_known_and_closed(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them is a descriptor for ever, for as long as its client likes."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(port.client()) for _ in range(4)]
        await port.until(lambda: len(port.webhook.connections) == len(clients))
        for client in clients[1:]:
            assert await statuses(client, 1) == [b"503"]
        for connection in [*port.webhook.connections]:
            assert connection.deadline < float("inf")
            connection.expire()
        await port.until(lambda: not port.webhook.connections)


@pytest.mark.parametrize(
    ("last", "status"),
    [(b"GET / HTTP/1.0\r\n\r\nX-A: b\r\n", b"404"), (b"GET / HTTP/1.1\r\n\r\n", b"400")],
    ids=["followed by what is no HTTP", "without Host"],
)
async def test_client_that_goes_on_behind_its_last_request_still_gets_the_answer(
    port: Port, last: bytes, status: bytes
) -> None:
    """What comes is thrown away for a moment: a reset would take the answer with it (RFC 9112 section 9.6)."""
    loop = asyncio.get_running_loop()
    with port.client() as client:
        await port.until(lambda: len(port.webhook.connections) == 1)
        (connection,) = port.webhook.connections
        await loop.sock_sendall(client, last)
        await port.until(lambda: connection.deadline < monotonic() + HEAD_TIMEOUT_S or not port.webhook.connections)
        for _ in range(3):
            await loop.sock_sendall(client, b"X-C: d\r\n")
            await asyncio.sleep(0)
        assert await statuses(client, 2) == [status]


async def test_many_small_requests_leave_the_others_their_turns(port: Port) -> None:
    """One read may hold thousands: they are answered, all of them, but not in one turn; and nothing is read meanwhile."""
    wire, requests = Wire(), 2000
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
    turns = 0
    while wire.answers < requests:
        assert wire.is_reading_paused
        before = wire.answers
        await asyncio.sleep(0)
        assert wire.answers - before <= 64
        turns += 1
    assert turns > requests // 100
    await asyncio.sleep(0)
    assert not wire.is_reading_paused
    connection.connection_lost(None)


async def test_client_that_is_gone_gets_no_more_answers(port: Port) -> None:
    """Every write to it is logged by asyncio, which tells of its loss only in the next turn."""
    wire = Wire(answers_max=3)
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 16)
    await asyncio.sleep(0)
    assert wire.answers == 3
    connection.connection_lost(None)


async def test_connection_that_is_gone_is_forgotten_at_once(port: Port) -> None:
    """With all that its parser holds, and not when the cyclic collector comes by: 10,000 a second would be a gigabyte."""
    gone: list[weakref.ref[object]] = []
    gc.disable()
    try:
        for unfinished in (
            b"GET / HTTP/1.1\r\nX: a",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
            head("Content-Length: 9") + b"{}",
        ):
            with port.client() as client:
                await asyncio.get_running_loop().sock_sendall(client, unfinished)
                await port.until(lambda: len(port.webhook.connections) == 1)
                for _ in range(5):
                    await asyncio.sleep(0)
                gone.extend(map(weakref.ref, port.webhook.connections))
            await port.until(lambda: not port.webhook.connections)
        await port.until(lambda: all(reference() is None for reference in gone))
    finally:
        gc.enable()
    assert len(gone) == 3

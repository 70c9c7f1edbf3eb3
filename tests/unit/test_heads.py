"""Heads and trailers: what is read of them, how large they may be, and which end the connection."""

from __future__ import annotations

import asyncio
from time import monotonic

import pytest

from bridge.adapters.http import HEAD_BYTES_MAX, HEAD_TIMEOUT_S, IDLE_TIMEOUT_S
from bridge.adapters.webhook import PATH
from tests.unit.port import BODY, Port, Wire, head, statuses


@pytest.mark.parametrize(
    ("token", "status"), [("schlüssel", b"400"), ("schl%C3%BCssel", b"200"), ("schl%FCssel", b"403"), ("schl%", b"403")]
)
async def test_verify_token_beyond_ascii_is_read_where_it_is_escaped(port: Port, token: str, status: bytes) -> None:
    """Escaped UTF-8 is read, other bytes are wrong and no fault; unescaped it is no target (RFC 3986 section 2)."""
    port.webhook.verify_token = "schlüssel"  # noqa: S105 - guards nothing
    with port.client() as client:
        asked = f"GET {PATH}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token} HTTP/1.1\r\nHost: a\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, asked.encode())
        assert await statuses(client, 1) == [status]


async def test_length_behind_very_many_zeros_is_that_length(port: Port) -> None:
    """More digits than Python's int reads; the parser lets them pass, and they are no reason to fall."""
    with port.client() as client:
        zeros = "0" * 5000
        await asyncio.get_running_loop().sock_sendall(
            client, head(f"Content-Length: {zeros}{len(BODY)}", signed=BODY) + BODY
        )
        assert await statuses(client, 1) == [b"200"]


@pytest.mark.parametrize("length", ["0 ", "00\t", "0 \t ", f"{len(BODY)} ", f"{len(BODY)}\t"])
async def test_length_before_blanks_is_that_length(port: Port, length: str) -> None:
    """RFC 9110 section 5.5 allows them; llhttp leaves them behind the value."""
    with port.client() as client:
        body = BODY if length[0] != "0" else b""
        sent = head(f"Content-Length: {length}", signed=body) + body
        await asyncio.get_running_loop().sock_sendall(client, sent * 2)
        assert await statuses(client, 2) == [b"200"] * 2


@pytest.mark.parametrize("pieces", [2, 5])
async def test_head_that_is_too_large_is_refused_before_it_is_whole(port: Port, pieces: int) -> None:
    """It is in no other bound."""
    lines = [f"X-{number}: {'a' * 4000}" for number in range(HEAD_BYTES_MAX // 4000 + 1)]
    unfinished = head(*lines)[:-2]
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for at in range(pieces):
            await loop.sock_sendall(
                client, unfinished[len(unfinished) * at // pieces : len(unfinished) * (at + 1) // pieces]
            )
            await asyncio.sleep(0)
        assert await statuses(client, 1) == [b"400"]


async def test_head_of_very_many_headers_is_refused_before_it_is_whole(port: Port) -> None:
    """Four bytes each, and two hundred in memory: a client that never ends its head would have a megabyte."""
    with port.client() as client:
        lines = "".join(f"{number % 10}:\r\n" for number in range(1000))
        await asyncio.get_running_loop().sock_sendall(client, f"GET / HTTP/1.1\r\nHost: a\r\n{lines}".encode())
        assert await statuses(client, 1) == [b"400"]


async def test_too_many_trailers_are_one_answer(port: Port) -> None:
    """The delivery is refused, not answered and then refused: a proxy would take the second answer for another's."""
    with port.client() as client:
        chunks = f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\n{'a:' + chr(13) + chr(10)}".replace(
            "a:\r\n", "a:\r\n" * 129
        )
        sent = head("Transfer-Encoding: chunked", signed=BODY) + f"{chunks}\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(client, sent)
        assert await statuses(client, 2) == [b"400"]


async def test_trailers_that_are_too_large_are_refused_before_they_are_whole(port: Port) -> None:
    """They are a head that comes after the body; small ones are read, and the connection is kept."""
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for size in (1000, 2 * HEAD_BYTES_MAX):
            trailers = "".join(f"X-{number}: {'a' * 1000}\r\n" for number in range(size // 1000))
            body = f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\n".encode()
            await loop.sock_sendall(client, head("Transfer-Encoding: chunked", signed=BODY) + body)
            await port.until(lambda: port.intake.bytes_held == len(BODY))
            await loop.sock_sendall(client, trailers.encode())
            if size < HEAD_BYTES_MAX:
                await loop.sock_sendall(client, b"\r\n")
            assert await statuses(client, 1) == [b"200" if size < HEAD_BYTES_MAX else b"400"]


async def test_large_head_in_pieces_is_read(port: Port) -> None:
    """Somebody's proxies may add much; and the next head begins to count anew."""
    lines = [f"X-{number}: {'a' * 4000}" for number in range(HEAD_BYTES_MAX // 4000 - 1)]
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for _ in range(3):
            delivery = head(*lines, f"Content-Length: {len(BODY)}", signed=BODY) + BODY
            half = len(delivery) // 2
            await loop.sock_sendall(client, delivery[:half])
            await port.until(lambda: any(each._head_bytes for each in port.webhook.connections))  # noqa: SLF001 - the half was read alone
            await loop.sock_sendall(client, delivery[half:])
            assert await statuses(client, 1) == [b"200"]


async def test_head_that_begins_behind_a_request_is_bounded_too(port: Port) -> None:
    """Whatever comes in one read: the large head is refused, the request before it is answered."""
    loop = asyncio.get_running_loop()
    large = "".join(f"X-{number}: {'a' * 4000}\r\n" for number in range(30))
    with port.client() as client:
        await loop.sock_sendall(client, f"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n{large}".encode())
        assert await statuses(client, 2) == [b"404", b"400"]


async def test_head_that_begins_behind_a_request_has_the_time_of_a_head(port: Port) -> None:
    """Not that of a connection where nothing is asked; when it is over the client is told so, and not before."""
    wire = Wire()
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nX: a")
    assert wire.answers == 1
    assert connection.deadline < monotonic() + HEAD_TIMEOUT_S + 1 < monotonic() + IDLE_TIMEOUT_S
    begun = connection.deadline
    connection.data_received(b"b")
    assert connection.deadline == begun, "more of it is no more time"
    connection.expire()
    assert wire.answers == 2
    connection.connection_lost(None)


@pytest.mark.parametrize(
    "ambiguous",
    [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_connection_ends_with_a_request_that_could_be_read_in_two_ways(port: Port, ambiguous: str) -> None:
    """Also when all of it is there: a proxy before us may see the next request elsewhere."""
    with port.client() as client:
        await asyncio.get_running_loop().sock_sendall(
            client, (ambiguous + 2 * "GET / HTTP/1.1\r\nHost: a\r\n\r\n").encode()
        )
        assert await statuses(client, 2) == [b"400"], "one answer, then the port hangs up"

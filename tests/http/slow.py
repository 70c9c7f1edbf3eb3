"""Clients that are slow in every way we know, and how long the server bears them."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import NamedTuple

from tests.http.wire import MARKER, PATH, Connection, request
from tests.kafka.serving import Serving, message, notification

BODY_CUT_OFF_S = 15  # the whole body has ten seconds; a busy machine notices later
IDLE_CUT_OFF_S = 95  # above the 60 s of most load balancers, and not for ever
DRIP_S = 0.5

BODY = notification(message("slow"))
HALF = len(BODY) // 2
UNSIGNED = f"X-Hub-Signature-256: sha256={'0' * 64}"
HEAD = request("POST", PATH, UNSIGNED, f"Content-Length: {len(BODY)}")
CHUNKED_HEAD = request("POST", PATH, UNSIGNED, "Transfer-Encoding: chunked")


class Behaviour(NamedTuple):
    """What a slow client sends at once, and then again and again; by when it is cut off, and with which answer."""

    first: bytes
    then: bytes
    cut_off_s: float
    statuses: tuple[bytes, ...]


LATE = (b"408",)
LATE_OR_REFUSED = (b"408", b"400")
BEHAVIOURS = {
    "body that stops": Behaviour(HEAD + BODY[:HALF], b"", BODY_CUT_OFF_S, LATE),
    "body in drops": Behaviour(HEAD, b" ", BODY_CUT_OFF_S, LATE),
    "chunks in drops": Behaviour(CHUNKED_HEAD, b"1\r\nx\r\n", BODY_CUT_OFF_S, LATE),
    "endless chunk extension": Behaviour(CHUNKED_HEAD + b"1;", MARKER.encode() * 4096, BODY_CUT_OFF_S, LATE_OR_REFUSED),
    "endless trailers": Behaviour(CHUNKED_HEAD + b"0\r\n", b"X-A: b\r\n", BODY_CUT_OFF_S, LATE_OR_REFUSED),
    "head that stops": Behaviour(HEAD[:-10], b"", IDLE_CUT_OFF_S, (b"408", b"")),
    "head in drops": Behaviour(HEAD[:-2], b"X-A: b\r\n", IDLE_CUT_OFF_S, (*LATE_OR_REFUSED, b"")),
    "blank lines": Behaviour(b"\r\n", b"\r\n", IDLE_CUT_OFF_S, (*LATE_OR_REFUSED, b"")),
    "nothing": Behaviour(b"", b"", IDLE_CUT_OFF_S, (b"",)),
    "nothing more": Behaviour(request("GET", "/"), b"", IDLE_CUT_OFF_S, (b"404",)),
}


async def outlast(port: int, behaviour: Behaviour) -> tuple[float, bytes]:
    """How long the server bears it, in seconds, and what it said."""
    began = time.monotonic()
    async with Connection.open(port) as connection:
        await connection.send(behaviour.first)
        said = asyncio.create_task(connection.until_closed(2 * IDLE_CUT_OFF_S))
        while not said.done():
            await asyncio.wait({said}, timeout=DRIP_S if behaviour.then else None)
            if not said.done():
                await connection.send(behaviour.then)
        return time.monotonic() - began, await said


async def fill(serving: Serving, client: socket.socket) -> None:
    """Ask, but read nothing, until the answers fill the kernel's buffer and a little of the server's own."""
    loop, counter = asyncio.get_running_loop(), "instagram_bridge_verification_requests_total{"
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setblocking(False)  # noqa: FBT003 - the method's own signature
    await loop.sock_connect(client, ("127.0.0.1", serving.port))
    asked, unread = await serving.counted(counter), -1
    while kept(serving.port, client)[1] > unread:
        unread = kept(serving.port, client)[1]
        await loop.sock_sendall(client, request("GET", PATH) * 100)
        asked += 100
        await serving.until_counted(counter, asked)


def kept(port: int, client: socket.socket) -> tuple[bool, int]:
    """How the server's kernel has a connection: whether it is open, and how many bytes the client has yet to take."""
    ours, theirs = f":{port:04X}", f":{client.getsockname()[1]:04X}"
    for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]:
        _, local, remote, state, queues, *_ = line.split()
        if local.endswith(ours) and remote.endswith(theirs):
            return state == "01", int(queues.partition(":")[0], 16)
    return False, 0

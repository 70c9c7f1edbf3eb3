"""A stand-in for a load balancer: asks every bridge whether it is ready, and gives requests to those that are, in turn.

As an HTTP proxy does it, it keeps connections to the bridges; it repeats no request, so what a bridge refuses or cuts off, the
sender sees.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Mapping, Sequence

from bridge.local.jvm import free_port

ASK_INTERVAL_S = 0.1
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Balancer:
    """Listens on a port of its own.

    Attributes:
        port: where senders find it.
        ready: the ports of the bridges that said so when they were asked last.
        passed_on: the requests that each bridge got, by its port.
    """

    def __init__(self, environments: Sequence[Mapping[str, str]]) -> None:
        self.port = free_port()
        self._asked = {int(each["BRIDGE_PORT"]): int(each["BRIDGE_MANAGEMENT_PORT"]) for each in environments}
        self.passed_on = dict.fromkeys(self._asked, 0)
        self.ready: list[int] = []
        self._turns = itertools.count()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Balancer]:
        """Balance meanwhile."""
        asking = asyncio.create_task(self._ask())
        try:
            async with await asyncio.start_server(self._serve, "127.0.0.1", self.port):
                yield self
        finally:
            asking.cancel()

    async def _ask(self) -> None:
        while True:
            answers = await asyncio.gather(*(_says_ready(port) for port in self._asked.values()))
            self.ready = [port for port, ready in zip(self._asked, answers, strict=True) if ready]
            await asyncio.sleep(ASK_INTERVAL_S)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One sender's requests, each to the next bridge, over a connection kept to each."""
        kept: dict[int, Ends] = {}
        try:
            while request := await _message(reader):
                port = self.ready[next(self._turns) % len(self.ready)]
                self.passed_on[port] += 1
                if port in kept and kept[port][0].at_eof():  # the bridge of before a restart has hung up
                    kept.pop(port)[1].close()
                if port not in kept:
                    kept[port] = await asyncio.open_connection("127.0.0.1", port)
                bridge_reader, bridge_writer = kept[port]
                bridge_writer.write(request)
                answer = await _message(bridge_reader)
                if not answer or b"connection: close" in answer.lower():
                    kept.pop(port)[1].close()
                if not answer:
                    break
                writer.write(re.sub(rb"(?i)connection: close\r\n", b"", answer))
        except OSError:
            pass
        finally:
            for end in (writer, *(bridge_writer for _, bridge_writer in kept.values())):
                end.transport.abort()


async def _message(reader: asyncio.StreamReader) -> bytes:
    """The next request or answer, whole; nothing where the other side hung up."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        return head + await reader.readexactly(int(length[1]) if length else 0)
    except EOFError:
        return b""


async def _says_ready(management_port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", management_port)
    except OSError:
        return False
    try:
        writer.write(b"GET /readyz HTTP/1.1\r\nHost: balancer.test\r\nConnection: close\r\n\r\n")
        return (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")
    except OSError:
        return False
    finally:
        writer.transport.abort()

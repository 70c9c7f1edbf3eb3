"""HTTP/1.1 over a raw socket, without an HTTP library: what is sent here none would send.

Every answer that passes here is looked at: it must tell nothing of the software behind it, nor give back what was sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple, Self

DEADLINE_S = 20  # an answer takes milliseconds, and five seconds when Kafka is away; a busy machine is slower
PATH = "/webhooks/instagram"

MARKER = "5ee1ed-m4rk3r"
"""Stands in whatever the tests send (bodies, targets, headers), and must come back in no answer and stand in no log."""

_BANNER = re.compile(rb"python|aiohttp|asyncio|traceback|exception|llhttp|[0-9]+\.[0-9]+\.[0-9]+", re.IGNORECASE)


class Answer(NamedTuple):
    """One answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def openssl_signatures(bodies: Sequence[bytes], app_secret: str) -> list[str]:
    """X-Hub-Signature-256 of each body, as the openssl binary computes it."""
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for number, body in enumerate(bodies):
            Path(folder, f"{number}").write_bytes(body)
            names.append(f"{number}")
        command = ["openssl", "dgst", "-sha256", "-hmac", app_secret, *names]
        printed = subprocess.run(command, cwd=folder, capture_output=True, check=True, text=True).stdout
    return ["sha256=" + line.rpartition("= ")[2] for line in printed.splitlines()]


def request(method: str, target: str, *headers: str, body: bytes = b"", version: str = "HTTP/1.1") -> bytes:
    """A request as bytes, with these header lines and a Host; its Content-Length is the caller's."""
    lines = [f"{method} {target} {version}", "Host: bridge.test", *headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def post(body: bytes, signature: str | None, *headers: str, target: str = PATH, version: str = "HTTP/1.1") -> bytes:
    """A delivery as Meta sends it, with more header lines."""
    signed = [] if signature is None else [f"X-Hub-Signature-256: {signature}"]
    return request("POST", target, f"Content-Length: {len(body)}", *signed, *headers, body=body, version=version)


def chunked(pieces: Iterable[bytes], *, extension: str = "", trailers: Sequence[str] = ()) -> bytes:
    """A body in chunked coding."""
    chunks = b"".join(f"{len(piece):x}{extension}\r\n".encode() + piece + b"\r\n" for piece in pieces)
    return chunks + b"0\r\n" + "".join(f"{trailer}\r\n" for trailer in trailers).encode() + b"\r\n"


class Connection:
    """One connection to a port of 127.0.0.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, port: int) -> AsyncIterator[Self]:
        """Open one, and reset it at the end."""
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), DEADLINE_S)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def send(self, *pieces: bytes) -> None:
        """Send pieces one after the other; a server that hangs up meanwhile may have answered before."""
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                self._writer.write(piece)
                await asyncio.wait_for(self._writer.drain(), DEADLINE_S)

    async def answer(self, *, to_head: bool = False) -> Answer:
        """The next answer.

        Raises:
            EOFError, ConnectionError: the server hung up instead.
        """
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), DEADLINE_S)
        status_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        version, status, _ = status_line.split(" ", 2)
        assert version in ("HTTP/1.1", "HTTP/1.0"), status_line
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        assert len(headers) == len(lines), f"a header is repeated: {lines}"
        assert "transfer-encoding" not in headers, "answers are short: their length is known"
        size = 0 if to_head or status.startswith("1") else int(headers["content-length"])
        body = await asyncio.wait_for(self._reader.readexactly(size), DEADLINE_S)
        assert not _BANNER.search(head.replace(version.encode(), b"") + body), head + body
        assert MARKER.encode() not in head + body, "the answer gives back what was sent"
        return Answer(int(status), headers, body)

    async def until_closed(self, deadline_s: float = DEADLINE_S) -> bytes:
        """Whatever still comes until the server hangs up."""
        try:
            return await asyncio.wait_for(self._reader.read(-1), deadline_s)
        except ConnectionResetError:
            return b""

    async def end(self) -> None:
        """Say that nothing more will be sent (FIN); answers still come."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    def abort(self) -> None:
        """Hang up at once (RST)."""
        self._writer.transport.abort()


async def exchange(port: int, *pieces: bytes, to_head: bool = False) -> Answer:
    """The answer to a lone request on a connection of its own."""
    async with Connection.open(port) as connection:
        await connection.send(*pieces)
        return await connection.answer(to_head=to_head)

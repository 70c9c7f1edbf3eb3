"""What pretends to be a broker."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.local.jvm import free_port

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def tls_server(certificate: Path, key: Path, handler: Handler) -> AsyncIterator[str]:
    """A server under this certificate: its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    port = free_port()
    async with await asyncio.start_server(handler, "127.0.0.1", port, ssl=context):
        yield f"127.0.0.1:{port}"


async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that has nothing to say."""
    writer.close()


def impostor(broker: str, authority: Path) -> Handler:
    """Passes all on to a real broker and back, but for the proof that the password is known there, which it has to make up."""

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, forge: bool) -> None:
        while data := await reader.read(1 << 16):
            at = data.find(b"v=")
            writer.write(data[: at + 2] + b"AAAA" + data[at + 6 :] if forge and at >= 0 else data)
            await writer.drain()
        writer.close()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = broker.partition(":")
        context = ssl.create_default_context(cafile=authority)
        their_reader, their_writer = await asyncio.open_connection(host, int(port), ssl=context)
        await asyncio.gather(
            pass_on(reader, their_writer, forge=False),
            pass_on(their_reader, writer, forge=True),
            return_exceptions=True,
        )

    return handle

"""A TCP proxy that breaks when it is told to: a network that is cut, hangs or is slow, without touching either end.

It has a thread of its own, so that a client that keeps the test's thread busy still gets its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

CHUNK_BYTES = 64 * 1024


class Proxy:
    """Passes connections to 127.0.0.1:``port`` on to another port of the same address.

    Args:
        port: where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._upstream_port = 0
        self._delay_s = 0.0
        self._refusing = False
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._listening = threading.Event()

    def start(self, upstream_port: int) -> None:
        """Listen, and pass everything on to that port."""
        self._upstream_port = upstream_port
        self._thread.start()
        self._listening.wait()

    def stop(self) -> None:
        """Cut everything, and listen no more."""
        self.cut()
        self._soon(self._stopping.set)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset every connection, and every new one."""

        def cut() -> None:
            self._refusing = True
            for writer in self._writers:
                writer.transport.abort()

        self._soon(cut)

    def hang(self) -> None:
        """Pass nothing on, in neither direction, and tell nobody."""
        self._soon(self._whole.clear)

    def slow(self, delay_s: float) -> None:
        """Let every piece take that long, in both directions."""
        self._delay_s = delay_s

    def heal(self) -> None:
        """Pass everything on again, at once."""

        def heal() -> None:
            self._refusing = False
            self._delay_s = 0.0
            self._whole.set()

        self._soon(heal)

    def _soon(self, function: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(function)

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._connected, "127.0.0.1", self.port):
            self._listening.set()
            await self._stopping.wait()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.suppress(OSError):
            if not self._refusing:
                await self._join(reader, writer)
        writer.transport.abort()
        self._writers.discard(writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._upstream_port)
        self._writers.add(up_writer)
        both = [asyncio.create_task(self._pass(*ends)) for ends in ((reader, up_writer), (up_reader, writer))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for task in both:
            task.cancel()
        up_writer.transport.abort()
        self._writers.discard(up_writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                await asyncio.sleep(self._delay_s)
                await self._whole.wait()
                writer.write(chunk)
                await writer.drain()

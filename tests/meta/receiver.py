"""A webhook receiver that stands in for the bridge, with a real socket: the tests here are about the sender."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

_POSTS_DEADLINE_S = 30  # posts arrive within milliseconds; a process that sends them takes a second to start
SECRET = "a secret of the tests"  # noqa: S105 - guards nothing


Answer = Callable[[bytes, int], Awaitable[int]]
"""Of a post's body and its number, the status to answer with."""


class Receiver:
    """A webhook receiver that keeps what it got and answers as told.

    Attributes:
        bodies: of every post, in the order in which their last byte arrived.
        signatures: their X-Hub-Signature-256.
        most_at_once: posts that waited for their answers at one time.
    """

    def __init__(self, answer: Answer) -> None:
        self.url = ""
        self.bodies: list[bytes] = []
        self.signatures: list[str | None] = []
        self.most_at_once = 0
        self._arrivals = asyncio.Queue[None]()
        self._waiting = 0
        self._answer = answer

    async def take(self, request: web.Request) -> web.Response:
        """Answers a post."""
        body = await request.read()
        number = len(self.bodies)
        self.bodies.append(body)
        self.signatures.append(request.headers.get("X-Hub-Signature-256"))
        self._arrivals.put_nowait(None)
        self._waiting += 1
        self.most_at_once = max(self.most_at_once, self._waiting)
        status = await self._answer(body, number)
        self._waiting -= 1
        return web.Response(status=status, headers={"X-Delivery-Id": f"d{number}", "X-Acknowledged-By": "kafka"})

    async def until_posts(self, count: int) -> None:
        """Waits until that many more posts arrived than were waited for before."""
        async with asyncio.timeout(_POSTS_DEADLINE_S):
            for _ in range(count):
                await self._arrivals.get()


Listen = Callable[[Answer], Awaitable[Receiver]]


async def accept(_: bytes, __: int) -> int:
    """Answers 200 to everything."""
    return 200

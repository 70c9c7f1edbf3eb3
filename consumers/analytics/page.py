"""The page and its figures over HTTP: `/`, `/api/counts` (JSON) and `/api/events` (server-sent events).

A reader of the stream holds only its place in the feed, not a queue of its own: one that is too slow to take what is
written to it is cut off, and nothing piles up for it.
"""

import asyncio
import base64
import contextlib
import errno
import hashlib
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Callable, Iterable
from importlib import resources
from typing import Any

from aiohttp import web

from consumers.analytics.counts import Counts
from consumers.errors import ConsumerError

UPDATE_INTERVAL_S = 0.25  # the eye does not need more, and a busy stream is not sent number by number
READERS_MAX = 50  # open streams; each costs a socket and four small writes a second
WRITE_TIMEOUT_S = 5  # a reader that does not take a write within this is cut off
KEEP_ALIVE_INTERVAL_S = 15  # proxies close a stream that is silent for a minute; also how a dead reader is noticed
SHUTDOWN_TIMEOUT_S = 1  # for streams to end, each within an update's interval
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Figures = Callable[[], dict[str, Any]]


class Page:
    """What is served: the page, the figures, the stream.

    Args:
        counts: Whose feed is streamed.
        figures: Gives what `/api/counts` answers.
        host: Where the page will be bound; on loopback, only requests for a loopback name are answered.
    """

    def __init__(self, counts: Counts, *, figures: Figures, host: str) -> None:
        self._counts = counts
        self._figures = figures
        self._loopback_only = is_loopback(host)
        self._html = (resources.files(__package__) / "page.html").read_text(encoding="utf-8")
        self._policy = content_security_policy(self._html)
        self._readers = 0
        self._closing = False
        self._text, self._stale_at = "", 0.0

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._check_host])
        app.router.add_get("/", self._page)
        app.router.add_get("/api/counts", self._api_counts)
        app.router.add_get("/api/events", self._api_events)
        app.on_response_prepare.append(_set_headers)
        app.on_shutdown.append(self._end_streams)
        return app

    async def _end_streams(self, _: web.Application) -> None:
        self._closing = True

    @web.middleware
    async def _check_host(self, request: web.Request, handler: Callable[[web.Request], Any]) -> web.StreamResponse:
        # A page of someone else's whose name was made to point at 127.0.0.1 (DNS rebinding) comes with its own name.
        if self._loopback_only and not is_loopback(_hostname(request.host)):
            raise web.HTTPForbidden(text="This page answers to 127.0.0.1 and localhost only.\n")
        response: web.StreamResponse = await handler(request)
        return response

    async def _page(self, _: web.Request) -> web.Response:
        return web.Response(
            text=self._html, content_type="text/html", headers={"Content-Security-Policy": self._policy}
        )

    async def _api_counts(self, _: web.Request) -> web.Response:
        return web.json_response(text=json.dumps(self._figures()))

    async def _api_events(self, request: web.Request) -> web.StreamResponse:
        if self._readers >= READERS_MAX:
            raise web.HTTPServiceUnavailable(text="Too many open pages.\n", headers={"Retry-After": "10"})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._readers += 1
        try:
            await response.prepare(request)
            async for message in self._messages(with_text=request.query.get("text") == "1"):
                await asyncio.wait_for(response.write(message), WRITE_TIMEOUT_S)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._readers -= 1
        return response

    def _figures_text(self) -> str:
        # Made once per interval, however many are reading.
        now = asyncio.get_running_loop().time()
        if now >= self._stale_at:
            self._text, self._stale_at = json.dumps(self._figures()), now + UPDATE_INTERVAL_S / 2
        return self._text

    async def _messages(self, *, with_text: bool) -> AsyncIterator[bytes]:
        number, figures, silent_s = 0, "", 0.0
        while not self._closing:
            newest = self._figures_text()
            events = self._counts.feed_after(number, with_text=with_text)
            if newest != figures:
                figures, silent_s = newest, 0.0
                yield _sse("counts", figures)
            if events:
                number = events[-1]["number"]
                yield _sse("events", json.dumps(events))
            if silent_s >= KEEP_ALIVE_INTERVAL_S:
                silent_s = 0.0
                yield b": still here\n\n"
            await asyncio.sleep(UPDATE_INTERVAL_S)
            silent_s += UPDATE_INTERVAL_S


@contextlib.asynccontextmanager
async def served(page: Page, *, host: str, port: int, port_variable: str) -> AsyncIterator[None]:
    """Serves the page until the block ends.

    Raises:
        ConsumerError: The address cannot be bound.
    """
    runner = web.AppRunner(page.app(), access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError as error:
        await runner.cleanup()
        if error.errno == errno.EADDRINUSE:
            raise ConsumerError(f"port {port} is taken: end what listens there or set {port_variable}") from None
        raise ConsumerError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    try:
        yield
    finally:
        await runner.cleanup()


def content_security_policy(html: str) -> str:
    """Allows the page's own inline script and style, by their hashes, and connections to where it came from."""

    def hashes(tag: str) -> str:
        found: Iterable[str] = re.findall(rf"<{tag}>(.*?)</{tag}>", html, flags=re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in found)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)
    response.headers.pop("Server", None)  # no version banner


def _sse(event: str, data: str) -> bytes:
    return f"event: {event}\ndata: {data}\n\n".encode()


def _hostname(host: str) -> str:
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

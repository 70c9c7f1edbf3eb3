"""The page over HTTP: `/`, its assets, and under `/api/` the figures as JSON and as a stream of server-sent events."""

import asyncio
import contextlib
import errno
import gzip
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import cache
from importlib import resources
from urllib.parse import parse_qs

from aiohttp import web

from consumers.analytics.access import Access
from consumers.analytics.feed import Feed
from consumers.analytics.periods import BadPeriodError, Period
from consumers.analytics.stream import Figures, Readings, UnknownAccountError, UnreadableError, messages
from consumers.errors import ConsumerError

READERS_MAX = 50  # open streams; each costs a socket and a few small writes a second
WRITE_TIMEOUT_S = 5  # a reader that does not take a write within this is cut off
SHUTDOWN_TIMEOUT_S = 1  # for answers that are under way; streams are ended at once
RETRY_AFTER_S = 10  # for a page beyond the limit; somebody may have closed theirs
FORM_BYTES_MAX = 4096  # the login form is all that is ever posted
GZIP_LEVEL = 6  # 4.8 MB of plotly become 1.5; a higher level takes long and saves little
# plotly puts style elements and attributes into the page by script, hence 'unsafe-inline' for styles; for scripts there is
# no such thing, and nothing that comes from a record is ever put in as markup.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
FOR_EVER = "public, max-age=31536000, immutable"  # the folder's name changes with what is in it
ASSETS = {
    "page.css": "text/css",
    "theme.js": "text/javascript",
    "page.js": "text/javascript",
    "tables.js": "text/javascript",
    "charts.js": "text/javascript",
    "plotly.min.js": "text/javascript",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """What is served: the page, the figures, the stream.

    Args:
        readings: The numbers.
        feed: The newest events.
        access: Who is answered.
    """

    def __init__(self, readings: Readings, feed: Feed, access: Access) -> None:
        self._feed = feed
        self._access = access
        self._figures = Figures(readings, feed)
        self._assets = {name: _compressed(name) for name in ASSETS}
        self._digest = hashlib.sha256(b"".join(self._assets.values())).hexdigest()[:16]
        self._html, self._login_html = (
            _asset(name).decode().replace("assets/", f"assets/{self._digest}/") for name in ("page.html", "login.html")
        )
        self._readers = 0
        self._ending = asyncio.Event()

    def app(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(middlewares=[self._guard], client_max_size=FORM_BYTES_MAX)
        app.router.add_get("/", self._page)
        app.router.add_post("/", self._login)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/assets/{digest}/{name}", self._asset)
        app.router.add_get("/api/accounts", self._api_accounts)
        app.router.add_get("/api/figures", self._api_figures)
        app.router.add_get("/api/counts", self._api_counts)
        app.router.add_get("/api/events", self._api_events)
        app.on_response_prepare.append(_set_headers)
        app.on_shutdown.append(self._end_streams)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if self._access.is_misled(request):
            raise web.HTTPForbidden(text="This page answers to 127.0.0.1 and localhost only.\n")
        if request.path.startswith("/api/") and not self._access.is_granted(request):
            return _problem(
                401, "token_wanted", "send the token as Authorization: Bearer …", {"WWW-Authenticate": "Bearer"}
            )
        try:
            return await handler(request)
        except BadPeriodError as error:
            return _problem(400, "bad_period", str(error))
        except UnknownAccountError:
            return _problem(
                404, "unknown_account", "no event of this account is known; /api/accounts lists those that are"
            )
        except UnreadableError:
            return _problem(
                500, "figures_unreadable", "the figures cannot be read; the log of consumers.analytics says why"
            )

    async def _page(self, request: web.Request) -> web.Response:
        if not self._access.is_granted(request):
            return self._login_page("")
        return web.Response(text=self._html, content_type="text/html")

    async def _login(self, request: web.Request) -> web.StreamResponse:
        form = parse_qs((await request.read()).decode("utf-8", "replace"), separator="&")
        if not self._access.knows(form.get("token", [""])[0].strip()):
            return self._login_page("That is not the token.")
        answer = web.Response(status=303, headers={"Location": request.path_qs})
        # Whoever makes up this header gets a cookie that is of no use to them.
        secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        self._access.let_in(answer, secure=secure)
        return answer

    def _login_page(self, problem: str) -> web.Response:
        return web.Response(
            status=401,
            text=self._login_html.replace("{problem}", problem),
            content_type="text/html",
            headers={"WWW-Authenticate": "Bearer"},
        )

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _asset(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        content = self._assets.get(name)
        if content is None or request.match_info["digest"] != self._digest:
            raise web.HTTPNotFound(text="There is nothing here.\n")
        headers = {"Cache-Control": FOR_EVER, "Content-Encoding": "gzip"}
        return web.Response(body=content, content_type=ASSETS[name], charset="utf-8", headers=headers)

    async def _api_accounts(self, _: web.Request) -> web.Response:
        return web.json_response({"accounts": await self._figures.accounts()})

    async def _api_figures(self, request: web.Request) -> web.Response:
        text = await self._figures.text(request.query.get("account") or None, Period.asked(request.query))
        return web.json_response(text=text)

    async def _api_counts(self, _: web.Request) -> web.Response:
        return web.json_response(await self._figures.counts())

    async def _api_events(self, request: web.Request) -> web.StreamResponse:
        account_id, period = request.query.get("account") or None, Period.asked(request.query)
        if self._readers >= READERS_MAX:
            return _problem(503, "too_many_pages", "close one of the open pages", {"Retry-After": f"{RETRY_AFTER_S}"})
        with_text = request.query.get("text") == "1"
        told = messages(self._figures, self._feed, self._ending, account_id, period, with_text=with_text)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        self._readers += 1
        try:
            async for message in told:  # the first comes before the status line: a question may have no answer
                if not response.prepared:
                    await response.prepare(request)
                await asyncio.wait_for(response.write(message), WRITE_TIMEOUT_S)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
        except (UnknownAccountError, UnreadableError):
            if not response.prepared:
                raise
        finally:
            self._readers -= 1
        return response

    async def _end_streams(self, _: web.Application) -> None:
        self._ending.set()
        await self._figures.stop()


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


def _asset(name: str) -> bytes:
    if name == "plotly.min.js":
        return (resources.files("plotly") / "package_data" / name).read_bytes()
    return (resources.files(__package__) / "web" / name).read_bytes()


@cache
def _compressed(name: str) -> bytes:
    return gzip.compress(_asset(name), GZIP_LEVEL, mtime=0)


def _problem(status: int, error: str, detail: str, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.json_response({"error": error, "detail": detail}, status=status, headers=headers)


async def _set_headers(_: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.pop("Server", None)  # no version banner

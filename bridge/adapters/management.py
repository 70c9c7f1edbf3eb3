"""The management port: liveness, readiness, metrics and status, for the machine's owner, never for the public."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST


def application(
    *,
    metrics: Callable[[], Awaitable[bytes]],
    ready: Callable[[], bool],
    status: Callable[[], Awaitable[Mapping[str, object]]],
) -> web.Application:
    """The management port's application.

    Args:
        metrics: what /metrics shows, in Prometheus' text form.
        ready: whether a delivery could be taken now; liveness never depends on it, nor on the broker.
        status: what /status shows; no secrets.
    """

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="live\n")

    async def readyz(_request: web.Request) -> web.Response:
        return web.Response(text="ready\n") if ready() else web.Response(status=503, text="not ready\n")

    async def metrics_(_request: web.Request) -> web.Response:
        return web.Response(body=await metrics(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status_(_request: web.Request) -> web.Response:
        return web.json_response(dict(await status()))

    app = web.Application()
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", metrics_)
    app.router.add_get("/status", status_)
    return app

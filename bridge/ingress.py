"""A bridge in one process: the public port and the management port before everything of `bridge.app`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping

import structlog
from aiohttp import web

from bridge.adapters import management
from bridge.adapters.webhook import Webhook
from bridge.app import Serving
from bridge.errors import Misconfigured
from bridge.settings import Settings
from bridge.tracing import Tracing, provider

_log = structlog.get_logger()

_BACKLOG = 1024
"""Connections that the kernel keeps while the loop is busy with a large delivery."""


class Ingress(Serving):
    """A bridge in one process: the public port, the management port, and everything behind them."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._webhook: Webhook | None = None
        self._tracing = Tracing(self.intake, provider()) if settings.tracing else None

    async def run(self) -> None:
        """Serve with the management port open from the first moment."""
        app = management.application(
            metrics=self.telemetry.exposition, ready=lambda: self.ready, status=self._answer_status
        )
        async with managing(app, self.settings):
            await super().run()

    async def _answer_status(self) -> Mapping[str, object]:
        return self.status()

    @contextlib.asynccontextmanager
    async def front(self) -> AsyncIterator[None]:
        """The public port."""
        settings = self.settings
        webhook = self._webhook = Webhook(
            intake=self._tracing or self.intake,
            app_secrets=self.secrets,
            verify_token=settings.verify_token.get_secret_value(),
            body_bytes_max=settings.body_bytes_max,
            telemetry=self.telemetry,
            workers=settings.workers,
        )
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(
                webhook, settings.host, settings.port, backlog=_BACKLOG, reuse_port=settings.workers > 1
            )
        except OSError as error:
            raise _taken(settings.host, settings.port, error) from None
        _log.info("listening", host=settings.host, port=settings.port)
        try:
            yield
        finally:
            server.close()
            await webhook.stop(self.drain_s)
            if self._tracing is not None:
                await asyncio.to_thread(self._tracing.close)

    def reload(self, settings: Settings) -> None:
        """Take over new secrets, those of the webhook too."""
        super().reload(settings)
        if self._webhook is not None:
            self._webhook.app_secrets = self.secrets
            self._webhook.verify_token = settings.verify_token.get_secret_value()


@contextlib.asynccontextmanager
async def managing(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    """Serve the management port."""
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settings.management_host, settings.management_port).start()
        except OSError as error:
            raise _taken(settings.management_host, settings.management_port, error) from None
        yield
    finally:
        await runner.cleanup()


def _taken(host: str, port: int, error: OSError) -> Misconfigured:
    return Misconfigured(f"cannot listen on {host}:{port} ({error.strerror}): choose another port or address")

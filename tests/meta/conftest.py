from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from bridge.local.jvm import free_port
from tests.meta.receiver import Answer, Listen, Receiver


@pytest.fixture
async def listen() -> AsyncIterator[Listen]:
    """Starts receivers; each is given a function of the body and the post's number that returns the status."""
    runners: list[web.AppRunner] = []

    async def begin(answer: Answer) -> Receiver:
        receiver = Receiver(answer)
        application = web.Application(client_max_size=2**24)
        application.router.add_post("/webhooks/instagram", receiver.take)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        runners.append(runner)
        receiver.url = f"http://127.0.0.1:{port}/webhooks/instagram"
        return receiver

    yield begin
    for runner in runners:
        await runner.cleanup()

"""One circle for all tests here: topics, a bridge that serves, a stand-in for Graph API. Each test has its own customers."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from bridge.local.jvm import free_port
from bridge.local.meta.graph import Behaviour, GraphStandIn
from bridge.local.meta.sender import Sender
from bridge.local.service import Broker
from tests.consumers.auto_reply.circle import Circle
from tests.kafka.serving import APP_SECRET, begun, run, serve_environment

ACCOUNTS = {f"178414000000001{number:02}": f"token-of-{number}" for number in range(20)}


@pytest.fixture(scope="session")
async def shared_circle(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Circle]:
    """What is costly to start."""
    folder = tmp_path_factory.mktemp("circle")
    environment = serve_environment(kafka.bootstrap_servers, f"test-circle-{secrets.token_hex(6)}")
    await run(folder, environment, "topics", "apply")
    async with begun(folder, environment) as serving:
        await serving.until_ready()
        url = f"http://127.0.0.1:{serving.port}/webhooks/instagram"
        async with (
            Sender(url, APP_SECRET) as sender,
            GraphStandIn(free_port(), tokens=dict(ACCOUNTS), echoes_to=sender) as graph,
        ):
            yield Circle(serving, sender, graph, folder)


@pytest.fixture
async def circle(shared_circle: Circle) -> AsyncIterator[Circle]:
    """The circle without any auto_reply in it, and with a Graph API that works."""
    shared_circle.graph.behaviours = {"": Behaviour()}
    shared_circle.graph.tokens = dict(ACCOUNTS)
    yield shared_circle
    await shared_circle.end()

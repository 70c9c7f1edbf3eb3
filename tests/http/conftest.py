"""One bridge for all tests of the public port, and clients that are slow all the while."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bridge.local.service import Broker
from tests.http.slow import BEHAVIOURS, fill, outlast
from tests.kafka.reading import Record, decode_single_object
from tests.kafka.serving import Street, opened, serve_environment

BODY_BYTES_MAX = 64 * 1024


@pytest.fixture(scope="session")
async def street(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    """A bridge whose bodies are limited to 64 KiB."""
    environment = serve_environment(
        kafka.bootstrap_servers, f"test-http-{secrets.token_hex(6)}", BODY_BYTES_MAX=f"{BODY_BYTES_MAX}"
    )
    async with opened(tmp_path_factory.mktemp("http"), environment, decode_single_object) as opened_street:
        yield opened_street


SlowClients = dict[str, asyncio.Task[tuple[float, bytes]]]


@pytest.fixture(scope="session", autouse=True)
async def slow_clients(street: Street) -> AsyncIterator[SlowClients]:
    """One client of each slow kind, beside all tests; `test_slow_clients.py` says what becomes of them."""
    port = street.serving.port
    tasks = {name: asyncio.create_task(outlast(port, behaviour)) for name, behaviour in BEHAVIOURS.items()}
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.wait(tasks.values())


@pytest.fixture(scope="session", autouse=True)
async def unread_client(street: Street) -> AsyncIterator[socket.socket]:
    """A client that reads nothing, beside them."""
    with socket.socket() as client:
        await fill(street.serving, client)
        yield client


@pytest.fixture
async def published(street: Street) -> Callable[[], Awaitable[list[Record]]]:
    """Gives what came into Kafka since the test began."""
    await street.reader.new()
    return street.reader.new


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest time-outs last: their clients wait beside all other tests."""
    items.sort(key=lambda item: item.name.startswith("test_slow_client_"))

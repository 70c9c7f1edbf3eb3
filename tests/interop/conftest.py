"""One world of events for all engines, and what DuckDB says of it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from bridge.local.service import Broker, Registry
from tests.interop.engine import Rows
from tests.interop.world import World, connected, duckdb_rows, made


@pytest.fixture(scope="session")
async def world(kafka: Broker, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Events in Kafka and in DuckDB."""
    topics = await connected(kafka, f"test-{secrets.token_hex(6)}")
    try:
        yield await made(kafka, registry, topics, tmp_path_factory.mktemp("world"))
    finally:
        await topics.admin.close()


@pytest.fixture(scope="session")
def wanted(world: World) -> dict[str, Rows]:
    """The rows of every view, by DuckDB."""
    return duckdb_rows(world.database)

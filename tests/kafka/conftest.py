"""The street from end to end, in both encodings, over the broker that all tests share."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest

from bridge.local.service import Broker, Registry
from tests.kafka.reading import confluent_decoder, decode_single_object
from tests.kafka.serving import Street, opened, run, serve_environment


@pytest.fixture(scope="session")
async def plain(kafka: Broker, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Street]:
    """Without a registry: single-object encoding."""
    environment = serve_environment(kafka.bootstrap_servers, f"test-plain-{secrets.token_hex(6)}")
    async with opened(tmp_path_factory.mktemp("plain"), environment, decode_single_object) as street:
        yield street


@pytest.fixture(scope="session")
async def registered(
    kafka: Broker, registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Street]:
    """With a registry: Confluent's wire format."""
    folder = tmp_path_factory.mktemp("registered")
    prefix = f"test-registered-{secrets.token_hex(6)}"
    environment = serve_environment(kafka.bootstrap_servers, prefix, SCHEMA_REGISTRY_URL=registry.url)
    await run(folder, environment, "schemas", "register")
    async with opened(folder, environment, confluent_decoder(registry.url)) as street:
        yield street


@pytest.fixture(params=["single-object", "registry"])
def street(request: pytest.FixtureRequest, plain: Street, registered: Street) -> Street:
    """A test that asks for it runs with both encodings."""
    return {"single-object": plain, "registry": registered}[request.param]

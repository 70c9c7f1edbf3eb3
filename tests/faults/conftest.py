"""One broker for all faults: whoever breaks it mends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.faults.broker import ProxiedKafka


@pytest.fixture(scope="session")
async def proxied(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ProxiedKafka]:
    """The broker, from its first start to the end of the tests here."""
    broker = ProxiedKafka(tmp_path_factory.mktemp("proxied"))
    async with broker:
        yield broker
    broker.network.stop()


@pytest.fixture
def broken(proxied: ProxiedKafka) -> Iterator[ProxiedKafka]:
    """The broker as a test wants it: running, reached by everybody, and without the topics of others, which slow its starts."""
    proxied.network.heal()
    yield proxied
    proxied.delete_topics()

"""The fixtures of the consumers' tests."""

import asyncio
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from bridge.local.service import Broker
from tests.consumers.running import Consumers, Topics


@pytest.fixture
async def topics(kafka: Broker, topic_prefix: str) -> AsyncIterator[Topics]:
    """Topics under the test's own prefix."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        yield Topics(kafka, topic_prefix, admin)
    finally:
        await admin.close()


@pytest.fixture
async def consumers(topics: Topics, tmp_path: Path) -> AsyncIterator[Consumers]:
    """The consumers as processes; those that still run at the test's end are killed."""
    started = Consumers(topics, tmp_path)
    yield started
    await asyncio.gather(*(process.end(signal.SIGKILL) for process in started.begun))

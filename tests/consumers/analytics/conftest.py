"""Five days of conversations, read and absorbed as the consumer does it, once for all tests that only look at them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aiokafka import TopicPartition

from consumers.analytics.rows import Rows
from consumers.analytics.store import Batch, Store
from consumers.decoding import Decoder
from tests.consumers.analytics.expected import Fact, facts
from tests.consumers.analytics.stream import Stream, stream

START = datetime(2026, 3, 1, 22, 30, tzinfo=UTC)
BATCH_RECORDS = 1237  # so that redeliveries, unsends and late events fall within batches and between them


@pytest.fixture(scope="session")
def conversations() -> Stream:
    """Some thousand events of five days, with redeliveries, disorder and whatever breaks strict parsers."""
    chances: dict[str, Any] = {"redeliver": 0.08, "reorder": 0.1, "quirks": 0.08}
    return stream("instagram", count=2500, start_ms=int(START.timestamp() * 1000), speed=700, **chances)


@pytest.fixture(scope="session")
def known(conversations: Stream) -> list[Fact]:
    """What happened in them, read by other means."""
    return facts(conversations.read())


@pytest.fixture(scope="session")
async def store(conversations: Stream, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Store]:
    """A database that holds them."""
    filled = Store.open(tmp_path_factory.mktemp("analytics") / "a.duckdb", topic_prefix="instagram", cluster_id="none")
    decoder = Decoder(topic_prefix="instagram", registry=None)
    rows = Rows(decoder, topic_prefix="instagram", loop=asyncio.get_running_loop())
    records = list(conversations.read())
    for begin in range(0, len(records), BATCH_RECORDS):
        part = records[begin : begin + BATCH_RECORDS]
        decoded = await asyncio.to_thread(rows.decode, part)
        assert decoded.undecodable == []
        offsets = {TopicPartition(one.topic, one.partition): one.offset + 1 for one in part}
        filled.absorb(Batch(list(decoded.rows.values()), offsets, {}, 0))
    with filled.frozen():  # the dashboard's test repeats its event_id days later, which is found before a copy is made
        pass
    yield filled
    filled.close()

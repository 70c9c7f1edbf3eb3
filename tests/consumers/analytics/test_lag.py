"""What the group shows of analytics' lag to others, mostly on a real Kafka."""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition

from consumers.analytics import source
from consumers.analytics.ingest import opened
from consumers.analytics.settings import Settings
from tests.consumers.running import Topics, until
from tests.consumers.samples import message, single_object


@contextlib.asynccontextmanager
async def reading(topics: Topics, path: Path, *, group_id: str) -> AsyncIterator[None]:
    """Analytics without its page, in this process; it still reads when the test looks."""
    given = {"kafka_bootstrap_servers": topics.bootstrap_servers, "topic_prefix": topics.prefix, "group_id": group_id}
    stop = asyncio.Event()
    async with opened(Settings.model_validate(given), path) as (ingest, _), asyncio.TaskGroup() as tasks:
        tasks.create_task(ingest.run(stop.is_set))
        try:
            yield
        finally:
            stop.set()


async def test_lag_of_batches_within_a_second_ends_without_a_new_record(
    topics: Topics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches directly after each other, then nothing more: what the group has committed becomes the end."""
    monkeypatch.setattr(source, "BATCH_RECORDS_MAX", 1)
    await topics.create("messages")
    await topics.publish("messages", *(single_object("Messages", message(text)) for text in ("one", "two")))
    committed = functools.partial(topics.committed, "messages", group_id=topics.prefix)
    async with reading(topics, tmp_path / "a.duckdb", group_id=topics.prefix):
        await until(committed, lambda found: found.get(0) == 2)


async def test_lag_is_shown_at_a_start_with_everything_read(topics: Topics, tmp_path: Path) -> None:
    """The database has all that there is, the group has nothing of it: killed before it could say so, or rebuilt."""
    await topics.create("messages")
    await topics.publish("messages", single_object("Messages", message("one")))
    for group_id in (f"{topics.prefix}-before", f"{topics.prefix}-after"):
        committed = functools.partial(topics.committed, "messages", group_id=group_id)
        async with reading(topics, tmp_path / "a.duckdb", group_id=group_id):
            await until(committed, lambda found: found.get(0) == 1)


async def test_lag_that_did_not_change_is_not_committed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither while nothing comes, nor at the stop: nothing is written to Kafka by a consumer that has nothing to say."""
    monkeypatch.setattr(source, "COMMIT_INTERVAL_S", 0.0)
    place = TopicPartition("test.messages", 0)
    consumer = Mock(commit=AsyncMock(), topics=AsyncMock(return_value={place.topic}))
    consumer.beginning_offsets = consumer.end_offsets = AsyncMock(return_value={place: 0})
    found = [{"topic": place.topic, "partitions": [{"partition": place.partition}]}]
    admin = Mock(describe_topics=AsyncMock(return_value=found))
    reader = source.Source(consumer, admin, topics=[place.topic], shows_lag=True)
    await reader.begin({})
    for offset, commits in ((1, 1), (1, 1), (2, 2), (2, 2)):
        reader.show_lag({place: offset})
        await reader.end({place: offset})
        assert consumer.commit.await_count == commits

"""A page over a real database, served by the real server, for tests that bring its events themselves."""

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
from aiokafka import TopicPartition

from bridge.local.jvm import free_port
from consumers.analytics.access import Access
from consumers.analytics.feed import Feed
from consumers.analytics.page import Page, served
from consumers.analytics.projection import row_of
from consumers.analytics.readings import StoreReadings
from consumers.analytics.store import Batch, Store
from tests.consumers.samples import decoded

UNANSWERED_MINUTES = 30


@dataclass
class Shown:
    """A page, and what it shows."""

    url: str
    session: aiohttp.ClientSession
    feed: Feed
    store: Store
    status: dict[str, Any] = field(
        default_factory=lambda: {
            "topic_prefix": "instagram",
            "redeliveries": 1,
            "dead_letters": 3,
            "is_caught_up": True,
        }
    )

    def take(self, values: Iterable[dict[str, Any]], *, record_name: str = "Messages") -> None:
        """Brings events to the database and to the feed, as ingest does."""
        events = [decoded(value, record_name=record_name) for value in values]
        rows = [(*row_of(event.value), event.webhook_field, event.partition, event.offset) for event in events]
        offsets = {TopicPartition(event.topic, event.partition): event.offset + 1 for event in events}
        self.store.absorb(Batch(rows=rows, offsets=offsets, arrivals={}, read_at_us=0))
        self.feed.add(events)

    async def get(self, path: str, **query: str) -> Any:  # noqa: ANN401 - JSON
        """What is answered there with 200."""
        async with self.session.get(f"{self.url}{path}?{urlencode(query)}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()


@contextlib.asynccontextmanager
async def shown(
    folder: Path, *, port: int | None = None, host: str = "127.0.0.1", token: str | None = None
) -> AsyncIterator[Shown]:
    """The page on a free port of loopback; `host` is where it believes to be bound."""
    feed, port = Feed(), port or free_port()
    store = Store.open(folder / f"{secrets.token_hex(4)}.duckdb", topic_prefix="instagram", cluster_id="none")
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(store.close)
        session = await stack.enter_async_context(aiohttp.ClientSession())
        page = Shown(f"http://127.0.0.1:{port}/", session, feed, store)
        readings = StoreReadings(store.cursor(), unanswered_minutes=UNANSWERED_MINUTES, status=lambda: page.status)
        access = Access(host=host, token=token, variable="ANALYTICS_TOKEN")
        serving = served(Page(readings, feed, access), host="127.0.0.1", port=port, port_variable="ANALYTICS_PORT")
        await stack.enter_async_context(serving)
        yield page


async def next_event(answer: aiohttp.ClientResponse, name: str, deadline_s: float = 30) -> Any:  # noqa: ANN401 - JSON
    """The data of the next server-sent event of a name."""
    wanted = datetime.now(UTC).timestamp() + deadline_s
    while (line := await answer.content.readline()) != f"event: {name}\n".encode():
        assert line, "the stream has ended"
        assert datetime.now(UTC).timestamp() < wanted, f"no {name} within {deadline_s} s"
    return json.loads((await answer.content.readline()).removeprefix(b"data: "))

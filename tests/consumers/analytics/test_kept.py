"""Figures of a reader that stays, while events are added, are those of one that comes just then."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from aiokafka import TopicPartition

from consumers.analytics import kept, measures
from consumers.analytics.kept import Accounts, Kept
from consumers.analytics.rows import Rows
from consumers.analytics.store import Batch, Store
from consumers.decoding import Decoder
from tests.consumers.analytics.conftest import START
from tests.consumers.analytics.stream import Stream

ROUNDS = 9
NOW = START + timedelta(days=5)
MIDNIGHT = START.replace(hour=0, minute=0)
# Short ones, of which more are asked for than are kept, and long ones.
PERIODS = [
    (MIDNIGHT + timedelta(days=first), MIDNIGHT + timedelta(days=last))
    for first, last in ((4, 5), (3, 4), (2, 5), (-1, 5))
]


@pytest.fixture
async def batches(conversations: Stream) -> list[Batch]:
    """The events of five days in parts, in an order in which time goes to and fro; each part behind, so that copies get in."""
    decoder = Decoder(topic_prefix="instagram", registry=None)
    rows = Rows(decoder, topic_prefix="instagram", loop=asyncio.get_running_loop())
    records = list(conversations.read())
    rng = Random(5)  # noqa: S311 - repeatable
    cuts = sorted(rng.sample(range(1, len(records)), ROUNDS - 1))
    parts = [records[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(records)], strict=True)]
    rng.shuffle(parts)
    made = []
    for number, part in enumerate(parts):
        decoded = await asyncio.to_thread(rows.decode, part)
        place = TopicPartition("instagram.messages", 0)
        made.append(Batch(list(decoded.rows.values()), {place: number}, {}, 0, is_behind=True))
    return made


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Store]:
    """An empty database."""
    store = Store.open(tmp_path / "a.duckdb", topic_prefix="instagram", cluster_id="none")
    yield store
    store.close()


def figures(cursor: Any, since: datetime, until: datetime, by: Kept | None) -> dict[str, Any]:  # noqa: ANN401 - a connection, or what is used of one
    """What the page would show."""
    return measures.figures(cursor, account_id=None, since=since, until=until, now=NOW, unanswered_minutes=45, kept=by)


@pytest.mark.parametrize("rows_max", [500, kept.RECENT_ROWS_MAX])
def test_figures_of_a_reader_that_stays_are_those_of_a_new_one(
    empty: Store, batches: list[Batch], monkeypatch: pytest.MonkeyPatch, rows_max: int
) -> None:
    """Whatever comes between: late events, copies that are removed, checkpoints, a question that failed."""
    monkeypatch.setattr(kept, "RECENT_ROWS_MAX", rows_max)
    monkeypatch.setattr("consumers.analytics.known.LAST_ROWS", 10)
    cursor = empty.cursor()
    stays, accounts = Kept(cursor), Accounts(cursor)
    rng, removed = Random(6), set()  # noqa: S311 - repeatable
    for number, batch in enumerate(batches):
        empty.absorb(replace(batch, is_behind=number % 3 != 0))
        happens = number % 4
        if happens == 1:
            empty.settle()
        elif happens == 2:
            with empty.frozen():
                pass
        elif happens == 3:
            with pytest.raises(duckdb.Error):
                figures(Failing(cursor), *PERIODS[0], stays)
        removed.add(empty.removed)
        for since, until in rng.sample(PERIODS, 2):
            assert figures(cursor, since, until, stays) == figures(empty.cursor(), since, until, None)
        assert accounts.known() == Accounts(empty.cursor()).known()
    assert len(removed) > 2, "no copies were removed: the test lacks what it is about"


class Failing:
    """A connection whose queries begin to fail once what is kept has been brought up to date."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def execute(self, query: str, *parameters: Any) -> duckdb.DuckDBPyConnection:  # noqa: ANN401 - DuckDB's own
        """As the connection does it, but for the first query of a figure."""
        if "period_events" in query:
            raise duckdb.InterruptException("stopped")
        return self._connection.execute(query, *parameters)

"""deploy/flink as it stands, in PyFlink: equal to DuckDB on the same topics, over what is there and as a stream."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from bridge.local.service import Registry
from tests.interop.engine import ROOT, Engine, Rows, running, statements
from tests.interop.jars import flink_jars
from tests.interop.later import AD_ID, ATTACHMENT, EVENT, publish_later
from tests.interop.test_world import VIEWS
from tests.interop.world import REALLY_AFTER_S, World, comparable, of_a_moment, of_accounts
from tests.kafka.serving import ACCOUNT

FILES = [ROOT / "deploy/flink/1-events.sql", ROOT / "deploy/flink/2-measures.sql"]
STREAMED = ("questions", "totals_by_day", "new_customers_by_day", "first_responses_by_day", "seen_by_day")
"""Views whose rows are taken back and given anew while events come. The others would only take longer: 5 to 35 s each."""


async def prepared(engine: Engine, world: World) -> None:
    """Makes the tables and views."""
    for path in FILES:
        for statement in statements(path, world.places):
            await engine.run(statement)


@pytest.fixture(scope="module")
async def batch(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """Flink that reads what is there and ends."""
    async with running("flink_shell.py", "batch", *flink_jars(), folder=tmp_path_factory.mktemp("flink")) as engine:
        await prepared(engine, world)
        yield engine


@pytest.fixture(scope="module")
async def stream(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """Flink that gives a change for every event; it ends too, where Kafka ended at the start."""
    folder = tmp_path_factory.mktemp("flink-stream")
    async with running("flink_shell.py", "streaming", *flink_jars(), folder=folder) as engine:
        await prepared(engine, world)
        yield engine


@pytest.mark.parametrize("view", sorted(VIEWS))
async def test_view_equals_duckdb(batch: Engine, wanted: dict[str, Rows], view: str) -> None:
    """Row by row."""
    assert comparable(await of_accounts(batch, view)) == comparable(wanted[view])


async def test_queries_of_the_document_equal_duckdb(batch: Engine, world: World) -> None:
    """Those that are asked of a moment."""
    queries = of_a_moment(world, f"TIMESTAMP '{world.now}'")
    assert queries
    for query, rows in queries:
        assert comparable(await batch.run(query)) == comparable(rows) != Counter()


async def test_field_that_a_later_schema_adds_is_passed_over(batch: Engine, world: World, registry: Registry) -> None:
    """Also within records and arrays, in the same table over another topic."""
    await publish_later(world.topics, registry, "later-flink")
    [text] = [text for text in statements(FILES[0], world.places) if text.startswith("CREATE TABLE instagram_records")]
    text = re.sub("'topic' = '.*'", f"'topic' = '{world.topics.prefix}.later-flink'", text)
    await batch.run(text.replace("instagram_records", "records_later"))
    rows = await batch.run(
        "SELECT event_id, message.is_echo AS is_echo, message.attachments[1].type AS attachment, "
        "message.referral.ad_id AS ad_id FROM records_later"
    )
    assert rows == [{"event_id": EVENT["event_id"], "is_echo": True, "attachment": ATTACHMENT, "ad_id": AD_ID}]


@pytest.mark.parametrize("view", STREAMED)
async def test_view_of_a_stream_equals_duckdb(stream: Engine, wanted: dict[str, Rows], view: str) -> None:
    """What is left when every change was applied, in the order in which the events came."""
    assert comparable(await of_accounts(stream, view)) == comparable(wanted[view])


async def test_late_answer_in_a_stream_corrects_what_was_given_before(stream: Engine) -> None:
    """The conversation told by hand: the answer that came last is the first."""
    rows = await stream.run(f"SELECT seconds FROM first_responses WHERE account_id = '{ACCOUNT}'")  # noqa: S608 - ours
    assert rows == [{"seconds": REALLY_AFTER_S}]

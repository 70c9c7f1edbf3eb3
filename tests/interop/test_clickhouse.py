"""deploy/clickhouse as it stands, on ClickHouse's own Kafka engine and Avro reader in chDB: equal to DuckDB on the same topics."""

from __future__ import annotations

import base64
import functools
import re
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from bridge.event import WEBHOOK_FIELDS
from bridge.local.service import Registry
from tests.interop.engine import ROOT, Engine, EngineError, Rows, running, statements
from tests.interop.later import AD_ID, ATTACHMENT, EVENT, publish_later
from tests.interop.test_world import VIEWS
from tests.interop.world import (
    REALLY_AFTER_S,
    REALLY_SEEN_AFTER_S,
    SEEN_AFTER_S,
    World,
    comparable,
    of_a_moment,
    of_accounts,
    read_up,
)
from tests.kafka.serving import ACCOUNT

FILES = [ROOT / "deploy/clickhouse/1-events.sql", ROOT / "deploy/clickhouse/2-measures.sql"]


async def create(engine: Engine, statement: str) -> None:
    """A statement that makes something; chDB 4.4 complains of its own end after it has made a table of the Kafka engine."""
    try:
        await engine.run(statement)
    except EngineError as error:
        if "ENGINE = Kafka" not in statement or "Shutdown was called" not in str(error):
            raise


@pytest.fixture(scope="module")
async def clickhouse(world: World, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """The tables and views, when all of Kafka was read into them."""
    async with running("chdb_shell.py", folder=tmp_path_factory.mktemp("clickhouse")) as engine:
        await create(engine, "CREATE DATABASE instagram")
        await create(engine, "USE instagram")
        for path in FILES:
            for statement in statements(path, world.places):
                await create(engine, statement)
        await read_up(world.topics, WEBHOOK_FIELDS, f"{world.topics.prefix}-clickhouse")
        yield engine


@pytest.mark.parametrize("view", sorted(VIEWS))
async def test_view_equals_duckdb(clickhouse: Engine, wanted: dict[str, Rows], view: str) -> None:
    """Row by row."""
    assert comparable(await of_accounts(clickhouse, view)) == comparable(wanted[view])


async def test_queries_of_the_document_equal_duckdb(clickhouse: Engine, world: World) -> None:
    """Those that are asked of a moment, with another word for it, as the document says."""
    queries = of_a_moment(world, f"toDateTime64('{world.now}', 6, 'UTC')")
    assert queries
    for query, rows in queries:
        assert comparable(await clickhouse.run(query)) == comparable(rows) != Counter()


async def test_every_record_was_readable(clickhouse: Engine) -> None:
    """None was set aside."""
    assert await clickhouse.run("SELECT * FROM undecodable_records") == []


async def test_late_answer_and_receipt_correct_what_was_before(clickhouse: Engine) -> None:
    """The conversation told by hand: its first answer and first receipt came last, and are what counts."""
    of_account = f"WHERE account_id = '{ACCOUNT}'"
    assert await clickhouse.run(f"SELECT seconds FROM first_responses {of_account}") == [{"seconds": REALLY_AFTER_S}]  # noqa: S608 - ours
    # Both answers were on the next day: one was seen after 45 s, the other after 20 minutes.
    [seen] = await clickhouse.run(f"SELECT seen_share, time_to_seen_median_s FROM seen_by_day {of_account}")  # noqa: S608 - ours
    assert seen == {"seen_share": 1, "time_to_seen_median_s": (REALLY_SEEN_AFTER_S + SEEN_AFTER_S) / 2}


async def test_reading_everything_again_changes_nothing(
    clickhouse: Engine, world: World, wanted: dict[str, Rows]
) -> None:
    """Another group reads from the beginning into the same tables: stored twice, counted once."""
    await clickhouse.run("SYSTEM STOP MERGES stored_events")  # FINAL alone has to tell the copies
    [before] = await clickhouse.run("SELECT count() AS stored FROM stored_events")
    await create_again(clickhouse, world, name="again")
    await read_up(world.topics, WEBHOOK_FIELDS, f"{world.topics.prefix}-again")
    [after] = await clickhouse.run("SELECT count() AS stored FROM stored_events")
    assert after["stored"] > before["stored"]
    for view in ("totals_by_day", "lag_by_day"):
        assert comparable(await of_accounts(clickhouse, view)) == comparable(wanted[view])


async def test_record_that_is_no_avro_is_set_aside_and_does_not_stop_others(clickhouse: Engine, world: World) -> None:
    """In a topic of its own, because the other engines read the world's."""
    [good] = (await world.topics.records("story_insights"))[:1]
    assert good.value is not None
    bad = b"\0" + good.value[1:5] + b"no avro"
    await world.topics.create("odd")
    await world.topics.publish("odd", bad, good.value)
    await create_again(clickhouse, world, name="odd", topics=f"{world.topics.prefix}.odd")
    await read_up(world.topics, ["odd"], f"{world.topics.prefix}-odd")
    rows = await clickhouse.run("SELECT topic, kafka_offset, base64Encode(value) AS value FROM undecodable_records")
    assert rows == [{"topic": f"{world.topics.prefix}.odd", "kafka_offset": 0, "value": base64.b64encode(bad).decode()}]


async def test_field_that_a_later_schema_adds_is_passed_over(
    clickhouse: Engine, world: World, registry: Registry
) -> None:
    """Also within records and arrays, in the same tables."""
    await publish_later(world.topics, registry, "later-clickhouse")
    await create_again(clickhouse, world, name="later", topics=f"{world.topics.prefix}.later-clickhouse")
    await read_up(world.topics, ["later-clickhouse"], f"{world.topics.prefix}-later")
    rows = await clickhouse.run(
        f"SELECT is_echo, attachments, ad_id FROM events WHERE event_id = toUUID('{EVENT['event_id']}')"  # noqa: S608 - ours
    )
    assert rows == [{"is_echo": True, "attachments": [ATTACHMENT], "ad_id": AD_ID}]


async def create_again(engine: Engine, world: World, *, name: str, topics: str | None = None) -> None:
    """The table of the Kafka engine and the views behind it a second time, for a group of its own."""
    changes = {
        "instagram_records": f"records_{name}",
        "VIEW store_": f"VIEW store_{name}_",
        f"{world.topics.prefix}-clickhouse": f"{world.topics.prefix}-{name}",
    }
    for statement in statements(FILES[0], world.places):
        if "instagram_records" in statement:
            text = functools.reduce(lambda text, change: text.replace(*change), changes.items(), statement)
            await create(
                engine, re.sub("kafka_topic_list = '.*'", f"kafka_topic_list = '{topics}'", text) if topics else text
            )

"""Conversations that went through the real bridge, with copies and late events, and what DuckDB makes of them."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
from aiokafka.admin import AIOKafkaAdminClient

from bridge.local.service import Broker, Registry
from consumers.analytics import measures
from tests.consumers.running import PARTITIONS, Consumers, Topics, until
from tests.docs.markdown import fences
from tests.interop.engine import ROOT, Engine, Rows
from tests.kafka.serving import ACCOUNT, Serving, begun, notification, run, serve_environment
from tests.processes import Process

DAYS = 4
DELIVERIES, AGAIN = 900, 120  # of the plan, and how many of the same come a second time, after all others
SPEED = 2400.0  # five days of event time: the last day lies in the future
EVER = datetime(9000, 1, 1, tzinfo=UTC)  # as "now": views know none, so nothing is in the future for them

CUSTOMER = "1254459154682919"
ASKED = datetime(2026, 2, 3, 23, 59, 30, tzinfo=UTC)  # answered on the next day: it counts on the day of the question
ANSWERED_AFTER_S, REALLY_AFTER_S, SEEN_AFTER_S, REALLY_SEEN_AFTER_S = 600, 90, 1200, 45


@dataclass(frozen=True)
class World:
    """Topics full of events.

    Attributes:
        places: what the SQL files leave open.
        topics: with their prefix.
        truth: a line for each distinct event of `bridge simulate --truth`.
        database: analytics' DuckDB file, closed.
        now: when it was made, UTC without a zone; some events lie after it.
    """

    places: dict[str, str]
    topics: Topics
    truth: list[dict[str, Any]]
    database: Path
    now: datetime


async def made(kafka: Broker, registry: Registry, topics: Topics, folder: Path) -> World:
    """Everything from Meta's side to DuckDB; a few thousand events."""
    environment = serve_environment(
        kafka.bootstrap_servers, topics.prefix, SCHEMA_REGISTRY_URL=registry.url, TOPIC_PARTITIONS=f"{PARTITIONS}"
    )
    await run(folder, environment, "topics", "apply")
    await run(folder, environment, "schemas", "register")
    now = datetime.now(UTC)
    start = (now - timedelta(days=DAYS)).isoformat()
    async with begun(folder, environment) as serving:
        await serving.until_ready()
        truth = await _simulated(folder, environment, start, DELIVERIES)
        await _simulated(folder, environment, start, AGAIN)  # the same bytes: copies that come days late
        by_hand = await _tell_late(serving)
    readable = [line for line in truth if line["event_id"] is not None]
    database = await _analysed(topics, registry, folder, len(readable) + by_hand)
    places = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "SCHEMA_REGISTRY_URL": registry.url,
        "TOPIC_PREFIX": topics.prefix,
    }
    return World(places, topics, readable, database, now.replace(tzinfo=None))


async def _simulated(folder: Path, environment: dict[str, str], start: str, count: int) -> list[dict[str, Any]]:
    """What a run of `bridge simulate` says must be in Kafka; all of it was answered 200."""
    url = f"http://127.0.0.1:{environment['BRIDGE_PORT']}/webhooks/instagram"
    how = f"--rate 0 --count {count} --speed {SPEED} --seed 11 --accounts 3 --customers 30 --label new".split()
    chances = ("--redeliver", "0.08", "--reorder", "0.1", "--quirks", "0.08")
    arguments = ("simulate", *how, *chances, "--url", url, "--start", start, "--truth", "truth.jsonl")
    process = await Process.begin("-m", "bridge", *arguments, folder=folder, environment=environment)
    assert await process.end() == 0, process.stderr
    lines = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    events = [line for line in lines if "event_id" in line]
    assert all(200 in line["statuses"] for line in events)
    return events


async def _tell_late(serving: Serving) -> int:
    """A conversation whose first answer and first receipt come after its second ones; how many distinct events it has."""

    def item(after_s: float, key: str, content: dict[str, Any], *, by_account: bool) -> dict[str, Any]:
        sender, recipient = (ACCOUNT, CUSTOMER) if by_account else (CUSTOMER, ACCOUNT)
        at = round((ASKED.timestamp() + after_s) * 1000)
        return {"sender": {"id": sender}, "recipient": {"id": recipient}, "timestamp": at, key: content}

    def echo(mid: str, after_s: float) -> dict[str, Any]:
        return item(after_s, "message", {"mid": mid, "text": "answer", "is_echo": True}, by_account=True)

    def receipt(mid: str, after_s: float) -> dict[str, Any]:
        return item(after_s, "read", {"mid": mid}, by_account=False)

    question = item(0, "message", {"mid": "question", "text": "question"}, by_account=False)
    told = [
        question,
        echo("second", ANSWERED_AFTER_S),
        receipt("second", ANSWERED_AFTER_S + SEEN_AFTER_S),
        echo("first", REALLY_AFTER_S),
        receipt("first", REALLY_AFTER_S + REALLY_SEEN_AFTER_S),
    ]
    for one in (*told, question, told[3]):
        await serving.accepted(notification(one))
    return len(told)


async def _analysed(topics: Topics, registry: Registry, folder: Path, events: int) -> Path:
    """The database of `python -m consumers.analytics`, when it has so many distinct events."""
    consumers = Consumers(topics, folder)
    process, counts = await consumers.begin_analytics(SCHEMA_REGISTRY_URL=registry.url)
    try:
        await until(counts, lambda found: found["events"] == events)
        assert await process.end(signal.SIGTERM) == 0
    finally:
        await process.end(signal.SIGKILL)
    return folder / "analytics.duckdb"


async def connected(kafka: Broker, prefix: str) -> Topics:
    """The topics of a prefix, with a client that the caller closes."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    return Topics(kafka, prefix, admin)


def duckdb_rows(database: Path) -> dict[str, Rows]:
    """What each view of deploy/clickhouse and deploy/flink has to hold, of DuckDB's views and of the page's figures."""
    with duckdb.connect(str(database), read_only=True) as connection:
        rows: dict[str, Rows] = {}
        for view in ("events_by_field", "messages_by_hour", "questions", "first_responses"):
            rows[view] = _rows(connection, f"SELECT * FROM {view}")  # noqa: S608 - of these
        days = "SELECT DISTINCT account_id, event_time::DATE FROM events WHERE account_id IS NOT NULL"
        for account_id, day in connection.execute(days).fetchall():
            for view, of_day in _of_a_day(connection, account_id, day).items():
                rows.setdefault(view, []).extend({"account_id": account_id, "day": day} | one for one in of_day)
    return rows


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> Rows:
    found = connection.execute(query)
    names = [name for name, *_ in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _of_a_day(connection: duckdb.DuckDBPyConnection, account_id: str, day: Any) -> dict[str, Rows]:  # noqa: ANN401 - a date
    """The figures that the page would show, as rows; no row where there is nothing to count."""
    since = datetime(day.year, day.month, day.day, tzinfo=UTC)
    next_day = since + timedelta(days=1)
    found = measures.figures(
        connection, account_id=account_id, since=since, until=next_day, now=EVER, unanswered_minutes=60
    )
    totals = found["totals"]

    def chosen(*names: str) -> dict[str, Any]:
        return {name: totals[name] for name in names}

    def ranked(name: str, count: str, pairs: Iterable[tuple[Any, int]]) -> Rows:
        return [{name: what, count: number} for what, number in pairs]

    counts = (
        *("events", "inbound", "outbound", "unsent", "edited", "active_customers"),
        *("reactions", "story_mentions", "story_replies", "undated"),
    )
    took = ("answered", "first_response_median_s", "first_response_p90_s")
    lag_names = ("meta_to_bridge_median_s", "meta_to_bridge_p90_s")
    return {
        "totals_by_day": [chosen(*counts)] if totals["events"] else [],
        "new_customers_by_day": [chosen("new_customers")] if totals["new_customers"] else [],
        "first_responses_by_day": [chosen(*took)] if totals["answered"] else [],
        "reactions_by_day": ranked("reaction", "reactions", found["reactions"].items()),
        "attachments_by_day": ranked("type", "attachments", found["attachments"].items()),
        "postbacks_by_day": ranked("payload", "postbacks", found["postbacks"]),
        "ads_by_day": ranked("ad_id", "conversations", found["ads"]),
        "refs_by_day": ranked("ref", "conversations", found["refs"]),
        "seen_by_day": [chosen("seen_share", "time_to_seen_median_s")] if totals["seen_share"] is not None else [],
        "lag_by_day": [
            {"webhook_field": name} | {each: lag[each] for each in lag_names} for name, lag in found["lag"].items()
        ],
    }


async def of_accounts(engine: Engine, view: str) -> Rows:
    """All rows; of the figures by day only those of an account, because DuckDB's page cannot ask for the others."""
    known = " WHERE account_id IS NOT NULL" if view.endswith("_by_day") else ""
    return await engine.run(f"SELECT * FROM {view}{known}")  # noqa: S608 - a name of ours


def of_a_moment(world: World, now: str) -> list[tuple[str, Rows]]:
    """The queries of docs/engines.md, with an engine's expression for `world.now`, each with what DuckDB answers."""
    queries = fences(ROOT / "docs/engines.md", "sql")
    here = f"TIMESTAMP '{world.now}'"
    with duckdb.connect(str(world.database), read_only=True) as connection:
        return [
            (query.replace("LOCALTIMESTAMP", now), _rows(connection, query.replace("LOCALTIMESTAMP", here)))
            for query in queries
        ]


def comparable(rows: Rows) -> Counter[tuple[tuple[str, Any], ...]]:
    """Rows without their order, times to the millisecond; numbers but for rounding: quantiles of milliseconds have four digits."""
    return Counter(
        tuple(sorted((name, round(value, 6) if isinstance(value, float) else value) for name, value in row.items()))
        for row in rows
    )


async def read_up(topics: Topics, fields: Iterable[str], group_id: str) -> None:
    """Waits until a consumer group has committed the end of every topic."""
    ends = {name: len(await topics.records(name)) for name in fields}

    async def committed() -> dict[str, int]:
        return {name: sum((await topics.committed(name, group_id=group_id)).values()) for name in ends}

    await until(committed, lambda found: found == ends)

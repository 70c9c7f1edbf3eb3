"""From Meta's stand-in through bridge, Kafka and analytics to Chromium: page, API, database and truth tell the same."""

import json
import signal
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
from playwright.async_api import Browser, expect

from bridge.local.jvm import free_port
from bridge.local.service import Broker
from tests.browser.chromium import opened
from tests.browser.reading import assert_draws, assert_shows, number, rows
from tests.consumers.running import until
from tests.kafka.reading import decode_single_object
from tests.kafka.serving import opened as bridge_over
from tests.kafka.serving import serve_environment
from tests.processes import Process

DELIVERIES = 300
SPEED = 2000  # a day and a half of event time


async def simulated(folder: Path, environment: dict[str, str], prefix: str, start: datetime) -> list[dict[str, Any]]:
    """The truth about deliveries that `bridge simulate` made: a line for each event that a 200 answered."""
    url = f"http://127.0.0.1:{environment['BRIDGE_PORT']}/webhooks/instagram"
    how = f"--rate 0 --count {DELIVERIES} --speed {SPEED} --seed 7 --accounts 3 --label new --redeliver 0.1".split()
    where = ("--url", url, "--start", start.isoformat(), "--topic-prefix", prefix, "--truth", "truth.jsonl")
    process = await Process.begin("-m", "bridge", "simulate", *how, *where, folder=folder, environment=environment)
    assert await process.end() == 0, process.stderr
    lines = [json.loads(line) for line in (folder / "truth.jsonl").read_text("utf-8").splitlines()]
    events = [line for line in lines if "event_id" in line]
    assert events
    assert all(200 in line["statuses"] for line in events)
    return events


def counted(events: list[dict[str, Any]], prefix: str, since: datetime) -> dict[str | None, Counter[str]]:
    """Events of the period by webhook field, of each account and, under None, of all; by Meta's time where there is one."""
    found: dict[str | None, Counter[str]] = {None: Counter()}
    for line in events:
        occurred_at = line["occurred_at"]  # without it the bridge's receipt counts, and that was today
        if occurred_at is None or since.timestamp() * 1000 <= occurred_at <= datetime.now(UTC).timestamp() * 1000:
            webhook_field = line["topic"].removeprefix(f"{prefix}.")
            found[None][webhook_field] += 1
            if line["key"] is not None:
                found.setdefault(line["key"].partition(":")[0], Counter())[webhook_field] += 1
    return found


async def test_page_api_database_and_truth_tell_the_same(
    chromium: Browser, kafka: Broker, topic_prefix: str, tmp_path: Path
) -> None:
    """Redeliveries, reordering and odd shapes among them: every event counts once, under its account and its field."""
    now = datetime.now(UTC)
    since = (now - timedelta(days=6)).replace(hour=0, minute=0, second=0, microsecond=0)
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix)
    async with bridge_over(tmp_path, environment, decode_single_object):
        events = await simulated(tmp_path, environment, topic_prefix, now - timedelta(days=2))
    truth = counted(events, topic_prefix, since)
    url = f"http://127.0.0.1:{free_port()}/"
    analytics = {
        "ANALYTICS_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "ANALYTICS_TOPIC_PREFIX": topic_prefix,
        "ANALYTICS_GROUP_ID": f"{topic_prefix}-analytics",
        "ANALYTICS_PORT": url.split(":")[2].strip("/"),
    }
    process = await Process.begin("-m", "consumers.analytics", folder=tmp_path, environment=analytics)
    complaints: list[str] = []
    try:
        await process.until_printed(url)
        async with aiohttp.ClientSession() as session:

            async def figures(account: str | None = None) -> dict[str, Any]:
                asked = {"period": "7d"} | ({"account": account} if account else {})
                async with session.get(f"{url}api/figures", params=asked) as answer:
                    found: dict[str, Any] = await answer.json()
                    return found

            async def counts() -> int:
                async with session.get(f"{url}api/counts") as answer:
                    return int((await answer.json())["events"])

            await until(counts, lambda found: found == len(events))
            async with opened(chromium, f"{url}?period=7d", complaints) as page:
                biggest = sorted(truth, key=lambda account: -truth[account].total())[:3]
                for account in biggest:
                    await page.locator("#account").select_option(account or "")
                    await expect(page.locator("#who")).to_have_text(f"Account {account}" if account else "All accounts")
                    told = await until(lambda: figures(account), lambda found: found["totals"]["events"] > 0)  # noqa: B023 - awaited at once
                    assert told["events_by_field"] == truth[account]
                    assert told["totals"]["events"] == truth[account].total()
                    await expect(page.locator("[data-figure='totals.events']")).to_have_text(
                        f"{truth[account].total():,}"
                    )
                    await assert_shows(page, told)
                    await assert_draws(page, told)
                    assert {name: number(cells[0]) for name, cells in await rows(page, "#fields")} == truth[account]
            everything = await figures()
        assert await process.end(signal.SIGTERM) == 0
    finally:
        await process.end(signal.SIGKILL)
    assert complaints == []
    with duckdb.connect(str(tmp_path / "analytics.duckdb"), read_only=True) as database:
        assert database.execute("SELECT count(*), count(DISTINCT event_id) FROM events").fetchall() == [
            (len(events), len(events))
        ]
        bounds = [since.replace(tzinfo=None), datetime.now(UTC).replace(tzinfo=None)]
        stored = database.execute(
            "SELECT webhook_field, sum(events)::BIGINT FROM events_by_field WHERE hour BETWEEN ? AND ? GROUP BY 1",
            bounds,
        ).fetchall()
        assert dict(stored) == truth[None]
        [(inbound, outbound)] = database.execute(
            "SELECT sum(inbound)::BIGINT, sum(outbound)::BIGINT FROM messages_by_hour WHERE hour BETWEEN ? AND ?",
            bounds,
        ).fetchall()
        assert (everything["totals"]["inbound"], everything["totals"]["outbound"]) == (inbound, outbound)
        assert inbound > 0 < outbound

"""What an update of the analytics page costs: from a committed batch to the numbers and charts painted in Chromium.

    make bench-analytics ARGS=--page

A database of 100 accounts with a million events of the last thirty days, the page over it, and one reader. Each round brings a
batch of new events. The server's part is computing the figures, the browser's is from their arrival until all is painted. Not in it
are the pauses that the server makes on purpose (stream.py). On a busy machine the least is nearer to the truth than the median.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from console import progress, say
from copies import RATE_PER_S, TEMPLATES, Copies, Template
from playwright.async_api import CDPSession, Page, async_playwright, expect

from bridge.local.jvm import free_port
from consumers.analytics import page as pages
from consumers.analytics.access import Access
from consumers.analytics.feed import Feed
from consumers.analytics.readings import StoreReadings
from consumers.analytics.rows import Rows
from consumers.analytics.source import BATCH_RECORDS_MAX
from consumers.analytics.store import Batch, Store
from consumers.decoding import Decoder

EVENTS = 1_000_000
DAYS = 30
BATCH_EVENTS = 100  # of an update: a busy second of 100 accounts
UPDATES = 15
WARM_UP = 3  # the first ones load the charts' library and compile it
QUESTIONS = ("", "account", "period=7d", "period=30d")  # `account`: one account, today
WIDTH, HEIGHT = 1280, 800
DEADLINE_MS = 60_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
DAY_S = 86_400


class Timed(StoreReadings):
    """Readings that remember how long the answers took, in milliseconds."""

    def __init__(self, store: Store) -> None:
        status = {"topic_prefix": "instagram", "redeliveries": 0, "dead_letters": 0, "is_caught_up": True}
        super().__init__(store.cursor(), unanswered_minutes=60, status=lambda: status)
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self._accounts_ms = 0.0, 0.0

    def accounts(self) -> list[str]:
        """Part of every update; in JSON 2 KB for 100 accounts."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = super().accounts()
        self._accounts_ms = 1000 * (time.perf_counter() - wall_s), 1000 * (time.process_time() - cpu_s)
        return found

    def figures(self, account_id: str | None, since: datetime, until: datetime, now: datetime) -> dict[str, Any]:
        """The rest of it, with writing it as JSON."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        found = super().figures(account_id, since, until, now)
        json.dumps(found)
        accounts_wall_ms, accounts_cpu_ms = self._accounts_ms
        self.wall_ms.append(accounts_wall_ms + 1000 * (time.perf_counter() - wall_s))
        self.cpu_ms.append(accounts_cpu_ms + 1000 * (time.process_time() - cpu_s))
        return found


class Traffic:
    """Brings events into a store and a feed as ingest does, without Kafka."""

    def __init__(self, store: Store, feed: Feed) -> None:
        self._store, self._feed = store, feed
        self._decoder = Decoder(topic_prefix="instagram", registry=None)
        self._rows = Rows(self._decoder, topic_prefix="instagram", loop=asyncio.get_running_loop())
        # All events of the period, and those of the updates: in event time the last come a second ago.
        rate_per_s = RATE_PER_S * EVENTS / TEMPLATES * (self._round_s() / (DAYS * DAY_S))
        start_ms = time.time_ns() // 1_000_000 - DAYS * DAY_S * 1000
        self._coming: Iterator[tuple[Template, bytes]] = Copies.beginning(start_ms, rate_per_s=rate_per_s).values(
            2 * EVENTS
        )
        self._offset = 0

    @staticmethod
    def _round_s() -> float:
        """How long the templates last at their usual rate."""
        return Copies.beginning(0).span_ms / 1000

    async def bring(self, count: int) -> None:
        """So many events, committed."""
        records = [
            ConsumerRecord(one.topic, 0, self._offset + number, 0, 0, one.key, value, None, 0, len(value), ())
            for number, (one, value) in zip(range(count), self._coming, strict=False)
        ]
        self._offset += count
        decoded = await asyncio.to_thread(self._rows.decode, records)
        batch = Batch(list(decoded.rows.values()), {TopicPartition("all", 0): self._offset}, {}, 0)
        await asyncio.to_thread(self._store.absorb, batch)
        self._feed.add([await self._decoder.decode(record) for record in records[-100:]])


async def measure(folder: Path) -> None:
    """Fills the database, opens the page, brings updates, and says what they cost."""
    path = shutil.which("chromium")
    if path is None:
        raise SystemExit("there is no chromium: apt-get install -y chromium")
    store, feed = Store.open(folder / "page.duckdb", topic_prefix="instagram", cluster_id="none"), Feed()
    traffic = Traffic(store, feed)
    for number in range(0, EVENTS, BATCH_RECORDS_MAX):
        progress(f"filling the database: {number:,} of {EVENTS:,} events")
        await traffic.bring(BATCH_RECORDS_MAX)
    with store.frozen():  # as the snapshot leaves it
        pass
    readings, port = Timed(store), free_port()
    access = Access(host="127.0.0.1", token=None, variable="ANALYTICS_TOKEN")
    serving = pages.served(
        pages.Page(readings, feed, access), host="127.0.0.1", port=port, port_variable="ANALYTICS_PORT"
    )
    async with serving, async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=FLAGS, chromium_sandbox=False)
        say(
            f"{EVENTS:,} events of 100 accounts in {DAYS} days, {BATCH_EVENTS} new in each update; medians of {UPDATES}, ms:"
        )
        for question in QUESTIONS:
            query = f"account={readings.accounts()[0]}" if question == "account" else question
            context = await browser.new_context(viewport={"width": WIDTH, "height": HEIGHT})
            shown = await context.new_page()
            shown.set_default_timeout(DEADLINE_MS)
            await shown.goto(f"http://127.0.0.1:{port}/?{query}")
            await expect(shown.locator("#status")).to_have_text("Live", timeout=DEADLINE_MS)
            await _updates(shown, traffic, readings, question or "today, all accounts")
            await context.close()
        await browser.close()
    store.close()


async def _updates(shown: Page, traffic: Traffic, readings: Timed, name: str) -> None:
    devtools = await shown.context.new_cdp_session(shown)
    await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
    browser_cpu_ms: list[float] = []
    for _ in range(WARM_UP + UPDATES):
        before = await _painted(shown)
        cpu_before = await _cpu_ms(devtools)
        await traffic.bring(BATCH_EVENTS)
        await shown.wait_for_function("n => performance.getEntriesByName('update').length > n", arg=before)
        browser_cpu_ms.append(await _cpu_ms(devtools) - cpu_before)
    took_ms = await shown.evaluate("performance.getEntriesByName('update').map(entry => entry.duration)")
    wall_ms, cpu_ms = readings.wall_ms[-UPDATES:], readings.cpu_ms[-UPDATES:]
    sums_ms = [server + browser for server, browser in zip(wall_ms, took_ms[-UPDATES:], strict=True)]
    parts = [
        ("server", wall_ms),
        ("its CPU", cpu_ms),
        ("browser", took_ms[-UPDATES:]),
        ("its CPU", browser_cpu_ms[-UPDATES:]),
        ("sum", sums_ms),
    ]
    told = ", ".join(f"{what} {statistics.median(found):.0f} ({min(found):.0f})" for what, found in parts)
    say(f"  {name:19} {told}")


async def _painted(shown: Page) -> int:
    return int(await shown.evaluate("performance.getEntriesByName('update').length"))


async def _cpu_ms(devtools: CDPSession) -> float:
    """CPU time of the page's main thread so far."""
    found = await devtools.send("Performance.getMetrics")
    return next(1000.0 * float(metric["value"]) for metric in found["metrics"] if metric["name"] == "TaskDuration")

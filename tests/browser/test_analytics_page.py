"""The analytics page in a real Chromium, served by the real server, at the size of a desktop and of a phone."""

import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from bridge.local.jvm import free_port
from consumers.analytics import page as analytics_page
from consumers.analytics.counts import Counts
from tests.consumers.samples import ACCOUNT, decoded, event, message

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
)
SIZES = {"desktop": (1280, 800), "phone": (390, 844)}
DEADLINE_MS = 30_000
HOSTILE = "<img src=x onerror=\"document.title='run'\"><script>document.title='run'</script>\u202e"


@dataclass
class Served:
    """The page as it is served, and what a browser complained of while showing it."""

    counts: Counts
    url: str
    complaints: list[str] = field(default_factory=list)

    async def figures(self) -> dict[str, Any]:
        """What `/api/counts` answers."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}api/counts") as answer:
            figures: dict[str, Any] = await answer.json()
            return figures


@asynccontextmanager
async def served(counts: Counts, port: int) -> AsyncIterator[Served]:
    """Serves counts on a port."""

    def figures() -> dict[str, Any]:
        return counts.as_json() | {"topic_prefix": "instagram", "dead_letters": 3}

    page = analytics_page.Page(counts, figures=figures, host="127.0.0.1")
    async with analytics_page.served(page, host="127.0.0.1", port=port, port_variable="ANALYTICS_PORT"):
        yield Served(counts, f"http://127.0.0.1:{port}/")


@pytest.fixture
async def live() -> AsyncIterator[Served]:
    """A page without any event yet."""
    async with served(Counts(started_at=datetime.now(UTC)), free_port()) as page:
        yield page


@pytest.fixture(scope="module")
async def chromium() -> AsyncIterator[Browser]:
    """A real Chromium."""
    path = shutil.which("chromium")
    assert path, "there is no chromium: apt-get install -y chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS), chromium_sandbox=False)
        yield browser
        await browser.close()


@asynccontextmanager
async def shown(browser: Browser, live: Served, size: str = "desktop", **options: Any) -> AsyncIterator[Page]:  # noqa: ANN401 - Playwright's own
    """The page in a fresh profile; what the browser complains of is kept."""
    width, height = SIZES[size]
    context = await browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        page = await context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.on(
            "console", lambda entry: live.complaints.append(entry.text) if entry.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: live.complaints.append(str(error)))
        page.on("requestfailed", lambda request: live.complaints.append(f"failed: {request.url}"))
        await page.goto(live.url)
        yield page
    finally:
        await context.close()


def number(text: str | None) -> int:
    """A number as the page writes it."""
    return int((text or "").replace(",", ""))


async def numbers(page: Page) -> dict[str, int]:
    """The table's numbers, by webhook field."""
    rows = await page.locator("#counts tr").all()
    return {(await row.locator("th").inner_text()): number(await row.locator("td").nth(1).inner_text()) for row in rows}


async def some_events(counts: Counts) -> None:
    """A thousand and more events of two accounts and three webhook fields, one of them redelivered."""
    await counts.handle([decoded(message()) for _ in range(1234)])
    await counts.handle([decoded(message(account_id="2")) for _ in range(7)])
    reaction = {"mid": "m", "action": "react", "reaction": "love", "emoji": "❤"}
    await counts.handle([decoded(event("message_reactions", reaction=reaction), record_name="MessageReactions")] * 2)
    comment = {"id": "1", "text": "nice"}
    await counts.handle([decoded(event("comments", value=comment), record_name="Comments")])


@pytest.mark.parametrize("size", SIZES)
async def test_page_shows_the_figures_of_the_api(chromium: Browser, live: Served, size: str) -> None:
    """Every number on the page, for all accounts and for one, is the one that `/api/counts` gives."""
    await some_events(live.counts)
    figures = await live.figures()
    async with shown(chromium, live, size) as page:
        await expect(page.locator("#status")).to_have_text("Connected")
        assert number(await page.locator("#events").text_content()) == figures["events"] == 1243
        assert number(await page.locator("#accounts").text_content()) == len(figures["accounts"]) == 2
        assert number(await page.locator("#redeliveries").text_content()) == figures["redeliveries"] == 1
        assert number(await page.locator("#dead-letters").text_content()) == figures["dead_letters"] == 3
        assert await numbers(page) == {name: tally["events"] for name, tally in figures["webhook_fields"].items()}
        for account, fields in figures["accounts"].items():
            await page.get_by_label("Account").select_option(account)
            assert await numbers(page) == {name: tally["events"] for name, tally in fields.items()}
        overflow = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert overflow == 0, "the page scrolls sideways"
    assert live.complaints == []


@pytest.mark.parametrize("size", SIZES)
async def test_event_that_arrives_appears_without_a_reload(chromium: Browser, live: Served, size: str) -> None:
    """The empty page says what to do; the first event replaces that, typed, in the feed and in the numbers."""
    async with shown(chromium, live, size) as page:
        await expect(page.get_by_role("heading", name="No event yet")).to_be_visible()
        await live.counts.handle([decoded(message("Hello there"))])
        await expect(page.locator("#feed li")).to_have_count(1)
        await expect(page.locator("#feed li .topic")).to_have_text("messages")
        await expect(page.locator("#feed li .what")).to_have_text("message: text of 11 characters")
        await expect(page.locator("#feed li .account")).to_have_text(ACCOUNT)
        await expect(page.locator("#events")).to_have_text("1")
        await expect(page.get_by_role("heading", name="No event yet")).to_be_hidden()
        await live.counts.handle([decoded(message())])
        await expect(page.locator("#feed li")).to_have_count(2)
        assert await numbers(page) == {"messages": 2}
    assert live.complaints == []


async def test_message_text_is_hidden_until_asked_for_and_never_run(chromium: Browser, live: Served) -> None:
    """What people write is not even sent to the page before its box is ticked, and then it is text and nothing else."""
    await live.counts.handle([decoded(message(HOSTILE, account_id=HOSTILE))])
    async with shown(chromium, live) as page:
        await expect(page.locator("#feed li")).to_have_count(1)
        await expect(page.locator("#feed .text")).to_have_count(0)
        async with page.expect_response(lambda answer: "text=1" in answer.url):
            await page.get_by_label("Show message text").check()
        await expect(page.locator("#feed .text")).to_have_text(HOSTILE)
        await expect(page.locator("#feed .account")).to_have_text(HOSTILE)
        await expect(page).to_have_title("Instagram events")
        assert await page.locator("#feed img, #feed script").count() == 0
        await page.get_by_label("Show message text").uncheck()
        await expect(page.locator("#feed .text")).to_have_count(0)
    # Ticking the box opens another stream, and the browser calls the one it left a failed request.
    assert [text for text in live.complaints if not re.fullmatch(r"failed: \S+/api/events(\?text=1)?", text)] == []


async def test_page_can_be_used_with_the_keyboard_alone(chromium: Browser, live: Served) -> None:
    """Tab reaches the account, the box, the pause and the feed; paused, the feed stands still and misses nothing."""
    await live.counts.handle([decoded(message())])
    async with shown(chromium, live) as page:
        await expect(page.locator("#feed li")).to_have_count(1)
        reached = []
        for _ in range(4):
            await page.keyboard.press("Tab")
            reached.append(await page.evaluate("document.activeElement.id"))
        assert reached == ["account", "with-text", "pause", "feed"]
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Resume")).to_have_attribute("aria-pressed", "true")
        await live.counts.handle([decoded(message())])
        await expect(page.locator("#events")).to_have_text("2")
        await expect(page.locator("#feed li")).to_have_count(1)
        await page.keyboard.press("Enter")
        await expect(page.locator("#feed li")).to_have_count(2)
    assert live.complaints == []


async def test_page_says_when_it_is_cut_off_and_recovers(chromium: Browser) -> None:
    """Without its server the page says so and what to do; when the server is back it goes on by itself."""
    port = free_port()
    counts = Counts(started_at=datetime.now(UTC))
    async with served(counts, port) as live:
        opened = shown(chromium, live)
        page = await opened.__aenter__()
        await expect(page.locator("#status")).to_have_text("Connected")
    try:
        await expect(page.get_by_role("alert")).to_contain_text("python -m consumers.analytics")
        await expect(page.locator("#status")).to_have_text("Not connected")
        await counts.handle([decoded(message())])
        async with served(counts, port):
            await expect(page.locator("#status")).to_have_text("Connected", timeout=DEADLINE_MS)
            await expect(page.get_by_role("alert")).to_be_hidden()
            await expect(page.locator("#events")).to_have_text("1")
    finally:
        await opened.__aexit__(None, None, None)


async def test_page_loads_nothing_but_itself(chromium: Browser, live: Served) -> None:
    """It works without the internet: page and stream are all that it asks for."""
    asked: list[str] = []
    async with shown(chromium, live) as page:
        page.on("request", lambda request: asked.append(request.url))
        await page.reload()
        await expect(page.locator("#status")).to_have_text("Connected")
        assert json.loads(await page.evaluate("JSON.stringify(Object.keys(localStorage))")) == []
    assert set(asked) == {live.url, f"{live.url}api/events"}

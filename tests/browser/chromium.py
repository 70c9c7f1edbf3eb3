"""A page in a real Chromium, in a fresh profile; whatever the browser complains of is kept."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

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


@asynccontextmanager
async def started() -> AsyncIterator[Browser]:
    """The browser, until the block ends."""
    path = shutil.which("chromium")
    assert path, "there is no chromium: apt-get install -y chromium"
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=list(FLAGS), chromium_sandbox=False)
        yield browser
        await browser.close()


@asynccontextmanager
async def opened(
    browser: Browser,
    url: str,
    complaints: list[str],
    *,
    size: str = "desktop",
    **options: Any,  # noqa: ANN401 - Playwright's own
) -> AsyncIterator[Page]:
    """The page at a URL; errors, warnings and failed requests are added to the complaints."""
    width, height = SIZES[size]
    context = await browser.new_context(viewport={"width": width, "height": height}, **options)
    try:
        page = await context.new_page()
        page.set_default_timeout(DEADLINE_MS)
        page.on("console", lambda entry: complaints.append(entry.text) if entry.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        await page.goto(url)
        yield page
    finally:
        await context.close()

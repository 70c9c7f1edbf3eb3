"""What stands on the analytics page, read as a person would: words and numbers, not the page's own variables."""

from typing import Any

from playwright.async_api import Page

NONE, MINUS = "\u2013", "\u2212"
UNITS_S = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
TABLES = {"fields": "events_by_field", "reactions": "reactions", "attachments": "attachments"}
RANKINGS = ("postbacks", "ads", "refs")


def number(text: str | None) -> int:
    """A whole number as the page writes it."""
    return int((text or "").replace(",", ""))


def seconds(text: str) -> float | None:
    """A duration as the page writes it: `2 min 5 s`; a dash is none."""
    if text == NONE:
        return None
    words = text.split()
    return sum(float(size) * UNITS_S[unit] for size, unit in zip(words[::2], words[1::2], strict=True))


async def totals(page: Page) -> dict[str, str]:
    """The key figures, by their name in `/api/figures`, as they are written."""
    nodes = await page.locator("[data-figure^='totals.']").all()
    return {
        str(await node.get_attribute("data-figure")).removeprefix("totals."): await node.inner_text() for node in nodes
    }


async def rows(page: Page, table: str) -> list[tuple[str, list[str]]]:
    """The rows of a table: what each begins with, and the texts of its numbers."""
    found = await page.eval_on_selector_all(
        f"{table} tbody tr:has(th)",
        "rows => rows.map(row => [row.querySelector('th').textContent,"
        " [...row.querySelectorAll('td.number')].map(cell => cell.textContent)])",
    )
    return [(name, numbers) for name, numbers in found]


def assert_close(text: str, wanted: float | None) -> None:
    """A duration on the page is the figure, but for what its two units leave out."""
    shown = seconds(text)
    assert (shown is None) == (wanted is None), (text, wanted)
    if shown is not None and wanted is not None:
        assert abs(shown - wanted) <= max(0.05 * abs(wanted), 0.001), (text, wanted)


async def assert_shows(page: Page, figures: dict[str, Any]) -> None:
    """Every number on the page, in the tables beside the charts too, is that of the figures."""
    written = await totals(page)
    assert written.keys() == figures["totals"].keys()
    for name, text in written.items():
        wanted = figures["totals"][name]
        if name.endswith("_s"):
            assert_close(text, wanted)
        elif name == "seen_share":
            assert text == (NONE if wanted is None else f"{int(wanted * 100 + 0.5)}%")
        else:
            assert number(text) == wanted, name
    for table, key in TABLES.items():
        assert {name: number(cells[0]) for name, cells in await rows(page, f"#{table}")} == figures[key], key
    for key in RANKINGS:
        assert [[name, number(cells[0])] for name, cells in await rows(page, f"#{key}")] == figures[key], key
    for name, (_, *lags) in await rows(page, "#fields"):
        wanted_lags = figures["lag"].get(name, {})
        for text, key in zip(
            lags, ("meta_to_bridge_median_s", "meta_to_bridge_p90_s", "bridge_to_kafka_median_s"), strict=True
        ):
            assert_close(text.replace(MINUS, "-"), wanted_lags.get(key))
    await page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    series = figures["series"]
    shown = await rows(page, "[data-table=series]")
    columns = ("inbound", "outbound", "active_customers", "new_customers")
    assert [[number(text) for text in cells[:4]] for _, cells in shown] == [
        [series[name][place] for name in columns] for place in range(len(series["at"]))
    ]
    for (_, cells), wanted in zip(shown, series["first_response_median_s"], strict=True):
        assert_close(cells[4], wanted)
    assert [number(cells[0]) for _, cells in await rows(page, "[data-table=response]")] == figures[
        "response_histogram"
    ]["count"]
    heat = [[number(text) for text in cells] for _, cells in await rows(page, "[data-table=heat]")]
    assert [list(day) for day in zip(*heat, strict=True)] == figures["heat"]


async def drawn(page: Page, chart: str) -> list[Any]:
    """The numbers that plotly drew: each trace's `y`, or `z` of a heat map."""
    found: list[Any] = await page.evaluate(
        "id => document.getElementById(id).data.map(trace => trace.z ?? Array.from(trace.y))", chart
    )
    return found


async def assert_draws(page: Page, figures: dict[str, Any]) -> None:
    """The charts are drawn from the figures, and each says in words what it shows."""
    series = figures["series"]
    names = ("inbound", "outbound", "active_customers", "new_customers", "first_response_median_s")
    assert await drawn(page, "series") == [series[name] for name in names]
    assert await drawn(page, "response") == [figures["response_histogram"]["count"]]
    assert await drawn(page, "heat") == [figures["heat"]]
    for chart in ("series", "response", "heat"):
        place = page.locator(f"#{chart}")
        assert await place.locator("svg").count() > 0
        assert len(await place.get_attribute("aria-label") or "") > 30

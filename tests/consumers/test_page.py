"""The analytics page over HTTP: who is answered, with what, with which headers, and how many may listen."""

import asyncio
import contextlib
import re
import socket
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import aiohttp
import duckdb
import pytest

from consumers.analytics import access as analytics_access
from consumers.analytics import measures
from consumers.analytics import page as analytics_page
from consumers.analytics import stream as analytics_stream
from consumers.analytics.access import COOKIE, Access
from consumers.errors import ConsumerError
from tests.consumers.pages import Shown, next_event, shown
from tests.consumers.running import until
from tests.consumers.samples import ACCOUNT, event, message

TOKEN = "a-token-that-nobody-guesses"  # noqa: S105 - guards nothing
OPEN_TO_ALL = "0.0.0.0"  # noqa: S104 - the page is only told so, it is bound to loopback


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Shown]:
    """A page on loopback without any event yet."""
    async with shown(tmp_path) as page:
        yield page


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Shown]:
    """A page that is open to others, with one event."""
    async with shown(tmp_path, host=OPEN_TO_ALL, token=TOKEN) as page:
        page.take([message("secret words")])
        yield page


async def status(page: Shown, path: str, **headers: str) -> int:
    """The status of an answer."""
    async with page.session.get(page.url + path, headers=headers) as answer:
        return answer.status


async def problem(page: Shown, path: str) -> tuple[int, str]:
    """The status of an answer, and the slug of what it refuses."""
    async with page.session.get(page.url + path) as answer:
        return answer.status, (await answer.json())["error"]


# Who is answered


@pytest.mark.parametrize("host", ["127.0.0.1:8082", "localhost", "LOCALHOST:1", "[::1]:8082"])
async def test_page_on_loopback_answers_to_loopback_names(page: Shown, host: str) -> None:
    """Whoever types this machine's own name gets the page."""
    assert await status(page, "", Host=host) == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8082", "localhost.evil.example", ""])
async def test_page_on_loopback_refuses_other_names(page: Shown, host: str) -> None:
    """A site whose name was made to point here (DNS rebinding) reads nothing."""
    for path in ("", "api/figures", "api/accounts", "api/counts", "api/events", "livez"):
        assert await status(page, path, Host=host) == 403


@pytest.mark.parametrize("host", [OPEN_TO_ALL, "::", "192.0.2.7", "analytics.example"])
def test_page_open_to_others_without_a_token_does_not_start(host: str) -> None:
    """The line names the setting, and how to make one; a token that can be guessed is none."""
    with pytest.raises(ConsumerError, match=f"ANALYTICS_TOKEN must be set, because {host} is open to others"):
        Access(host=host, token=None, variable="ANALYTICS_TOKEN")
    with pytest.raises(ConsumerError, match="ANALYTICS_TOKEN: it can be guessed"):
        Access(host=host, token="x" * 15, variable="ANALYTICS_TOKEN")


async def test_page_with_a_token_tells_nothing_without_it(guarded: Shown) -> None:
    """Every figure is refused with 401; the page is a login form; whether it lives may be asked by everybody."""
    for path in ("api/figures", "api/accounts", "api/counts", "api/events?text=1", f"api/figures?account={ACCOUNT}"):
        for header in ("", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer t\u00f6ken"):
            assert await status(guarded, path, Authorization=header) == 401
    async with guarded.session.get(guarded.url) as answer:
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, "Bearer")
        assert 'name="token"' in await answer.text()
    assert await status(guarded, "livez", Host="anything.example") == 200


async def test_page_with_a_token_answers_to_its_bearer_by_any_name(guarded: Shown) -> None:
    """Behind a published port it is asked for by names that it cannot know."""
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert await status(guarded, "api/accounts", Authorization=header, Host="analytics.example") == 200


async def test_login_gives_a_cookie_that_is_not_the_token_and_opens_everything(guarded: Shown) -> None:
    """No script can read it, no other site can send it, and it goes back to what was asked for."""
    async with guarded.session.post(
        f"{guarded.url}?account={ACCOUNT}", data={"token": f" {TOKEN} "}, allow_redirects=False
    ) as answer:
        assert (answer.status, answer.headers["Location"]) == (303, f"/?account={ACCOUNT}")
        cookie = answer.headers["Set-Cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert TOKEN not in cookie
    assert "Secure" not in cookie
    behind_tls = {"X-Forwarded-Proto": "https"}
    async with guarded.session.post(
        guarded.url, data={"token": TOKEN}, headers=behind_tls, allow_redirects=False
    ) as answer:
        assert "Secure" in answer.headers["Set-Cookie"].split("; ")
    value = cookie.split(";")[0]
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for sent, wanted in ((value, 200), (value[:-1] + "x", 401), (f"{COOKIE}=9{value.partition('=')[2]}", 401)):
            async with session.get(f"{guarded.url}api/figures", headers={"Cookie": sent}) as answer:
                assert answer.status == wanted


async def test_login_with_a_wrong_token_says_so_and_gives_nothing(guarded: Shown) -> None:
    """401, the form again, no cookie; a form without a token or of another kind is no more."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    for body in (b"token=wrong", b"token=", f"other={TOKEN}".encode(), b"token=%FF%00", b"\xff" * 100):
        async with guarded.session.post(guarded.url, data=body, headers=form) as answer:
            assert answer.status == 401
            assert "Set-Cookie" not in answer.headers
            assert "That is not the token." in await answer.text()
    async with guarded.session.post(guarded.url, data=b"token=" + b"x" * 10_000, headers=form) as answer:
        assert answer.status == 413


async def test_login_lapses_after_its_time(guarded: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server decides, whatever a browser keeps."""
    monkeypatch.setattr(analytics_access, "COOKIE_AGE_MAX_S", -1)
    async with guarded.session.post(guarded.url, data={"token": TOKEN}, allow_redirects=False) as answer:
        assert answer.status == 303
    assert await status(guarded, "api/figures") == 401


# What is answered


async def test_page_allows_no_script_but_its_own(page: Shown) -> None:
    """Nothing inline, nothing from elsewhere, nothing evaluated; the server does not name itself."""
    for path in ("", "api/counts", "nothing"):
        async with page.session.get(page.url + path) as answer:
            policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
            assert (policy["default-src"], policy["script-src"]) == ("'none'", "'self'")
            assert (policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cache-Control"] == "no-store"
            assert "Server" not in answer.headers
    async with page.session.get(page.url) as answer:
        html = await answer.text()
    assert html.count("<script") == html.count("<script ") == html.count("></script>") == 3
    assert "style=" not in html
    assert "onclick" not in html


async def test_assets_are_compressed_and_kept_for_ever_under_a_name_of_their_own(page: Shown) -> None:
    """Plotly is its package's file, byte for byte; another version's folder, or a path out of it, is 404."""
    async with page.session.get(page.url) as answer:
        (folder,) = set(re.findall(r'"(assets/[0-9a-f]+)/', await answer.text()))
    packaged = (resources.files("plotly") / "package_data/plotly.min.js").read_bytes()
    async with page.session.get(f"{page.url}{folder}/plotly.min.js") as answer:
        assert answer.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert answer.headers["Content-Encoding"] == "gzip"
        assert await answer.read() == packaged
    for path in (f"{folder}/page.html", f"{folder}/..%2fpage.py", "assets/0123456789abcdef/page.js"):
        assert await status(page, path) == 404
    async with page.session.post(f"{page.url}api/counts") as answer:
        assert answer.status == 405


async def test_counts_are_of_all_events_with_the_last_time_of_each_webhook_field(page: Shown) -> None:
    """A late arrival does not move it back; beyond a limit accounts are counted together, so that no event is missing."""
    early, late = datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 22, 11, tzinfo=UTC)
    page.take([message(received_at=late), message(received_at=early), message(account_id=None, received_at=early)])
    counts = await page.get("api/counts")
    assert (counts["events"], counts["redeliveries"], counts["dead_letters"]) == (3, 1, 3)
    assert counts["webhook_fields"] == {"messages": {"events": 3, "last_received_at": late.isoformat()}}
    assert counts["accounts"] == {
        ACCOUNT: {"messages": {"events": 2, "last_received_at": late.isoformat()}},
        "no account": {"messages": {"events": 1, "last_received_at": early.isoformat()}},
    }


async def test_counts_of_very_many_accounts_stay_bounded(page: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit accounts are counted together, so that no event is missing."""
    monkeypatch.setattr("consumers.analytics.readings.ACCOUNTS_MAX", 3)
    page.take(message(account_id=str(number)) for number in range(10))
    accounts = (await page.get("api/counts"))["accounts"]
    assert {account: fields["messages"]["events"] for account, fields in accounts.items()} == {
        "0": 1,
        "1": 1,
        "2": 1,
        "other accounts": 7,
    }


async def test_figures_are_of_the_asked_account_and_period(page: Shown) -> None:
    """All accounts or one; today, days back, or two moments; what claims to be from the future is in no chart."""
    now = datetime.now(UTC)
    page.take(
        [
            message(),
            message(account_id="2"),
            message(part={"is_echo": True}),
            message(occurred_at=now + timedelta(hours=1)),
        ]
    )
    page.take([message(occurred_at=now - timedelta(days=4))])

    async def inbound(**query: str) -> int:
        found = await page.get("api/figures", **query)
        assert sum(found["series"]["inbound"]) == found["totals"]["inbound"]
        return int(found["totals"]["inbound"])

    assert (await page.get("api/accounts"))["accounts"] == [ACCOUNT, "2"]
    assert [await inbound(), await inbound(account="2"), await inbound(account=ACCOUNT, period="today")] == [2, 1, 1]
    assert [await inbound(period="7d"), await inbound(period="30d", account=ACCOUNT)] == [3, 2]
    begin = (now - timedelta(days=4)).date()
    assert await inbound(since=f"{begin}", until=f"{begin + timedelta(days=1)}") == 1
    assert await inbound(since=f"{begin}T00:00:00+02:00", until=f"{begin}T00:00:01Z") == 0
    assert (await page.get("api/figures"))["totals"]["future"] == 1


async def test_figures_of_an_account_that_does_not_exist_are_404(page: Shown) -> None:
    """As JSON that says what is wrong, for figures and stream alike; so is a period that is none, with 400."""
    page.take([message()])
    for path in ("api/figures", "api/events"):
        assert await problem(page, f"{path}?account=1784140000") == (404, "unknown_account")
        for query in (
            "period=year",
            "since=2026-11-22",
            "since=x&until=y",
            "since=2026-11-22T10:00&until=2026-11-23",
            "since=2026-11-22&until=2026-11-22",
            "since=1900-01-01&until=2026-01-01",
            "since=9999-12-31T23:59:59-23:00&until=9999-12-31",
        ):
            assert await problem(page, f"{path}?{query}") == (400, "bad_period"), query


async def test_figures_that_cannot_be_read_are_500_and_ingest_goes_on(page: Shown) -> None:
    """The answer says where the reason is, and nothing of it."""
    page.take([message()])
    with contextlib.closing(page.store.cursor()) as cursor:
        cursor.execute("ALTER TABLE events RENAME TO elsewhere")
        assert await problem(page, "api/counts") == (500, "figures_unreadable")
        cursor.execute("ALTER TABLE elsewhere RENAME TO events")
    assert (await page.get("api/counts"))["events"] == 1


# The stream


async def test_stream_gives_what_is_there_and_then_what_comes(page: Shown) -> None:
    """First status, accounts, figures and the newest events, then each change; no text unless asked for."""
    page.take([message("secret words")])
    async with page.session.get(f"{page.url}api/events") as answer:
        assert (await next_event(answer, "status"))["topic_prefix"] == "instagram"
        assert await next_event(answer, "accounts") == [ACCOUNT]
        assert (await next_event(answer, "figures"))["totals"]["inbound"] == 1
        (first,) = await next_event(answer, "feed")
        assert (first["webhook_field"], first["kind"], first["text"]) == ("messages", "message", None)
        assert first["summary"] == "text of 12 characters"
        page.take([event("other", named_field="new_thing")], record_name="Other")
        (second,) = await next_event(answer, "feed")
        assert (second["number"], second["kind"]) == (2, "new_thing")
        assert (await next_event(answer, "figures"))["totals"]["events"] == 2
        async with page.session.get(f"{page.url}api/events?text=1") as with_text:
            assert [found["text"] for found in await next_event(with_text, "feed")] == ["secret words", None]


async def test_stream_takes_the_text_back_when_its_message_is_unsent(page: Shown) -> None:
    """Of what was shown and of an edit of it; and never shows it when the unsend comes first."""
    page.take([message("regretted", part={"mid": "m-1"})])
    async with page.session.get(f"{page.url}api/events?text=1") as answer:
        (first,) = await next_event(answer, "feed")
        assert first["text"] == "regretted"
        page.take([message(None, part={"mid": "m-1", "is_deleted": True}), message("late copy", part={"mid": "m-1"})])
        assert [(found["number"], found["text"]) for found in await next_event(answer, "feed")] == [
            (1, None),
            (2, None),
            (3, None),
        ]


async def test_stream_of_an_account_has_no_other_accounts_events(page: Shown) -> None:
    """Neither at first nor later."""
    page.take([message("one"), message("two", account_id="2")])
    async with page.session.get(f"{page.url}api/events?account=2&text=1") as answer:
        assert [found["text"] for found in await next_event(answer, "feed")] == ["two"]
        page.take([message("three"), message("four", account_id="2")])
        assert [found["text"] for found in await next_event(answer, "feed")] == ["four"]


async def test_stream_beyond_the_limit_is_refused_until_one_ends(page: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """Open pages are bounded, and one that is closed makes room."""
    monkeypatch.setattr(analytics_page, "READERS_MAX", 1)
    monkeypatch.setattr(analytics_stream, "KEEP_ALIVE_INTERVAL_S", 0.1)
    async with page.session.get(f"{page.url}api/events") as held:
        await next_event(held, "figures")
        assert await problem(page, "api/events") == (503, "too_many_pages")
    assert await until(lambda: status(page, "api/events"), lambda found: found != 503) == 200


async def test_stream_of_a_reader_that_takes_nothing_is_cut(page: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader costs a bounded time and a bounded memory, and the others nothing."""
    monkeypatch.setattr(analytics_page, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(analytics_stream, "TICK_S", 0.01)
    page.take([message()])
    reader = socket.create_connection(("127.0.0.1", int(page.url.split(":")[2].strip("/"))))
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.sendall(b"GET /api/events?text=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")

    async def is_cut() -> bool:
        page.take([message("x" * 2000) for _ in range(100)])
        try:
            reader.sendall(b"\r\n")
        except ConnectionError:
            return True
        return False

    with contextlib.closing(reader):
        assert await until(is_cut, bool)
    events = (await page.get("api/counts"))["events"]
    async with page.session.get(f"{page.url}api/events") as other:
        while (await next_event(other, "figures"))["totals"]["inbound"] < events:
            pass


async def test_figures_are_computed_once_for_all_who_ask_alike_and_once_a_second_at_most(
    page: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten open pages and events all the time cost no more computing than one page."""
    computed: list[str | None] = []
    figures = measures.figures

    def counted(connection: duckdb.DuckDBPyConnection, *, account_id: str | None, **rest: Any) -> dict[str, Any]:  # noqa: ANN401 - handed on
        computed.append(account_id)
        return figures(connection, account_id=account_id, **rest)

    monkeypatch.setattr(measures, "figures", counted)
    begin_s = asyncio.get_running_loop().time()
    async with contextlib.AsyncExitStack() as stack:
        answers = [await stack.enter_async_context(page.session.get(f"{page.url}api/events")) for _ in range(10)]
        for inbound in range(1, 4):
            page.take([message()])
            for answer in answers:
                while (await next_event(answer, "figures"))["totals"]["inbound"] != inbound:
                    pass
    took_s = asyncio.get_running_loop().time() - begin_s
    assert computed == [None] * len(computed)
    assert 4 <= len(computed) <= 2 + took_s / analytics_stream.FIGURES_INTERVAL_S


async def test_page_ends_at_once_although_figures_are_being_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question that takes DuckDB minutes is interrupted, and the next one is not begun."""
    computing, ended = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def slow(connection: duckdb.DuckDBPyConnection, **_: Any) -> dict[str, Any]:  # noqa: ANN401 - not looked at
        loop.call_soon_threadsafe(computing.set)
        try:
            connection.execute("SELECT max(a.range * b.range) FROM range(1000000) a, range(1000000) b").fetchall()
        finally:
            ended.set()
        return {}

    monkeypatch.setattr(measures, "figures", slow)
    async with shown(tmp_path) as page:
        asked = [asyncio.create_task(status(page, "api/events")) for _ in range(2)]
        await computing.wait()
        begin_s = loop.time()
    assert loop.time() - begin_s < 10
    await asyncio.gather(*asked, return_exceptions=True)
    assert ended.is_set()


async def test_page_on_a_taken_port_names_the_setting(tmp_path: Path) -> None:
    """Nothing half-started is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConsumerError, match=f"port {port} is taken: .* ANALYTICS_PORT"):
            async with shown(tmp_path, port=port):
                pass

"""The analytics page over HTTP: who is answered, with which headers, and how many may listen."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from bridge.local.jvm import free_port
from consumers.analytics import page as analytics_page
from consumers.analytics.counts import Counts
from consumers.errors import ConsumerError
from tests.consumers.running import until
from tests.consumers.samples import decoded, event, message

Stream = tuple[aiohttp.ClientSession, str]


@pytest.fixture
def counts() -> Counts:
    """Counts of nothing yet."""
    return Counts(started_at=datetime(2026, 11, 22, tzinfo=UTC))


@contextlib.asynccontextmanager
async def served(counts: Counts, *, named: str = "127.0.0.1") -> AsyncIterator[Stream]:
    """A client and the page's address; `named` is the host for which the page was made."""
    port = free_port()
    page = analytics_page.Page(counts, figures=counts.as_json, host=named)
    async with (
        analytics_page.served(page, host="127.0.0.1", port=port, port_variable="ANALYTICS_PORT"),
        aiohttp.ClientSession() as session,
    ):
        yield session, f"http://127.0.0.1:{port}"


async def next_event(answer: aiohttp.ClientResponse, name: str) -> Any:  # noqa: ANN401 - JSON
    """The data of the next server-sent event of a name."""
    async with asyncio.timeout(30):
        while (line := await answer.content.readline()) != f"event: {name}\n".encode():
            assert line, "the stream has ended"
        return json.loads((await answer.content.readline()).removeprefix(b"data: "))


@pytest.mark.parametrize("host", ["127.0.0.1:8082", "localhost", "LOCALHOST:1", "[::1]:8082"])
async def test_page_on_loopback_answers_to_loopback_names(counts: Counts, host: str) -> None:
    """Whoever types this machine's own name gets the page."""
    async with served(counts) as (session, url), session.get(url, headers={"Host": host}) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/api/counts", "/api/events"])
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example:8082", "localhost.evil.example", ""])
async def test_page_on_loopback_refuses_other_names(counts: Counts, path: str, host: str) -> None:
    """A site whose name was made to point here (DNS rebinding) reads nothing."""
    async with served(counts) as (session, url), session.get(url + path, headers={"Host": host}) as answer:
        assert answer.status == 403


async def test_page_opened_to_others_answers_to_any_name(counts: Counts) -> None:
    """Behind a published port it is asked for by names that it cannot know."""
    open_to_all = "0.0.0.0"  # noqa: S104 - the page is only told so, it is bound to loopback
    async with (
        served(counts, named=open_to_all) as (session, url),
        session.get(url, headers={"Host": "analytics.example"}) as answer,
    ):
        assert answer.status == 200


async def test_page_allows_nothing_but_its_own_script_and_style(counts: Counts) -> None:
    """The policy names hashes and no `unsafe-inline`; the server does not name itself."""
    async with served(counts) as (session, url), session.get(url) as answer:
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["Content-Security-Policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"].startswith("'sha256-")
        assert policy["style-src"].startswith("'sha256-")
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Server" not in answer.headers


async def test_page_of_another_path_or_method_is_refused(counts: Counts) -> None:
    """404 and 405, with no banner there either."""
    async with served(counts) as (session, url):
        for method, path, status in (("GET", "/etc/passwd", 404), ("POST", "/api/counts", 405)):
            async with session.request(method, url + path) as answer:
                assert answer.status == status
                assert "Server" not in answer.headers


async def test_counts_remember_the_last_time_of_each_webhook_field(counts: Counts) -> None:
    """A late arrival does not move it back."""
    early, late = datetime(2026, 11, 22, 10, tzinfo=UTC), datetime(2026, 11, 22, 11, tzinfo=UTC)
    await counts.handle([decoded(message(received_at=late)), decoded(message(received_at=early))])
    async with served(counts) as (session, url), session.get(f"{url}/api/counts") as answer:
        assert (await answer.json())["webhook_fields"]["messages"] == {
            "events": 2,
            "last_received_at": late.isoformat(),
        }


async def test_counts_of_very_many_accounts_stay_bounded(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit accounts are counted together, so that no event is missing."""
    monkeypatch.setattr("consumers.analytics.counts.ACCOUNTS_MAX", 3)
    await counts.handle([decoded(message(account_id=str(number))) for number in range(10)])
    accounts = counts.as_json()["accounts"]
    assert {account: fields["messages"]["events"] for account, fields in accounts.items()} == {
        "0": 1,
        "1": 1,
        "2": 1,
        "other accounts": 7,
    }


async def test_stream_gives_what_is_there_and_then_what_comes(counts: Counts) -> None:
    """First the numbers and the newest events, then each change; no text unless asked for."""
    await counts.handle([decoded(message("secret words"))])
    async with served(counts) as (session, url), session.get(f"{url}/api/events") as answer:
        assert (await next_event(answer, "counts"))["events"] == 1
        (first,) = await next_event(answer, "events")
        assert (first["webhook_field"], first["kind"], first["text"]) == ("messages", "message", None)
        assert first["summary"] == "text of 12 characters"
        await counts.handle([decoded(event("other", named_field="new_thing"), record_name="Other")])
        assert (await next_event(answer, "counts"))["events"] == 2
        (second,) = await next_event(answer, "events")
        assert (second["number"], second["kind"]) == (2, "new_thing")
        async with session.get(f"{url}/api/events?text=1") as with_text:
            assert [found["text"] for found in await next_event(with_text, "events")] == ["secret words", None]


async def test_stream_beyond_the_limit_is_refused_until_one_ends(
    counts: Counts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Open pages are bounded, and one that is closed makes room."""
    monkeypatch.setattr(analytics_page, "READERS_MAX", 1)
    monkeypatch.setattr(analytics_page, "KEEP_ALIVE_INTERVAL_S", 0.1)
    async with served(counts) as (session, url):

        async def status() -> int:
            async with session.get(f"{url}/api/events") as answer:
                return answer.status

        async with session.get(f"{url}/api/events") as held:
            await next_event(held, "counts")
            assert await status() == 503
        assert await until(status, lambda found: found != 503) == 200


async def test_stream_of_a_reader_that_takes_nothing_is_cut(counts: Counts, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow reader costs a bounded time and a bounded memory, and the others nothing."""
    monkeypatch.setattr(analytics_page, "WRITE_TIMEOUT_S", 0.2)
    monkeypatch.setattr(analytics_page, "UPDATE_INTERVAL_S", 0.01)
    async with served(counts) as (session, url):
        host, port = url.removeprefix("http://").split(":")
        reader = socket.create_connection((host, int(port)))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.sendall(b"GET /api/events?text=1 HTTP/1.1\r\nHost: localhost\r\n\r\n")

        async def is_cut() -> bool:
            await counts.handle([decoded(message("x" * 2000)) for _ in range(100)])
            try:
                reader.sendall(b"\r\n")
            except ConnectionError:
                return True
            return False

        with contextlib.closing(reader):
            assert await until(is_cut, bool)
        async with session.get(f"{url}/api/events") as other:
            assert (await next_event(other, "counts"))["events"] == counts.total.events


async def test_page_on_a_taken_port_names_the_setting(counts: Counts) -> None:
    """Nothing half-started is left behind."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        page = analytics_page.Page(counts, figures=counts.as_json, host="127.0.0.1")
        port = taken.getsockname()[1]
        with pytest.raises(ConsumerError, match=f"port {port} is taken: .* ANALYTICS_PORT"):
            async with analytics_page.served(page, host="127.0.0.1", port=port, port_variable="ANALYTICS_PORT"):
                pass

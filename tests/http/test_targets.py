"""One path and two methods: everything else is 404, or 405 with Allow, and never a way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import quote

import pytest

from tests.http.wire import MARKER, PATH, Connection, exchange, post, request
from tests.kafka.reading import Record
from tests.kafka.serving import VERIFY_TOKEN, Street, message, notification

Published = Callable[[], Awaitable[list[Record]]]
BODY = notification(message("elsewhere"))
QUERY = f"?hub.mode=subscribe&hub.challenge=1&hub.verify_token={quote(VERIFY_TOKEN, safe='')}"


@pytest.mark.parametrize(
    "target",
    [
        "/",
        f"/{MARKER}",
        "/webhooks",
        "/webhooks/",
        "/webhooks/instagram/",
        "/webhooks/instagramx",
        "/webhooks/Instagram",
        "//webhooks/instagram",
        "/webhooks//instagram",
        "/./webhooks/instagram",
        "/x/../webhooks/instagram",
        "/webhooks%2finstagram",
        "/webhooks/instagra%6d",
        "/%77ebhooks/instagram",
        "/webhooks/instagram%00",
        "/webhooks/instagram%20",
        "/webhooks/instagram;a=b",
        "/webhooks\\instagram",
        "/livez",
        "/readyz",
        "/metrics",
        "/status",
        "http://bridge.test/webhooks/instagram",
        f"http://{MARKER}/webhooks/instagram",
        "bridge.test/webhooks/instagram",
        "webhooks/instagram",
        "*",
        "",
    ],
)
async def test_target_other_than_the_one_path_is_not_found(street: Street, published: Published, target: str) -> None:
    """No other spelling is the path: what a proxy in front lets through or keeps out means the same to us."""
    (signature,) = street.serving.signatures([BODY])
    delivery = await exchange(street.serving.port, post(BODY, signature, target=target))
    verification = await exchange(street.serving.port, request("GET", target + QUERY))

    assert delivery.status in (400, 404)
    assert verification.status in (400, 404)
    assert await published() == []


async def test_query_on_a_delivery_does_not_matter(street: Street, published: Published) -> None:
    """A callback URL may carry a query."""
    (signature,) = street.serving.signatures([BODY])

    answer = await exchange(street.serving.port, post(BODY, signature, target=f"{PATH}?from=meta"))

    assert answer.status == 200
    assert len(await published()) == 1


@pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "LOCK"])
async def test_method_that_is_not_served_is_405_with_those_that_are(
    street: Street, published: Published, method: str
) -> None:
    """Allow says which methods there are; the connection stays usable."""
    (signature,) = street.serving.signatures([BODY])
    head = method == "HEAD"
    async with Connection.open(street.serving.port) as connection:
        await connection.send(request(method, PATH + QUERY, f"X-Hub-Signature-256: {signature}", f"X-Told: {MARKER}"))
        answer = await connection.answer(to_head=head)
        await connection.send(request("GET", "/nowhere"))
        assert (await connection.answer()).status == 404

    assert answer.status == 405
    assert sorted(answer.headers["allow"].split(", ")) == ["GET", "POST"]
    assert await published() == []


@pytest.mark.parametrize("method", ["post", "Post", "get", "P0ST", "POSTS", "", "GET POST", f"{MARKER}", "\x00"])
async def test_method_that_http_does_not_know_is_refused(street: Street, published: Published, method: str) -> None:
    """Methods are case-sensitive; what is no method at all ends the connection."""
    (signature,) = street.serving.signatures([BODY])
    signed = f"X-Hub-Signature-256: {signature}"
    async with Connection.open(street.serving.port) as connection:
        await connection.send(request(method, PATH, signed, f"Content-Length: {len(BODY)}", body=BODY))
        assert (await connection.answer()).status in (400, 405)
        assert await connection.until_closed() == b""
    assert await published() == []


@pytest.mark.parametrize(
    "first",
    [
        request("CONNECT", "bridge.test:443"),
        request("CONNECT", PATH),
        request("GET", PATH, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        request("GET", PATH, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 200,  # a TLS hello
        b"\x00\x00\x00\x1b\x00\x12\x00\x04\x00\x00\x00\x01" + b"\x00" * 20,  # a Kafka client at the wrong port
        b"SSH-2.0-client\r\n",
    ],
    ids=["connect", "connect-path", "websocket", "h2c", "http2", "tls", "kafka", "ssh"],
)
async def test_other_protocol_is_refused_and_leads_nowhere(street: Street, published: Published, first: bytes) -> None:
    """We speak HTTP/1 alone: no tunnel, no upgrade; what is sent after it is not taken for a delivery unanswered."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(first)
        answer = await connection.answer()
        assert answer.status in (400, 403, 404, 405)
        await connection.send(street.serving.signed(BODY))
        rest = await connection.until_closed() if answer.headers.get("connection") == "close" else b""
        if not rest and answer.headers.get("connection") != "close":
            assert (await connection.answer()).status == 200
            assert len(await published()) == 1
        else:
            assert rest == b""
            assert await published() == []


async def test_upgrade_of_a_delivery_is_ignored_or_refused(street: Street, published: Published) -> None:
    """An offer to upgrade beside a delivery is no way around its answer."""
    for protocol in ("h2c", "websocket", "TLS/1.0"):
        upgrade = street.serving.signed(BODY, "Connection: Upgrade", f"Upgrade: {protocol}")
        answer = await exchange(street.serving.port, upgrade)
        records = await published()
        assert (answer.status, len(records)) in [(200, 1), (400, 0), (426, 0)], protocol

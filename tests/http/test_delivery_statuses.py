"""POST /webhooks/instagram: each status of contract.md, and that a refused delivery leaves nothing behind."""

from __future__ import annotations

import gzip
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable

import pytest

from tests.http.conftest import BODY_BYTES_MAX
from tests.http.wire import PATH, Connection, chunked, exchange, post, request
from tests.kafka.reading import Record
from tests.kafka.serving import APP_SECRET, OLD_APP_SECRET, Street, message, notification

Published = Callable[[], Awaitable[list[Record]]]


async def test_delivery_of_meta_is_200_under_an_id_of_its_own(street: Street, published: Published) -> None:
    """Each delivery gets another id, which its record carries, and is told who took it."""
    answers = [await street.serving.deliver(notification(message("again"))) for _ in range(3)]

    ids = [answer.headers["x-delivery-id"] for answer in answers]
    assert [answer.status for answer in answers] == [200] * 3
    assert {answer.headers["x-acknowledged-by"] for answer in answers} == {"kafka"}
    assert all(re.fullmatch("[0-9a-f]{32}", delivery_id) for delivery_id in ids)
    assert len(set(ids)) == 3
    assert [record.delivery_id for record in await published()] == ids


@pytest.mark.parametrize("body", [b'{"object":"instagram","entry":[]}', b"[]", b" [ ] "])
async def test_delivery_without_any_item_is_200_by_none(street: Street, published: Published, body: bytes) -> None:
    """What held nothing to publish is acknowledged, by nobody."""
    answer = await street.serving.deliver(body)

    assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "none")
    assert await published() == []


@pytest.mark.parametrize("app_secret", [APP_SECRET, OLD_APP_SECRET])
async def test_delivery_signed_with_any_live_secret_is_200(
    street: Street, published: Published, app_secret: str
) -> None:
    """During a rotation, and with two kinds of login, several secrets are live."""
    body = notification(message(f"signed-{len(app_secret)}"))
    (signature,) = street.serving.signatures([body], app_secret)

    answer = await exchange(street.serving.port, post(body, signature))

    assert answer.status == 200
    assert len(await published()) == 1


BODY = notification(message("never"))


async def test_delivery_without_a_right_signature_is_401(street: Street, published: Published) -> None:
    """Missing, given twice, malformed, wrong, of another body, of another secret, or of the old kind: all 401."""
    (right,) = street.serving.signatures([BODY])
    digest = right.removeprefix("sha256=")
    (of_another_body,) = street.serving.signatures([BODY + b" "])
    (of_another_secret,) = street.serving.signatures([BODY], "another secret")
    (of_nothing,) = street.serving.signatures([b""])
    sha1 = "sha1=" + hmac.new(APP_SECRET.encode(), BODY, hashlib.sha1).hexdigest()
    header = "X-Hub-Signature-256: "
    refused = {
        "missing": (),
        "sha1 only": (f"X-Hub-Signature: {sha1}",),
        "sha1 in its place": (header + sha1,),
        "twice": (header + right, header + right),
        "right and wrong": (header + right, header + of_another_body),
        "joined": (f"{header}{right}, {right}",),
        "empty": (header,),
        "no prefix": (header + digest,),
        "prefix in capitals": (f"{header}SHA256={digest}",),
        "short": (header + right[:-1],),
        "long": (f"{header}{right}0",),
        "no hex": (f"{header}sha256={'g' * 64}",),
        "space within": (f"{header}sha256= {digest[:-1]}",),
        "quoted": (f'{header}"{right}"',),
        "full-width digits": (header + right[:-1] + "\xef\xbc\x91",),
        "of another body": (header + of_another_body,),
        "of another secret": (header + of_another_secret,),
        "of nothing": (header + of_nothing,),
        "one digit off": (header + right[:-1] + ("0" if right[-1] != "0" else "1"),),
    }
    statuses = {}
    for name, headers in refused.items():
        answer = await exchange(street.serving.port, post(BODY, None, *headers))
        statuses[name] = answer.status

    assert statuses == dict.fromkeys(refused, 401)
    assert await published() == []


async def test_delivery_that_was_tampered_with_is_401(street: Street, published: Published) -> None:
    """One byte more, less or other than what was signed is refused."""
    (signature,) = street.serving.signatures([BODY])
    for tampered in (BODY + b"\n", BODY[:-1], BODY.replace(b"never", b"Never"), b"\xef\xbb\xbf" + BODY):
        street.serving.signatures([tampered])  # so that the expected one is looked for in what the bridge prints
        assert (await exchange(street.serving.port, post(tampered, signature))).status == 401
    assert await published() == []


async def test_delivery_with_an_empty_body_is_taken_for_what_was_signed(street: Street, published: Published) -> None:
    """No length is a length of zero: authentic when nothing was signed, and then a dead letter."""
    (signature,) = street.serving.signatures([b""])

    answer = await exchange(street.serving.port, request("POST", PATH, f"X-Hub-Signature-256: {signature}"))

    assert answer.status == 200
    assert [record.topic_field for record in await published()] == ["dead_letter"]


@pytest.mark.parametrize("headers", [(), ("X-Hub-Signature-256: nonsense",), ("Expect: 100-continue",)])
async def test_body_declared_too_large_is_413_at_once(
    street: Street, published: Published, headers: tuple[str, ...]
) -> None:
    """Before anything is read or checked, and without an invitation to send it."""
    too_large = f"Content-Length: {BODY_BYTES_MAX + 1}"
    async with Connection.open(street.serving.port) as connection:
        await connection.send(request("POST", PATH, too_large, *headers))
        answer = await connection.answer()
        assert answer.status == 413
        assert await connection.until_closed() == b""
    assert await published() == []


async def test_body_of_the_largest_size_is_taken_and_one_byte_more_is_413(street: Street, published: Published) -> None:
    """The limit is exact, declared or chunked, and an upload that goes on does not cost the client its answer."""
    fits = b"x" * BODY_BYTES_MAX
    too_large = fits + b"x"
    signatures = street.serving.signatures([fits, too_large])
    chunked_headers = [("Transfer-Encoding: chunked", f"X-Hub-Signature-256: {signature}") for signature in signatures]
    requests = [
        post(fits, signatures[0]),
        post(too_large, signatures[1]),
        request("POST", PATH, *chunked_headers[0], body=chunked([fits[:1000], fits[1000:]])),
        request("POST", PATH, *chunked_headers[1], body=chunked([too_large[:1000], too_large[1000:]])),
        request("POST", PATH, *chunked_headers[1], body=chunked([too_large[:60_000]] * 20)),
    ]

    statuses = [(await exchange(street.serving.port, each)).status for each in requests]

    assert statuses == [200, 413, 200, 413, 413]
    assert [record.topic_field for record in await published()] == ["dead_letter"] * 2


async def test_body_that_is_compressed_is_415(street: Street, published: Published) -> None:
    """Meta sends plain bytes; a small bomb must not become a large body."""
    bomb = gzip.compress(b" " * 10_000_000 + BODY)
    for coding in ("gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"):
        answer = await exchange(street.serving.port, street.serving.signed(bomb, f"Content-Encoding: {coding}"))
        assert answer.status == 415, coding
    assert await published() == []


async def test_body_in_identity_coding_is_taken(street: Street, published: Published) -> None:
    """Identity is no coding."""
    answer = await exchange(street.serving.port, street.serving.signed(BODY, "Content-Encoding: identity"))

    assert answer.status == 200
    assert len(await published()) == 1


async def test_expectation_of_meta_is_met_before_the_body_is_sent(street: Street, published: Published) -> None:
    """A client that asks first is told to go on, then gets its answer."""
    body = notification(message("expected"))
    head, _, _ = street.serving.signed(body, "Expect: 100-continue").partition(b"\r\n\r\n")
    async with Connection.open(street.serving.port) as connection:
        await connection.send(head + b"\r\n\r\n")
        assert (await connection.answer()).status == 100
        await connection.send(body)
        assert (await connection.answer()).status == 200
        await connection.send(street.serving.signed(body))
        assert (await connection.answer()).status == 200
    assert len(await published()) == 2


async def test_expectation_of_an_unsigned_client_is_refused_without_its_body(
    street: Street, published: Published
) -> None:
    """Who could not be authentic is not asked for a body."""
    expecting = request("POST", PATH, "Content-Length: 500", "Expect: 100-continue")
    assert (await exchange(street.serving.port, expecting)).status == 401
    assert await published() == []


async def test_delivery_over_http_1_0_is_answered_and_closed(street: Street, published: Published) -> None:
    """An old proxy in front of us works: no 100, no chunks, and the end of the connection ends the answer."""
    body = notification(message("old"))
    (signature,) = street.serving.signatures([body])
    whole = post(body, signature, "Expect: 100-continue", version="HTTP/1.0")
    async with Connection.open(street.serving.port) as connection:
        await connection.send(whole.removesuffix(body))
        await exchange(street.serving.port, request("GET", "/"))  # by then it has seen the head
        await connection.send(body)
        assert (await connection.answer()).status == 200
        assert await connection.until_closed() == b""
    assert len(await published()) == 1

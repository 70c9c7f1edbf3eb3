"""Where a request ends: what is clear is read as it was meant, what could be read in two ways is refused.

Every refused shape holds a complete, rightly signed delivery, often two: a server that found one would publish it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.http.wire import MARKER, PATH, Connection, chunked, exchange, openssl_signatures, post, request
from tests.kafka.reading import Record
from tests.kafka.serving import APP_SECRET, Street, message, notification

Published = Callable[[], Awaitable[list[Record]]]

BODY = notification(message("framed"))
CHUNKS = chunked([BODY])
SIGNED, SIGNED_CHUNKS = (f"X-Hub-Signature-256: {each}" for each in openssl_signatures([BODY, CHUNKS], APP_SECRET))
TE, CL = "Transfer-Encoding: chunked", f"Content-Length: {len(BODY)}"
SMUGGLED = request("POST", PATH, SIGNED, CL, body=BODY)


def raw(*lines: str, body: bytes = BODY, end: str = "\r\n") -> bytes:
    """A request of these lines, nothing added."""
    return (end.join(lines) + end + end).encode("latin-1") + body


HOST = "Host: bridge.test"
LINE = f"POST {PATH} HTTP/1.1"
AMBIGUOUS = {
    # Two framings: RFC 9112 section 6.3 calls it a likely attempt at request smuggling.
    "length and chunks, length right": raw(LINE, HOST, SIGNED, f"Content-Length: {len(CHUNKS)}", TE, body=CHUNKS),
    "chunks and length, length right": raw(LINE, HOST, SIGNED, TE, f"Content-Length: {len(CHUNKS)}", body=CHUNKS),
    "length and chunks, signed as length": raw(
        *(LINE, HOST, SIGNED_CHUNKS, f"Content-Length: {len(CHUNKS)}", TE), body=CHUNKS
    ),
    "length and chunks, zero length": raw(LINE, HOST, SIGNED, "Content-Length: 0", TE, body=CHUNKS),
    "chunks ended, length longer": raw(
        *(LINE, HOST, SIGNED, TE, f"Content-Length: {len(SMUGGLED) + 5}"), body=b"0\r\n\r\n" + SMUGGLED
    ),
    "two lengths": raw(LINE, HOST, SIGNED, CL, "Content-Length: 0", body=BODY + SMUGGLED),
    "two lengths, first zero": raw(LINE, HOST, SIGNED, "Content-Length: 0", CL),
    "two equal lengths": raw(LINE, HOST, SIGNED, CL, CL),
    "lengths in one line": raw(LINE, HOST, SIGNED, f"{CL}, {len(BODY)}"),
    # Lengths that parsers read differently.
    **{
        f"length {shape!r}": raw(LINE, HOST, SIGNED, f"Content-Length: {shape}")
        for shape in (
            *("", "-1", f"+{len(BODY)}", f"{len(BODY)}.0", f"0x{len(BODY):x}", "1e2", "1 0", "1_0", f"{len(BODY)}a"),
            *(f'"{len(BODY)}"', f"{len(BODY)};", "\xb2\xb3", f"{2**64}", f"{2**64 + len(BODY)}", f"{10**40}"),
        )
    },
    # Codings other than exactly `chunked`.
    **{
        f"coding {shape!r}": raw(LINE, HOST, SIGNED, f"Transfer-Encoding: {shape}", body=CHUNKS)
        for shape in (
            *("", "identity", "xchunked", "chunked, chunked", "chunked, identity", "chunked;q=1", '"chunked"'),
            *("gzip, chunked", "chunked gzip", "\x0bchunked", "chunked\x0b", "\x00chunked", "chunke\xe4", "chunk"),
        )
    },
    "two codings": raw(LINE, HOST, SIGNED, TE, "Transfer-Encoding: identity", body=CHUNKS),
    "chunked twice": raw(LINE, HOST, SIGNED, TE, TE, body=CHUNKS),
    # Header lines that some servers skip, join or mend.
    "space before colon": raw(LINE, HOST, SIGNED, "Transfer-Encoding : chunked", body=CHUNKS),
    "space before colon of the length": raw(LINE, HOST, SIGNED, f"Content-Length : {len(BODY)}"),
    "tab before colon": raw(LINE, HOST, SIGNED, "Transfer-Encoding\t: chunked", body=CHUNKS),
    "folded value": raw(LINE, HOST, SIGNED, "Transfer-Encoding:", " chunked", body=CHUNKS),
    "folded line": raw(LINE, HOST, SIGNED, CL, "X-A: b", "\tc"),
    "space before the first header": raw(LINE, f" {HOST}", SIGNED, CL),
    "no colon": raw(LINE, HOST, SIGNED, CL, "X-A"),
    "no name": raw(LINE, HOST, SIGNED, CL, ": b"),
    "NUL in a name": raw(LINE, HOST, SIGNED, CL, "X-\x00A: b"),
    "NUL in a value": raw(LINE, HOST, SIGNED, CL, f"X-A: b\x00{MARKER}"),
    "control in a value": raw(LINE, HOST, SIGNED, CL, "X-A: b\x01"),
    "non-ASCII name": raw(LINE, HOST, SIGNED, CL, "X-\xc3\xa4: b"),
    "bracket in a name": raw(LINE, HOST, SIGNED, CL, "X(A): b"),
    "CR in a value": raw(LINE, HOST, SIGNED, CL, f"X-A: b\r{TE}"),
    # Line ends.
    "bare LF": raw(LINE, HOST, SIGNED, CL, end="\n"),
    "bare CR": raw(LINE, HOST, SIGNED, CL, end="\r"),
    "one bare LF": raw(LINE, HOST, SIGNED, f"X-A: b\n{CL}"),
    "CR CR LF": raw(LINE, HOST, SIGNED, CL, end="\r\r\n"),
    # Hosts and request lines.
    "no host": raw(LINE, SIGNED, CL),
    "two hosts": raw(LINE, HOST, "Host: other.test", SIGNED, CL),
    "HTTP/0.9": raw(f"POST {PATH}", HOST, SIGNED, CL),
    "HTTP/2.0": raw(f"POST {PATH} HTTP/2.0", HOST, SIGNED, CL),
    "HTTP/1.10": raw(f"POST {PATH} HTTP/1.10", HOST, SIGNED, CL),
    "HTTP/9.9": raw(f"POST {PATH} HTTP/9.9", HOST, SIGNED, CL),
    "http/1.1": raw(f"POST {PATH} http/1.1", HOST, SIGNED, CL),
    "version with more": raw(f"POST {PATH} HTTP/1.1 x", HOST, SIGNED, CL),
    "space in the target": raw(f"POST {PATH} HTTP/1.1 {PATH} HTTP/1.1", HOST, SIGNED, CL),
    "tab for a space": raw(f"POST\t{PATH}\tHTTP/1.1", HOST, SIGNED, CL),
    # Too much of anything.
    "129 headers": raw(LINE, HOST, SIGNED, CL, *(f"X-{number}: {MARKER}" for number in range(129))),
    "long target": raw(f"POST {PATH}?{'a' * 10_000} HTTP/1.1", HOST, SIGNED, CL),
    "long name": raw(LINE, HOST, SIGNED, CL, f"{'X' * 10_000}: b"),
    "long value": raw(LINE, HOST, SIGNED, CL, f"X-A: {'b' * 10_000}"),
    # Chunks. A length that wraps around, or is read to its first odd character, ends the body elsewhere.
    **{
        f"chunk size {shape!r}": raw(
            *(LINE, HOST, SIGNED, TE), body=f"{shape}\r\n".encode("latin-1") + BODY + b"\r\n0\r\n\r\n" + SMUGGLED
        )
        for shape in (
            *("", "zz", f"-{len(BODY):x}", f"+{len(BODY):x}", f"0x{len(BODY):x}", f"{len(BODY):x} ", f" {len(BODY):x}"),
            *(f"{len(BODY):x}g", f"{len(BODY):x}\x00", f"{2**64 + len(BODY):x}", f"{2**128:x}", f"{len(BODY):x}\n"),
            *(f"{len(BODY):x}\t", f"{len(BODY):x}\x0b", f"{len(BODY):x};a\n", f"{len(BODY):x},1", "\xb2"),
        )
    },
    "chunk size with bare LF": raw(LINE, HOST, SIGNED, TE, body=CHUNKS.replace(b"\r\n", b"\n")),
    "chunk longer than its size": raw(
        *(LINE, HOST, SIGNED, TE), body=f"{len(BODY) - 1:x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n" + SMUGGLED
    ),
    "chunk without its end": raw(
        *(LINE, HOST, SIGNED, TE), body=f"{len(BODY):x}\r\n".encode() + BODY + b"0\r\n\r\n" + SMUGGLED
    ),
    "chunk with LF for its end": raw(
        *(LINE, HOST, SIGNED, TE), body=f"{len(BODY):x}\r\n".encode() + BODY + b"\n0\r\n\r\n" + SMUGGLED
    ),
    "length in a trailer": raw(LINE, HOST, SIGNED, TE, body=CHUNKS[:-2] + b"Content-Length: 3\r\n\r\n" + SMUGGLED),
    "trailer that is no header": raw(LINE, HOST, SIGNED, TE, body=CHUNKS[:-2] + b"x y\x00\r\n\r\n" + SMUGGLED),
    "chunks over HTTP/1.0": raw(f"POST {PATH} HTTP/1.0", HOST, SIGNED, TE, body=CHUNKS),
}


@pytest.mark.parametrize("shape", AMBIGUOUS)
async def test_request_that_could_be_read_in_two_ways_is_refused(
    street: Street, published: Published, shape: str
) -> None:
    """One answer, 4xx, then the connection is closed, and nothing of what was in it is published."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(AMBIGUOUS[shape])
        await connection.end()
        answer = await connection.answer()
        assert 400 <= answer.status < 500
        assert await connection.until_closed() == b"", "one request, one answer"
    assert await published() == []


@pytest.mark.parametrize("shape", ["two lengths", "coding 'xchunked'", "bare LF", "chunk size 'zz'", "129 headers"])
async def test_request_that_is_refused_does_not_harm_the_one_before_it(
    street: Street, published: Published, shape: str
) -> None:
    """In one segment: what is answered 200 is published once, the broken one is refused, what follows is not read."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(street.serving.signed(BODY) + AMBIGUOUS[shape] + SMUGGLED)
        await connection.end()
        statuses = [(await connection.answer()).status]
        if statuses == [200]:
            statuses.append((await connection.answer()).status)
        assert await connection.until_closed() == b""
    assert statuses in ([200, 400], [400])
    assert len(await published()) == statuses.count(200)


@pytest.mark.parametrize(
    "delivery",
    {
        "one chunk": raw(LINE, HOST, SIGNED, TE, body=CHUNKS),
        "chunks of a byte": raw(LINE, HOST, SIGNED, TE, body=chunked([bytes([byte]) for byte in BODY])),
        "capitals": raw(LINE, HOST.upper(), SIGNED.upper().replace("SHA256", "sha256"), TE.upper(), body=CHUNKS),
        "chunk extensions": raw(LINE, HOST, SIGNED, TE, body=chunked([BODY], extension=';a=b;c="d e"')),
        "long chunk extension": raw(LINE, HOST, SIGNED, TE, body=chunked([BODY], extension=f";a={'b' * 5000}")),
        "trailers": raw(LINE, HOST, SIGNED, TE, body=chunked([BODY], trailers=["X-A: b", "X-C:"])),
        "leading zeros": raw(LINE, HOST, SIGNED, TE, body=b"0000" + CHUNKS),
        "length with zeros": raw(LINE, HOST, SIGNED, f"Content-Length: 000{len(BODY)}"),
        "length with more zeros than int reads": raw(LINE, HOST, SIGNED, f"Content-Length: {'0' * 5000}{len(BODY)}"),
        "spaces around values": raw(LINE, HOST, SIGNED.replace(": ", ":\t ") + " \t", f"{CL}  "),
        "blank line first": b"\r\n" + raw(LINE, HOST, SIGNED, CL),
        "128 headers": raw(LINE, HOST, SIGNED, CL, *(f"X-{number}: b" for number in range(125))),
    }.items(),
    ids=lambda delivery: delivery[0],
)
async def test_request_in_an_unusual_but_clear_form_is_taken(
    street: Street, published: Published, delivery: tuple[str, bytes]
) -> None:
    """What RFC 9112 allows and leaves no doubt about is a delivery like any other, and so is the next one."""
    async with Connection.open(street.serving.port) as connection:
        for _ in range(2):
            await connection.send(delivery[1])
            assert (await connection.answer()).status == 200
    assert len(await published()) == 2


async def test_signature_in_a_trailer_does_not_count(street: Street, published: Published) -> None:
    """What comes after the body cannot vouch for it, nor change what stood before."""
    unsigned = request("POST", PATH, TE, body=chunked([BODY], trailers=[SIGNED]))
    wrong = SIGNED[:-64] + "0" * 64
    wrongly_signed = request("POST", PATH, TE, wrong, body=chunked([BODY], trailers=[SIGNED]))

    assert (await exchange(street.serving.port, unsigned)).status == 401
    assert (await exchange(street.serving.port, wrongly_signed)).status == 401
    assert await published() == []


async def test_trailer_does_not_count_for_the_next_request(street: Street, published: Published) -> None:
    """It belongs to nobody: in one segment with that request, and before it."""
    first = raw(LINE, HOST, SIGNED, TE, body=CHUNKS[:-2])
    trailed = first + f"X-A: b\r\n{SIGNED}\r\n\r\n".encode()
    unsigned = request("POST", PATH, CL, body=BODY)
    for segments in ([trailed + unsigned], [trailed, unsigned]):
        async with Connection.open(street.serving.port) as connection:
            statuses = []
            for segment in segments:
                await connection.send(segment)
                statuses += [(await connection.answer()).status for _ in range(3 - len(segments))]
            assert statuses == [200, 401]
    assert len(await published()) == 2


async def test_request_inside_a_body_is_only_a_body(street: Street, published: Published) -> None:
    """A delivery in the body of a GET, of a refused POST or of one to another path is never read as a request."""
    hiding = [
        request("GET", PATH, f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        request("GET", "/", TE, body=chunked([SMUGGLED])),
        request("PUT", PATH, f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
        post(SMUGGLED, None),
        post(SMUGGLED, None, target="/elsewhere"),
        post(SMUGGLED, "sha256=" + "0" * 64),
        request("POST", PATH, "Content-Length: 0", SIGNED, body=SMUGGLED.replace(b"HTTP/1.1", b"HTTP/1.x")),
    ]
    for hidden in hiding:
        async with Connection.open(street.serving.port) as connection:
            await connection.send(hidden)
            await connection.end()
            assert 400 <= (await connection.answer()).status < 500
            rest = await connection.until_closed()
            assert rest == b"" or rest.startswith(b"HTTP/1.1 400 "), rest
    assert await published() == []


async def test_pipelined_deliveries_are_answered_and_published_in_order(street: Street, published: Published) -> None:
    """A hundred requests in one segment, good and bad: the answers are in their order, and so are the records."""
    bodies = [notification(message(f"pipelined-{number:03}")) for number in range(100)]
    signatures = street.serving.signatures(bodies)
    good = [post(*each) for each in zip(bodies, signatures, strict=True)]
    mixed = [
        each if number % 10 else post(bodies[number], None) if number % 20 else request("GET", "/nowhere")
        for number, each in enumerate(good)
    ]
    async with Connection.open(street.serving.port) as connection:
        await connection.send(b"".join(mixed))
        await connection.end()
        answers = [await connection.answer() for _ in mixed]
        assert await connection.until_closed() == b""

    assert [answer.status for answer in answers] == [
        200 if number % 10 else 401 if number % 20 else 404 for number in range(100)
    ]
    taken = [answer.headers["x-delivery-id"] for answer in answers if answer.status == 200]
    assert [record.delivery_id for record in sorted(await published(), key=lambda record: record.offset)] == taken


async def test_delivery_in_single_bytes_is_taken(street: Street, published: Published) -> None:
    """Segments may be cut anywhere."""
    delivery = street.serving.signed(BODY)
    async with Connection.open(street.serving.port) as connection:
        await connection.send(*(bytes([byte]) for byte in delivery * 2))
        assert [(await connection.answer()).status for _ in range(2)] == [200, 200]
    assert len(await published()) == 2


async def test_connection_is_kept_or_closed_as_the_client_asks(street: Street, published: Published) -> None:
    """HTTP/1.1 keeps it unless told otherwise, and what follows a last request is not read."""
    async with Connection.open(street.serving.port) as connection:
        for _ in range(3):
            await connection.send(street.serving.signed(BODY))
            assert (await connection.answer()).status == 200
        await connection.send(street.serving.signed(BODY, "Connection: close") + b"\r\n")
        assert (await connection.answer()).status == 200
        await connection.send(SMUGGLED)
        assert await connection.until_closed() == b""
    assert len(await published()) == 4


async def test_request_behind_the_last_one_is_not_read(street: Street, published: Published) -> None:
    """After `Connection: close` nothing is a request, even in the same segment."""
    async with Connection.open(street.serving.port) as connection:
        await connection.send(street.serving.signed(BODY, "Connection: close") + SMUGGLED)
        answer = await connection.answer()
        assert answer.status in (200, 400)
        assert await connection.until_closed() == b""
    assert len(await published()) == (answer.status == 200)

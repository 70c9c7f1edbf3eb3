"""HTTP messages: a request as aiohttp's parser gives it, an answer as it goes over the wire. Does no IO.

What the parser gives is as private as the parser (bridge.adapters.http), and pinned with it; who serves requests sees only
what `Request` shows.
"""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from time import time

from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EMPTY_PAYLOAD, StreamReader
from multidict import MultiMapping

from bridge.errors import BadRequest, ExpectationFailed, MethodNotAllowed, Refused

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client waits for that asks before it sends a body."""

_VERSIONS = (HttpVersion11, HttpVersion10)
_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    417: "Expectation Failed",
    503: "Service Unavailable",
}
_COMMON = b"Server: instagram-bridge\r\nContent-Type: text/plain\r\nX-Content-Type-Options: nosniff\r\n"
"""On every answer. The name without a version: aiohttp's default tells its own and Python's."""


class Request:
    """A request's head, and its body as far as it has arrived.

    Attributes:
        method, path: as on the request line; the path with its query.
        headers: case-insensitive, repeated ones kept.
        declared_bytes: Content-Length; 0 without one.
        delivery_id: given by the service to what is a delivery; sent with the answer.
        claimed_digest: what the service read of its signature.
        completed_s: when its body was complete, by the monotonic clock; set by the service.
    """

    __slots__ = (
        "_body",
        "_message",
        "claimed_digest",
        "completed_s",
        "declared_bytes",
        "delivery_id",
        "headers",
        "method",
        "path",
    )

    def __init__(self, message: RawRequestMessage, body: StreamReader) -> None:
        self._message = message
        self._body = body
        self.method = message.method
        self.path = message.path
        self.headers = message.headers
        # The parser let nothing but digits pass, of a number below 2^64; of zeros before it any, which int() does not (4,300 digits).
        self.declared_bytes = int(self.headers.get("Content-Length", "").lstrip("0") or 0)
        self.delivery_id: str | None = None
        self.claimed_digest = b""
        self.completed_s = 0.0

    @property
    def query(self) -> MultiMapping[str]:
        """The query's parameters, decoded."""
        return self._message.url.query

    @property
    def is_last(self) -> bool:
        """Whether its client wants the connection closed after the answer."""
        return self._message.should_close

    def refuse_ambiguity(self) -> None:
        """Refuse what the parser lets through and a proxy before us might read differently (RFC 9112 sections 6.1, 6.3, 11.2).

        Raises:
            BadRequest: that is so.
        """
        version = self._message.version
        if version not in _VERSIONS or self._message.upgrade:
            raise BadRequest("no other protocol is spoken here")
        coding = self.headers.get("Transfer-Encoding")
        if coding is not None and (coding.lower() != "chunked" or version < HttpVersion11):
            raise BadRequest("no other transfer coding than chunked, and none over HTTP/1.0")

    def expects_continue(self) -> bool:
        """Whether its client waits for `CONTINUE`.

        Raises:
            ExpectationFailed: it expects anything else.
        """
        expected = self.headers.get("Expect")
        if expected is None or self._message.version < HttpVersion11:
            return False
        if expected.lower() != "100-continue":
            raise ExpectationFailed("only 100-continue can be expected")
        return not self.is_whole()

    def is_whole(self) -> bool:
        """Whether all of the body has arrived and is read."""
        return self._body.is_eof()

    def read(self) -> bytes:
        """What has arrived of the body since the last look."""
        # As StreamReader.read_nowait, without its counting and pausing: the connection has bounds of its own.
        if self._body is EMPTY_PAYLOAD:
            return b""
        buffer = self._body._buffer  # noqa: SLF001 - see the module
        chunk = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        buffer.clear()
        ends = self._body._http_chunk_splits  # noqa: SLF001 - as above: an int for every chunk, however small, and nobody asks
        if ends:
            ends.clear()
        return chunk

    def answered(self, status: int, text: bytes, headers: bytes, *, last: bool) -> bytes:
        """The answer to this request; see `answer`."""
        if self.method == "HEAD":
            text = b""
        if self.delivery_id is not None:
            headers += b"X-Delivery-Id: " + self.delivery_id.encode() + b"\r\n"
        if not last and self._message.version < HttpVersion11:
            headers += b"Connection: keep-alive\r\n"
        return answer(status, text, headers, last=last)


def answer(status: int, text: bytes, headers: bytes, *, last: bool) -> bytes:
    """An answer's bytes.

    Args:
        status: one of those that the service gives.
        text: its body.
        headers: lines, each with its end.
        last: the connection is closed after it.
    """
    if last:
        headers += b"Connection: close\r\n"
    return b"%s%sContent-Length: %d\r\n\r\n%s" % (_head(status, int(time())), headers, len(text), text)


def refusal_headers(refused: Refused) -> bytes:
    """The lines that tell a refused client what it may do."""
    headers = b""
    if refused.retry_after_s is not None:
        headers += f"Retry-After: {refused.retry_after_s}\r\n".encode()
    if isinstance(refused, MethodNotAllowed):
        headers += b"Allow: GET, POST\r\n"
    return headers


@lru_cache(maxsize=len(_REASONS))  # of one second
def _head(status: int, now_s: int) -> bytes:
    """What every answer of a status begins with in one second."""
    date = f"Date: {formatdate(now_s, usegmt=True)}\r\n".encode()
    return b"HTTP/1.1 %d %s\r\n%s%s" % (status, _REASONS[status].encode(), _COMMON, date)

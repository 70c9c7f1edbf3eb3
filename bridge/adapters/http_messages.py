"""HTTP messages: the requests that a connection's bytes hold, and an answer as it goes over the wire. Does no IO.

llhttp reads the bytes (Node.js's parser, strict, by way of httptools): it refuses what could be read in two ways, such as two
lengths, a length with chunks, bare LF, obs-fold, NUL. What it lets through and a proxy before us might read otherwise is refused
here. tests/http holds all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from itertools import chain
from time import time
from typing import NoReturn
from urllib.parse import parse_qs

from httptools import HttpParserCallbackError, HttpParserError, HttpParserUpgrade, HttpRequestParser

from bridge.errors import BadRequest, ExpectationFailed, MethodNotAllowed, Refused

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
"""What a client waits for that asks before it sends a body."""

PIPELINED_MAX = 16
"""Requests read ahead of their turn; then the client has to wait. Meta pipelines none."""

HEADERS_MAX, LINE_BYTES_MAX = 128, 8190
"""Of a head: how many, and the longest target, name or value of one; Apache's LimitRequestLine, and aiohttp's."""

_PARSED_BYTES_MAX = 2048
"""At a time, beyond what is missing of a body: of the smallest requests there are 75 in it, half a kilobyte of objects each."""

_ONCE = frozenset(
    {
        *(b"host", b"content-length", b"transfer-encoding", b"content-encoding", b"content-type", b"content-range"),
        *(b"content-location", b"etag", b"max-forwards", b"server", b"user-agent"),
    }
)
"""Headers with one value (RFC 9110 section 5.3): of two, a proxy before us may take the other."""

_VERSIONS = ("1.1", "1.0")
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
"""On every answer."""

_WITHOUT_TEXT = b"Content-Length: 0\r\n\r\n"


class Request:
    """A request's head, and its body as far as it has arrived.

    Attributes:
        method, target: as on the request line; the target with its query.
        headers: by lower-case name, of each the first.
        declared_bytes: Content-Length; 0 without one.
        pieces: of the body, for `read`.
        missing_bytes: of a body of a declared length.
        is_whole: whether all of the body has arrived.
        is_last: whether its client wants the connection closed after the answer.
        delivery_id: given by the service to what is a delivery; sent with the answer.
        claimed_digest: what the service read of its signature.
        completed_s: when its body was complete, by the monotonic clock; set by the service.
    """

    is_whole = False
    delivery_id: str | None = None
    claimed_digest = b""
    completed_s = 0.0

    def __init__(
        self,
        method: bytes,
        target: bytes,
        version: str,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        is_last: bool,
        upgrades: bool,
    ) -> None:
        self.method = method
        self.target = target
        self.headers = found = dict(headers)
        self.is_last = is_last
        self.pieces: list[bytes] = []
        self._version = version
        self._upgrades = upgrades
        self._repeated: Sequence[tuple[bytes, bytes]] = ()
        if len(found) < len(headers):
            found.update(reversed(headers))
            self._repeated = headers
        # llhttp let nothing but digits pass, and blanks after them, of a number below 2^64; of zeros before it any, which int() does
        # not (4,300 digits).
        length = found.get(b"content-length")
        self.declared_bytes = self.missing_bytes = int(length.strip(b" \t").lstrip(b"0") or 0) if length else 0

    @property
    def path(self) -> bytes:
        """The target before its query."""
        return self.target.partition(b"?")[0]

    @property
    def query(self) -> dict[str, list[str]]:
        """The query's parameters, decoded."""
        query = self.target.partition(b"?")[2].partition(b"#")[0]
        return parse_qs(query.decode("utf-8", "surrogateescape"), keep_blank_values=True)

    def values(self, name: bytes) -> list[str]:
        """Every value of a header, in their order, without the whitespace around them."""
        if name not in self.headers:
            return []
        if self._repeated:
            return [value.strip(b" \t").decode("latin-1") for each, value in self._repeated if each == name]
        return [self.headers[name].strip(b" \t").decode("latin-1")]

    def refuse_ambiguity(self) -> None:
        """Refuse what a proxy before us might read differently (RFC 9110 section 5.3; RFC 9112 sections 3.2, 6.1, 6.3, 11.2).

        Raises:
            BadRequest: that is so.
        """
        if self._version not in _VERSIONS or self._upgrades:
            raise BadRequest("no other protocol is spoken here")
        coding = self.headers.get(b"transfer-encoding")
        if coding is not None and (coding.strip(b" \t").lower() != b"chunked" or self._version == "1.0"):
            raise BadRequest("no other transfer coding than chunked, and none over HTTP/1.0")
        if b"host" not in self.headers and self._version != "1.0":
            raise BadRequest("no Host")
        if self._repeated:
            names = [name for name, _ in self._repeated if name in _ONCE]
            if len(names) > len({*names}):
                raise BadRequest("a header twice that has one value")

    def expects_continue(self) -> bool:
        """Whether its client, which has sent Expect, waits for `CONTINUE`.

        Raises:
            ExpectationFailed: it expects anything else.
        """
        if self._version == "1.0":
            return False
        if [value.lower() for value in self.values(b"expect")] != ["100-continue"]:
            raise ExpectationFailed("only 100-continue can be expected")
        return not self.is_whole

    def read(self) -> bytes:
        """What has arrived of the body since the last look."""
        pieces = self.pieces
        if len(pieces) == 1:
            return pieces.pop()
        self.pieces = []
        return b"".join(pieces)

    def answered(self, status: int, text: bytes, headers: bytes, *, last: bool) -> bytes:
        """The answer to this request; see `answer`."""
        if text and self.method == b"HEAD":
            text = b""
        if self.delivery_id is not None:
            headers += b"X-Delivery-Id: " + self.delivery_id.encode() + b"\r\n"
        if not last and self._version == "1.0":
            headers += b"Connection: keep-alive\r\n"
        return answer(status, text, headers, last=last)


class Requests:
    """The requests of one connection: its bytes in, heads and bodies out.

    The methods that begin with ``on_`` are httptools' to call.

    Attributes:
        waiting: those whose head is whole, in their order, for the connection to take from.
        unparsed: what was fed and waits for its turn, because so many requests do.
    """

    def __init__(self) -> None:
        self.waiting: deque[Request] = deque()
        self.unparsed = b""
        self._http = HttpRequestParser(self)
        self._arriving: Request | None = None  # the last one, until it is whole
        self._target = b""  # of the head that is being read
        self._headers: list[tuple[bytes, bytes]] = []  # of the same; then what comes as trailers
        self._fed = self._began = 0  # pieces that the parser got, and those before the head
        self._fault: BadRequest | None = None  # of a callback; what httptools makes of an exception is its own

    @property
    def in_head(self) -> bool:
        """Whether a head has begun and is not whole."""
        return bool(self._target)

    def close(self) -> None:
        """Let the parser go, which knows us: together they, and all that it holds, would wait for the cyclic collector."""
        del self._http
        self.waiting.clear()

    def feed(self, data: bytes | memoryview) -> None:
        """Parse what arrived, until `PIPELINED_MAX` requests wait; the rest stays in ``unparsed``.

        Raises:
            BadRequest: that is not HTTP as RFC 9112 has it; the requests before it wait as they should.
        """
        if self.unparsed:
            data, self.unparsed = self.unparsed + data, b""
        size, at = len(data), 0
        if size <= _PARSED_BYTES_MAX and len(self.waiting) < PIPELINED_MAX:
            self._parse(data)
            return
        while at < size and len(self.waiting) < PIPELINED_MAX:
            until = at + _PARSED_BYTES_MAX
            if self._arriving is not None and self._arriving.missing_bytes > 0:
                until += self._arriving.missing_bytes
            self._parse(data[at:until])
            at = until
        self.unparsed = bytes(data[at:])

    def _parse(self, piece: bytes | memoryview) -> None:
        self._fed += 1
        try:
            self._http.feed_data(piece)
        except HttpParserCallbackError:
            if self._fault is None:
                raise
            raise self._fault from None
        except (HttpParserError, HttpParserUpgrade):
            raise BadRequest("not HTTP as RFC 9112 has it") from None
        if len(self._headers) > HEADERS_MAX:  # of a head, or of trailers, that may never be whole
            raise BadRequest("too many headers")

    def _refuse(self, what: str) -> NoReturn:
        self._fault = BadRequest(what)
        raise self._fault

    def on_url(self, target: bytes) -> None:
        """Take the request line's target, or a piece of it."""
        if not self._target:
            self._began = self._fed
            self._headers.clear()
        self._target += target

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a trailer, which nobody asks for."""
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """End the head: a request is there, and its body begins."""
        target, headers, http = self._target, self._headers, self._http
        self._target, self._headers = b"", []
        if len(headers) > HEADERS_MAX:
            self._refuse("too many headers")
        # What came in one piece is shorter.
        if self._fed > self._began and max(map(len, chain((target,), *headers))) > LINE_BYTES_MAX:
            self._refuse("too long a line")
        request = self._arriving = Request(
            http.get_method(),
            target,
            http.get_http_version(),
            headers,
            is_last=not http.should_keep_alive(),
            upgrades=http.should_upgrade(),
        )
        self.waiting.append(request)

    def on_body(self, piece: bytes) -> None:
        """Take a piece of the body."""
        request = self._arriving
        if request is not None:
            request.pieces.append(piece)
            request.missing_bytes -= len(piece)

    def on_message_complete(self) -> None:
        """End the body, and the trailers."""
        if len(self._headers) > HEADERS_MAX:
            self._refuse("too many trailers")
        if self._arriving is not None:
            self._arriving.is_whole = True
            self._arriving = None


def answer(status: int, text: bytes, headers: bytes, *, last: bool) -> bytes:
    """An answer's bytes.

    Args:
        status: one of those that the service gives.
        text: its body.
        headers: lines, each with its end.
        last: the connection is closed after it.
    """
    end = b"Content-Length: %d\r\n\r\n%s" % (len(text), text) if text else _WITHOUT_TEXT
    if last:
        end = b"Connection: close\r\n" + end
    return _head(status, int(time())) + headers + end


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

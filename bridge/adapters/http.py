"""One connection of HTTP/1.1: requests in order, answers in order, bounds on all.

Bytes become requests in `bridge.adapters.http_messages`. A connection is read one request at a time; a pipelined one waits for
the answer before it. Every state has a deadline, which the service looks at once a second for all connections together.
tests/http holds everything that this file promises.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol, cast, get_args

import structlog

from bridge.adapters.http_messages import CONTINUE, PIPELINED_MAX, Request, Requests, answer, refusal_headers
from bridge.errors import BadRequest, BodyTooLarge, Overloaded, Refused, RequestTooSlow
from bridge.intake import Acknowledger, Answer

_log = structlog.get_logger()

CONNECTIONS_MAX = 10_000
"""Open at one time; one more is told to come back. 10,000 idle ones take about 150 MB."""

HEAD_TIMEOUT_S = 10.0
"""For a request's line and headers, from its first byte. nginx gives a body's next byte 60 s and is often set to 10."""

HEAD_BYTES_MAX = 32 * 1024
"""Of a head, or of trailers, that have not arrived whole; nginx takes as much. Nothing else counts them. What begins in the same read as
something else counts from the next read on, so this is also what is read at a time."""

BODY_TIMEOUT_S = 10.0
"""For a whole body: 16 MiB at 13 Mbit/s. Meta itself gives up after five seconds."""

IDLE_TIMEOUT_S = 75.0
"""For the next request on a connection; above the usual 60 s of load balancers, so that they close first (nginx's default)."""

WRITE_TIMEOUT_S = 10.0
"""For a client to read its answers while our write buffer is full."""

LINGER_TIMEOUT_S = 2.0
"""For a refused upload to be thrown away: closing at once would reset the connection and lose the answer (RFC 9112 9.6)."""

_STEPS_A_TURN = 64
"""Of one connection, some two to a request, before it is the others' turn: a millisecond."""

_READ_BYTES_MAX = 256 * 1024
"""Of one read of a body, as asyncio has it. The loop reads for one connection at a time, so one buffer serves all: asyncio's own would
allocate as much for every read and cut it down, and leave the heap full of holes between the records."""

_read_buffer = memoryview(bytearray(_READ_BYTES_MAX))
_head_buffer = _read_buffer[:HEAD_BYTES_MAX]

_ACKNOWLEDGED_BY = {who: f"X-Acknowledged-By: {who}\r\n".encode() for who in get_args(Acknowledger)}

_NEVER = float("inf")


class Service(Protocol):
    """What a connection serves; `bridge.adapters.webhook` keeps it.

    Attributes:
        hold: counts bytes of a body that is being read, or raises Overloaded.
        release: counts them no more.
        acknowledged: hears of a delivery that is taken, and when its body was whole, before it is answered.
    """

    connections: set[Connection]
    stopping: bool
    body_bytes_max: int
    hold: Callable[[int], None]
    release: Callable[[int], None]
    acknowledged: Callable[[Acknowledger, float], None]

    def make_room(self, more_bytes: int, connection: Connection, overloaded: Overloaded) -> None:
        """Count bytes of a body that ``hold`` has refused, when somebody else can give way; raises Refused."""

    def begin(self, request: Request) -> bytes | None:
        """Look at a head: the text to answer 200 with, or None when the body is to be read; raises Refused."""

    def take(self, request: Request, body: bytes, answered: Answer) -> None:
        """Take a whole body; ``answered`` is called once, maybe before this returns."""

    def refused(self, request: Request | None, refused: Refused) -> None:
        """Hear of a refusal; ``request`` is None when there was no HTTP to read."""


class Connection(asyncio.BufferedProtocol):
    """One client. Its requests are taken one by one: read, handed over, answered; then the next.

    Attributes:
        deadline: when `expire` is due, by the loop's clock.
        writing_paused: the client does not read its answers.
    """

    def __init__(self, service: Service, loop: asyncio.AbstractEventLoop) -> None:
        self._service = service
        self._loop = loop
        self._transport: asyncio.Transport | None = None  # also when it is gone
        self._requests = Requests()
        self._request: Request | None = None  # whose body is being read, or whose answer is awaited
        self._chunks: list[bytes] = []
        self._held_bytes = 0
        self._head_bytes = 0  # of a head that has not arrived whole, or of what follows a body's last byte
        self._malformed: BadRequest | None = None  # what comes after the requests at hand: no HTTP, or too much of it
        self._awaiting = False  # the service has the body
        self._advancing = False
        self._ending = False  # the client sends no more
        self._lingering = False  # answered for the last time; what still arrives is thrown away
        self._held_back = False  # nothing is read: what was read already has to be taken first
        self._yielding = False  # to the other connections, for a turn of the loop
        self.deadline = _NEVER
        self.writing_paused = False

    # What the transport tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin, unless there are too many already."""
        self._transport = cast("asyncio.Transport", transport)
        self._service.connections.add(self)
        if len(self._service.connections) > CONNECTIONS_MAX:
            self._refuse(Overloaded("too many connections"))
        else:
            self.deadline = monotonic() + IDLE_TIMEOUT_S

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget what was not handed over; an answer that is still awaited will find no transport."""
        del exc
        self._transport = None
        self._service.connections.discard(self)
        self._requests.close()
        if not self._awaiting:
            self._request = None
            self._release()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Let the transport read into the buffer that all share."""
        del sizehint
        request = self._request
        if request is None:
            return _head_buffer
        return _read_buffer[: HEAD_BYTES_MAX + max(0, request.declared_bytes - self._held_bytes)]

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was read; the parser keeps copies."""
        self.data_received(_read_buffer[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        """Parse what arrived, and go on as far as it allows."""
        if self._lingering or self._malformed is not None:
            return
        early, requests = self._awaiting, self._requests
        waiting, in_head = len(requests.waiting), requests.in_head
        try:
            requests.feed(data)
        except BadRequest as malformed:
            self._malformed = malformed  # said when the requests at hand are answered
        except Exception as error:  # noqa: BLE001 - as in `_answered`
            self._fail(error)
            return
        if len(requests.waiting) == waiting and not early:
            if self._request is None and not self._head_bytes and not in_head:
                self.deadline = monotonic() + HEAD_TIMEOUT_S
            self._head_bytes += len(data)
            if self._request is None and self._head_bytes > HEAD_BYTES_MAX:
                self._malformed = BadRequest("the head is too large")
        if not self._advancing:
            self._advance()
        if (early and self._awaiting) or len(requests.waiting) >= PIPELINED_MAX:
            self._hold_back()

    def eof_received(self) -> bool:
        """Keep the transport for the answer of a client that has shut its sending side."""
        self._ending = True
        return self._awaiting

    def pause_writing(self) -> None:
        """Read no more from a client that does not read its answers: what it sends would be kept by nobody who counts."""
        self.writing_paused = True
        self.deadline = monotonic() + WRITE_TIMEOUT_S
        self._hold_back()

    def resume_writing(self) -> None:
        """Go on: the client has read its answers."""
        self.writing_paused = False
        # Not within the transport's own writing, which is not made for being closed there.
        self._loop.call_soon(self._advance)

    # What the service tells.

    def close_when_idle(self) -> None:
        """Close, unless a request is under way: that one closes when it is answered."""
        if self._request is None and not self._requests.waiting and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def unfinished_bytes(self) -> int:
        """What it holds of a body that is not whole yet."""
        return 0 if self._awaiting else self._held_bytes

    def give_way(self, refused: Refused) -> None:
        """Refuse a request whose body is being read."""
        self._refuse(refused, close=True)

    def expire(self) -> None:
        """Act on a deadline that is over: too slow a request gets its answer, everything else is closed."""
        self.deadline = _NEVER
        if self._lingering or self.writing_paused:
            self.abort()
        elif self._request is not None or self._head_bytes or self._requests.in_head:
            self._refuse(RequestTooSlow("the request did not arrive in time"), close=True)
        elif self._transport is not None:
            self._close(self._transport, linger=False)

    # One request after the other.

    def _advance(self) -> None:  # noqa: C901, PLR0912 - the states in one place; a call for each step took 4 % of a delivery
        """Go as far as what has arrived allows, or until it is the others' turn."""
        self._advancing = True
        self._yielding = False
        transport = self._transport
        steps = 0
        try:
            while not (
                self._awaiting or self._lingering or self.writing_paused or transport is None or transport.is_closing()
            ):
                steps += 1
                if steps > _STEPS_A_TURN:
                    self._yielding = True
                    self._hold_back()
                    self._loop.call_soon(self._advance)
                    return
                if self._request is not None:
                    if self._read_body(self._request):
                        continue
                    if self._malformed is None:
                        if self._ending:  # what is missing of the body never comes (found by tests/fuzz)
                            transport.close()
                        return
                    self._refuse(BadRequest("the body's framing is broken"), close=True)
                elif self._requests.waiting:
                    self._begin(self._requests.waiting.popleft())
                elif self._malformed is not None:
                    self._refuse(self._malformed, close=True)
                else:
                    if not self._head_bytes:
                        self.deadline = monotonic() + (HEAD_TIMEOUT_S if self._requests.in_head else IDLE_TIMEOUT_S)
                    return
        except Exception as error:  # noqa: BLE001 - as in `_answered`
            self._fail(error)
        finally:
            self._advancing = False
            if self._held_back:
                self._read_on()

    def _hold_back(self) -> None:
        """Read nothing until what was read is taken: the parser keeps it meanwhile, and counts nothing."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._held_back = True

    def _read_on(self) -> None:
        """Read again, once there is room for it."""
        full = self._awaiting or self.writing_paused or len(self._requests.waiting) > PIPELINED_MAX // 2
        if not full and not self._yielding and self._transport is not None:
            self._held_back = False
            self._transport.resume_reading()

    def _begin(self, request: Request) -> None:
        """Look at the next request's head, before any of its body is read."""
        self._request = request
        self._head_bytes = 0
        if self._requests.unparsed and len(self._requests.waiting) <= PIPELINED_MAX // 2:
            self.data_received(b"")
        try:
            request.refuse_ambiguity()
        except Refused as refused:  # who knows where the next one begins (RFC 9112 section 6.1)
            self._refuse(refused, close=True)
            return
        try:
            text = self._service.begin(request)
            if text is not None:
                self._answer(200, text)
                return
            if b"expect" in request.headers and request.expects_continue() and self._transport is not None:
                self._transport.write(CONTINUE)
        except Refused as refused:
            self._refuse(refused)
            return
        if request.is_whole:
            self._read_body(request)
        else:
            self.deadline = monotonic() + BODY_TIMEOUT_S

    def _read_body(self, request: Request) -> bool:
        """Take what has arrived of the body; when it is whole, hand it over. False while more must come."""
        chunk = request.read()
        try:
            if chunk:
                self._head_bytes = 0
                try:
                    self._service.hold(len(chunk))
                except Overloaded as overloaded:
                    self._service.make_room(len(chunk), self, overloaded)
                self._held_bytes += len(chunk)
                if self._held_bytes > self._service.body_bytes_max:
                    raise BodyTooLarge("the body is too large")
            if not request.is_whole:
                if self._head_bytes > HEAD_BYTES_MAX:
                    raise BadRequest("the trailers are too large")
                if chunk:
                    self._chunks.append(chunk)
                return False
            self._head_bytes = 0
            body = chunk
            if self._chunks:
                body, self._chunks = b"".join((*self._chunks, chunk)), []
            self._awaiting = True
            self.deadline = _NEVER
        except Refused as refused:
            self._refuse(refused)
        else:
            self._service.take(request, body, self._answered)
        return True

    def _answered(self, outcome: Acknowledger | Refused) -> None:
        """Answer, maybe before ``take`` has returned, maybe after the client is gone.

        Who calls has others to answer too, so what is wrong with this connection stays here.
        """
        self._awaiting = False
        try:
            if isinstance(outcome, Refused):
                self._refuse(outcome)
            elif self._request is not None:
                self._service.acknowledged(outcome, self._request.completed_s)
                self._answer(200, b"", _ACKNOWLEDGED_BY[outcome])
            if not self._advancing:
                self._advance()
        except Exception as error:  # noqa: BLE001 - a fault of ours, which nobody else is to pay for
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """End the connection; the error's text could hold what the client sent."""
        _log.error("connection_failed", error=type(error).__name__)
        self._lingering = True
        self.abort()

    def _refuse(self, refused: Refused, *, close: bool = False) -> None:
        self._service.refused(self._request, refused)
        text = refused.reason.replace("_", " ").encode()
        self._answer(refused.http_status, text, refusal_headers(refused), close=close)

    def _answer(self, status: int, text: bytes, headers: bytes = b"", *, close: bool = False) -> None:
        """Write an answer and make ready for the next request, or close; to a client that is gone, nothing."""
        request, transport = self._request, self._transport
        self._release()
        self._request = None
        if transport is None:
            return
        unread = request is None or not request.is_whole
        last = (
            close
            or unread
            or self._service.stopping
            or (self._ending and not self._requests.waiting and self._malformed is None)
        )
        if request is None:
            transport.write(answer(status, text, headers, last=last))
        else:
            last = last or request.is_last
            transport.write(request.answered(status, text, headers, last=last))
        if last:
            self._close(transport, linger=close or unread or self._malformed is not None)

    def _close(self, transport: asyncio.Transport, *, linger: bool) -> None:
        self._lingering = True
        self._requests.waiting.clear()
        if linger and transport.can_write_eof() and not self._ending:
            transport.write_eof()
            transport.resume_reading()
            self.deadline = monotonic() + LINGER_TIMEOUT_S
        else:
            transport.close()  # which waits for the client to read what is written, so it needs a deadline too
            self.deadline = monotonic() + WRITE_TIMEOUT_S

    def _release(self) -> None:
        self._service.release(self._held_bytes)
        self._held_bytes = 0
        self._chunks = []

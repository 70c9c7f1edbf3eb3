"""The public port: what is asked of the one path, and what becomes of it.

aiohttp's server spends more on its request, response and task than the whole street does (docs/decisions/0003-http.md has
the figures), so the port stands on a small protocol of our own, `bridge.adapters.http`, which knows HTTP and nothing of
Meta; this module knows Meta and calls the intake. No task and no future per request.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import re
import secrets
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from time import monotonic, time_ns

import structlog

from bridge.adapters.http import Connection
from bridge.adapters.http_messages import Request
from bridge.delivery import Delivery
from bridge.errors import (
    BadVerificationRequest,
    BodyEncoded,
    BodyTooLarge,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    Refused,
    WrongVerifyToken,
)
from bridge.intake import Acknowledger, Answer, Arrived
from bridge.signature import AppSecret, authenticate, claimed_digest
from bridge.telemetry import Telemetry
from bridge.tracing import Takes

PATH = "/webhooks/instagram"

_PATH, _SIGNATURE, _CONTENT_ENCODING = PATH.encode(), b"x-hub-signature-256", b"content-encoding"
_MISSING = ("",)
_CHALLENGE = re.compile(r"[0-9]{1,64}", re.ASCII)
_SWEEP_INTERVAL_S = 1.0
_STOP_INTERVAL_S = 0.02

_IDS_AT_ONCE = 256
"""Delivery ids made from one read of the kernel's randomness, which costs as much as everything else of an id."""

_TOGETHER_DELIVERIES, _TOGETHER_BYTES = 32, 64 * 1024
"""Deliveries that are taken together: 1 to 2 ms of work. More would leave Kafka idle meanwhile, fewer would be smaller batches."""

_STEP_INTERVAL_S = 0.001
"""Between the beginnings of two such steps, where the second is not full; the loop's timers make it two at most. A step and the flush that
follows cost a tenth of a millisecond, and the broker as much, however few deliveries are in them: at a third of full load half of all CPU."""

_STEP_INTERVAL_MAX_S = 0.005
"""With several workers, of which each has a part of the deliveries, and the broker as many flushes as all of them send: so long does Kafka's
own producer wait (linger.ms)."""

_log = structlog.get_logger()


def _random_ids() -> list[str]:
    drawn = secrets.token_bytes(16 * _IDS_AT_ONCE).hex()
    return [drawn[at : at + 32] for at in range(0, len(drawn), 32)]


_delivery_id = chain.from_iterable(iter(_random_ids, None)).__next__


class Webhook:
    """Serves the public port; an instance is the protocol factory for loop.create_server.

    Args:
        intake: takes authentic deliveries.
        app_secrets: the live ones; may be replaced while it runs.
        verify_token: what Meta must know; may be replaced too.
        body_bytes_max: the largest body.
        telemetry: counts.
        workers: processes that share the port.

    Attributes:
        step_interval_s: between the beginnings of two steps, where the second is not full.
    """

    def __init__(
        self,
        *,
        intake: Takes,
        app_secrets: Sequence[AppSecret],
        verify_token: str,
        body_bytes_max: int,
        telemetry: Telemetry,
        workers: int,
    ) -> None:
        self.app_secrets = app_secrets
        self.verify_token = verify_token
        self.connections: set[Connection] = set()
        self.stopping = False
        self.body_bytes_max = body_bytes_max
        self.step_interval_s = min(workers * _STEP_INTERVAL_S, _STEP_INTERVAL_MAX_S)
        self.hold: Callable[[int], None] = intake.hold
        self.release: Callable[[int], None] = intake.release
        self.acknowledged: Callable[[Acknowledger, float], None] = telemetry.acknowledged
        self._intake = intake
        self._telemetry = telemetry
        self._loop = asyncio.get_running_loop()
        self._arrived: deque[tuple[Request, bytes, int, Answer]] = deque()  # as many as the intake holds bytes for
        self._step: asyncio.Handle | None = None  # the next, or the one that is under way
        self._next_s = 0.0  # when it may begin although it is not full, by the monotonic clock; uvloop's own stands still for a turn
        self._sweep()

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, self._loop)

    @property
    def is_idle(self) -> bool:
        """Whether no connection is open, and no delivery waits for its step: not even one whose client is gone."""
        return not self.connections and not self._arrived

    async def stop(self, timeout_s: float) -> None:
        """Close idle connections, hand over what has arrived, let the clients have their answers; cut what is left when the time is over."""
        self.stopping = True
        for connection in list(self.connections):
            connection.close_when_idle()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not self.is_idle:  # noqa: ASYNC110 - once in a process's life
                    await asyncio.sleep(_STOP_INTERVAL_S)
        for connection in list(self.connections):
            connection.abort()
        self._sweeper.cancel()

    def make_room(self, more_bytes: int, connection: Connection, overloaded: Overloaded) -> None:
        """Count bytes of a body for which there is no room: whoever holds the most of an unfinished one gives way.

        Else a few clients that send large bodies slowly, and unsigned, would keep everybody else out.

        Raises:
            Refused: that is this connection, or nobody.
        """
        largest = max(self.connections, key=lambda each: each.unfinished_bytes)
        if largest.unfinished_bytes <= connection.unfinished_bytes + more_bytes:
            raise overloaded
        largest.give_way(overloaded)
        self.hold(more_bytes)

    def begin(self, request: Request) -> bytes | None:
        """Look at a request's head; the body is not read yet.

        Returns:
            The text of the answer to a verification request; None for a delivery, whose body is to be read.

        Raises:
            Refused: with the reason.
        """
        if request.target != _PATH and request.path != _PATH:  # noqa: PLR1714 - the second only where the first is another
            raise NotFound("there is one path")
        if request.method == b"POST":
            request.delivery_id = _delivery_id()
            if request.declared_bytes > self.body_bytes_max:
                raise BodyTooLarge("the declared body is too large")
            request.claimed_digest = claimed_digest(request.values(_SIGNATURE))
            if _CONTENT_ENCODING in request.headers and request.values(_CONTENT_ENCODING)[0].lower() != "identity":
                raise BodyEncoded("the body is compressed")
            return None
        if request.method == b"GET":
            challenge = self._challenge(request)
            self._telemetry.verification_requests.labels("accepted").inc()
            return challenge
        raise MethodNotAllowed("only GET and POST")

    def take(self, request: Request, body: bytes, answered: Answer) -> None:
        """Take a whole body; ``answered`` is called once, later."""
        completed_s = request.completed_s = monotonic()
        self._arrived.append((request, body, time_ns() // 1_000_000, answered))
        if self._step is None and completed_s < self._next_s:
            self._step = self._loop.call_later(self._next_s - completed_s, self._take_some)
        elif self._step is None or len(self._arrived) == _TOGETHER_DELIVERIES:
            self._take_soon()

    def _take_soon(self) -> None:
        """Let the next step begin in the next turn of the loop, if there is anything for it."""
        if self._step is not None:
            self._step.cancel()
        self._step = self._loop.call_soon(self._take_some) if self._arrived else None

    def _take_some(self) -> None:
        """Authenticate what has arrived meanwhile, and hand it to the intake together, in its order.

        In bounded steps, so that Kafka has the first of them while the next are worked on.
        """
        authentic: list[Arrived] = []
        self._next_s = monotonic() + self.step_interval_s
        try:
            self._authenticate_some(authentic)
        finally:  # whatever became of one, the others are not to wait for ever
            self._take_soon()  # this step was full, if something is left
            if authentic:
                self._telemetry.authenticated([delivery for delivery, _ in authentic])
                self._intake.take(authentic)

    def _authenticate_some(self, authentic: list[Arrived]) -> None:
        waiting, deliveries, body_bytes = self._arrived, 0, 0
        while waiting and deliveries < _TOGETHER_DELIVERIES and body_bytes < _TOGETHER_BYTES:
            request, body, received_at, answered = waiting.popleft()
            deliveries += 1
            body_bytes += len(body)
            try:
                label = authenticate(body, claimed_digest=request.claimed_digest, app_secrets=self.app_secrets)
            except Refused as refused:
                answered(refused)
                continue
            authentic.append((Delivery(body, received_at, request.delivery_id or "", label), answered))

    def refused(self, request: Request | None, refused: Refused) -> None:
        """Count and log a refusal; ``request`` is None when there was no HTTP to read."""
        delivery_id = request and request.delivery_id
        verification = request is not None and request.method == b"GET" and not isinstance(refused, NotFound)
        self._telemetry.refused(refused.reason, delivery=delivery_id is not None, verification=verification)
        if delivery_id is not None:
            _log.warning("delivery_refused", delivery_id=delivery_id, reason=refused.reason)

    def _challenge(self, request: Request) -> bytes:
        query = request.query
        token = query.get("hub.verify_token", _MISSING)[0].encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(token, self.verify_token.encode()):
            raise WrongVerifyToken("hub.verify_token is missing or wrong")
        challenge = query.get("hub.challenge", _MISSING)[0]
        if query.get("hub.mode", _MISSING)[0] != "subscribe" or not _CHALLENGE.fullmatch(challenge):
            raise BadVerificationRequest("hub.mode is not subscribe, or hub.challenge is not 1 to 64 digits")
        return challenge.encode()

    def _sweep(self) -> None:
        """Once a second: the connections that are over their deadline."""
        self._sweeper = self._loop.call_later(_SWEEP_INTERVAL_S, self._sweep)
        now = monotonic()
        for connection in [each for each in self.connections if each.deadline < now]:
            connection.expire()

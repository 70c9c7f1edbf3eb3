"""Signed POSTs as Meta sends them: in order within each conversation, repeated byte for byte until answered 200.

A delivery leaves only after every earlier one that shares a conversation or account with it was answered or given up;
all others go side by side. An answer that is not 200 is no answer: the same bytes come again, less and less often.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self

import aiohttp

from bridge.local.meta.deliveries import Delivery
from bridge.local.meta.signing import SIGNATURE_HEADER, signature
from bridge.local.meta.truth import Ledger

DEFAULT_URL = "http://127.0.0.1:8080/webhooks/instagram"

CONNECTIONS_MAX = 32
"""Posts at one time: enough to fill a bridge on this machine, few enough for its file descriptors."""

ANSWER_WAIT_S = 5.0
"""Meta's own limit for an answer (Messenger Platform, "Webhooks")."""

RETRY_FOR_S = 60.0
"""How long a delivery is repeated where nothing else is asked; Meta does for 36 hours."""

# Meta retries at once, then less often; its own waits are not published.
_RETRY_WAITS_S = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
# Deliveries that wait for their turn, per connection: more would only use memory while the receiver is away.
_WAITING_PER_CONNECTION = 8
# The p50 and p99 are those of the latest posts: a run may last for days.
_LATENCIES_MAX = 100_000
# A sender that fell behind its rate goes on from now instead of catching up in a burst.
_BEHIND_S_MAX = 1.0


@dataclass(frozen=True)
class Answer:
    """What came back for one post.

    Attributes:
        status: HTTP status; None when nothing answered.
        delivery_id: `X-Delivery-Id`, where it was given.
        acknowledged_by: `X-Acknowledged-By`, where it was given.
        milliseconds: from the first byte sent to the answer read.
        problem: why nothing answered, in a few words.
    """

    status: int | None
    delivery_id: str | None
    acknowledged_by: str | None
    milliseconds: float
    problem: str | None = None

    @property
    def is_safe(self) -> bool:
        """Only 200 says that every event of the delivery is safe."""
        return self.status == 200  # noqa: PLR2004 - HTTP's own number


@dataclass
class Tally:
    """What was sent so far, and how it was answered; `last_refusal` is the latest answer that was not 200."""

    deliveries: int = 0
    events: int = 0
    posts: int = 0
    given_up: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    last_refusal: Answer | None = None
    latencies_ms: deque[float] = field(default_factory=lambda: deque(maxlen=_LATENCIES_MAX))

    def percentile_ms(self, share: float) -> float | None:
        """The latency that this share of the latest posts did not exceed; None before the first answer."""
        ordered = sorted(self.latencies_ms)
        return round(ordered[min(int(share * len(ordered)), len(ordered) - 1)], 1) if ordered else None


class Sender:
    """Posts deliveries to one URL; an async context manager.

    Args:
        url: where the webhooks go.
        app_secret: signs them.
        connections: posts at one time.
        retry_for_s: how long a delivery that is not answered 200 is repeated.
        ledger: told of every post, when there is one.
    """

    def __init__(
        self,
        url: str,
        app_secret: str,
        *,
        connections: int = CONNECTIONS_MAX,
        retry_for_s: float = RETRY_FOR_S,
        ledger: Ledger | None = None,
    ) -> None:
        self.tally = Tally()
        self.stopping = asyncio.Event()
        self._url = url
        self._app_secret = app_secret
        self._retry_for_s = retry_for_s
        self._ledger = ledger
        self._connections = asyncio.Semaphore(connections)
        self._places = asyncio.Semaphore(connections * _WAITING_PER_CONNECTION)
        self._latest: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),  # the semaphore is the limit
            timeout=aiohttp.ClientTimeout(total=ANSWER_WAIT_S),
            headers={"User-Agent": "facebookexternalua", "Content-Type": "application/json"},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def post(self, body: bytes) -> Answer:
        """Signs and posts these bytes once. Raises nothing for what the receiver does."""
        headers = {SIGNATURE_HEADER: signature(body, self._app_secret)}
        begin = time.perf_counter()
        problem: str | None = None
        status: int | None = None
        received: dict[str, str] = {}
        try:
            async with self._session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                await response.read()
                status = response.status
                received = {name.lower(): value for name, value in response.headers.items()}
        except TimeoutError:
            problem = f"no answer within {ANSWER_WAIT_S:g} s"
        except aiohttp.ClientConnectorError:
            problem = "nothing listens there"
        except aiohttp.ClientError as error:
            problem = f"the connection broke ({type(error).__name__})"
        milliseconds = (time.perf_counter() - begin) * 1000
        delivery_id, acknowledged_by = received.get("x-delivery-id"), received.get("x-acknowledged-by")
        return Answer(status, delivery_id, acknowledged_by, milliseconds, problem)

    async def send_all(self, deliveries: AsyncIterator[Delivery]) -> None:
        """Sends until the deliveries end or `stopping` is set; returns when nothing is under way any more.

        After `stopping` nothing new is posted; posts that wait for their answer still get it.
        """
        async with asyncio.TaskGroup() as tasks:
            async for delivery in deliveries:
                await self._places.acquire()
                if self.stopping.is_set():
                    break
                keys = delivery.keys
                earlier = {self._latest[key] for key in keys if key in self._latest}
                task = tasks.create_task(self._deliver(delivery, earlier))
                self._latest.update(dict.fromkeys(keys, task))
                task.add_done_callback(partial(self._leave, keys))

    def _leave(self, keys: Iterable[str], task: asyncio.Task[None]) -> None:
        self._places.release()
        for key in keys:
            if self._latest.get(key) is task:
                del self._latest[key]

    async def _deliver(self, delivery: Delivery, earlier: set[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        tries = 0
        until = time.monotonic() + self._retry_for_s
        while not self.stopping.is_set():
            async with self._connections:
                if self.stopping.is_set():
                    break
                answer = await self._post_and_count(delivery, is_first=tries == 0)
            if answer.is_safe:
                return
            wait_s = _RETRY_WAITS_S[min(tries, len(_RETRY_WAITS_S) - 1)]
            tries += 1
            if time.monotonic() + wait_s > until:
                break
            await wait_unless(self.stopping, wait_s)
        if tries:
            self.tally.given_up += 1

    async def _post_and_count(self, delivery: Delivery, *, is_first: bool) -> Answer:
        if is_first:
            self.tally.deliveries += 1
        self.tally.posts += 1
        self.tally.events += len(delivery.events)
        if self._ledger:
            self._ledger.posting(delivery.events, is_first=is_first)
        status: int | None = None
        try:
            answer = await self.post(delivery.body)
            status = answer.status
        finally:
            # Also when the wait for the answer was cut off: what the ledger says of this post must be whole.
            if self._ledger:
                self._ledger.answered(delivery.events, status)
        self.tally.answers[str(status or "none")] += 1
        if status is not None:
            self.tally.latencies_ms.append(answer.milliseconds)
        if not answer.is_safe:
            self.tally.last_refusal = answer
        return answer


async def paced(
    deliveries: Iterable[Delivery],
    *,
    rate: float,
    stopping: asyncio.Event,
    burst: int = 1,
    count: int | None = None,
    duration_s: float | None = None,
) -> AsyncIterator[Delivery]:
    """The same deliveries at `rate` a second (0: as fast as they are taken), until a count, a time or `stopping`.

    Of each `burst` of them the first waits, and the others come at once.
    """
    begin = due = time.monotonic()
    for number, delivery in enumerate(deliveries):
        now = time.monotonic()
        if number == count or stopping.is_set() or (duration_s is not None and max(now, due) - begin >= duration_s):
            return
        if rate:
            due = max(due, now - max(_BEHIND_S_MAX, burst / rate))
        # Making bodies is all work and no waiting: also where none is due, the answers of others must be read.
        await (wait_unless(stopping, due - now) if rate and due > now else asyncio.sleep(0))
        due += burst / rate if rate and number % burst == burst - 1 else 0
        yield delivery


async def wait_unless(event: asyncio.Event, seconds: float) -> None:
    """Waits that long, or until the event is set."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass

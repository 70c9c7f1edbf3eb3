"""When an account may send: its rate, its places for requests under way, its back-off, and whether it is stopped.

Every account has its own, so that none waits for another.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import structlog
from aiolimiter import AsyncLimiter

from consumers.auto_reply.tokens import Tokens

# Requests of one account that are under way: at 100 answers a second and a slow 300 ms each.
REQUESTS_MAX = 32
# Events of one account that wait: an hour of one every half second, and 50 MB. More are skipped and said so.
WAITING_MAX = 8_000
# Back-off where Graph API names no time: doubled from one to the next …
BACK_OFF_S_MIN = 1.0
# … up to this: Graph API counts in windows of an hour, and a minute is little of it.
BACK_OFF_S_MAX = 60.0
# What the rate allows at once: a tenth of a second's worth, so that nothing leaves in a burst of a whole second.
BURST_S = 0.1

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


class Account:
    """One account's sending.

    Attributes:
        account_id: Meta's.
        stopped: Why it sends nothing until somebody mends it; None while it may send.
        waiting: How many of its events are on their way to an answer.

    Args:
        rate_per_s: Requests per second at most.
    """

    def __init__(self, account_id: str, *, rate_per_s: float) -> None:
        self.account_id = account_id
        self.stopped: str | None = None
        self.waiting = 0
        self._places = asyncio.Semaphore(REQUESTS_MAX)
        burst = max(1.0, rate_per_s * BURST_S)
        self._rate = AsyncLimiter(burst, burst / rate_per_s)
        self._closed_until = 0.0
        self._back_off_s = 0.0
        self._opened = asyncio.Event()

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the requests that may be under way, for as long as it takes."""
        async with self._places:
            yield

    async def open(self) -> None:
        """Returns when it neither backs off, nor has to wait for that any longer because it was stopped."""
        loop = asyncio.get_running_loop()
        while self.stopped is None and (left_s := self._closed_until - loop.time()) > 0:
            self._opened.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._opened.wait(), left_s)

    @property
    def is_free(self) -> bool:
        """Whether a request may leave without waiting."""
        return self._rate.has_capacity() and self._closed_until <= asyncio.get_running_loop().time()

    async def turn(self) -> None:
        """Returns when the rate allows one more request."""
        await self._rate.acquire()

    def back_off(self, seconds: float | None, *, reason: str) -> None:
        """Sends nothing for a while.

        Args:
            seconds: How long, where Graph API says so.
            reason: A slug, for the log.
        """
        now = asyncio.get_running_loop().time()
        if seconds is None:
            if now < self._closed_until:
                return  # others of the same moment have said so
            self._back_off_s = min(max(BACK_OFF_S_MIN, 2 * self._back_off_s), BACK_OFF_S_MAX)
            seconds = self._back_off_s
        if now + seconds > self._closed_until:
            self._closed_until = now + seconds
            log.warning("account_backs_off", account_id=self.account_id, seconds=round(seconds, 1), reason=reason)

    def worked(self) -> None:
        """A request got through: the next back-off begins small again."""
        if asyncio.get_running_loop().time() >= self._closed_until:
            self._back_off_s = 0.0

    def stop(self, reason: str) -> None:
        """Sends nothing until `resume`."""
        if self.stopped is None:
            self.stopped = reason
            self._opened.set()
            log.error(
                "account_stopped",
                account_id=self.account_id,
                reason=reason,
                remedy="give it a working token and its permissions, then SIGHUP or change AUTO_REPLY_TOKENS_FILE",
            )

    def resume(self) -> None:
        """Sends again."""
        if self.stopped is not None:
            log.warning("account_resumed", account_id=self.account_id, after=self.stopped)
        self.stopped = None
        self._closed_until = self._back_off_s = 0.0
        self._opened.set()


class Accounts:
    """All accounts that ever had an event here.

    Args:
        tokens: An account without a token is stopped from the beginning.
        rate_per_s: Requests per second and account at most.
    """

    def __init__(self, tokens: Tokens, *, rate_per_s: float) -> None:
        self._tokens = tokens
        self._rate_per_s = rate_per_s
        self._known: dict[str, Account] = {}

    def __getitem__(self, account_id: str) -> Account:
        """The account; made when it is asked for first."""
        account = self._known.get(account_id)
        if account is None:
            account = self._known[account_id] = Account(account_id, rate_per_s=self._rate_per_s)
            if self._tokens[account_id] is None:
                account.stop("no_token")
        return account

    def stopped(self) -> int:
        """How many accounts send nothing until somebody mends it."""
        return sum(account.stopped is not None for account in self._known.values())

    def resume(self, account_ids: set[str] | None = None) -> None:
        """Lets accounts send again that have a token; all of them, or these."""
        for account_id, account in self._known.items():
            if (account_ids is None or account_id in account_ids) and self._tokens[account_id] is not None:
                account.resume()
            elif self._tokens[account_id] is None:
                account.stop("no_token")

"""Graph API's messages endpoint: one request, and what its answer means. Decides nothing about the ledger.

What an error code means is from Meta's pages on Instagram messaging and Graph API's errors (read in November 2026);
docs/auto-reply.md has the table for operators.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import aiohttp
from yarl import URL

from consumers.auto_reply.tokens import Tokens

REQUEST_TIMEOUT_S = 15.0  # Graph API answers within a second; one that takes this long is lost, and the echo tells
CONNECT_TIMEOUT_S = 5.0  # nothing was sent yet: the event may be tried again
KEEP_ALIVE_S = 30.0  # shorter than Graph API's own, so that no request leaves on a connection that it closes just then
ANSWER_BYTES_MAX = 64 * 1024  # an answer has some hundred bytes
USAGE_PAUSE_S = 5.0  # then, where no time is named: long enough for a share of an hour's window to sink a little
# At this share of a limit (in percent, of any of the usage headers) an account pauses before Graph API refuses.
USAGE_PERCENT_MAX = 95.0

Login = Literal["instagram", "facebook"]
"""Instagram Login posts to `/<account id>/messages`, Facebook Login (a Page's token) to `/me/messages`."""

Kind = Literal["sent", "limited", "unreachable", "stop", "refused", "lost"]
"""`limited` and `unreachable` certainly sent nothing and may be tried again; `stop` and `refused` sent nothing and never will;
of `lost` nobody knows."""

STOP = {
    (190, None): "token_invalid",
    (200, None): "permission_missing",
    (10, 1893063): "permission_missing",
    (100, 2534029): "permission_missing",
}
REFUSED = {
    (10, 2534022): "outside_answer_window",
    (10, 2018278): "outside_answer_window",
    (10, 2018300): "controlled_by_another_app",
    (100, 2534014): "no_such_person",
    (551, None): "person_unreachable",
}
LIMITED = frozenset({4, 17, 32, 613, 80002})
MAYBE_SENT = frozenset({1, 2})
_OK, _TOO_MANY_REQUESTS, _SERVER_ERROR = 200, 429, 500


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one request.

    Attributes:
        reason: A slug.
        message_id: Of the message that was sent; None for a sender action.
        error: Graph API's `code` or `code/subcode`.
        pause_s: How long Graph API wants the account to pause; None where it says nothing. Also given with `sent`.
    """

    kind: Kind
    reason: str
    message_id: str | None = None
    error: str | None = None
    pause_s: float | None = None


class Graph:
    """Posts requests; an async context manager that owns its connections.

    Args:
        url: Its base, e.g. `https://graph.instagram.com/v25.0`.
        login: Which form the path has.
        tokens: Of the accounts; they leave in a header, never in a URL.
    """

    def __init__(self, url: str, *, login: Login, tokens: Tokens) -> None:
        self._url = URL(url)
        self._login = login
        self._tokens = tokens
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            # The accounts' own places are the limit.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, account_id: str, customer_id: str, body: Mapping[str, Any]) -> Answer:
        """Sends one request body to a customer, and says what came of it. Raises nothing for what the network does."""
        if self._session is None:
            raise RuntimeError("use `async with` first")
        token = self._tokens[account_id]
        if token is None:
            return Answer("stop", "no_token")
        sender = account_id if self._login == "instagram" else "me"
        try:
            async with self._session.post(
                self._url / sender / "messages",
                data=json.dumps({"recipient": {"id": customer_id}, **body}, ensure_ascii=False).encode(),
                headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
                content = bytearray()
                async for piece in response.content.iter_any():
                    content += piece[: ANSWER_BYTES_MAX - len(content)]
                return meaning(response.status, bytes(content), response.headers)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return Answer("unreachable", "graph_unreachable", error=type(error).__name__)
        except TimeoutError:
            return Answer("lost", "timeout")
        except (aiohttp.ClientError, OSError, asyncio.IncompleteReadError) as error:
            return Answer("lost", "connection_lost", error=type(error).__name__)


def meaning(status: int, content: bytes, headers: Mapping[str, str]) -> Answer:
    """What an answer of Graph API says about the message.

    Args:
        status: HTTP's.
        content: The answer's body.
        headers: Its headers, in whatever case.
    """
    pause_s = usage_pause_s({name.lower(): value for name, value in headers.items()})
    try:
        document = json.loads(content)
    except ValueError:
        document = None
    found = document if isinstance(document, dict) else {}
    if status == _OK and "error" not in found:
        if not found:
            return Answer("lost", "unreadable_answer")
        message_id = found.get("message_id")
        return Answer("sent", "answered", message_id=message_id and str(message_id), pause_s=pause_s)
    problem = found.get("error")
    if not isinstance(problem, dict):
        problem = {}
    code, subcode = _number(problem.get("code")), _number(problem.get("error_subcode"))
    named = None if code is None else f"{code}/{subcode}" if subcode is not None else f"{code}"
    return _error(status, code, subcode, named, pause_s, is_transient=problem.get("is_transient") is True)


def _error(
    status: int, code: int | None, subcode: int | None, named: str | None, pause_s: float | None, *, is_transient: bool
) -> Answer:
    for kind, table in (("stop", STOP), ("refused", REFUSED)):
        reason = table.get((code or 0, subcode)) or table.get((code or 0, None))
        if reason is not None:
            return Answer("stop" if kind == "stop" else "refused", reason, error=named)
    if code in LIMITED or (code is None and status == _TOO_MANY_REQUESTS):
        return Answer("limited", "rate_limited", error=named, pause_s=pause_s)
    # An error may be returned for a message that was sent: what is not known to mean "no" means "perhaps".
    if code in MAYBE_SENT or status >= _SERVER_ERROR or is_transient:
        return Answer("lost", "graph_error", error=named or f"HTTP {status}")
    return Answer("refused", "refused_by_graph", error=named or f"HTTP {status}")


def usage_pause_s(headers: Mapping[str, str]) -> float | None:
    """How long the usage headers ask an account to pause; None when they ask for nothing.

    `X-App-Usage` has percentages; `X-Business-Use-Case-Usage` has them for each business, with the minutes until access is
    regained (Meta, "Rate limits", read in November 2026).
    """
    pauses = []
    for usage in _usages(headers):
        minutes = _number(usage.get("estimated_time_to_regain_access"))
        shares = [float(value) for name, value in usage.items() if _is_share(name, value)]
        if minutes:
            pauses.append(minutes * 60.0)
        elif max(shares, default=0.0) >= USAGE_PERCENT_MAX:
            pauses.append(USAGE_PAUSE_S)
    return max(pauses, default=None)


def _is_share(name: str, value: object) -> bool:
    return name in ("call_count", "total_time", "total_cputime") and isinstance(value, int | float)


def _usages(headers: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
    for name in ("x-app-usage", "x-business-use-case-usage"):
        try:
            usage = json.loads(headers.get(name, "{}"))
        except ValueError:
            continue
        if isinstance(usage, dict):
            yield usage
            for businesses in usage.values():
                yield from (one for one in businesses if isinstance(one, dict)) if isinstance(businesses, list) else ()


def _number(value: object) -> int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value if isinstance(value, int) else None

"""Meta's Graph API, as far as an operator needs it: whether a token is good, and which webhook fields are subscribed.

Sources: developers.facebook.com/docs/graph-api/reference/debug_token and …/docs/instagram-platform/webhooks, read 2026-11-22.
The token goes into a header, not into an address that a proxy may log; `debug_token` alone wants the one that it is asked
about in the query. No message holds one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
from yarl import URL

from bridge.errors import Misconfigured
from bridge.settings import GraphSettings

_REQUEST_TIMEOUT_S = 20.0
"""Graph answers within seconds; an operator waits."""

_MESSAGE_CHARACTERS_MAX = 300
"""Of Meta's own words: a line."""

_OK = 200
_TOKEN_CODES, _PERMISSION_CODES, _LATER_CODES = (190,), (10, 200), (1, 2, 4, 17, 32, 613)
"""Meta's error codes (…/docs/graph-api/guides/error-handling)."""

INSTAGRAM_FIELDS = (
    *(
        "agent_messages",
        "messages",
        "messaging_postbacks",
        "messaging_seen",
        "messaging_handover",
        "messaging_referral",
    ),
    *("messaging_optins", "message_reactions", "message_edit", "standby"),
    *("comments", "live_comments", "mentions", "story_insights"),
)
"""What an Instagram account can subscribe. Meta lists them when one is wrong, and then refuses all."""

PAGE_NAMES = {
    "messaging_seen": "message_reads",
    "messaging_referral": "messaging_referrals",
    "messaging_handover": "messaging_handovers",
    "message_edit": "message_edits",
}
"""What a Page calls the same; its other messaging fields have the same names."""

PAGE_FIELDS = (
    *(PAGE_NAMES.get(name, name) for name in INSTAGRAM_FIELDS if name.startswith(("messag", "standby"))),
    *("message_echoes", "message_deliveries", "feed", "mention"),
)

PERMISSIONS = (
    frozenset({"instagram_basic", "instagram_manage_messages", "pages_manage_metadata"}),
    frozenset({"instagram_business_basic", "instagram_business_manage_messages"}),
)
"""With Facebook Login, and with Instagram Login: one of the two is needed whole."""


class Token(NamedTuple):
    """What Meta says of a token.

    Attributes:
        expires_at: seconds since the Unix epoch; 0 for never.
    """

    is_valid: bool
    expires_at: int
    scopes: frozenset[str]

    @property
    def missing(self) -> list[str]:
        """The permissions that it lacks to receive direct messages, of whichever login it is nearer to."""
        return min([sorted(needed - self.scopes) for needed in PERMISSIONS], key=len)


class Graph:
    """A connection with the token of the settings; an async context manager.

    Every method raises Misconfigured when Meta does not answer or says no, with what to do about it.

    Args:
        settings: address, token and app.
        app_secret: with the app's id, the right to ask about any token of the app.
    """

    def __init__(self, settings: GraphSettings, app_secret: str | None = None) -> None:
        if settings.graph_token is None:
            raise Misconfigured("no token for the Graph API is set: set BRIDGE_GRAPH_TOKEN or BRIDGE_GRAPH_TOKEN_FILE")
        self._url = URL(settings.graph_url)
        self._token = settings.graph_token.get_secret_value()
        self._app_id = settings.graph_app_id
        self._app_token = f"{self._app_id}|{app_secret}" if self._app_id and app_secret else self._token
        self.date: str | None = None
        """The Date header of the last answer."""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def token(self) -> Token:
        """What Meta knows of our token."""
        url = self._url
        if url.host == "graph.instagram.com":  # which has no debug_token of its own
            url = url.with_host("graph.facebook.com")
        answer = await self._ask("GET", url / "debug_token", {"input_token": self._token}, token=self._app_token)
        told = answer.get("data")
        if not isinstance(told, dict):
            raise self._odd()
        expires_at, scopes = told.get("expires_at"), told.get("scopes")
        return Token(
            told.get("is_valid") is True,
            expires_at if isinstance(expires_at, int) else 0,
            frozenset(map(str, scopes)) if isinstance(scopes, list) else frozenset(),
        )

    async def subscribed(self, account: str) -> list[str]:
        """The webhook fields that the account has subscribed for our app, sorted."""
        answer = await self._ask("GET", self._url / account / "subscribed_apps", {})
        apps = answer.get("data")
        if not isinstance(apps, list):
            raise self._odd()
        ours = [app for app in apps if isinstance(app, dict) and self._app_id in (None, app.get("id"))]
        return sorted({str(name) for app in ours for name in app.get("subscribed_fields") or ()})

    async def subscribe(self, account: str, webhook_fields: Sequence[str]) -> None:
        """Subscribe the account to these fields and, as Meta takes it, to no others."""
        query = {"subscribed_fields": ",".join(webhook_fields)}
        answer = await self._ask("POST", self._url / account / "subscribed_apps", query)
        if answer.get("success") is not True:
            raise self._odd()

    async def _ask(
        self, method: str, url: URL, query: Mapping[str, str], *, token: str | None = None
    ) -> dict[str, Any]:
        try:
            async with self._session.request(
                method, url.with_query(query), headers=_bearer(token or self._token), allow_redirects=False
            ) as response:
                status, text = response.status, await response.text(errors="replace")
                self.date = response.headers.get("Date")
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            raise Misconfigured(
                f"no Graph API answers at {self._url} ({type(error).__name__}): correct BRIDGE_GRAPH_URL, or let this machine "
                "reach it"
            ) from None
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            raise self._odd()
        if status != _OK or "error" in answer:
            raise self._refusal(status, answer.get("error"))
        return answer

    def _refusal(self, status: int, error: object) -> Misconfigured:
        if not isinstance(error, dict):
            return self._odd()
        code = error.get("code")
        if code in _TOKEN_CODES:
            remedy = "make a new token in the app's dashboard and set BRIDGE_GRAPH_TOKEN"
        elif code in _PERMISSION_CODES:
            needed = " or ".join(", ".join(sorted(names)) for names in PERMISSIONS)
            remedy = f"give the token the permissions {needed}"
        elif code in _LATER_CODES:
            remedy = "try again later"
        else:
            remedy = "see the account's id, and BRIDGE_GRAPH_URL"
        words = "".join(
            character if character.isprintable() else " "
            for character in str(error.get("message") or "it says not why")
        )
        for secret in (self._token, self._app_token):
            words = words.replace(secret, "…")
        return Misconfigured(
            f"the Graph API answers {status} (code {code}): {words[:_MESSAGE_CHARACTERS_MAX].rstrip('.')}: {remedy}"
        )

    def _odd(self) -> Misconfigured:
        return Misconfigured(f"what answers at {self._url} is no Graph API: correct BRIDGE_GRAPH_URL")


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}

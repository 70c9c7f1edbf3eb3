"""OAUTHBEARER's tokens: OAuth 2.0's client credentials grant (RFC 6749 section 4.4), one token for all connections.

aiokafka takes OSError and KafkaError from a provider and nothing else; their texts are ours and hold no secret and no token.
"""

from __future__ import annotations

import base64
import json
import re
import time
from functools import lru_cache
from urllib.parse import quote_plus

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import AuthenticationFailedError, KafkaConnectionError

_REQUEST_TIMEOUT_S = 5.0
"""For a token: half of what a connection to Kafka may take."""

_RENEW_AT = 0.8
"""Of a token's life, when it is renewed, as Kafka's own clients do (sasl.login.refresh.window.factor)."""

_LIFE_MAX_S = 24 * 60 * 60
"""A token that says to live for longer is asked for anew after a day all the same."""

_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)
"""RFC 6750 section 2.1; anything else could end SASL's field and begin another."""

_REFUSALS = frozenset(
    {
        "invalid_client",
        "invalid_grant",
        "invalid_request",
        "invalid_scope",
        "unauthorized_client",
        "unsupported_grant_type",
    }
)
"""RFC 6749 section 5.2: words that may be repeated, whoever wrote them."""

_OK, _TOO_MANY, _SERVER_ERROR = 200, 429, 500


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc] # aiokafka ships no types
    """Gets tokens from an endpoint and keeps one until most of its life is over.

    While the endpoint is away the kept token serves until its end.
    """

    def __init__(self, url: str, client_id: str, client_secret: str, scope: str | None) -> None:
        self._url = url
        user = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"  # so encoded by RFC 6749 section 2.3.1
        self._headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._token = ""
        self._renew_at = self._ends_at = 0.0

    async def token(self) -> str:
        """A token that is valid now.

        Raises:
            AuthenticationFailedError: the endpoint gives us none; a person must mend something.
            KafkaConnectionError: it is away.
        """
        if time.monotonic() >= self._renew_at:
            try:
                await self._renew()
            except KafkaConnectionError:
                if time.monotonic() >= self._ends_at:
                    raise
        return self._token

    async def _renew(self) -> None:
        asked_at = time.monotonic()
        try:
            timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
            async with (
                aiohttp.ClientSession(headers=self._headers, timeout=timeout) as session,
                session.post(self._url, data=self._form, allow_redirects=False) as response,
            ):
                status, text = response.status, await response.text(errors="replace")
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            raise KafkaConnectionError(f"no answer from the token endpoint ({type(error).__name__})") from None
        if status >= _SERVER_ERROR or status == _TOO_MANY:
            raise KafkaConnectionError(f"the token endpoint answers {status}")
        try:
            answer = json.loads(text)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        if status != _OK:
            refusal = answer.get("error")
            word = f" ({refusal})" if isinstance(refusal, str) and refusal in _REFUSALS else ""
            raise AuthenticationFailedError(
                f"the token endpoint answers {status}{word}: correct BRIDGE_KAFKA_SASL_OAUTHBEARER_…"
            )
        token, life = answer.get("access_token"), answer.get("expires_in", 0)
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise AuthenticationFailedError(
                "what answers is no token endpoint: correct BRIDGE_KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL"
            )
        life_s = min(life, _LIFE_MAX_S) if isinstance(life, int) else 0
        self._token = token
        self._renew_at, self._ends_at = asked_at + life_s * _RENEW_AT, asked_at + life_s


provider = lru_cache(maxsize=4)(ClientCredentials)
"""The one provider for these credentials: every client of a process shares its token."""

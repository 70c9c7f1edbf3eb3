"""Who is answered: on loopback, requests for a loopback name; with a token, those that know it. Does no IO.

The token comes as `Authorization: Bearer …`, or once in the login form. The form's answer sets a cookie that no script
can read and no other site can use: not the token, but a time until which it holds, authenticated with the token.
"""

import hashlib
import hmac
import ipaddress
import time

from aiohttp import web

from consumers.errors import ConsumerError

COOKIE = "instagram_analytics"
COOKIE_AGE_MAX_S = 12 * 3600  # a working day; then the token is asked for again
TOKEN_CHARACTERS_MIN = 16  # what cannot be guessed needs no counting of guesses


class Access:
    """Decides about requests.

    Args:
        host: Where the page will be bound.
        token: What must be known; None: nothing, on loopback alone.
        variable: Name of the token's setting, for the error.

    Raises:
        ConsumerError: The page would be open to others without a token, or with one that can be guessed.
    """

    def __init__(self, *, host: str, token: str | None, variable: str) -> None:
        if token is not None and len(token) < TOKEN_CHARACTERS_MIN:
            raise ConsumerError(
                f"{variable}: it can be guessed, take at least {TOKEN_CHARACTERS_MIN} characters: openssl rand -hex 32"
            )
        if token is None and not is_loopback(host):
            raise ConsumerError(
                f"{variable} must be set, because {host} is open to others: openssl rand -hex 32 makes one"
            )
        self._loopback_names_only = token is None
        self._token = token.encode() if token is not None else None

    def is_misled(self, request: web.Request) -> bool:
        """Whether a browser came by a name that somebody else made to point here (DNS rebinding).

        With a token any name will do: neither the cookie nor the token belongs to that name.
        """
        return self._loopback_names_only and not is_loopback(_hostname(request.host))

    def is_granted(self, request: web.Request) -> bool:
        """Whether the request knows the token, or none is wanted."""
        if self._token is None:
            return True
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.knows(given.strip()):
            return True
        expires, _, signature = request.cookies.get(COOKIE, "").partition(".")
        if not expires.isdecimal() or not expires.isascii() or int(expires) < time.time():
            return False
        return _equal(signature, self._signature(expires))

    def knows(self, given: str) -> bool:
        """Whether this is the token; takes as long for a good guess as for a bad one."""
        return self._token is not None and hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token)

    def let_in(self, response: web.StreamResponse, *, secure: bool) -> None:
        """Sets the cookie; `secure` when the request came over TLS."""
        expires = str(int(time.time()) + COOKIE_AGE_MAX_S)
        value = f"{expires}.{self._signature(expires)}"
        response.set_cookie(COOKIE, value, httponly=True, samesite="Strict", secure=secure, path="/")

    def _signature(self, expires: str) -> str:
        return hmac.new(self._token or b"", f"analytics cookie until {expires}".encode(), hashlib.sha256).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _hostname(host: str) -> str:
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), expected.encode())

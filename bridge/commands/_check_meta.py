"""`bridge doctor --as-meta`: a public URL is asked, signed to, and troubled, as Meta would and as nobody should.

Nothing of this reaches a topic: the only authentic body that is sent is a notification with an empty entry list, which the
bridge answers 200 and publishes nothing of.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import ipaddress
import secrets
import socket
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import NamedTuple

import aiohttp
from yarl import URL

from bridge.adapters.http import BODY_TIMEOUT_S
from bridge.adapters.webhook import PATH
from bridge.commands._finding import Finding, clock
from bridge.settings import Settings, live_secrets
from bridge.signature import AppSecret

_EMPTY = b'{"object":"instagram","entry":[]}'
_TAMPERED = b'{"object":"instagram","entry":[ ]}'

_SIGNED = "signed"

_LARGE_BYTES = 4 * 1024 * 1024
"""More than proxies let through unless told to (nginx: 1 MiB), and soon sent."""

_ANSWER_TIMEOUT_S = 20.0
_META_PATIENCE_S = 5.0
"""How long Meta waits for a 200 (Messenger Platform, "Webhooks", read 2026-11-22)."""

_CLOSE_TIMEOUT_S = 1.0
"""For the other side to say goodbye too: a round trip, and it holds up nothing but the end of a check."""

_PAUSE_S = 2.0
"""Within a slow request that must be taken."""

_STALL_TIMEOUT_S = BODY_TIMEOUT_S + 5.0
"""For the bridge to give up a request that stalls; a proxy may be a little later."""

_CERTIFICATE_WARN_DAYS, _DAY_S = 14, 86_400
_OK, _UNAUTHORIZED, _FORBIDDEN, _TOO_SLOW, _TOO_LARGE = 200, 401, 403, 408, 413
_ANOTHER_PATH = f"the path should be {PATH}"
_REMEDIES = {
    401: "give both sides the same app secret; look for a proxy that rewrites bodies",
    403: "give both sides the same verify token; look for a firewall that asks browsers for more",
    404: _ANOTHER_PATH,
    413: "raise the limit of the proxy before the bridge (nginx: client_max_body_size)",
    415: "look for a proxy that compresses",
    502: "start the bridge, or correct where the proxy looks for it",
    503: "see the bridge's /readyz",
}


class _Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes
    seconds: float


async def public(address: str, settings: Settings) -> AsyncIterator[Finding]:
    """Everything that Meta would do to a URL, as it is written, and what it must not be able to."""
    url = URL(address)
    reached = True
    for finding in [await _name(url), await _tls(url)]:
        yield finding
        reached = reached and finding.outcome != "fail"
    if not reached:
        return
    app_secrets = live_secrets(settings)
    waiting = [asyncio.create_task(check(url, app_secrets[0])) for check in (_slow, _stalled)]
    try:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())  # the same for all requests, see _connect
        timeout = aiohttp.ClientTimeout(total=_ANSWER_TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            asking = _Asking(session, url)
            taken = False
            async for finding in asking.all(settings, app_secrets):
                taken = taken or (finding.check.startswith(_SIGNED) and finding.outcome == "ok")
                yield finding
        if not taken:
            return  # how it takes an odd delivery cannot be seen where it takes none
        yield await _oversized(url, app_secrets[0], settings.body_bytes_max)
        for task in waiting:
            yield await task
    except (aiohttp.ClientError, OSError) as error:
        yield Finding(
            "public URL", "fail", f"{url} does not answer ({type(error).__name__})", "see the proxy, and the bridge"
        )
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)  # they close their connections


async def _name(url: URL) -> Finding:
    try:
        found = await asyncio.get_running_loop().getaddrinfo(url.host, url.port, type=socket.SOCK_STREAM)
    except OSError as error:
        return Finding("DNS", "fail", f"{url.host} has no address ({error.strerror})", "set it at your DNS provider")
    addresses = sorted({str(entry[4][0]) for entry in found})
    hidden = [address for address in addresses if not ipaddress.ip_address(address.partition("%")[0]).is_global]
    if hidden:
        return Finding("DNS", "warn", f"{', '.join(hidden)} cannot be reached by Meta", "give it a public address")
    return Finding("DNS", "ok", f"{url.host} is {', '.join(addresses)}")


async def _tls(url: URL) -> Finding:
    if url.scheme != "https":
        local = url.host in ("127.0.0.1", "localhost", "::1")
        return Finding(
            "TLS",
            "warn" if local else "fail",
            "the URL has no https: Meta asks for it",
            "put a proxy with TLS before it",
        )
    try:
        _, writer = await _connect(url)
    except ssl.SSLCertVerificationError as error:
        remedy = "serve a certificate for this name, with its intermediate ones, of an authority that Meta trusts"
        return Finding("TLS", "fail", error.verify_message, remedy)
    except (OSError, TimeoutError) as error:
        return Finding("TLS", "fail", f"no connection ({type(error).__name__})", "open the port; see the proxy")
    session: ssl.SSLObject = writer.get_extra_info("ssl_object")
    certificate = session.getpeercert() or {}
    await _close(writer)
    days = int((ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()) // _DAY_S)
    found = f"{session.version()}, certificate for {days} days more"
    if days < _CERTIFICATE_WARN_DAYS:
        return Finding("TLS", "warn", found, "renew it")
    return Finding("TLS", "ok", found)


class _Asking:
    """The requests that a client of HTTP can make."""

    def __init__(self, session: aiohttp.ClientSession, url: URL) -> None:
        self._session = session
        self._url = url
        self._pathless = url.path == "/"  # a site's first page answers there, in whatever way

    def _remedy(self, answer: _Answer) -> str:
        unknown = "see what answers there: Meta follows no redirect and needs a 200"
        return _REMEDIES.get(answer.status, _ANOTHER_PATH if self._pathless else unknown)

    async def all(self, settings: Settings, app_secrets: tuple[AppSecret, ...]) -> AsyncIterator[Finding]:
        token = settings.verify_token.get_secret_value()
        challenge = str(secrets.randbelow(10**10))
        asked = await self._verify(token, challenge)
        right = asked.status == _OK and asked.body == challenge.encode()
        found = f"{asked.status}{'' if asked.status != _OK or right else ', and not the challenge'}"
        yield Finding("verification", "ok" if right else "fail", found, "" if right else self._remedy(asked))
        wrong = await self._verify(f"{token}-not", challenge)
        refused = wrong.status == _FORBIDDEN
        yield Finding(
            "wrong verify token", "ok" if refused else "fail", f"{wrong.status}", "" if refused else "it should be 403"
        )
        for secret in app_secrets:
            yield await self._signed(f"{_SIGNED} by {secret.label}", _EMPTY, secret)
        large = _EMPTY[:-1] + b" " * (min(settings.body_bytes_max, _LARGE_BYTES) - len(_EMPTY)) + b"}"
        yield await self._signed(f"{_SIGNED}, {len(large)} bytes", large, app_secrets[0])
        answer = await self._post(_TAMPERED, _signature(_EMPTY, app_secrets[0]))
        refused = answer.status == _UNAUTHORIZED
        remedy = "" if refused else "it must be 401: what answers there does not check signatures"
        yield Finding("tampered", "ok" if refused else "fail", f"{answer.status}", remedy)
        if told := clock(answer.headers.get("Date"), "the public URL"):
            yield told

    async def _signed(self, name: str, body: bytes, secret: AppSecret) -> Finding:
        answer = await self._post(body, _signature(body, secret))
        if answer.status != _OK:
            return Finding(name, "fail", f"{answer.status}", self._remedy(answer))
        by = answer.headers.get("X-Acknowledged-By")
        if by is None:
            found = "200, but not from a bridge: X-Acknowledged-By is missing"
            return Finding(name, "fail", found, _ANOTHER_PATH if self._pathless else "see what answers there")
        found = f"200 in {1000 * answer.seconds:.0f} ms, published nothing: acknowledged by {by}"
        if answer.seconds > _META_PATIENCE_S:
            return Finding(name, "fail", found, f"Meta waits {_META_PATIENCE_S:g} s: see the proxy")
        return Finding(name, "ok", found)

    async def _verify(self, token: str, challenge: str) -> _Answer:
        query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": token}
        return await self._ask("GET", self._url.with_query(query))

    async def _post(self, body: bytes, signature: str) -> _Answer:
        headers = {"Content-Type": "application/json", "X-Hub-Signature-256": signature}
        return await self._ask("POST", self._url, headers, body)

    async def _ask(
        self, method: str, url: URL, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> _Answer:
        begun = time.perf_counter()
        data = None if body is None else io.BytesIO(body)  # of bytes alone aiohttp warns when they are many
        async with self._session.request(method, url, headers=headers, data=data, allow_redirects=False) as response:
            content = await response.content.read(_LARGE_BYTES)
            return _Answer(response.status, response.headers, content, time.perf_counter() - begun)


async def _oversized(url: URL, secret: AppSecret, bytes_max: int) -> Finding:
    status = await _raw(url, secret, bytes_max + 1, [])
    found = f"{status or 'no answer'} to a declared {bytes_max + 1} bytes"
    if status == _TOO_LARGE:
        return Finding("oversized", "ok", found)
    return Finding(
        "oversized", "warn", found, "a proxy takes the whole body before the bridge can refuse it: limit it there"
    )


async def _slow(url: URL, secret: AppSecret) -> Finding:
    half = len(_EMPTY) // 2
    status = await _raw(url, secret, len(_EMPTY), [_EMPTY[:half], _EMPTY[half:]])
    if status == _OK:
        return Finding("slow", "ok", f"200 to a body that paused for {_PAUSE_S:g} s")
    return Finding("slow", "fail", f"{status or 'no answer'}", "something before the bridge is too impatient")


async def _stalled(url: URL, secret: AppSecret) -> Finding:
    begun = time.perf_counter()
    status = await _raw(url, secret, len(_EMPTY), [_EMPTY[:-1]])
    took = f"after {time.perf_counter() - begun:.0f} s"
    if status == _TOO_SLOW or (status is None and time.perf_counter() - begun < _STALL_TIMEOUT_S):
        return Finding("stalled", "ok", f"{status or 'closed'} {took} to a body that never ended")
    if status is None:
        return Finding("stalled", "warn", f"still waited for {took}", "let the proxy end requests that stall")
    return Finding("stalled", "warn", f"{status} {took}", "see what answers there")


async def _raw(url: URL, secret: AppSecret, length: int, parts: list[bytes]) -> int | None:
    """The status of a request whose parts come slowly; None when it is closed, or goes on, without an answer."""
    head = (
        f"POST {url.raw_path_qs} HTTP/1.1\r\nHost: {url.authority}\r\nContent-Type: application/json\r\n"
        f"X-Hub-Signature-256: {_signature(_EMPTY, secret)}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    )
    reader, writer = await _connect(url)
    try:
        with contextlib.suppress(TimeoutError, OSError, ValueError, IndexError):
            async with asyncio.timeout(_STALL_TIMEOUT_S):
                writer.write(head.encode())
                for number, part in enumerate(parts):
                    await asyncio.sleep(_PAUSE_S if number else 0)
                    writer.write(part)
                    await writer.drain()
                return int((await reader.readline()).split()[1])
        return None
    finally:
        await _close(writer)


async def _connect(url: URL) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    context = ssl.create_default_context() if url.scheme == "https" else None
    async with asyncio.timeout(_ANSWER_TIMEOUT_S):
        return await asyncio.open_connection(url.host, url.port, ssl=context)


async def _close(writer: asyncio.StreamWriter) -> None:
    """Close, and wait for it: over TLS the other side has a word to say, and a loop that ends before leaves the socket open."""
    writer.close()
    patience = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, writer.transport.abort)
    try:
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    finally:
        patience.cancel()


def _signature(body: bytes, secret: AppSecret) -> str:
    return "sha256=" + secret.digest(body).hex()

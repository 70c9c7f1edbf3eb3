"""Nothing that the bridge writes, shows or answers holds a secret, a token, an expected signature, a body or who it is about."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.http.wire import MARKER, PATH, Connection, chunked, exchange, post, request
from tests.kafka.serving import ACCOUNT, APP_SECRET, OLD_APP_SECRET, VERIFY_TOKEN, Serving, begun, message, notification
from tests.security.brokers import CLIENT_ID, CLIENT_SECRET, PASSWORD, TokenEndpoint
from tests.security.conftest import BY_PASSWORD, Locked, over_tls

LEVELS = {"debug": "json", "info": "console", "warning": "json", "error": "console"}
KEY = f"{MARKER}-key"
CUSTOMER = "9876500001234567"
OTHERS_SECRET = f"{MARKER}-other"
BODY_BYTES_MAX = 64 * 1024


def hostile(body: bytes) -> list[bytes]:
    """Requests that are refused, each with the marker wherever a careless log or answer would repeat it."""
    wrong = "sha256=" + hmac.digest(OTHERS_SECRET.encode(), body, hashlib.sha256).hex()
    gets = [
        f"hub.mode=subscribe&hub.challenge=1&hub.verify_token={MARKER}",
        f"hub.mode=subscribe&hub.challenge={MARKER}&hub.verify_token={quote(VERIFY_TOKEN)}",
        f"hub.mode={MARKER}&hub.challenge=1&hub.verify_token={quote(VERIFY_TOKEN)}",
        f"hub.verify_token={quote(VERIFY_TOKEN)}%00{MARKER}",
    ]
    return [
        post(body, wrong),
        post(body, None, f"X-Hub-Signature: sha1={MARKER}", f"Authorization: Bearer {MARKER}", f"Cookie: {MARKER}"),
        post(body, f"sha256={MARKER}"),
        post(body, wrong, f"X-Hub-Signature-256: {wrong}"),
        post(body, wrong, f"Content-Encoding: {MARKER}"),
        post(body, wrong, f"Expect: {MARKER}"),
        post(body, wrong, target=f"/{MARKER}?{MARKER}"),
        post(b"x" * (BODY_BYTES_MAX + 1), wrong, f"X-Note: {MARKER}"),
        *(request("GET", f"{PATH}?{query}") for query in gets),
        request("POST", PATH, f"X-Hub-Signature-256: {wrong}", "Transfer-Encoding: chunked", body=b"zz\r\n" + body),
        request("POST", PATH, f"X-Hub-Signature-256: {wrong}", f"X-{MARKER}: a\rb", body=body),
        request(MARKER, PATH),
        f"GET / HTTP/9.9 {MARKER}\r\n\r\n".encode(),
        MARKER.encode() * 5000,
        b"\x16\x03\x01\x02\x00" + body,
    ]


def bodies() -> list[bytes]:
    """Authentic deliveries: a good one, and those that become dead letters in every way."""
    good = notification(message(f"{MARKER}-mid", customer_id=CUSTOMER))
    return [
        good,
        good[:-1],
        good.replace(b'"object"', b'"Object"'),
        good.replace(b"17638", b"NaN17638"),
        b"\xff" + good,
        b"[" * 100 + MARKER.encode(),
        json.dumps({"object": "instagram", "entry": MARKER}).encode(),
        notification({"sender": MARKER, "recipient": [MARKER], "timestamp": MARKER, "message": {"mid": {KEY: MARKER}}}),
        notification({**message(MARKER), "message": {"mid": MARKER, "text": MARKER * 4000}}),
        notification(*[message(f"{MARKER}-{number}") for number in range(50)], place="standby"),
    ]


async def play(serving: Serving, delivered_by: set[str]) -> None:
    """Everything once; then what the management port shows."""
    given = bodies()
    for body, signature in zip(given, serving.signatures(given), strict=True):
        answer = await exchange(serving.port, post(body, signature))
        assert answer.status == 200
        delivered_by.add(answer.headers["x-acknowledged-by"])
    answer = await exchange(
        serving.port,
        request("POST", PATH, f"X-Hub-Signature-256: {serving.signatures(given)[0]}", "Transfer-Encoding: chunked"),
        chunked([given[0]], extension=f";{MARKER}={MARKER}", trailers=[f"X-Late: {MARKER}"]),
    )
    assert answer.status == 200
    for body in (given[0], b""):
        for sent in hostile(body):
            async with Connection.open(serving.port) as connection:
                await connection.send(sent)
                assert 400 <= (await connection.answer()).status < 500
    async with Connection.open(serving.port) as connection:
        await connection.send(post(given[0], None)[:-5])
        connection.abort()


def hidden_texts() -> set[str]:
    """What nobody may read: secrets, bodies, ids, and every signature that was expected."""
    expected = {
        hmac.digest(secret.encode(), body, hashlib.sha256).hex()
        for secret in (APP_SECRET, OLD_APP_SECRET)
        for body in (*bodies(), b"")
    }
    told = {
        MARKER,
        ACCOUNT,
        CUSTOMER,
        APP_SECRET,
        OLD_APP_SECRET,
        VERIFY_TOKEN,
        quote(VERIFY_TOKEN),
        PASSWORD,
        CLIENT_SECRET,
    }
    return expected | told | {VERIFY_TOKEN[-9:], OLD_APP_SECRET[:10], "Traceback"}


def without_accounts(status: str) -> str:
    """/status without the one place that names accounts, our own customers' businesses: when each was last heard of."""

    def kept(told: dict[str, Any]) -> dict[str, Any]:
        accounts = told.pop("accounts", {})
        assert all(set(account) == {"last_event_seconds_ago"} for account in accounts.values())
        return told

    return json.dumps(json.loads(status, object_hook=kept))


@asynccontextmanager
async def one_per_level(folder: Path, secured: Locked, endpoint: TokenEndpoint) -> AsyncIterator[dict[str, Serving]]:
    """A bridge for every log level, all over the same Kafka, two with a password and two with tokens."""
    async with AsyncExitStack() as stack:
        serving = {}
        for number, (level, log_format) in enumerate(LEVELS.items()):
            by_token = {
                "SASL_MECHANISM": "OAUTHBEARER",
                "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint.url,
                "SASL_OAUTHBEARER_CLIENT_ID": CLIENT_ID,
                "SASL_OAUTHBEARER_CLIENT_SECRET": CLIENT_SECRET,
            }
            environment = over_tls(secured, **(by_token if number % 2 else BY_PASSWORD))
            environment |= {
                "BRIDGE_LOG_LEVEL": level,
                "BRIDGE_LOG_FORMAT": log_format,
                "BRIDGE_SPOOL_DIR": f"spool-{level}",
                "BRIDGE_BODY_BYTES_MAX": f"{BODY_BYTES_MAX}",
                "BRIDGE_RECORD_BYTES_MAX": f"{BODY_BYTES_MAX // 2}",
                "BRIDGE_WORKERS": "2" if level == "info" else "1",
            }
            serving[level] = await stack.enter_async_context(begun(folder, environment))
        await asyncio.gather(*(each.until_ready() for each in serving.values()))
        yield serving


async def test_everything_that_is_written_or_shown_holds_nothing_to_hide(
    secured: Locked, token_endpoint: TokenEndpoint, tmp_path: Path
) -> None:
    """At every log level, in both formats, with Kafka there, killed and back: good, bad and hostile requests leave no trace."""
    shown: dict[str, list[str]] = {level: [] for level in LEVELS}
    delivered_by: set[str] = set()
    async with one_per_level(tmp_path, secured, token_endpoint) as serving:

        async def play_to_all() -> None:
            await asyncio.gather(*(play(each, delivered_by) for each in serving.values()))
            for level, each in serving.items():
                for path in ("/metrics", "/status", "/livez", "/readyz", f"/{MARKER}?{MARKER}"):
                    status, text = await each.ask(path)
                    assert status != 0
                    shown[level].append(without_accounts(text) if path == "/status" else text)

        await play_to_all()
        await secured.broker.kill()
        await play_to_all()
        await secured.broker.start()
        await asyncio.gather(
            *(each.until_counted("instagram_bridge_spool_deliveries ", 0) for each in serving.values())
        )
        for each in serving.values():
            assert await each.process.end(signal.SIGTERM) == 0
    assert delivered_by >= {"kafka", "spool"}
    for level, each in serving.items():
        written = "\n".join([each.process.stdout, each.process.stderr, *shown[level]])
        assert len(written) > 1000, "there was something to look at"
        found = [text for text in hidden_texts() if text in written]
        assert found == [], level


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("APP_SECRETS", f"one={MARKER},one={MARKER}"),
        ("APP_SECRETS", f"{MARKER},,"),
        ("KAFKA_SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL", f"http://user:{MARKER}@idp.test/token"),
        pytest.param("KAFKA_SASL_PASSWORD_FILE", f"/{secrets.token_hex(4)}/nowhere", id="a file that is not there"),
    ],
)
async def test_bad_setting_is_told_without_its_secret(tmp_path: Path, name: str, value: str) -> None:
    """What is wrong with a secret is said of its shape."""
    environment = {"BRIDGE_APP_SECRETS": MARKER, "BRIDGE_VERIFY_TOKEN": MARKER, f"BRIDGE_{name}": value}
    async with begun(tmp_path, environment) as serving:
        assert await serving.process.end() == 1
        assert f"BRIDGE_{name}" in serving.process.stderr
        assert len(serving.process.stderr.splitlines()) == 1

"""`bridge` over a Kafka that lets in only whom it knows, and the same Kafka when it does not know us."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kafka.serving import Serving, begun, message, notification, run, serve_environment
from tests.processes import Process, until
from tests.security.brokers import (
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    SCRAM_MECHANISMS,
    SCRAM_PASSWORD,
    SCRAM_USER,
    SECRETS,
    USER,
    TokenEndpoint,
    Users,
)
from tests.security.certificates import Authority
from tests.security.conftest import BY_PASSWORD, Locked, over_tls

TOKENS_MIN = 3


def by_token(endpoint: TokenEndpoint) -> dict[str, str]:
    """The settings of OAUTHBEARER."""
    return {
        "SASL_MECHANISM": "OAUTHBEARER",
        "SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL": endpoint.url,
        "SASL_OAUTHBEARER_CLIENT_ID": CLIENT_ID,
        "SASL_OAUTHBEARER_CLIENT_SECRET": CLIENT_SECRET,
    }


async def assert_delivers(folder: Path, environment: Mapping[str, str]) -> None:
    """A delivery is answered 200 by Kafka; nothing that is printed holds a secret."""
    async with begun(folder, environment) as serving:
        await serving.until_ready()
        answer = await serving.deliver(notification(message("m")))
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
        assert await serving.process.end(signal.SIGTERM) == 0
    assert not any(secret in serving.process.stdout + serving.process.stderr for secret in SECRETS)


@pytest.mark.parametrize("mechanism", ["PLAIN", *SCRAM_MECHANISMS])
async def test_serve_with_a_password_over_tls_publishes(secured: Locked, tmp_path: Path, mechanism: str) -> None:
    """PLAIN and SCRAM, the password from a file; names and passwords may hold what the protocols have to escape."""
    user, password = (USER, PASSWORD) if mechanism == "PLAIN" else (SCRAM_USER, SCRAM_PASSWORD)
    (tmp_path / "password").write_text(f"{password}\n", "utf-8")
    variables = {"SASL_MECHANISM": mechanism, "SASL_USERNAME": user, "SASL_PASSWORD_FILE": "password"}
    await assert_delivers(tmp_path, over_tls(secured, **variables))


async def test_serve_with_a_client_certificate_publishes(mutual: Locked, tmp_path: Path, authority: Authority) -> None:
    """mTLS: our certificate is our name; its key may be encrypted."""
    certificate, key = authority.vouch("client", alternative_name="DNS:bridge.test", password=PASSWORD)
    environment = serve_environment(
        mutual.broker.bootstrap_servers,
        mutual.prefix,
        KAFKA_SECURITY_PROTOCOL="ssl",
        KAFKA_SSL_CA_LOCATION=str(authority.certificate),
        KAFKA_SSL_CERTIFICATE_LOCATION=str(certificate),
        KAFKA_SSL_KEY_LOCATION=str(key),
        KAFKA_SSL_KEY_PASSWORD=PASSWORD,
    )
    await run(tmp_path, environment, "topics", "apply")
    await assert_delivers(tmp_path, environment)


async def test_serve_with_tokens_goes_on_when_they_and_their_sessions_end(
    secured: Locked, tmp_path: Path, token_endpoint: TokenEndpoint
) -> None:
    """OAUTHBEARER: the broker ends a session with its token; with the next token every delivery is still Kafka's."""
    token_endpoint.life_s = 2
    environment = over_tls(secured, **by_token(token_endpoint), SASL_OAUTHBEARER_SCOPE="kafka more")
    async with begun(tmp_path, environment) as serving, asyncio.timeout(60):
        await serving.until_ready()
        known = len(token_endpoint.forms)
        while len(token_endpoint.forms) < known + TOKENS_MIN:
            answer = await serving.deliver(notification(message(f"m{len(token_endpoint.forms)}")))
            assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
    assert {"grant_type": "client_credentials", "scope": "kafka more"} in token_endpoint.forms
    assert CLIENT_SECRET not in serving.process.stdout + serving.process.stderr


@pytest.mark.parametrize(("wrong", "spool"), [("password", "spool"), ("token", ""), ("authority", "spool")])
async def test_serve_that_kafka_refuses_at_the_start_ends_with_one_line(
    *,
    secured: Locked,
    stranger: Authority,
    token_endpoint: TokenEndpoint,
    tmp_path: Path,
    wrong: str,
    spool: str,
) -> None:
    """Waiting would not mend it: exit code 1 and what to correct, spool or none; no secret, no traceback."""
    variables = BY_PASSWORD
    if wrong == "password":
        variables = BY_PASSWORD | {"SASL_PASSWORD": "wr0ng"}
    elif wrong == "token":
        token_endpoint.scope = "another"
        variables = by_token(token_endpoint)
    environment = over_tls(secured, **variables) | {"BRIDGE_SPOOL_DIR": spool}
    if wrong == "authority":
        environment["BRIDGE_KAFKA_SSL_CA_LOCATION"] = str(stranger.certificate)
    process = await Process.begin("-m", "bridge", "serve", folder=tmp_path, environment=environment)

    code = await process.end()

    printed = process.stdout + process.stderr
    (line,) = [line for line in printed.splitlines() if line.startswith("bridge: ")]
    assert code == 1, printed
    assert f"Kafka at {secured.broker.bootstrap_servers}" in line
    assert {"password": "SASL_PASSWORD", "token": "SASL_OAUTHBEARER_", "authority": "SSL_CA_LOCATION"}[wrong] in line
    assert "Traceback" not in printed
    assert not any(secret in printed for secret in (*SECRETS, "wr0ng"))


async def test_serve_that_kafka_refuses_later_says_so_and_goes_on_when_let_in(secured: Locked, tmp_path: Path) -> None:
    """Locked out while it runs: deliveries are spooled, the log names the credentials, and a reload lets it in again."""
    users, user = Users(secured.broker, secured.authority.certificate), "later"
    users.set("SCRAM-SHA-256", user, "first-p4ss")
    file = tmp_path / "password"
    file.write_text("first-p4ss", "utf-8")
    variables = {"SASL_MECHANISM": "SCRAM-SHA-256", "SASL_USERNAME": user, "SASL_PASSWORD_FILE": str(file)}
    environment = over_tls(secured, **variables) | {"BRIDGE_SPOOL_DIR": "spool"}
    async with begun(tmp_path, environment) as serving:
        await serving.until_ready()
        assert await taken_by(serving, "steady") == "kafka"

        users.set("SCRAM-SHA-256", user, "second-p4ss")
        await secured.broker.restart()
        assert await taken_by(serving, "locked out") == "spool"
        await serving.process.until_printed("refuses our SCRAM-SHA-256 credentials")

        file.write_text("second-p4ss", "utf-8")
        os.kill(serving.process.pid, signal.SIGHUP)
        await until(lambda: '"event": "direct"' in serving.process.stderr.rpartition("refuses our SCRAM")[2], "healed")
        assert await taken_by(serving, "healed") == "kafka"
    assert not any(secret in serving.process.stderr for secret in ("first-p4ss", "second-p4ss"))


async def taken_by(serving: Serving, mid: str) -> str:
    """Who acknowledged a delivery."""
    answer = await serving.deliver(notification(message(mid)))
    assert answer.status == 200
    return answer.headers["x-acknowledged-by"]

"""Every reason for which Kafka may refuse us, or we Kafka, is one line that says what to mend; what is away is not refused."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

import pytest
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import ValidationError

from bridge.adapters.connection import admin, connection, consumer
from bridge.errors import Misconfigured
from bridge.local.jvm import free_port
from bridge.settings import KafkaSettings
from tests.security.brokers import (
    CLIENT_ID,
    CLIENT_SECRET,
    PASSWORD,
    SCRAM_PASSWORD,
    SCRAM_USER,
    SECRETS,
    USER,
    TokenEndpoint,
)
from tests.security.certificates import Authority
from tests.security.conftest import HOST, Locked
from tests.security.impostors import hang_up, impostor, tls_server

CREDENTIALS = {"kafka_sasl_username": USER, "kafka_sasl_password": PASSWORD}


def over_tls(locked: Locked, **changed: Any) -> KafkaSettings:  # noqa: ANN401 - settings of any type
    """Settings that are right but for what is ``changed``."""
    right = {
        "kafka_bootstrap_servers": locked.broker.bootstrap_servers,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_ssl_ca_location": locked.authority.certificate,
        **CREDENTIALS,
    }
    return KafkaSettings(**{**right, **changed})


async def refusal(settings: KafkaSettings) -> str:
    """The line with which both kinds of client are refused."""
    lines = []
    for client in (admin, consumer):
        with pytest.raises(Misconfigured) as caught:
            async with client(settings):
                pass
        lines.append(str(caught.value))
    line = lines[0]
    assert lines == [line, line]
    assert "\n" not in line
    assert not any(secret in line for secret in SECRETS)
    return line


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"kafka_sasl_password": "wrong"}, "refuses our PLAIN credentials"),
        ({"kafka_sasl_mechanism": "SCRAM-SHA-256"}, "refuses our SCRAM-SHA-256 credentials"),
        (
            {
                "kafka_sasl_mechanism": "SCRAM-SHA-512",
                "kafka_sasl_username": SCRAM_USER,
                "kafka_sasl_password": SCRAM_PASSWORD.upper(),
            },
            "refuses our SCRAM-SHA-512 credentials",
        ),
        ({"kafka_ssl_ca_location": None}, "unable to get local issuer certificate"),
    ],
)
async def test_credentials_that_are_wrong_are_named(secured: Locked, changed: dict[str, Any], expected: str) -> None:
    """A wrong password, an unknown user, and a broker whose authority the system does not know."""
    assert expected in await refusal(over_tls(secured, **changed))


async def test_certificate_for_another_name_is_refused(secured: Locked) -> None:
    """The certificate is for 127.0.0.1: under the name of localhost the same broker is not to be trusted."""
    servers = secured.broker.bootstrap_servers.replace("127.0.0.1", "localhost")
    line = await refusal(over_tls(secured, kafka_bootstrap_servers=servers))
    assert "is not to be trusted (Hostname mismatch, certificate is not valid for 'localhost')" in line


async def test_certificate_that_has_expired_is_refused(authority: Authority, secured: Locked) -> None:
    """Whoever holds an old key proves nothing with it any more."""
    async with tls_server(*authority.vouch("expired", alternative_name=HOST, days=-1), hang_up) as server:
        assert "certificate has expired" in await refusal(over_tls(secured, kafka_bootstrap_servers=server))


async def test_broker_that_does_not_know_the_password_is_refused(authority: Authority, secured: Locked) -> None:
    """SCRAM proves both sides: whoever cannot prove that the password is known there is not our Kafka."""
    settings = {"kafka_sasl_mechanism": "SCRAM-SHA-256", "kafka_sasl_username": SCRAM_USER}
    settings |= {"kafka_sasl_password": SCRAM_PASSWORD}
    async with tls_server(
        *authority.vouch("impostor", alternative_name=HOST),
        impostor(secured.broker.bootstrap_servers, authority.certificate),
    ) as server:
        line = await refusal(over_tls(secured, kafka_bootstrap_servers=server, **settings))
    assert "does not know our password either" in line


async def test_first_of_several_brokers_that_says_why_is_told(secured: Locked) -> None:
    """A broker that is away does not hide that another one refuses us; one that lets us in is enough."""
    servers = f"127.0.0.1:{free_port()},{secured.broker.bootstrap_servers}"
    refused = over_tls(secured, kafka_bootstrap_servers=servers, kafka_sasl_password="wrong")  # noqa: S106 - it is
    assert secured.broker.bootstrap_servers in await refusal(refused)
    async with admin(over_tls(secured, kafka_bootstrap_servers=servers)) as client:
        assert (await client.describe_cluster())["brokers"]


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
async def test_client_certificate_that_is_missing_or_wrong_is_named(
    mutual: Locked, authority: Authority, stranger: Authority, who: str
) -> None:
    """Without a certificate, with one of another authority, or with an old one we are told that it is the certificate."""
    changed: dict[str, Any] = {"kafka_security_protocol": "SSL"}
    if who != "nobody":
        signer = stranger if who == "stranger" else authority
        certificate, key = signer.vouch(who, alternative_name="DNS:bridge.test", days=-1 if who == "expired" else 2)
        changed |= {"kafka_ssl_certificate_location": certificate, "kafka_ssl_key_location": key}
    assert "refuses our certificate (certificate" in await refusal(over_tls(mutual, **changed))


@pytest.mark.parametrize("password", [None, "wrong"])
def test_key_whose_password_is_missing_or_wrong_is_refused_without_asking(
    authority: Authority, password: str | None
) -> None:
    """OpenSSL would ask at the terminal, and a service would hang there."""
    certificate, key = authority.vouch("hidden", alternative_name="DNS:bridge.test", password="k3y-p4ss")  # noqa: S106
    settings = KafkaSettings(
        kafka_security_protocol="SSL",
        kafka_ssl_certificate_location=certificate,
        kafka_ssl_key_location=key,
        kafka_ssl_key_password=password,
    )
    with pytest.raises(Misconfigured, match="key's password"):
        connection(settings)


async def test_protocol_without_credentials_where_they_are_not_asked_for_is_named(mutual: Locked) -> None:
    """SASL against a listener that wants none is a wrong port or protocol."""
    certificate, key = mutual.authority.vouch("sasl", alternative_name="DNS:bridge.test")
    settings = over_tls(mutual, kafka_ssl_certificate_location=certificate, kafka_ssl_key_location=key)
    assert "asks for no credentials" in await refusal(settings)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_PLAINTEXT"])
async def test_broker_that_hangs_up_without_a_reason_counts_as_away(secured: Locked, protocol: str) -> None:
    """A proxy in front of a dead broker hangs up as well: without proof of a refusal another try may help."""
    with pytest.raises(KafkaConnectionError):
        async with admin(over_tls(secured, kafka_security_protocol=protocol)):
            pass


def by_token(locked: Locked, endpoint: TokenEndpoint, **changed: str) -> KafkaSettings:
    """Settings of OAUTHBEARER that are right but for what is ``changed``."""
    return over_tls(
        locked,
        kafka_sasl_mechanism="OAUTHBEARER",
        kafka_sasl_oauthbearer_token_endpoint_url=endpoint.url,
        **{
            "kafka_sasl_oauthbearer_client_id": CLIENT_ID,
            "kafka_sasl_oauthbearer_client_secret": CLIENT_SECRET,
            **changed,
        },
    )


async def test_token_is_asked_for_once_for_all_clients(secured: Locked, token_endpoint: TokenEndpoint) -> None:
    """One token serves every connection until most of its life is over."""
    for client in (admin, consumer, admin):
        async with client(by_token(secured, token_endpoint)):
            pass
    assert token_endpoint.forms == [{"grant_type": "client_credentials"}]


@pytest.mark.parametrize(
    ("instead", "expected"),
    [
        (None, "answers 401 (invalid_client)"),
        ((400, '{"error": "invalid_scope"}'), "answers 400 (invalid_scope)"),
        ((400, '{"error": "a word of its own"}'), "answers 400: correct"),
        ((403, "<html>"), "answers 403: correct"),
        ((307, ""), "answers 307: correct"),
        ((200, "<html>"), "no token endpoint"),
        ((200, "[" * 100_000), "no token endpoint"),
        ((200, '{"access_token": "a\\u0001auth=Bearer b"}'), "no token endpoint"),
    ],
)
async def test_token_that_is_not_given_is_named(
    secured: Locked, token_endpoint: TokenEndpoint, instead: tuple[int, str] | None, expected: str
) -> None:
    """A wrong secret, a refusal in OAuth's words or in others, a redirect, and what is no token: none is followed or repeated."""
    token_endpoint.instead = instead
    line = await refusal(by_token(secured, token_endpoint, kafka_sasl_oauthbearer_client_secret=f"wrong {expected}"))
    assert expected in line
    assert "a word" not in line


@pytest.mark.parametrize("instead", [(503, ""), (429, "")])
async def test_token_endpoint_that_is_away_is_asked_again(
    secured: Locked, token_endpoint: TokenEndpoint, instead: tuple[int, str]
) -> None:
    """An endpoint in trouble is no refusal: the next try gets in."""
    token_endpoint.instead = instead
    with pytest.raises(KafkaConnectionError):
        async with admin(by_token(secured, token_endpoint)):
            pass
    token_endpoint.instead = None
    async with admin(by_token(secured, token_endpoint)):
        pass


async def test_token_endpoint_that_goes_away_leaves_the_token_its_life(
    secured: Locked, token_endpoint: TokenEndpoint
) -> None:
    """A token that should be renewed, and cannot be, is used until it ends."""
    provider = connection(by_token(secured, token_endpoint))["sasl_oauth_token_provider"]
    token_endpoint.life_s = 1
    first = await provider.token()
    token_endpoint.instead = (503, "")
    async with asyncio.timeout(30):
        while await token_or_none(provider) == first:
            pass
    with pytest.raises(KafkaConnectionError):
        await provider.token()
    assert len(token_endpoint.forms) > 2, "it was asked for before it ended"


async def token_or_none(provider: AbstractTokenProvider) -> str | None:
    """A token; None while there is none to be had."""
    try:
        token: str = await provider.token()
    except KafkaConnectionError:
        return None
    return token


@pytest.mark.parametrize("url", ["http://idp.test/token", "http://127.0.0.1.test/token", "ftp://idp.test/token"])
def test_token_endpoint_without_tls_elsewhere_is_no_setting(url: str) -> None:
    """Our secret goes there: over TLS, or not beyond this machine."""
    with pytest.raises(ValidationError):
        KafkaSettings(kafka_sasl_oauthbearer_token_endpoint_url=url)


@pytest.mark.parametrize(
    ("mechanism", "missing"),
    [("SCRAM-SHA-512", "SASL_USERNAME and BRIDGE_KAFKA_SASL_PASSWORD"), ("OAUTHBEARER", "OAUTHBEARER_CLIENT_SECRET")],
)
def test_mechanism_without_its_credentials_is_no_setting(mechanism: str, missing: str) -> None:
    """What is missing is named before anything is tried."""
    with pytest.raises(ValidationError, match=missing):
        KafkaSettings(kafka_security_protocol="SASL_SSL", kafka_sasl_mechanism=mechanism)


def test_tls_always_checks_certificate_and_name() -> None:
    """There is no setting that ends it."""
    context: ssl.SSLContext = connection(KafkaSettings(kafka_security_protocol="SSL"))["ssl_context"]
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert not [name for name in KafkaSettings.model_fields if "verif" in name or "identification" in name]

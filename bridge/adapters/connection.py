"""How to reach the brokers: librdkafka's words in our settings, aiokafka's arguments here.

A broker's certificate and the name in it are always checked; no setting ends that. aiokafka's clients say only that no broker
could be reached: `explain` asks again, alone, and tells a broker that is away from one that refuses us.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection, OAuthAuthenticator
from aiokafka.errors import (
    AuthenticationFailedError,
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.helpers import create_ssl_context
from aiokafka.protocol.metadata import MetadataRequest

from bridge.adapters import oauth
from bridge.errors import Misconfigured
from bridge.settings import KafkaSettings

CONNECT_TIMEOUT_S = 10.0
"""For a client to find its brokers: a second across a VPN, and whoever waits wants to know."""


def connection(settings: KafkaSettings) -> dict[str, Any]:
    """The arguments that every aiokafka client takes.

    Raises:
        Misconfigured: a certificate or key cannot be read.
    """
    arguments: dict[str, Any] = {
        "bootstrap_servers": settings.kafka_bootstrap_servers,
        "security_protocol": settings.kafka_security_protocol,
    }
    if settings.kafka_security_protocol.endswith("SSL"):
        password = settings.kafka_ssl_key_password
        try:
            context = create_ssl_context(
                cafile=settings.kafka_ssl_ca_location,
                certfile=settings.kafka_ssl_certificate_location,
                keyfile=settings.kafka_ssl_key_location,
                password=password.get_secret_value() if password else "",  # None: OpenSSL would ask at the terminal
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot use the certificates of BRIDGE_KAFKA_SSL_… ({type(error).__name__}): check the paths, that they are PEM, "
                "and the key's password"
            ) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2  # Debian's Python leaves that to a file of the machine's
        arguments["ssl_context"] = context
    if settings.kafka_security_protocol.startswith("SASL"):
        arguments |= _sasl(settings)
    return arguments


def _sasl(settings: KafkaSettings) -> dict[str, Any]:
    mechanism: dict[str, Any] = {"sasl_mechanism": settings.kafka_sasl_mechanism}
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        secret = settings.kafka_sasl_oauthbearer_client_secret
        return mechanism | {
            "sasl_oauth_token_provider": oauth.provider(
                settings.kafka_sasl_oauthbearer_token_endpoint_url or "",
                settings.kafka_sasl_oauthbearer_client_id or "",
                secret.get_secret_value() if secret else "",
                settings.kafka_sasl_oauthbearer_scope,
            )
        }
    password = settings.kafka_sasl_password
    return mechanism | {
        "sasl_plain_username": settings.kafka_sasl_username,
        "sasl_plain_password": password.get_secret_value() if password else "",
    }


@contextlib.asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client.

    Raises:
        Misconfigured: Kafka refuses us, or is not to be trusted.
        KafkaError, OSError: it cannot be reached.
    """
    client = AIOKafkaAdminClient(**connection(settings))
    try:
        await _start(client, settings)
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def consumer(
    settings: KafkaSettings, group_id: str | None = None, *, committed_only: bool = False
) -> AsyncIterator[AIOKafkaConsumer]:
    """A connected consumer without an assignment; it commits nothing by itself.

    Args:
        settings: how to reach Kafka.
        group_id: in whose name it may commit.
        committed_only: whether it passes over what a transaction wrote and did not commit.

    Raises:
        Misconfigured: Kafka refuses us, or is not to be trusted.
        KafkaError, OSError: it cannot be reached.
    """
    client = AIOKafkaConsumer(
        **connection(settings),
        group_id=group_id,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed" if committed_only else "read_uncommitted",
    )
    try:
        await _start(client, settings)
        await asyncio.sleep(0)  # stop() raises CancelledError when start()'s own task has not run once (aiokafka 0.14)
        yield client
    finally:
        await client.stop()


async def _start(client: AIOKafkaAdminClient | AIOKafkaConsumer, settings: KafkaSettings) -> None:
    if settings.kafka_sasl_mechanism == "OAUTHBEARER":
        await explain(settings)  # aiokafka takes a token that is refused for a success, see `_HearingErrors`
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.start()
    except (KafkaConnectionError, ValueError):
        await explain(settings)
        raise


async def explain(settings: KafkaSettings) -> None:
    """Ask the brokers one by one until one lets us in, or says why it does not; a broker that is away is no reason.

    Raises:
        Misconfigured: credentials or certificates that a person must mend.
    """
    arguments = connection(settings)
    for server in arguments.pop("bootstrap_servers").split(","):
        host, _, port = server.rpartition(":")
        asking = _Asking(host.strip("[]"), int(port), **arguments)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await asking.connect()
                await asking.send(MetadataRequest([]))  # only now has a TLS 1.3 server looked at our certificate
        except (OSError, KafkaError, ValueError) as error:
            for cause in (error, error.__cause__):
                if refusal := _refusal(cause, server, settings.kafka_sasl_mechanism):
                    raise Misconfigured(refusal) from None
        else:
            return
        finally:
            asking.close()


class _Asking(AIOKafkaConnection):  # type: ignore[misc] # aiokafka ships no types
    def authenticator_oauth(self) -> OAuthAuthenticator:
        return _HearingErrors(sasl_oauth_token_provider=self._sasl_oauth_token_provider)


class _HearingErrors(OAuthAuthenticator):  # type: ignore[misc] # aiokafka ships no types
    """A broker answers a bad token with a JSON text and waits for a byte before it says no (RFC 7628 section 3.2.3).

    aiokafka 0.14 takes that text for success, and then finds a cluster without brokers.
    """

    async def step(self, payload: bytes | None) -> tuple[bytes, bool] | None:
        if payload:
            return b"\x01", True
        answer: tuple[bytes, bool] | None = await super().step(payload)
        return answer


def _refusal(error: BaseException | None, server: str, mechanism: str) -> str | None:
    """What a person must mend, as one line without anything that a broker wrote; None when nobody can."""
    line = None
    match error:
        case ssl.SSLCertVerificationError():
            line = (
                f"the certificate of Kafka at {server} is not to be trusted ({error.verify_message.rstrip('.')}): set "
                "BRIDGE_KAFKA_SSL_CA_LOCATION to the CA that signed it, and name the broker as its certificate does"
            )
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            alert = reason.rpartition("ALERT_")[2].lower().replace("_", " ")
            line = (
                f"Kafka at {server} refuses our certificate ({alert}): correct BRIDGE_KAFKA_SSL_CERTIFICATE_LOCATION and "
                "BRIDGE_KAFKA_SSL_KEY_LOCATION"
            )
        case SaslAuthenticationFailed():
            names = "OAUTHBEARER_…" if mechanism == "OAUTHBEARER" else "USERNAME and BRIDGE_KAFKA_SASL_PASSWORD"
            line = f"Kafka at {server} refuses our {mechanism} credentials: correct BRIDGE_KAFKA_SASL_{names}"
        case UnsupportedSaslMechanismError():
            line = f"Kafka at {server} does not take {mechanism}: correct BRIDGE_KAFKA_SASL_MECHANISM"
        case IllegalSaslStateError():
            line = f"Kafka at {server} asks for no credentials: correct the port, or BRIDGE_KAFKA_SECURITY_PROTOCOL"
        case AuthenticationFailedError():
            line = str(error.args[0])  # our own words, in `bridge.adapters.oauth`
        case ValueError() if mechanism.startswith("SCRAM"):
            line = f"what answers at {server} does not know our password either: it is not the Kafka that we look for"
    return line

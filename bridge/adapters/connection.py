"""How to reach the brokers: librdkafka's words in our settings, aiokafka's arguments here. Certificates are always checked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.helpers import create_ssl_context

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
            arguments["ssl_context"] = create_ssl_context(
                cafile=settings.kafka_ssl_ca_location,
                certfile=settings.kafka_ssl_certificate_location,
                keyfile=settings.kafka_ssl_key_location,
                password=password.get_secret_value() if password else None,
            )
        except OSError as error:
            raise Misconfigured(
                f"cannot use the certificates of BRIDGE_KAFKA_SSL_… ({type(error).__name__}): check the paths, and that they are PEM"
            ) from None
    if settings.kafka_security_protocol.startswith("SASL") and settings.kafka_sasl_password:
        arguments |= {
            "sasl_mechanism": settings.kafka_sasl_mechanism,
            "sasl_plain_username": settings.kafka_sasl_username,
            "sasl_plain_password": settings.kafka_sasl_password.get_secret_value(),
        }
    return arguments


@contextlib.asynccontextmanager
async def admin(settings: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """A connected admin client.

    Raises:
        KafkaError, OSError: Kafka cannot be reached.
    """
    client = AIOKafkaAdminClient(**connection(settings))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.start()
        yield client
    finally:
        await client.close()


@contextlib.asynccontextmanager
async def consumer(settings: KafkaSettings, group_id: str | None = None) -> AsyncIterator[AIOKafkaConsumer]:
    """A connected consumer without an assignment; it commits nothing by itself.

    Raises:
        KafkaError, OSError: Kafka cannot be reached.
    """
    client = AIOKafkaConsumer(
        **connection(settings), group_id=group_id, enable_auto_commit=False, auto_offset_reset="earliest"
    )
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.start()
        yield client
    finally:
        await client.stop()

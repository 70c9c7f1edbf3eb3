"""Brokers behind locks, shared by the tests here: one with SASL over TLS, one that wants a certificate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest

from bridge.local.kafka import LocalKafka
from tests.kafka.serving import run, serve_environment
from tests.security.brokers import PASSWORD, SCRAM_MECHANISMS, USER, TokenEndpoint, Users, mutual_tls, sasl_over_tls
from tests.security.certificates import Authority

HOST = "IP:127.0.0.1"


class Locked(NamedTuple):
    """A broker behind a lock.

    Attributes:
        authority: who vouched for its certificate.
        prefix: of topics that are there.
    """

    broker: LocalKafka
    authority: Authority
    prefix: str


BY_PASSWORD = {"SASL_USERNAME": USER, "SASL_PASSWORD": PASSWORD}


def over_tls(locked: Locked, **variables: str) -> dict[str, str]:
    """What `bridge serve` needs over the SASL broker; ``variables`` are settings without BRIDGE_KAFKA_."""
    return serve_environment(
        locked.broker.bootstrap_servers,
        locked.prefix,
        KAFKA_SECURITY_PROTOCOL="SASL_SSL",
        KAFKA_SSL_CA_LOCATION=str(locked.authority.certificate),
        **{f"KAFKA_{name}": value for name, value in variables.items()},
    )


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who vouches for our brokers and their clients."""
    return Authority(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody here trusts."""
    return Authority(tmp_path_factory.mktemp("stranger"), "authority")


@pytest.fixture(scope="session")
async def secured(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Locked]:
    """A broker whose clients log in over TLS."""
    properties = sasl_over_tls(*authority.vouch("secured", alternative_name=HOST))
    async with LocalKafka(data_dir=tmp_path_factory.mktemp("secured"), port=None, properties=properties) as broker:
        users = Users(broker, authority.certificate)
        for mechanism in SCRAM_MECHANISMS:
            users.set(mechanism)
        locked = Locked(broker, authority, "test-secured")
        await run(tmp_path_factory.mktemp("topics"), over_tls(locked, **BY_PASSWORD), "topics", "apply")
        yield locked


@pytest.fixture(scope="session")
async def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Locked]:
    """A broker whose clients show a certificate."""
    certificate, key = authority.vouch("mutual", alternative_name=HOST)
    properties = mutual_tls(certificate, key, authority.certificate)
    async with LocalKafka(data_dir=tmp_path_factory.mktemp("mutual"), port=None, properties=properties) as broker:
        yield Locked(broker, authority, "test-mutual")


@pytest.fixture
async def token_endpoint() -> AsyncIterator[TokenEndpoint]:
    """A token endpoint of the test's own."""
    async with TokenEndpoint.opened() as endpoint:
        yield endpoint

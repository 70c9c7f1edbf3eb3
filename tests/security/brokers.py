"""The packaged broker behind locks, and the endpoint that gives out its tokens."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote_plus

from aiohttp import web
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._scram import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from bridge.local.jvm import free_port
from bridge.local.service import Broker

USER, PASSWORD = "bridge", "pl4in=pass,word;%+"
SCRAM_USER, SCRAM_PASSWORD = "scram,user=1", "scr4m=pass,wörd"  # RFC 5802 escapes both signs in a name
CLIENT_ID, CLIENT_SECRET = "the bridge", "cl13nt:secret/&+"  # RFC 6749 encodes all of these
SCRAM_MECHANISMS = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
SECRETS = (PASSWORD, SCRAM_PASSWORD, CLIENT_SECRET)
"""What nobody may read anywhere."""

_ITERATIONS = 4096  # Kafka's least
_DEADLINE_S = 60
_LOGIN = "org.apache.kafka.common.security"


def sasl_over_tls(certificate: Path, key: Path) -> dict[str, str]:
    """Properties of a broker whose clients log in over TLS, by any mechanism that the bridge has."""
    client = "listener.name.client."
    return {
        "listener.security.protocol.map": "CLIENT:SASL_SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        **_keystore(certificate, key),
        f"{client}sasl.enabled.mechanisms": ",".join(("PLAIN", *SCRAM_MECHANISMS, "OAUTHBEARER")),
        f"{client}plain.sasl.jaas.config": f'{_LOGIN}.plain.PlainLoginModule required user_{USER}="{PASSWORD}";',
        **{
            f"{client}{mechanism.lower()}.sasl.jaas.config": f"{_LOGIN}.scram.ScramLoginModule required;"
            for mechanism in SCRAM_MECHANISMS
        },
        # Without a callback handler Kafka takes unsigned tokens, and still checks their life and their scope.
        f"{client}oauthbearer.sasl.jaas.config": f"{_LOGIN}.oauthbearer.OAuthBearerLoginModule required "
        'unsecuredLoginStringClaim_sub="broker" unsecuredValidatorRequiredScope="kafka";',
        f"{client}oauthbearer.connections.max.reauth.ms": "60000",  # a session ends with its token, or after this
    }


def mutual_tls(certificate: Path, key: Path, trusted: Path) -> dict[str, str]:
    """Properties of a broker whose clients show a certificate that ``trusted`` signed."""
    return {
        "listener.security.protocol.map": "CLIENT:SSL,INTERNAL:PLAINTEXT,CONTROLLER:PLAINTEXT",
        **_keystore(certificate, key),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(trusted),
        "ssl.client.auth": "required",
    }


def _keystore(certificate: Path, key: Path) -> dict[str, str]:
    both = certificate.with_suffix(".keystore.pem")
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return {"ssl.keystore.type": "PEM", "ssl.keystore.location": str(both)}


class Users:
    """The SCRAM users of a broker that runs, by another client than ours."""

    def __init__(self, broker: Broker, authority: Path) -> None:
        self._admin = AdminClient(
            {
                "bootstrap.servers": broker.bootstrap_servers,
                "log_level": 0,  # brokers that go away are what tests are about
                "security.protocol": "SASL_SSL",
                "ssl.ca.location": str(authority),
                "sasl.mechanism": "PLAIN",
                "sasl.username": USER,
                "sasl.password": PASSWORD,
            }
        )

    def set(self, mechanism: str, user: str = SCRAM_USER, password: str = SCRAM_PASSWORD) -> None:
        """Makes a user, or gives it this password."""
        info = ScramCredentialInfo(SCRAM_MECHANISMS[mechanism], _ITERATIONS)
        wanted: list[UserScramCredentialAlteration] = [UserScramCredentialUpsertion(user, info, password.encode())]
        for done in self._admin.alter_user_scram_credentials(wanted).values():
            done.result(_DEADLINE_S)


class TokenEndpoint:
    """OAuth 2.0's token endpoint for one client; its tokens are unsigned.

    Attributes:
        url: its address.
        forms: what it was asked with.
        life_s, scope: of the tokens that it gives.
        instead: status and text to answer with, whoever asks.
    """

    def __init__(self) -> None:
        self.url = ""
        self.forms: list[dict[str, str]] = []
        self.life_s: float = 300
        self.scope = "kafka"
        self.instead: tuple[int, str] | None = None

    @classmethod
    @asynccontextmanager
    async def opened(cls) -> AsyncIterator[Self]:
        """One that serves on a port of this machine."""
        endpoint = cls()
        app = web.Application()
        app.router.add_post("/token", endpoint._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        endpoint.url = f"http://127.0.0.1:{port}/token"
        try:
            yield endpoint
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        self.forms.append({name: str(value) for name, value in (await request.post()).items()})
        if self.instead is not None:
            return web.Response(status=self.instead[0], text=self.instead[1], headers={"Location": "/token"})
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        client = [unquote_plus(part) for part in base64.b64decode(given).decode().split(":")]
        if scheme != "Basic" or client != [CLIENT_ID, CLIENT_SECRET]:
            return web.json_response({"error": "invalid_client", "error_description": f"not {given}"}, status=401)
        now = time.time()
        claims = {"sub": CLIENT_ID, "iat": now, "exp": now + self.life_s, "scope": self.scope}
        token = f"{_base64url({'alg': 'none'})}.{_base64url(claims)}."
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": int(self.life_s)})


def _base64url(content: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

"""The schema registry, through Confluent's API: looks schemas up, registers them, sets their compatibility.

Apicurio speaks the same API with two differences (3.3.3): compatibility is NONE until it is set, so it is set per subject
before a schema is registered; and a look-up passes over doc and default, which change no byte of a value.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from bridge.encoding import Schema
from bridge.errors import BridgeError, Misconfigured
from bridge.settings import KafkaSettings

COMPATIBILITY = "FULL_TRANSITIVE"
"""Every reader reads every writer: consumers and bridge are deployed in any order, and topics are replayed from their start."""

_CONNECT_TIMEOUT_S = 10.0
"""As for Kafka: an operator waits."""

_REQUEST_TIMEOUT_S = 30.0
"""A first registration took 7.4 s on a registry that keeps its schemas in Kafka; four times that."""

_REASON_CHARACTERS_MAX = 300
"""Of a registry's own words: enough for Apicurio's list of differences, and still a line."""

_OK = 200
_UNAUTHORIZED, _FORBIDDEN, _TOO_MANY = 401, 403, 429
_CONFLICT, _UNPROCESSABLE = 409, 422
_SERVER_ERROR = 500
_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND, _LEVEL_NOT_FOUND = 40401, 40403, 40408
"""Confluent's error codes (docs.confluent.io, "Schema Registry API Reference"); a 404 without one is a wrong path."""


class RegistryUnreachable(BridgeError):
    """No answer, or one that says to come back later."""

    reason = "registry_unreachable"


class SchemaRefused(BridgeError):
    """The registry does not take a schema; the message is the registry's."""

    reason = "schema_refused"


async def schema_ids(settings: KafkaSettings, schemas: Mapping[str, Schema]) -> dict[str, int]:
    """Look up the ids of schemas by subject; registers none.

    Raises:
        Misconfigured: some are not registered, or the registry is not to be used with these settings.
        RegistryUnreachable: worth another try.
    """
    async with Registry(settings) as registry:
        found = {subject: await registry.schema_id(subject, schema) for subject, schema in schemas.items()}
    missing = [subject for subject, schema_id in found.items() if schema_id is None]
    if missing:
        raise Misconfigured(f"schemas that are not registered: {', '.join(missing)}: run `bridge schemas register`")
    return {subject: schema_id for subject, schema_id in found.items() if schema_id is not None}


class Registry:
    """A connection to the registry of the settings; an async context manager.

    Every method raises RegistryUnreachable when another try may help, and Misconfigured when a person must mend a setting.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        if settings.schema_registry_url is None:
            raise Misconfigured("no schema registry is set: set BRIDGE_SCHEMA_REGISTRY_URL")
        url, headers = _url(settings.schema_registry_url), {}
        if token := settings.schema_registry_bearer_auth_token:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        elif user_info := settings.schema_registry_basic_auth_user_info:
            headers["Authorization"] = f"Basic {base64.b64encode(user_info.get_secret_value().encode()).decode()}"
        self._shown = url.with_user(None)  # a password in the address is for the registry alone
        self._url = self._shown if headers else url
        self._headers = headers
        self.date: str | None = None
        """The Date header of the last answer."""

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S, sock_connect=_CONNECT_TIMEOUT_S)
        self._session = aiohttp.ClientSession(headers=self._headers, timeout=timeout)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def schema_id(self, subject: str, schema: Schema) -> int | None:
        """The id of a schema under a subject; None when it is not registered there."""
        status, answer = await self._ask("POST", ("subjects", subject), _body(schema))
        return self._id(answer) if status == _OK else None

    async def register(self, subject: str, schema: Schema) -> int:
        """Set the subject's compatibility and register a schema; nothing changes when it is there already.

        Raises:
            SchemaRefused: it is not compatible with those that are registered, or no schema to this registry.
        """
        await self._ask("PUT", ("config", subject), {"compatibility": COMPATIBILITY})
        status, answer = await self._ask("POST", ("subjects", subject, "versions"), _body(schema))
        if status != _OK:
            raise SchemaRefused(_words(answer))
        return self._id(answer)

    async def compatibility(self, subject: str) -> str | None:
        """The compatibility level in force for a subject, its own or the registry's; None where none is set."""
        for path in (("config", subject), ("config",)):
            status, answer = await self._ask("GET", path)
            if status == _OK and isinstance(answer, dict):
                level = answer.get("compatibilityLevel")
                return None if level is None else str(level)
        return None

    async def versions(self, subject: str) -> dict[int, Schema]:
        """Every schema registered under a subject, by version; none when there is no such subject."""
        status, numbers = await self._ask("GET", ("subjects", subject, "versions"))
        if status != _OK:
            return {}
        found = {}
        for number in numbers:
            status, answer = await self._ask("GET", ("subjects", subject, "versions", str(number)))
            if status == _OK:  # else it was deleted meanwhile
                found[number] = self._schema(answer)
        return found

    async def schema(self, schema_id: int) -> Schema | None:
        """The schema of an id; None when the registry has none."""
        status, answer = await self._ask("GET", ("schemas", "ids", str(schema_id)))
        return self._schema(answer) if status == _OK else None

    async def _ask(self, method: str, path: tuple[str, ...], body: object = None) -> tuple[int, Any]:
        """Status and answer: 200, or one that means "not there" or "refused"; all else is raised."""
        try:
            async with self._session.request(
                method, self._url.joinpath(*path), json=body, allow_redirects=False
            ) as response:
                status, text = response.status, await response.text(errors="replace")
                self.date = response.headers.get("Date")
        except (aiohttp.ClientError, OSError) as error:  # a time-out is an OSError
            raise RegistryUnreachable(
                f"no schema registry answers at {self._shown} ({type(error).__name__}): start it, or correct "
                "BRIDGE_SCHEMA_REGISTRY_URL"
            ) from None
        if status >= _SERVER_ERROR or status == _TOO_MANY:
            raise RegistryUnreachable(f"the schema registry at {self._shown} answers {status}: try again later")
        if status in (_UNAUTHORIZED, _FORBIDDEN):
            raise Misconfigured(
                f"the schema registry at {self._shown} answers {status}: correct "
                "BRIDGE_SCHEMA_REGISTRY_BASIC_AUTH_USER_INFO or BRIDGE_SCHEMA_REGISTRY_BEARER_AUTH_TOKEN"
            )
        try:
            answer = json.loads(text)
        except ValueError:
            raise self._no_registry(status) from None
        known = (_SUBJECT_NOT_FOUND, _SCHEMA_NOT_FOUND, _LEVEL_NOT_FOUND)
        not_there = isinstance(answer, dict) and answer.get("error_code") in known
        if status == _OK or not_there or status in (_CONFLICT, _UNPROCESSABLE):
            return status, answer
        raise self._no_registry(status)

    def _id(self, answer: object) -> int:
        if isinstance(answer, dict) and isinstance(answer.get("id"), int):
            return int(answer["id"])
        raise self._no_registry(_OK)

    def _schema(self, answer: object) -> Schema:
        try:
            schema = json.loads(answer["schema"]) if isinstance(answer, dict) else None
        except (KeyError, TypeError, ValueError):
            schema = None
        if not isinstance(schema, dict):
            raise self._no_registry(_OK)
        return schema

    def _no_registry(self, status: int) -> Misconfigured:
        return Misconfigured(
            f"what answers at {self._shown} ({status}) is no Confluent-compatible registry: set BRIDGE_SCHEMA_REGISTRY_URL "
            "to the base of its API, for Apicurio …/apis/ccompat/v7"
        )


def _url(text: str) -> URL:
    try:
        url = URL(text)
        valid = url.scheme in ("http", "https") and bool(url.host)
    except ValueError:
        valid = False
    if not valid:
        raise Misconfigured("BRIDGE_SCHEMA_REGISTRY_URL is no address that begins with http:// or https://")
    return url


def _body(schema: Schema) -> dict[str, str]:
    return {"schema": json.dumps(schema, separators=(",", ":")), "schemaType": "AVRO"}


def _words(answer: object) -> str:
    """What a registry says of a refusal, as one line that is safe to print."""
    message = answer.get("message") if isinstance(answer, dict) else None
    text = "".join(character if character.isprintable() else " " for character in str(message or "it says not why"))
    return text[:_REASON_CHARACTERS_MAX]

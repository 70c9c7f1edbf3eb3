"""Asks a Confluent-compatible schema registry for a schema by its id, or for a schema's id; caches nothing, decides nothing."""

from types import TracebackType
from typing import Self

import aiohttp
from yarl import URL

from consumers.errors import RegistryUnavailableError

REQUEST_TIMEOUT_S = 5  # a look-up by id takes milliseconds; the consumer's loop stands still meanwhile
OK = 200
NOT_REGISTERED = (40401, 40403)  # no such subject, or not this schema in it
SCHEMA_NOT_FOUND = 40403  # Confluent's error code; a bare 404 may as well be a wrong path in the URL


class SchemaRegistry:
    """A schema registry's `GET /schemas/ids/{id}`; an async context manager that owns its connections.

    Args:
        url: The API's base, e.g. `http://127.0.0.1:8083/apis/ccompat/v7`; may carry `user:password@`.
    """

    def __init__(self, url: str) -> None:
        self._url = URL(url)
        self._shown = self._url.with_user(None)  # without a password, for texts
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def schema_id(self, subject: str, schema: str) -> int | None:
        """The id under which a schema is registered for a subject, or None when the registry says that it is not.

        Args:
            subject: `<topic>-value`.
            schema: Its JSON text.

        Raises:
            RegistryUnavailableError: As of `schema`.
        """
        status, answer = await self._asked("POST", self._url / "subjects" / subject, {"schema": schema})
        if isinstance(answer, dict):
            if status == OK and isinstance(answer.get("id"), int):
                return int(answer["id"])
            if answer.get("error_code") in NOT_REGISTERED:
                return None
        raise RegistryUnavailableError(f"the schema registry at {self._shown} answered {status}")

    async def schema(self, schema_id: int) -> str | None:
        """The schema's JSON text, or None when the registry says that it knows no such id.

        Raises:
            RegistryUnavailableError: No answer, an answer that is not a registry's, or a refusal.
        """
        status, answer = await self._asked("GET", self._url / "schemas" / "ids" / str(schema_id))
        if isinstance(answer, dict):
            if status == OK and isinstance(answer.get("schema"), str):
                return str(answer["schema"])
            if answer.get("error_code") == SCHEMA_NOT_FOUND:
                return None
        raise RegistryUnavailableError(
            f"the schema registry at {self._shown} answered {status}; is this the base of its Confluent-compatible API?"
        )

    async def _asked(self, method: str, url: URL, body: dict[str, str] | None = None) -> tuple[int, object]:
        """The answer's status and JSON."""
        if self._session is None:
            raise RuntimeError("use `async with` first")
        try:
            async with self._session.request(method, url, json=body) as response:
                return response.status, await response.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise RegistryUnavailableError(
                f"the schema registry at {self._shown} gave no usable answer ({type(error).__name__})"
            ) from None

"""What `bridge dev` and the tests know of a broker and of a registry, whichever kind they were given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Service(ABC):
    """Something that runs beside us for a while, as an async context manager; or `start` and `stop`, again and again."""

    @property
    @abstractmethod
    def description(self) -> str:
        """What it is and where, for the line that tells a person; from the first start on."""

    @abstractmethod
    async def start(self) -> None:
        """Returns when it serves requests.

        Raises:
            Misconfigured: It does not come up; the message says why and what to do. Nothing is left running.
        """

    @abstractmethod
    async def stop(self) -> None:
        """Ends it in order; nothing happens when it does not run."""

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class Broker(Service):
    """A Kafka broker."""

    @property
    @abstractmethod
    def bootstrap_servers(self) -> str:
        """``HOST:PORT``, more than one with commas between; from the first start on."""


class Registry(Service):
    """A schema registry."""

    @property
    @abstractmethod
    def url(self) -> str:
        """The root of the Confluent API, without a slash at its end; from the first start on."""

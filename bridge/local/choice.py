"""Which broker and which registry a run takes: one that is already there, containers, or the packaged ones."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.local import kafka, registry
from bridge.local.service import Broker, Registry

DOCKER = "docker"
HOST_PORTS = r"[^\s,]+:\d{1,5}(,[^\s,]+:\d{1,5})*"
GIVEN_DEADLINE_S = 10  # a broker that is there answers in milliseconds, one across a VPN in a second or two


class GivenKafka(Broker):
    """A broker that somebody else runs: asked once whether it is there, and left as it is.

    Raises:
        Misconfigured: ``bootstrap_servers`` is not of the form ``HOST:PORT``, or more than one with commas between.
    """

    def __init__(self, bootstrap_servers: str) -> None:
        if not re.fullmatch(HOST_PORTS, bootstrap_servers):
            raise Misconfigured(f"{bootstrap_servers!r} is no broker's address: give HOST:PORT, or docker")
        self._bootstrap_servers = bootstrap_servers

    @property
    def bootstrap_servers(self) -> str:
        """As given."""
        return self._bootstrap_servers

    @property
    def description(self) -> str:
        """Where it is; what it is, only its owner knows."""
        return f"the given Kafka at {self._bootstrap_servers}"

    async def start(self) -> None:
        """Asks it once."""
        try:
            async with asyncio.timeout(GIVEN_DEADLINE_S):
                ready = await kafka.is_ready(self._bootstrap_servers)
        except OSError as error:  # a time-out is one too
            ready, cause = False, f" ({str(error) or 'no answer'})"
        else:
            cause = ""
        if not ready:
            raise Misconfigured(
                f"no Kafka serves {self._bootstrap_servers}{cause}: start it, or name another HOST:PORT"
            )

    async def stop(self) -> None:
        """Leaves it as it is."""


def choose_kafka(choice: str | None, *, data_dir: Path, port: int | None = kafka.USUAL_PORT) -> Broker:
    """The broker that ``choice`` names: ``docker``, ``HOST:PORT``, or None for the packaged one.

    ``data_dir`` and ``port`` are for a broker that we start; it takes another port when that one is taken, None: any.
    """
    if choice == DOCKER:
        from bridge.local.containers import ContainerKafka  # noqa: PLC0415 - its library is slow to import

        return ContainerKafka(port=port)
    if choice is not None:
        return GivenKafka(choice)
    return kafka.LocalKafka(data_dir=data_dir, port=port)


def choose_registry(choice: str | None, *, data_dir: Path, port: int | None = registry.USUAL_PORT) -> Registry:
    """The registry that goes with such a broker: from a container for ``docker``, else the packaged one."""
    if choice == DOCKER:
        from bridge.local.containers import ContainerRegistry  # noqa: PLC0415 - its library is slow to import

        return ContainerRegistry(port=port)
    return registry.LocalRegistry(data_dir=data_dir, port=port)

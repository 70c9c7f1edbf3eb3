"""The same broker and registry from containers, for those who have Docker and ask for it.

They keep nothing: what they held is gone when they stop. testcontainers' reaper removes them should we die first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from bridge.errors import Misconfigured
from bridge.local import kafka, registry
from bridge.local.artifacts import KAFKA_VERSION, REGISTRY_VERSION
from bridge.local.jvm import POLL_INTERVAL_S, free_port
from bridge.local.service import Broker, Registry

KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
REGISTRY_IMAGE = f"apicurio/apicurio-registry:{REGISTRY_VERSION}"
START_DEADLINE_S = 600  # pulling 600 MB of images through a slow line included


class _Container:
    """One container whose ports are published on 127.0.0.1 alone; ``ports`` maps inner to outer."""

    def __init__(self, image: str, ports: dict[int, int], environment: dict[str, str]) -> None:
        self._image = image
        self._ports = ports
        self._environment = environment
        self._container: Any = None

    async def start(self, is_ready: Callable[[], Awaitable[bool]]) -> None:
        try:
            async with asyncio.timeout(START_DEADLINE_S):
                await asyncio.to_thread(self._run)
                while not await _answers(is_ready):  # noqa: ASYNC110 - a container sets no event of ours
                    await asyncio.sleep(POLL_INTERVAL_S)
        except TimeoutError:
            await self.stop()
            raise Misconfigured(f"{self._image} was not ready within {START_DEADLINE_S} s; see: docker logs") from None
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._container is not None:
            await asyncio.to_thread(self._container.stop)
            self._container = None

    def _run(self) -> None:
        from docker.errors import DockerException  # type: ignore[import-untyped] # noqa: PLC0415 - untyped, slow to import
        from testcontainers.core.container import DockerContainer  # noqa: PLC0415 - the same

        try:
            container = DockerContainer(self._image).with_envs(**self._environment)
            # with_bind_ports would publish on every interface; docker itself takes an address too.
            container.ports = {f"{inner}/tcp": ("127.0.0.1", outer) for inner, outer in self._ports.items()}  # type: ignore[misc]
            self._container = container
            container.start()
        except DockerException as error:
            cause = str(error).partition("\n")[0]
            raise Misconfigured(
                f"no container of {self._image} ({cause}): start Docker, or do not ask for containers"
            ) from None


async def _answers(is_ready: Callable[[], Awaitable[bool]]) -> bool:
    try:
        return await is_ready()
    except OSError:
        return False


class ContainerKafka(Broker):
    """The broker: apache/kafka in the same version, with the packaged broker's properties."""

    def __init__(self, *, port: int | None = kafka.USUAL_PORT) -> None:
        self._port = free_port(port)
        listeners = "CLIENT://0.0.0.0:9092,INTERNAL://0.0.0.0:9094,CONTROLLER://0.0.0.0:9093"
        properties = kafka.PROPERTIES | {
            "listeners": listeners,
            "advertised.listeners": f"CLIENT://127.0.0.1:{self._port},INTERNAL://localhost:9094",
            "controller.quorum.voters": "1@localhost:9093",
        }
        environment = {f"KAFKA_{key.upper().replace('.', '_')}": value for key, value in properties.items()}
        self._container = _Container(KAFKA_IMAGE, {9092: self._port}, environment)

    @property
    def bootstrap_servers(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"127.0.0.1:{self._port}"

    @property
    def description(self) -> str:
        """Version and address."""
        return f"Apache Kafka {KAFKA_VERSION} in a container at {self.bootstrap_servers}"

    async def start(self) -> None:
        """Pulls the image when it is not there, which takes its time."""
        await self._container.start(lambda: kafka.is_ready(self.bootstrap_servers))

    async def stop(self) -> None:
        """Removes the container, and with it what it held."""
        await self._container.stop()


class ContainerRegistry(Registry):
    """The registry: Apicurio in the same version, in memory."""

    def __init__(self, *, port: int | None = registry.USUAL_PORT) -> None:
        self._port = free_port(port)
        self._management_port = free_port()
        self._container = _Container(REGISTRY_IMAGE, {8080: self._port, 9000: self._management_port}, {})

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` and the API's path."""
        return f"http://127.0.0.1:{self._port}{registry.CONFLUENT_API}"

    @property
    def description(self) -> str:
        """Version and address."""
        return f"Apicurio Registry {REGISTRY_VERSION} in a container at {self.url}"

    async def start(self) -> None:
        """Pulls the image when it is not there, which takes its time."""
        await self._container.start(lambda: registry.is_ready(self._management_port))

    async def stop(self) -> None:
        """Removes the container, and with it what it held."""
        await self._container.stop()

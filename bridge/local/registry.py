"""A real schema registry on 127.0.0.1: Apicurio, which also speaks Confluent's API, from the packaged archive.

It keeps its schemas and ids in a file of its folder, because records that carry those ids outlive it. (It could keep them
in Kafka too; then it takes 17 to 28 s to start, not 5.)
"""

from __future__ import annotations

from pathlib import Path

import aiohttp

from bridge.local.artifacts import REGISTRY_VERSION, in_background, registry_dir
from bridge.local.jvm import JavaServer, free_port
from bridge.local.service import Registry

USUAL_PORT = 8085  # Confluent's 8081 is the bridge's management port
CONFLUENT_API = "/apis/ccompat/v7"
READY_DEADLINE_S = 120  # 5 s on a quiet machine; 27 s was seen on a busy one
DATABASE = "jdbc:h2:file:./schemas;WRITE_DELAY=0"  # beside its log; written at once: an id that is in use is never lost


class LocalRegistry(Registry):
    """The packaged registry.

    Args:
        data_dir: Its folder; made when missing. One registry at a time may run over it.
        port: The port to take when it is free, else another one is taken (`port` says which); None: any.
    """

    def __init__(self, *, data_dir: Path, port: int | None = USUAL_PORT) -> None:
        self._data_dir = data_dir.absolute()
        self._usual_port = port
        self._port: int | None = None
        self._server: JavaServer | None = None

    @property
    def port(self) -> int:
        """The port, from the first start on; a restart keeps it."""
        if self._port is None:
            raise RuntimeError("the registry was never started, so it has no port yet")
        return self._port

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` and the API's path."""
        return f"http://127.0.0.1:{self.port}{CONFLUENT_API}"

    @property
    def description(self) -> str:
        """Version, address and folder."""
        return f"Apicurio Registry {REGISTRY_VERSION}, packaged, at {self.url}, its data and log in {self._data_dir}"

    @property
    def pid(self) -> int:
        """The running JVM's process id."""
        if self._server is None:
            raise RuntimeError("the registry does not run")
        return self._server.pid

    async def start(self) -> None:
        """Starts the registry, after fetching what is missing of it."""
        home = await in_background(registry_dir)
        self._data_dir.mkdir(parents=True, exist_ok=True)
        self._port = self._port or free_port(self._usual_port)
        management_port = free_port()
        self._server = JavaServer(
            name="the schema registry",
            arguments=("-jar", str(home / "quarkus-run.jar")),
            log=self._data_dir / "registry.log",
            environment={
                "QUARKUS_HTTP_HOST": "127.0.0.1",
                "QUARKUS_HTTP_PORT": str(self._port),
                "QUARKUS_MANAGEMENT_HOST": "127.0.0.1",  # else it opens 9000 on all interfaces
                "QUARKUS_MANAGEMENT_PORT": str(management_port),
                "APICURIO_STORAGE_KIND": "sql",
                "APICURIO_STORAGE_SQL_KIND": "h2",
                "APICURIO_DATASOURCE_URL": DATABASE,
            },
        )
        try:
            await self._server.begin()
            await self._server.until_ready(lambda: is_ready(management_port), READY_DEADLINE_S)
        except BaseException:
            await self._server.kill()
            raise

    async def stop(self) -> None:
        """Stops the registry in order."""
        if self._server is not None:
            await self._server.stop()
            self._server = None


async def is_ready(management_port: int) -> bool:
    """Whether the registry behind this management port of 127.0.0.1 can take requests."""
    try:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{management_port}/health/ready") as response,
        ):
            return response.ok
    except aiohttp.ClientError:
        return False

"""What is measured: the bridge as `bridge serve`, the references, each a real process alone on one core.

Load and Kafka have the other cores. A server inherits the core it is started on, so its threads and workers stay there too.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import bento
import golang
import msgspec
from job import Job, Result
from topics import MESSAGES

from bridge.errors import Misconfigured
from bridge.local.jvm import TETHER, free_port
from bridge.routing import topic_name
from bridge.settings import KafkaSettings

HERE = Path(__file__).parent
GO_SOURCES = {"go": HERE / "reference" / "go", **dict.fromkeys(bento.CONFIGURATIONS, bento.SOURCE)}
"""Of the targets that have to be built."""

START_DEADLINE_S = 60.0
"""A start takes two seconds; one on a machine that does other things too took ten times that."""

STOP_DEADLINE_S = 15.0
"""Beyond the bridge's own drain (publish deadline and margin)."""

LOAD_MARGIN_S = 90.0
"""For the load to prepare its requests and to open ten thousand connections."""

POLL_S = 0.05

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CORES[0]
OTHER_CORES = set(CORES[1:]) or set(CORES)
"""With a single core all share it, and only the CPU figures mean something."""


@dataclass(frozen=True)
class Place:
    """Where a server publishes to, and the secret that its deliveries are signed with."""

    kafka: KafkaSettings
    secret: str


@dataclass(frozen=True)
class Server:
    """A running server; a reference has no management port."""

    port: int
    pid: int
    management_port: int | None = None


class Servers:
    """Knows how each target is started.

    Args:
        folder: takes a folder for every server, with its log.
        python: further arguments for the bridge's interpreter.
        settings: the bridge's that are not the defaults, by their variables.
    """

    def __init__(self, folder: Path, python: Sequence[str], settings: Mapping[str, str]) -> None:
        self._folder = folder
        self._python = python
        self._settings = settings
        self._binaries: dict[str, Path] = {}

    async def build(self, target: str) -> None:
        """Build what has to be built for a target before it can be started.

        Raises:
            Misconfigured: it cannot be built here; the message says why, in a few words.
        """
        if target in GO_SOURCES:
            self._binaries[target] = await golang.built(GO_SOURCES[target])

    @asynccontextmanager
    async def running(self, target: str, place: Place) -> AsyncIterator[Server]:
        """One server from ready to stopped.

        Args:
            target: bridge; go or a configuration of Bento, once it was built; or a script of reference/: bare, trivial.
            place: where it publishes to.

        Raises:
            Misconfigured: it did not start.
        """
        port, management_port = free_port(), None
        ready_url = f"http://127.0.0.1:{port}/"
        if target == "bridge":
            management_port = free_port()
            ready_url = f"http://127.0.0.1:{management_port}/readyz"
            command = (sys.executable, *self._python, "-m", "bridge", "serve")
            environment = {**_bridge_environment(place, port, management_port), **self._settings}
        else:
            command = self._reference(target)
            environment = {
                "REFERENCE_PORT": str(port),
                "REFERENCE_SECRET": place.secret,
                "REFERENCE_BOOTSTRAP_SERVERS": place.kafka.kafka_bootstrap_servers,
                "REFERENCE_TOPIC": topic_name(place.kafka.topic_prefix, MESSAGES),
                "REFERENCE_PARTITIONS": str(place.kafka.topic_partitions),
                **bento.environment(place.kafka),
            }
        folder = self._folder / f"{target}-{port}"  # its own: the bridge keeps its spool there
        folder.mkdir()
        log = folder / "log"
        with log.open("ab") as output, _on_cores({SERVER_CORE}):
            process = await _spawn(command, environment, folder, output.fileno())
        try:
            if not await _is_ready(process, ready_url):
                raise Misconfigured(f"{target} did not start: {_last_line(log)}")
            yield Server(port=port, pid=process.pid, management_port=management_port)
        finally:
            await _stop(process)

    def _reference(self, target: str) -> tuple[str, ...]:
        if target in self._binaries:
            configuration = bento.CONFIGURATIONS.get(target)
            return (str(self._binaries[target]), *(("-c", str(configuration)) if configuration else ()))
        return (sys.executable, str(HERE / "reference" / f"{target}.py"))


async def run_load(job: Job) -> Result:
    """Run the load on the other cores.

    Raises:
        Misconfigured: the load gave up; the message is its own.
    """
    with _on_cores(OTHER_CORES):
        process = await asyncio.create_subprocess_exec(
            *_tethered((sys.executable, str(HERE / "load.py"))),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    try:
        async with asyncio.timeout(job.warm_up_s + job.seconds + LOAD_MARGIN_S):
            printed, complaints = await process.communicate(msgspec.json.encode(job))
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        last = (complaints.decode("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]
        raise Misconfigured(f"the load gave up: {last}")
    return msgspec.json.decode(printed, type=Result)


def _bridge_environment(place: Place, port: int, management_port: int) -> dict[str, str]:
    """The settings of a bridge that is measured: the defaults, but for what tells it where it is."""
    return {
        "BRIDGE_APP_SECRETS": f"bench={place.secret}",
        "BRIDGE_VERIFY_TOKEN": place.secret,
        "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": place.kafka.kafka_bootstrap_servers,
        "BRIDGE_TOPIC_PREFIX": place.kafka.topic_prefix,
        "BRIDGE_PORT": str(port),
        "BRIDGE_MANAGEMENT_PORT": str(management_port),
    }


@contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    """What is started meanwhile inherits these cores."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _tethered(command: Sequence[str]) -> tuple[str, ...]:
    """The kernel ends it with us, whatever ends us."""
    return (sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), *command)


async def _spawn(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, output: int
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *_tethered(command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd=folder,
        env={**os.environ, **environment},
        start_new_session=True,
    )


async def _is_ready(process: asyncio.subprocess.Process, url: str) -> bool:
    """Wait until it answers; False when it ended or time is up."""
    deadline = time.monotonic() + START_DEADLINE_S
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
        while process.returncode is None and time.monotonic() < deadline:
            try:
                async with session.get(url) as answer:
                    if answer.status != 503:  # noqa: PLR2004 - /readyz says so; a reference answers anything
                        return True
            except (aiohttp.ClientError, TimeoutError):
                pass
            await asyncio.sleep(POLL_S)
    return False


def _last_line(log: Path) -> str:
    return (log.read_text("utf-8", "replace").strip().splitlines() or ["it said nothing"])[-1]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
    except TimeoutError:
        process.kill()
        await process.wait()

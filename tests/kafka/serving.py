"""`bridge serve` as a real process over topics of its own, as an operator would set it up.

However a process ends, all that it ever printed is looked at: no secret, no token, no body, no expected signature.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from bridge.local.jvm import free_port
from tests.http.wire import MARKER, Answer, exchange, openssl_signatures, post
from tests.kafka.reading import Decode, Reader
from tests.processes import Process

APP_SECRET, OLD_APP_SECRET = "0f5c=e1a9/77aa+the-live-one", "9d2b-the-one-before"
VERIFY_TOKEN = "tök en+&=%;/the-token"  # noqa: S105 - guards nothing
ACCOUNT = "17841400000000001"
PARTITIONS = 4
READY_DEADLINE_S = 60  # a start takes a second, a broker's five; a busy machine ten times that
POLL_INTERVAL_S = 0.02


def serve_environment(bootstrap_servers: str, prefix: str, **variables: str) -> dict[str, str]:
    """What `bridge serve` needs, on free ports, without a spool; ``variables`` are settings without BRIDGE_."""
    settings = {
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers,
        "TOPIC_PREFIX": prefix,
        "TOPIC_PARTITIONS": f"{PARTITIONS}",
        "TOPIC_REPLICATION_FACTOR": "1",
        "APP_SECRETS": f"new={APP_SECRET},old={OLD_APP_SECRET}",
        "VERIFY_TOKEN": VERIFY_TOKEN,
        "PORT": f"{free_port()}",
        "MANAGEMENT_PORT": f"{free_port()}",
        "SPOOL_DIR": "",
        "LOG_LEVEL": "debug",  # where careless logs would tell most
        **variables,
    }
    return {f"BRIDGE_{name}": value for name, value in settings.items()}


def message(mid: str, *, customer_id: str = "1254459154682919", text: str = MARKER) -> dict[str, Any]:
    """An item of messaging[] with a text."""
    parties = {"sender": {"id": customer_id}, "recipient": {"id": ACCOUNT}}
    return {**parties, "timestamp": 1763800000123, "message": {"mid": mid, "text": text}}


def notification(*items: dict[str, Any], place: str = "messaging") -> bytes:
    """A body with these items in one entry."""
    entry = {"id": ACCOUNT, "time": 1763800000500, place: items}
    return json.dumps({"object": "instagram", "entry": [entry]}).encode()


async def run(folder: Path, environment: Mapping[str, str], *arguments: str) -> None:
    """`bridge ARGUMENT…`, which must do what it is asked."""
    process = await Process.begin("-m", "bridge", *arguments, folder=folder, environment=environment)
    assert await process.end() == 0, process.stdout + process.stderr


class Serving:
    """A running `bridge serve`.

    Attributes:
        environment: what it was started with.
    """

    def __init__(self, process: Process, environment: Mapping[str, str]) -> None:
        self.process = process
        self.environment = environment
        self._signatures: set[str] = set()

    @property
    def port(self) -> int:
        """The public port."""
        return int(self.environment["BRIDGE_PORT"])

    def signatures(self, bodies: Sequence[bytes], app_secret: str = APP_SECRET) -> list[str]:
        """The header values that Meta would send with these bodies, by openssl."""
        made = openssl_signatures(bodies, app_secret)
        self._signatures.update(made)
        return made

    def signed(self, body: bytes, *headers: str) -> bytes:
        """A delivery as bytes."""
        return post(body, self.signatures([body])[0], *headers)

    async def deliver(self, body: bytes) -> Answer:
        """The answer to a delivery, on a connection of its own."""
        return await exchange(self.port, self.signed(body))

    async def accepted(self, body: bytes) -> str:
        """The delivery id of a delivery that must be answered 200."""
        answer = await self.deliver(body)
        assert answer.status == 200, answer
        return answer.headers["x-delivery-id"]

    async def until_accepted(self, body: bytes) -> None:
        """Sends a delivery again and again, as Meta would, until it is answered 200; refused with 503 before."""
        async with asyncio.timeout(READY_DEADLINE_S):
            while (answer := await self.deliver(body)).status != 200:
                assert answer.status == 503, answer
                await asyncio.sleep(POLL_INTERVAL_S)

    async def ask(self, path: str) -> tuple[int, str]:
        """Status and text of the management port; (0, "") where nothing listens yet."""
        url = f"http://127.0.0.1:{self.environment['BRIDGE_MANAGEMENT_PORT']}{path}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status, await answer.text()
        except aiohttp.ClientConnectionError:
            return 0, ""

    async def status(self) -> dict[str, Any]:
        """/status."""
        found: dict[str, Any] = json.loads((await self.ask("/status"))[1])
        return found

    async def counted(self, line_start: str) -> float:
        """Of /metrics the sum over all samples whose line begins so."""
        lines = (await self.ask("/metrics"))[1].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(line_start))

    async def until_asked(self, path: str, wanted: int) -> None:
        """Waits until the management port answers with this status; fails at once when the process ends before."""
        async with asyncio.timeout(READY_DEADLINE_S):
            while (await self.ask(path))[0] != wanted:
                assert self.process.exit_code is None, self.process.stderr
                await asyncio.sleep(POLL_INTERVAL_S)

    async def until_counted(self, line_start: str, wanted: float) -> None:
        """Waits until `counted` gives this figure."""
        deadline = asyncio.get_running_loop().time() + READY_DEADLINE_S
        while (found := await self.counted(line_start)) != wanted:
            assert asyncio.get_running_loop().time() < deadline, f"{line_start} is {found}, not {wanted}"
            await asyncio.sleep(POLL_INTERVAL_S)

    async def until_ready(self) -> None:
        """Waits until it takes deliveries."""
        await self.until_asked("/readyz", 200)

    def assert_told_nothing(self) -> None:
        """Nothing that it printed holds what nobody should read."""
        printed = self.process.stdout + self.process.stderr
        hidden = {
            MARKER,
            APP_SECRET,
            OLD_APP_SECRET,
            VERIFY_TOKEN[-9:],
            "Traceback",
        }  # the token's end is never escaped
        hidden |= {signature.removeprefix("sha256=") for signature in self._signatures}
        lines = [line for line in printed.splitlines() if any(secret in line for secret in hidden)]
        assert not lines, lines[:5]


@asynccontextmanager
async def begun(folder: Path, environment: Mapping[str, str]) -> AsyncIterator[Serving]:
    """A `bridge serve` that may not be ready yet; killed at the end if it still runs."""
    process = await Process.begin("-m", "bridge", "serve", folder=folder, environment=environment)
    serving = Serving(process, environment)
    try:
        yield serving
    finally:
        await process.end(signal.SIGKILL)
    serving.assert_told_nothing()


class Street(NamedTuple):
    """A bridge that serves, and what reads the topics behind it."""

    serving: Serving
    reader: Reader
    decode: Decode


@asynccontextmanager
async def opened(folder: Path, environment: Mapping[str, str], decode: Decode) -> AsyncIterator[Street]:
    """Topics made by `bridge topics apply`, a bridge over them that is ready, and their reader."""
    await run(folder, environment, "topics", "apply")
    async with begun(folder, environment) as serving:
        await serving.until_ready()
        reader = Reader(environment["BRIDGE_KAFKA_BOOTSTRAP_SERVERS"], environment["BRIDGE_TOPIC_PREFIX"])
        try:
            yield Street(serving, reader, decode)
        finally:
            reader.close()

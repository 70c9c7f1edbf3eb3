"""The public port on a real socket, and a bridge without Kafka behind it in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence

from bridge.adapters.webhook import PATH, Webhook
from bridge.encoding import DeadLetterEncoder
from bridge.errors import Refused
from bridge.intake import Intake, Publisher
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER
from bridge.signature import AppSecret
from bridge.telemetry import Telemetry
from tests.unit.street import ENCODERS, PREFIXES, SCHEMAS, item, wrapped

SECRET = b"secret"
BODY = wrapped(item('"message":{"mid":"m1","text":"x"}'))
BODY_BYTES_MAX = 64 << 20
DEADLINE_S = 20
"""For what takes milliseconds; a busy machine is slower."""

STALLED_TURNS = 2000
"""Turns of the loop in which nothing happens: nothing will. A connection is read once a turn."""


class Kafka:
    """A publisher that acknowledges in the next turn."""

    ready = True

    async def until_ready(self) -> None:
        """It always is."""

    def publish(self, _records: Sequence[Record], settled: Callable[[Refused | None], None]) -> None:
        """Acknowledge."""
        asyncio.get_running_loop().call_soon(settled, None)


class Port:
    """A public port; an instance knows what it serves with.

    Attributes:
        port: of 127.0.0.1.
    """

    def __init__(self, intake: Intake, webhook: Webhook, port: int) -> None:
        self.intake = intake
        self.webhook = webhook
        self.port = port

    @contextlib.contextmanager
    def client(self) -> Iterator[socket.socket]:
        """A connection to it."""
        with socket.create_connection(("127.0.0.1", self.port)) as client:
            client.setblocking(False)  # noqa: FBT003 - the method's own signature
            yield client

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that the port does."""
        async with asyncio.timeout(DEADLINE_S):
            while not true():  # noqa: ASYNC110 - turns of the loop, which is the port's too
                await asyncio.sleep(0)


def put_together(
    publisher: Publisher,
    *,
    app_secrets: Sequence[AppSecret] = (AppSecret("main", SECRET),),
    verify_token: str = "token",  # noqa: S107 - guards nothing
    body_bytes_max: int = BODY_BYTES_MAX,
    workers: int = 1,
) -> tuple[Intake, Webhook]:
    """What serves a public port, as one of so many workers has it: without a spool, over any publisher."""
    telemetry = Telemetry()
    intake = Intake(publisher=publisher, spool=None, found=telemetry.found, body_bytes_max=body_bytes_max)
    dead_letters = DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER])
    intake.pipeline = Pipeline(topic_prefix="t", encoders=ENCODERS, dead_letters=dead_letters, record_bytes_max=1 << 20)
    webhook = Webhook(
        intake=intake,
        app_secrets=app_secrets,
        verify_token=verify_token,
        body_bytes_max=body_bytes_max,
        telemetry=telemetry,
        workers=workers,
    )
    return intake, webhook


@contextlib.asynccontextmanager
async def opened(workers: int = 1) -> AsyncIterator[Port]:
    """One that publishes nothing, as one of so many workers has it."""
    intake, webhook = put_together(Kafka(), workers=workers)
    server = await asyncio.get_running_loop().create_server(webhook, "127.0.0.1", 0)
    yield Port(intake, webhook, server.sockets[0].getsockname()[1])
    server.close()
    await webhook.stop(0)


def head(*lines: str, signed: bytes | None = None, path: str = PATH) -> bytes:
    """A POST's head, with the signature of a body or with a wrong one."""
    digest = "0" * 64 if signed is None else hmac.digest(SECRET, signed, "sha256").hex()
    return "\r\n".join(
        (f"POST {path} HTTP/1.1", "Host: a", f"X-Hub-Signature-256: sha256={digest}", *lines, "", "")
    ).encode()


DELIVERY = head(f"Content-Length: {len(BODY)}", signed=BODY) + BODY


async def statuses(client: socket.socket, count: int) -> list[bytes]:
    """The statuses of that many answers, or of those that came before the port hung up."""
    loop, said = asyncio.get_running_loop(), b""
    async with asyncio.timeout(DEADLINE_S):
        while said.count(b"HTTP/1.1 ") < count:
            more = await loop.sock_recv(client, 1 << 16)
            if not more:
                break
            said += more
    return [part[:3] for part in said.split(b"HTTP/1.1 ")[1:]]


class Wire(asyncio.Transport):
    """Where a connection's answers go; with ``answers_max`` its client is gone after so many."""

    def __init__(self, answers_max: int = 1 << 30) -> None:
        super().__init__()
        self.answers = 0
        self.is_reading_paused = False
        self._answers_max = answers_max

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Count."""
        self.answers += bytes(data).count(b"HTTP/1.1 ")

    def is_closing(self) -> bool:
        """As asyncio's says it, before it tells of the loss."""
        return self.answers >= self._answers_max

    def close(self) -> None:
        """There is nothing to close."""

    def can_write_eof(self) -> bool:
        """No: whoever is refused is closed at once."""
        return False

    def pause_reading(self) -> None:
        """Remember."""
        self.is_reading_paused = True

    def resume_reading(self) -> None:
        """As above."""
        self.is_reading_paused = False

"""Any bytes on a connection to the public port: whatever they are, what is published was signed, and the server goes on."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Self
from urllib.parse import unquote_plus

from bridge.adapters.webhook import Webhook
from bridge.errors import NotAcknowledged, Refused
from bridge.intake import Intake
from bridge.local.jvm import free_port
from bridge.record import Record
from bridge.signature import AppSecret
from tests.fuzz.mutation import mutated
from tests.fuzz.parsing import Finding
from tests.fuzz.requests import HEADERS, HTTP_TOKENS, SECRET, TOKEN, VERIFICATION, Signed
from tests.unit.port import put_together

BODY_BYTES_MAX = 16 * 1024
ANSWER_DEADLINE_S = 15
"""After the client's last byte: nothing that it can send takes that long, but for a busy machine."""

CASE_CPU_S_MAX = 1.0
REQUESTS_MAX = 6
_OK = 200
STATUSES = {100, 200, 400, 401, 403, 404, 405, 408, 413, 415, 417, 503}

SIGNED = 40
"""Different deliveries; each has an item of its own, by which its record is known."""

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+\r\n((?:[A-Za-z0-9-]+: [ -~]*\r\n)*)\r\n")


class Remembering:
    """A publisher that acknowledges at once, later or not at all, and remembers what it acknowledged."""

    ready = True

    def __init__(self) -> None:
        self.random = Random(0)  # noqa: S311 - dice
        self.acknowledged: list[Record] = []

    async def until_ready(self) -> None:
        """It always is."""

    def publish(self, records: Sequence[Record], settled: Callable[[Refused | None], None]) -> None:
        """Decide by the case's own dice."""
        refused = NotAcknowledged("not this one") if self.random.random() < 0.1 else None

        def settle() -> None:
            if refused is None:
                self.acknowledged.extend(records)
            settled(refused)

        if self.random.random() < 0.5:
            settle()
        else:
            asyncio.get_running_loop().call_later(self.random.random() / 200, settle)


class Edge:
    """The real public port in this process, over `Remembering`."""

    def __init__(
        self, intake: Intake, publisher: Remembering, webhook: Webhook, server: asyncio.Server, port: int
    ) -> None:
        self._intake = intake
        self._publisher = publisher
        self._webhook = webhook
        self._server = server
        self._port = port
        self._faults: list[str] = []
        self._deliveries = [Signed(number) for number in range(SIGNED)]
        self._corpus = [request for delivery in self._deliveries for request in delivery.requests()] + [
            VERIFICATION
        ] * SIGNED

    @classmethod
    async def opened(cls) -> Self:
        """One that listens; `close` ends it."""
        publisher = Remembering()
        intake, webhook = put_together(
            publisher,
            app_secrets=[AppSecret("other", b"another"), AppSecret("main", SECRET)],
            verify_token=TOKEN,
            body_bytes_max=BODY_BYTES_MAX,
        )
        loop = asyncio.get_running_loop()
        port = free_port()
        edge = cls(intake, publisher, webhook, await loop.create_server(webhook, "127.0.0.1", port), port)
        loop.set_exception_handler(lambda _, context: edge._faults.append(f"{context}"))
        return edge

    async def close(self) -> None:
        """Stop listening."""
        self._server.close()
        await self._webhook.stop(1)
        asyncio.get_running_loop().set_exception_handler(None)

    async def case(self, random: Random) -> bytes:
        """Run one case on a connection of its own; see `Parsing.case`."""
        stream = self._stream(random)
        pieces = _pieces(random, stream)
        hang_up = random.random() < 0.1
        self._publisher.random = Random(random.random())  # noqa: S311 - dice, thrown when the network pleases
        self._publisher.acknowledged.clear()
        began = time.thread_time()
        try:
            answered = await self.sent(pieces, hang_up=hang_up)
            async with asyncio.timeout(ANSWER_DEADLINE_S):
                while not self._webhook.is_idle or self._intake.deliveries_in_flight:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0)
            self._check(stream, answered, time.thread_time() - began)
        except Exception as error:
            raise Finding(stream) from error
        return stream

    def _stream(self, random: Random) -> bytes:
        """Some requests, most of them good, one after the other; then maybe no requests any more."""
        parts = []
        for _ in range(random.randint(1, REQUESTS_MAX)):
            good = random.choice(self._corpus)
            match random.randrange(8):
                case 0:
                    parts.append(mutated(random, good, self._corpus, HTTP_TOKENS))
                case 1 | 2:
                    lines = good.split(b"\r\n")
                    lines.insert(random.randint(1, 4), random.choice(HEADERS))
                    parts.append(b"\r\n".join(lines))
                case 3 | 4:  # the framing holds, and body or signature does not
                    at = random.randrange(len(good) // 4, len(good))
                    parts.append(good[:at] + random.choice(b"0123456789abcdef ").to_bytes() + good[at + 1 :])
                case _:
                    parts.append(good)
        stream = b"".join(parts)
        return mutated(random, stream, self._corpus, HTTP_TOKENS) if random.random() < 0.1 else stream

    async def sent(self, pieces: Sequence[bytes], *, hang_up: bool) -> bytes | None:
        """Send the pieces, say that nothing more comes, and give all that is answered; None where the connection was reset."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0)
            if hang_up:
                return None
            writer.write_eof()
            return await asyncio.wait_for(reader.read(-1), ANSWER_DEADLINE_S)
        except ConnectionError:
            return None
        finally:
            writer.transport.abort()

    def _check(self, stream: bytes, answered: bytes | None, spent_s: float) -> None:
        assert not self._faults, self._faults
        assert spent_s < CASE_CPU_S_MAX, f"{spent_s:.1f} s for {len(stream)} bytes"
        assert self._intake.bytes_held == 0, f"{self._intake.bytes_held} bytes are held for nobody"
        published = []
        for record in self._publisher.acknowledged:
            published.append(dict(record.headers)["ig_delivery_id"].decode())
            (known,) = (delivery for delivery in self._deliveries if delivery.item in record.value)
            assert known.signature in stream, "published, and its signature was never sent"
        assert len(published) == len(set(published)), "a delivery was published twice"
        if answered is not None:
            _check_answers(answered, stream, published)


def _check_answers(answered: bytes, stream: bytes, published: Sequence[str]) -> None:
    assert b"the-text" not in answered, "an answer gives a body back"
    assert TOKEN.encode() not in answered, "an answer gives the token away"
    taken = []
    for status, headers, text in _answers(answered):
        assert status in STATUSES, status
        if "x-acknowledged-by" in headers:
            assert (status, headers["x-acknowledged-by"]) == (200, "kafka")
            taken.append(headers["x-delivery-id"])
        elif status == _OK:
            assert re.fullmatch(rb"[0-9]{1,64}", text), text
            assert TOKEN in unquote_plus(stream.decode("latin-1")), "no token was sent"
    assert sorted(taken) == sorted(published), "what is answered 200 is not what is published"


def _answers(data: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """Status, headers and text of every answer; there is nothing else."""
    answers, at = [], 0
    while at < len(data):
        head = _HEAD.match(data, at)
        assert head, f"no HTTP answer: {data[at : at + 200]!r}"
        lines = [line.split(": ", 1) for line in head[2].decode("ascii").splitlines()]
        headers = {name.lower(): value for name, value in lines}
        assert len(headers) == len(lines), "a header is repeated"
        end = head.end() + int(headers.get("content-length", 0))
        assert end <= len(data), "an answer is cut off"
        answers.append((int(head[1]), headers, data[head.end() : end]))
        at = end
    return answers


def _pieces(random: Random, stream: bytes) -> list[bytes]:
    """The stream cut as a network might."""
    pieces, at = [], 0
    while at < len(stream):
        size = random.choice((1, 7, 100, 5000, len(stream)))
        pieces.append(stream[at : at + size])
        at += size
    return pieces

"""What one client may cost, and that nobody else pays for it: real sockets, and a bridge without Kafka in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hmac
import socket
import tracemalloc
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from time import monotonic

import pytest

from bridge.adapters import http, webhook
from bridge.adapters.http import HEAD_BYTES_MAX, HEAD_TIMEOUT_S, IDLE_TIMEOUT_S
from bridge.adapters.http_messages import Request
from bridge.adapters.webhook import _TOGETHER_BYTES, _TOGETHER_DELIVERIES, PATH, Webhook
from bridge.encoding import DeadLetterEncoder
from bridge.errors import Refused
from bridge.intake import Intake
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
"""Turns of the loop without a byte that goes out: the bridge has stopped reading. It reads once a turn."""

KERNEL_BYTES_MAX = 24 << 20
"""What the sockets' buffers of both sides may take, and some."""


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


@pytest.fixture
async def port() -> AsyncIterator[Port]:
    """One that publishes nothing."""
    telemetry = Telemetry()
    intake = Intake(publisher=Kafka(), spool=None, found=telemetry.found, body_bytes_max=BODY_BYTES_MAX)
    dead_letters = DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER])
    intake.pipeline = Pipeline(topic_prefix="t", encoders=ENCODERS, dead_letters=dead_letters, record_bytes_max=1 << 20)
    served = Webhook(
        intake=intake,
        app_secrets=[AppSecret("main", SECRET)],
        verify_token="token",  # noqa: S106 - guards nothing
        body_bytes_max=BODY_BYTES_MAX,
        telemetry=telemetry,
    )
    server = await asyncio.get_running_loop().create_server(served, "127.0.0.1", 0)
    yield Port(intake, served, server.sockets[0].getsockname()[1])
    server.close()
    await served.stop(0)


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


async def test_few_deliveries_wait_for_others_and_a_full_step_does_not(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step and its flush cost the same however few are in it; the first after a pause finds nobody before it."""
    monkeypatch.setattr(webhook, "_STEP_INTERVAL_S", 2 * DEADLINE_S)
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(port.client()) for _ in range(_TOGETHER_DELIVERIES)]
        await loop.sock_sendall(clients[0], DELIVERY)
        assert await statuses(clients[0], 1) == [b"200"]
        for client in clients[:-1]:
            await loop.sock_sendall(client, DELIVERY)
        await port.until(lambda: port.intake.bytes_held == len(BODY) * len(clients[:-1]))
        for _ in range(STALLED_TURNS):
            await asyncio.sleep(0)
        assert port.intake.deliveries_in_flight == 0
        await loop.sock_sendall(clients[-1], DELIVERY)
        for client in clients:
            assert await statuses(client, 1) == [b"200"]


async def test_what_is_left_by_a_full_step_does_not_wait(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large bodies fill one before there are many of them; and who sends them is not even known yet."""
    monkeypatch.setattr(webhook, "_STEP_INTERVAL_S", 2 * DEADLINE_S)
    body = b"0" * _TOGETHER_BYTES
    unsigned = head(f"Content-Length: {len(body)}") + body
    with contextlib.ExitStack() as opened:
        clients = [opened.enter_context(port.client()) for _ in range(4)]
        # All but the last byte first, so that all become whole in the same turn.
        for client in clients:
            await asyncio.get_running_loop().sock_sendall(client, unsigned[:-1])
        await port.until(lambda: port.intake.bytes_held == 4 * (len(body) - 1))
        for client in clients:
            client.send(unsigned[-1:])
        for client in clients:
            assert await statuses(client, 1) == [b"401"]


async def test_few_deliveries_go_when_the_interval_is_over(port: Port) -> None:
    """Also when nothing follows them."""
    with port.client() as client:
        for _ in range(20):
            await asyncio.get_running_loop().sock_sendall(client, DELIVERY)
            assert await statuses(client, 1) == [b"200"]


@pytest.mark.parametrize(
    ("token", "status"), [("schlüssel", b"400"), ("schl%C3%BCssel", b"200"), ("schl%FCssel", b"403"), ("schl%", b"403")]
)
async def test_verify_token_beyond_ascii_is_read_where_it_is_escaped(port: Port, token: str, status: bytes) -> None:
    """Escaped UTF-8 is read, other bytes are wrong and no fault; unescaped it is no target (RFC 3986 section 2)."""
    port.webhook.verify_token = "schlüssel"  # noqa: S105 - guards nothing
    with port.client() as client:
        asked = f"GET {PATH}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token} HTTP/1.1\r\nHost: a\r\n\r\n"
        await asyncio.get_running_loop().sock_sendall(client, asked.encode())
        assert await statuses(client, 1) == [status]


async def test_length_behind_very_many_zeros_is_that_length(port: Port) -> None:
    """More digits than Python's int reads; the parser lets them pass, and they are no reason to fall."""
    with port.client() as client:
        zeros = "0" * 5000
        await asyncio.get_running_loop().sock_sendall(
            client, head(f"Content-Length: {zeros}{len(BODY)}", signed=BODY) + BODY
        )
        assert await statuses(client, 1) == [b"200"]


@pytest.mark.parametrize("length", ["0 ", "00\t", "0 \t ", f"{len(BODY)} ", f"{len(BODY)}\t"])
async def test_length_before_blanks_is_that_length(port: Port, length: str) -> None:
    """RFC 9110 section 5.5 allows them; llhttp leaves them behind the value."""
    with port.client() as client:
        body = BODY if length[0] != "0" else b""
        sent = head(f"Content-Length: {length}", signed=body) + body
        await asyncio.get_running_loop().sock_sendall(client, sent * 2)
        assert await statuses(client, 2) == [b"200"] * 2


def fail_at(port: Port, monkeypatch: pytest.MonkeyPatch, path: bytes) -> None:
    """Let our own code fail over requests for a path."""
    begin = port.webhook.begin

    def begin_or_fail(request: Request) -> bytes | None:
        if request.path == path:
            raise RuntimeError("a text with what the client sent")
        return begin(request)

    monkeypatch.setattr(port.webhook, "begin", begin_or_fail)


async def test_fault_in_a_later_turn_ends_its_connection(
    port: Port, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody else would: a connection whose turn is over waits for no client, so it has no deadline."""
    fail_at(port, monkeypatch, b"/fault")
    with port.client() as client:
        many = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100
        await asyncio.get_running_loop().sock_sendall(client, many + b"GET /fault HTTP/1.1\r\nHost: a\r\n\r\n")
        assert await statuses(client, 101) == [b"404"] * 100
        await port.until(lambda: not port.webhook.connections)
    assert capfd.readouterr().out.count("connection_failed") == 1


async def test_bad_requests_behind_a_bad_delivery_leave_the_others_their_turns(port: Port) -> None:
    """Each is answered as soon as the one before it, which must not begin the taking of all once more."""
    wire = Wire()
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(head("Content-Length: 0") * 300)
    while wire.answers < 300:
        before = wire.answers
        await asyncio.sleep(0)
        assert wire.answers - before <= 32
    connection.connection_lost(None)


async def test_fault_over_one_connection_leaves_the_others_their_answers(
    port: Port, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A request that our own code fails over, behind refused ones that are answered in one turn with honest deliveries."""
    fail_at(port, monkeypatch, b"/fault")
    loop = asyncio.get_running_loop()
    refused = head("Content-Length: 2") + b"{}" + head("Content-Length: 0", path="/fault")
    with contextlib.ExitStack() as stack:
        bad = [stack.enter_context(port.client()) for _ in range(3)]
        good = [stack.enter_context(port.client()) for _ in range(3)]
        await port.until(lambda: len(port.webhook.connections) == len(bad) + len(good))
        for one, other in zip(bad, good, strict=True):
            one.send(refused)  # all of them are there when the loop looks next
            other.send(DELIVERY)
        assert [await statuses(client, 1) for client in good] == [[b"200"]] * 3
        assert [await statuses(client, 2) for client in bad] == [[b"401"]] * 3, (
            "the port hung up instead of a second answer"
        )
        for client in good:
            await loop.sock_sendall(client, DELIVERY)
        assert [await statuses(client, 1) for client in good] == [[b"200"]] * 3
    await port.until(lambda: not port.webhook.connections)
    assert (port.intake.deliveries_in_flight, port.intake.bytes_held) == (0, 0)
    said = "".join(capfd.readouterr())
    assert said.count("connection_failed") == len(bad)
    assert "what the client sent" not in said


async def test_body_in_very_small_chunks_costs_little_more_than_its_bytes(port: Port) -> None:
    """A byte in a chunk is a byte of the bound, not forty."""
    loop, pieces, chunks = asyncio.get_running_loop(), 50, 4000
    with port.client() as client:
        await loop.sock_sendall(client, head("Transfer-Encoding: chunked"))
        tracemalloc.start()
        try:
            for piece in range(1, pieces + 1):
                await loop.sock_sendall(client, b"1\r\nx\r\n" * chunks)
                await port.until(lambda piece=piece: port.intake.bytes_held == piece * chunks)  # type: ignore[misc]
            kept_bytes, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        await loop.sock_sendall(client, b"0\r\n\r\n")
        assert await statuses(client, 1) == [b"401"]
    assert kept_bytes < 5 * pieces * chunks


async def sent_until_stalled(client: socket.socket, piece: bytes, most: int) -> int:
    """Send for as long as the bridge reads, or until it has read that many bytes."""
    sent = stalled = 0
    while stalled < STALLED_TURNS and sent < most:
        try:
            sent += client.send(piece)
            stalled = 0
        except BlockingIOError:
            stalled += 1
        await asyncio.sleep(0)
    return sent


async def test_client_that_reads_no_answers_is_not_read_either(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it sends then would be kept, and nobody would count it."""
    begun, begin = 0, port.webhook.begin

    def counting(request: Request) -> bytes | None:
        nonlocal begun
        begun += 1
        return begin(request)

    monkeypatch.setattr(port.webhook, "begin", counting)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.connect(("127.0.0.1", port.port))
        client.setblocking(False)  # noqa: FBT003 - the method's own signature
        await port.until(lambda: len(port.webhook.connections) == 1)
        (connection,) = port.webhook.connections
        sent = 0
        while not connection.writing_paused:  # one after the other: too many at once are not read for another reason
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            sent += 1
            await port.until(lambda: begun == sent)  # noqa: B023 - called before the next is sent
        unread = head(f"Content-Length: {BODY_BYTES_MAX - 1}")
        assert client.send(unread) == len(unread)
        assert await sent_until_stalled(client, bytes(1 << 16), 2 * KERNEL_BYTES_MAX) < KERNEL_BYTES_MAX


async def test_client_that_sends_on_before_its_answer_waits_with_it(
    port: Port, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One delivery at a time: what comes behind it is read when it is answered, and then all of it."""
    waiting: list[Callable[[Refused | None], None]] = []
    monkeypatch.setattr(Kafka, "publish", lambda _self, _records, settled: waiting.append(settled))
    body = bytes(2 * KERNEL_BYTES_MAX)
    loop = asyncio.get_running_loop()
    with port.client() as client:
        await loop.sock_sendall(client, DELIVERY)
        await port.until(lambda: len(waiting) == 1)
        sending = asyncio.create_task(loop.sock_sendall(client, head(f"Content-Length: {len(body)}") + body))
        for _ in range(STALLED_TURNS):
            await asyncio.sleep(0)
        assert not sending.done(), "the bridge has read what it has no room for"
        assert port.intake.bytes_held == len(BODY)
        waiting.pop()(None)
        assert await statuses(client, 2) == [b"200", b"401"]
        await sending


async def test_connections_beyond_the_limit_are_known_and_closed(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them is a descriptor for ever, for as long as its client likes."""
    monkeypatch.setattr(http, "CONNECTIONS_MAX", 1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(port.client()) for _ in range(4)]
        await port.until(lambda: len(port.webhook.connections) == len(clients))
        for client in clients[1:]:
            assert await statuses(client, 1) == [b"503"]
        for connection in [*port.webhook.connections]:
            assert connection.deadline < float("inf")
            connection.expire()
        await port.until(lambda: not port.webhook.connections)


@pytest.mark.parametrize("pieces", [2, 5])
async def test_head_that_is_too_large_is_refused_before_it_is_whole(port: Port, pieces: int) -> None:
    """It is in no other bound."""
    lines = [f"X-{number}: {'a' * 4000}" for number in range(HEAD_BYTES_MAX // 4000 + 1)]
    unfinished = head(*lines)[:-2]
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for at in range(pieces):
            await loop.sock_sendall(
                client, unfinished[len(unfinished) * at // pieces : len(unfinished) * (at + 1) // pieces]
            )
            await asyncio.sleep(0)
        assert await statuses(client, 1) == [b"400"]


async def test_head_of_very_many_headers_is_refused_before_it_is_whole(port: Port) -> None:
    """Four bytes each, and two hundred in memory: a client that never ends its head would have a megabyte."""
    with port.client() as client:
        lines = "".join(f"{number % 10}:\r\n" for number in range(1000))
        await asyncio.get_running_loop().sock_sendall(client, f"GET / HTTP/1.1\r\nHost: a\r\n{lines}".encode())
        assert await statuses(client, 1) == [b"400"]


async def test_too_many_trailers_are_one_answer(port: Port) -> None:
    """The delivery is refused, not answered and then refused: a proxy would take the second answer for another's."""
    with port.client() as client:
        chunks = f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\n{'a:' + chr(13) + chr(10)}".replace(
            "a:\r\n", "a:\r\n" * 129
        )
        sent = head("Transfer-Encoding: chunked", signed=BODY) + f"{chunks}\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(client, sent)
        assert await statuses(client, 2) == [b"400"]


async def test_trailers_that_are_too_large_are_refused_before_they_are_whole(port: Port) -> None:
    """They are a head that comes after the body; small ones are read, and the connection is kept."""
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for size in (1000, 2 * HEAD_BYTES_MAX):
            trailers = "".join(f"X-{number}: {'a' * 1000}\r\n" for number in range(size // 1000))
            body = f"{len(BODY):x}\r\n{BODY.decode()}\r\n0\r\n".encode()
            await loop.sock_sendall(client, head("Transfer-Encoding: chunked", signed=BODY) + body)
            await port.until(lambda: port.intake.bytes_held == len(BODY))
            await loop.sock_sendall(client, trailers.encode())
            if size < HEAD_BYTES_MAX:
                await loop.sock_sendall(client, b"\r\n")
            assert await statuses(client, 1) == [b"200" if size < HEAD_BYTES_MAX else b"400"]


async def test_large_head_in_pieces_is_read(port: Port) -> None:
    """Somebody's proxies may add much; and the next head begins to count anew."""
    lines = [f"X-{number}: {'a' * 4000}" for number in range(HEAD_BYTES_MAX // 4000 - 1)]
    loop = asyncio.get_running_loop()
    with port.client() as client:
        for _ in range(3):
            delivery = head(*lines, f"Content-Length: {len(BODY)}", signed=BODY) + BODY
            half = len(delivery) // 2
            await loop.sock_sendall(client, delivery[:half])
            await port.until(lambda: any(each._head_bytes for each in port.webhook.connections))  # noqa: SLF001 - the half was read alone
            await loop.sock_sendall(client, delivery[half:])
            assert await statuses(client, 1) == [b"200"]


async def test_head_that_begins_behind_a_request_is_bounded_too(port: Port) -> None:
    """Whatever comes in one read: the large head is refused, the request before it is answered."""
    loop = asyncio.get_running_loop()
    large = "".join(f"X-{number}: {'a' * 4000}\r\n" for number in range(30))
    with port.client() as client:
        await loop.sock_sendall(client, f"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\n{large}".encode())
        assert await statuses(client, 2) == [b"404", b"400"]


async def test_head_that_begins_behind_a_request_has_the_time_of_a_head(port: Port) -> None:
    """Not that of a connection where nothing is asked; when it is over the client is told so, and not before."""
    wire = Wire()
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nX: a")
    assert wire.answers == 1
    assert connection.deadline < monotonic() + HEAD_TIMEOUT_S + 1 < monotonic() + IDLE_TIMEOUT_S
    begun = connection.deadline
    connection.data_received(b"b")
    assert connection.deadline == begun, "more of it is no more time"
    connection.expire()
    assert wire.answers == 2
    connection.connection_lost(None)


@pytest.mark.parametrize(
    "ambiguous",
    [
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "POST / HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_connection_ends_with_a_request_that_could_be_read_in_two_ways(port: Port, ambiguous: str) -> None:
    """Also when all of it is there: a proxy before us may see the next request elsewhere."""
    with port.client() as client:
        await asyncio.get_running_loop().sock_sendall(
            client, (ambiguous + 2 * "GET / HTTP/1.1\r\nHost: a\r\n\r\n").encode()
        )
        assert await statuses(client, 2) == [b"400"], "one answer, then the port hangs up"


@pytest.mark.parametrize(
    ("last", "status"),
    [(b"GET / HTTP/1.0\r\n\r\nX-A: b\r\n", b"404"), (b"GET / HTTP/1.1\r\n\r\n", b"400")],
    ids=["followed by what is no HTTP", "without Host"],
)
async def test_client_that_goes_on_behind_its_last_request_still_gets_the_answer(
    port: Port, last: bytes, status: bytes
) -> None:
    """What comes is thrown away for a moment: a reset would take the answer with it (RFC 9112 section 9.6)."""
    loop = asyncio.get_running_loop()
    with port.client() as client:
        await port.until(lambda: len(port.webhook.connections) == 1)
        (connection,) = port.webhook.connections
        await loop.sock_sendall(client, last)
        await port.until(lambda: connection.deadline < monotonic() + HEAD_TIMEOUT_S or not port.webhook.connections)
        for _ in range(3):
            await loop.sock_sendall(client, b"X-C: d\r\n")
            await asyncio.sleep(0)
        assert await statuses(client, 2) == [status]


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


async def test_many_small_requests_leave_the_others_their_turns(port: Port) -> None:
    """One read may hold thousands: they are answered, all of them, but not in one turn; and nothing is read meanwhile."""
    wire, requests = Wire(), 2000
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * requests)
    turns = 0
    while wire.answers < requests:
        assert wire.is_reading_paused
        before = wire.answers
        await asyncio.sleep(0)
        assert wire.answers - before <= 64
        turns += 1
    assert turns > requests // 100
    await asyncio.sleep(0)
    assert not wire.is_reading_paused
    connection.connection_lost(None)


async def test_client_that_is_gone_gets_no_more_answers(port: Port) -> None:
    """Every write to it is logged by asyncio, which tells of its loss only in the next turn."""
    wire = Wire(answers_max=3)
    connection = port.webhook()
    connection.connection_made(wire)
    connection.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 16)
    await asyncio.sleep(0)
    assert wire.answers == 3
    connection.connection_lost(None)


async def test_connection_that_is_gone_is_forgotten_at_once(port: Port) -> None:
    """With all that its parser holds, and not when the cyclic collector comes by: 10,000 a second would be a gigabyte."""
    gone: list[weakref.ref[object]] = []
    gc.disable()
    try:
        for unfinished in (
            b"GET / HTTP/1.1\r\nX: a",
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
            head("Content-Length: 9") + b"{}",
        ):
            with port.client() as client:
                await asyncio.get_running_loop().sock_sendall(client, unfinished)
                await port.until(lambda: len(port.webhook.connections) == 1)
                for _ in range(5):
                    await asyncio.sleep(0)
                gone.extend(map(weakref.ref, port.webhook.connections))
            await port.until(lambda: not port.webhook.connections)
        await port.until(lambda: all(reference() is None for reference in gone))
    finally:
        gc.enable()
    assert len(gone) == 3

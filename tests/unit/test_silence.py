"""A producer of aiokafka's that was given up, over real sockets: it sends no more, and nothing of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.metadata import MetadataResponse_v1
from aiokafka.protocol.produce import ProduceRequest_v7
from aiokafka.protocol.transaction import InitProducerIdResponse_v0

from bridge.adapters.kafka import KafkaPublisher, Topics
from bridge.errors import NotAcknowledged, Refused
from bridge.record import Record
from tests.security.certificates import Authority

DEADLINE_S = 2.0
PATIENCE_S = 20.0
RECORD_BYTES = 4 * 1024 * 1024
KERNEL_BYTES = 64 * 1024
"""Of a socket's buffers, each way: most of the record is still the producer's when the broker stops reading."""

HOST = "127.0.0.1"
NODE, TOPIC = 1, "t"


class StalledBroker:
    """As much of Kafka as a producer needs, until its first produce request: of that it reads the head, and then stops.

    Attributes:
        port: where it listens.
        request_bytes: of what follows the request's head, as the request says.
        reads_again: set it to let the broker go on.
        arrived: how much did follow, once the connection has ended.
    """

    def __init__(self) -> None:
        self.port = 0
        self.request_bytes = 0
        self.reads_again = asyncio.Event()
        self.arrived: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    @contextlib.asynccontextmanager
    async def listening(self, context: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Take connections while the context is open."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BYTES)  # its connections inherit it
        listener.bind((HOST, 0))
        self.port = listener.getsockname()[1]
        server = await asyncio.start_server(self._serve, sock=listener, ssl=context)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size, key, _, correlation = struct.unpack(">ihhi", await reader.readexactly(12))
                if key == ProduceRequest_v7.API_KEY and not self.request_bytes:
                    self.request_bytes = size - 8
                    await self.reads_again.wait()
                    self.arrived.set_result(await _until_end(reader))
                    break
                await reader.readexactly(size - 8)
                answer = self._answer(key).encode()
                writer.write(struct.pack(">ii", len(answer) + 4, correlation) + answer)
        writer.close()

    def _answer(self, key: int) -> Any:  # noqa: ANN401 - aiokafka ships no types
        partitions = [(0, 0, NODE, [NODE], [NODE])]
        return {
            ApiVersionResponse_v0.API_KEY: ApiVersionResponse_v0(0, [(0, 3, 7), (3, 0, 1), (18, 0, 0), (22, 0, 0)]),
            MetadataResponse_v1.API_KEY: MetadataResponse_v1(
                [(NODE, HOST, self.port, None)], NODE, [(0, TOPIC, False, partitions)]
            ),
            InitProducerIdResponse_v0.API_KEY: InitProducerIdResponse_v0(0, 0, 4711, 0),
        }[key]


async def _until_end(reader: asyncio.StreamReader) -> int:
    count = 0
    with contextlib.suppress(OSError):  # a reset is an end too
        while part := await reader.read(KERNEL_BYTES):
            count += len(part)
    return count


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_producer_given_up_in_the_middle_of_a_request_sends_no_more_and_leaves_no_task(
    tmp_path: Path, *, encrypted: bool
) -> None:
    """Who heard that Kafka did not take it can rely on that, also when the broker reads again."""
    ours, theirs = contexts(tmp_path) if encrypted else (None, None)
    before = asyncio.all_tasks()
    broker, producers = StalledBroker(), list[AIOKafkaProducer]()
    refused: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()

    async def prepare() -> Topics:
        return Topics(partitions=1, batch_bytes_max=1 << 20)

    def new_producer() -> AIOKafkaProducer:
        address = f"{HOST}:{broker.port}"
        protocol = "SSL" if encrypted else "PLAINTEXT"
        producers.append(
            AIOKafkaProducer(
                bootstrap_servers=address, enable_idempotence=True, security_protocol=protocol, ssl_context=ours
            )
        )
        return producers[-1]

    publisher = KafkaPublisher(prepare=prepare, new_producer=new_producer, deadline_s=DEADLINE_S)
    async with broker.listening(theirs), asyncio.timeout(PATIENCE_S):
        running = asyncio.create_task(publisher.run())
        await publisher.until_ready()
        for connection in producers[0].client._conns.values():  # noqa: SLF001 - else the kernel may hold all of it
            sock = connection._writer.get_extra_info("socket")  # noqa: SLF001 - as above
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BYTES)
        publisher.publish([Record.of(TOPIC, b"k", b"x" * RECORD_BYTES, [])], refused.set_result)
        assert isinstance(await refused, NotAcknowledged)
        assert broker.request_bytes > RECORD_BYTES, "else this test shows nothing"
        broker.reads_again.set()
        arrived = await broker.arrived
        publisher.stop()
        await running
    assert arrived < broker.request_bytes
    left = asyncio.all_tasks() - before
    if left:  # of the connections' ends
        _, left = await asyncio.wait(left, timeout=PATIENCE_S / 4)
    assert not left


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A producer's, and that of a broker whom it trusts."""
    authority = Authority(folder, "authority")
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(*authority.vouch("broker", alternative_name=f"IP:{HOST}"))
    return ssl.create_default_context(cafile=str(authority.certificate)), theirs

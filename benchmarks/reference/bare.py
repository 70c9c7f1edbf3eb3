"""The bound for Python: the least that a webhook ingress in Python can do, on a C parser and batches of its own.

POST → HMAC check → events → one Kafka record each, keyed by conversation → 200 when all are acknowledged. As in go/main.go
the record has 8 fields and no headers; there are no limits, no time-outs, no event_id, no raw, no metrics and no failure
story, and pipelined requests are not kept in order. A bound, not a server: it shows what is left to win without leaving
Python. It shares no code with the bridge, so what makes one slower does not hide in the other.

Parser and event loop are the bridge's own, httptools and uvloop.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import signal
import time
from typing import cast

import msgspec
import uvloop
from aiokafka import AIOKafkaProducer
from aiokafka.partitioner import murmur2
from aiokafka.producer.message_accumulator import BatchBuilder
from httptools import HttpRequestParser

BATCH_BYTES_MAX = 1024 * 1024
"""The brokers' default message.max.bytes."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
UNAVAILABLE = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"

parse = msgspec.json.Decoder().decode


def varint(number: int) -> bytes:
    """Avro's long."""
    number <<= 1
    out = bytearray()
    while number > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


LENGTHS = [varint(size) for size in range(4096)]


class Publisher:
    """Everything that arrives while a flush is in flight goes with the next; one future per flush."""

    def __init__(self, producer: AIOKafkaProducer, topic: str, partitions: int) -> None:
        self._producer = producer
        self._topic = topic
        self._partitions = partitions
        self._partition_of: dict[bytes, int] = {}
        self._opened = asyncio.Event()
        self._open()

    def _open(self) -> None:
        self.flushed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batches: dict[int, list[BatchBuilder]] = {}

    def append(self, key: bytes, value: bytes, timestamp: int) -> None:
        """Put one record into the open flush."""
        partition = self._partition_of.get(key)
        if partition is None:
            partition = self._partition_of[key] = (murmur2(key) & 0x7FFFFFFF) % self._partitions
        batches = self._batches.get(partition)
        if batches is None:
            batches = self._batches[partition] = [self._producer.create_batch()]
            self._opened.set()
        if batches[-1].append(timestamp=timestamp, key=key, value=value) is None:
            batches.append(self._producer.create_batch())
            batches[-1].append(timestamp=timestamp, key=key, value=value)

    async def run(self) -> None:
        """Send one flush after the other."""
        while await self._opened.wait():
            self._opened.clear()
            flushed, batches = self.flushed, self._batches
            self._open()
            acknowledged = [
                await self._producer.send_batch(batch, self._topic, partition=partition)
                for partition, several in batches.items()
                for batch in several
            ]
            await asyncio.gather(*acknowledged)
            flushed.set_result(None)


class Connection(asyncio.Protocol):
    """One connection: feeds the parser, answers when the flush is acknowledged. ``on_…`` is the parser's to call."""

    def __init__(self, publisher: Publisher, secret: bytes) -> None:
        self._publisher = publisher
        self._secret = secret
        self._transport: asyncio.Transport | None = None
        self._feed = HttpRequestParser(self).feed_data
        self._signature = b""
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where the answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget it."""
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Take what arrived; a request is handled when its body is complete."""
        self._feed(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the signature."""
        if name.lower() == b"x-hub-signature-256":
            self._signature = value

    def on_body(self, piece: bytes) -> None:
        """Keep the body."""
        self._body += piece

    def on_message_complete(self) -> None:
        """Handle the request."""
        signature, body = self._signature, self._body
        self._signature = self._body = b""
        self._take(signature, body)

    def _take(self, signature: bytes, body: bytes) -> None:
        expected = "sha256=" + hmac.digest(self._secret, body, "sha256").hex()
        if not hmac.compare_digest(expected.encode(), signature):
            self._write(UNAUTHORIZED)
            return
        received_at = time.time_ns() // 1_000_000
        append = self._publisher.append
        for entry in parse(body)["entry"]:
            account = entry["id"]
            for item in entry["messaging"]:
                sender, recipient, message = item["sender"]["id"], item["recipient"]["id"], item["message"]
                customer = sender if sender != account else recipient
                out = []
                for text in (message["mid"], account, customer, sender, recipient, message["text"]):
                    content = text.encode()
                    out.append(LENGTHS[len(content)])
                    out.append(content)
                value = b"".join((*out, varint(item["timestamp"]), varint(received_at)))
                append(f"{account}:{customer}".encode(), value, received_at)
        self._publisher.flushed.add_done_callback(self._acknowledged)

    def _acknowledged(self, flushed: asyncio.Future[None]) -> None:
        self._write(UNAVAILABLE if flushed.exception() else OK)

    def _write(self, answer: bytes) -> None:
        if self._transport is not None:
            self._transport.write(answer)


async def main() -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    producer = AIOKafkaProducer(
        bootstrap_servers=os.environ["REFERENCE_BOOTSTRAP_SERVERS"],
        acks="all",
        enable_idempotence=True,
        max_batch_size=BATCH_BYTES_MAX,
    )
    await producer.start()
    publisher = Publisher(producer, os.environ["REFERENCE_TOPIC"], int(os.environ["REFERENCE_PARTITIONS"]))
    sending = asyncio.create_task(publisher.run())
    secret = os.environ["REFERENCE_SECRET"].encode()
    await loop.create_server(
        lambda: Connection(publisher, secret), "127.0.0.1", int(os.environ["REFERENCE_PORT"]), backlog=1024
    )
    loop.add_signal_handler(signal.SIGTERM, sending.cancel)
    try:
        await sending  # a failure of Kafka ends the reference, and so the measurement
    except asyncio.CancelledError:
        await producer.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())

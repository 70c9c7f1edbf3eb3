"""What each step of the street costs, in µs of CPU per event: in one process, without sockets and without a broker.

`make profile`. Every step runs over the same prepared deliveries, all steps in turn, round by round; medians are shown. What
`make bench` measures beyond the sum is the kernel, the event loop, the Kafka client's sending, and caches that are cold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from itertools import chain
from statistics import median

import uvloop
from aiokafka import AIOKafkaProducer
from bodies import requests

from bridge.adapters.kafka import KafkaPublisher, Topics
from bridge.adapters.webhook import Webhook
from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, encode_arrival, single_object_prefix
from bridge.event import WEBHOOK_FIELDS, describe
from bridge.intake import Arrived, Intake
from bridge.local.meta.signing import signature
from bridge.notification import Note, parse
from bridge.pipeline import Pipeline
from bridge.routing import DEAD_LETTER
from bridge.schemas import load
from bridge.signature import AppSecret, authenticate, claimed_digest
from bridge.telemetry import Telemetry

EVENTS_PER_ROUND = 20_000
"""A third of a second for the dearest step: long against the clock's grain, short enough to take turns."""

PARTITIONS = 12
CONNECTIONS = 32
TOGETHER = 32
"""Deliveries that are counted, and handed to the publisher, together, as those that arrive in one turn are."""
RECORD_BYTES_MAX = 1024 * 1024
SECRET = secrets.token_hex(16)


class NowhereProducer(AIOKafkaProducer):  # type: ignore[misc] # aiokafka ships no types
    """A producer that never connects: batches are filled, and nobody sends them."""

    async def start(self) -> None:
        """Do nothing: there is no broker to find."""

    def __del__(self) -> None:
        """Do nothing: there is no connection to close."""


class Steps:
    """The steps over one set of deliveries; each step's input was made by the one before."""

    def __init__(self, events: int) -> None:
        made = requests(events=events, accounts=10, secret=SECRET, seed=1, authority="localhost")
        self._requests = made[: max(1, EVENTS_PER_ROUND // events)]
        bodies = [request.partition(b"\r\n\r\n")[2] for request in self._requests]
        self.events = events * len(bodies)
        self._signed = [(body, (signature(body, SECRET),)) for body in bodies]
        self._app_secrets = (AppSecret("bench", SECRET.encode()),)
        now = time.time_ns() // 1_000_000
        self._deliveries = [Delivery(body, now, secrets.token_hex(16), "bench") for body in bodies]
        self._items = [parse(body).items for body in bodies]
        notes: list[Note] = []
        self._events = [[describe(item, notes) for item in items] for items in self._items]
        prefixes = {field: single_object_prefix(load(field)) for field in (*WEBHOOK_FIELDS, DEAD_LETTER)}
        self._encoders = {field: Encoder(field, load(field), prefixes[field]) for field in WEBHOOK_FIELDS}
        self._pipeline = Pipeline(
            topic_prefix="bench",
            encoders=self._encoders,
            dead_letters=DeadLetterEncoder(load(DEAD_LETTER), prefixes[DEAD_LETTER]),
            record_bytes_max=RECORD_BYTES_MAX,
        )
        self._records = [self._pipeline.records(delivery, notes) for delivery in self._deliveries]
        self._telemetry = Telemetry()

    async def receive_and_answer(self, webhook: Webhook) -> None:
        """HTTP and its metrics, with the signature's check."""
        transport = NowhereTransport()
        connections = [webhook() for _ in range(CONNECTIONS)]
        for connection in connections:
            connection.connection_made(transport)
        for at in range(0, len(self._requests), CONNECTIONS):
            arriving = self._requests[at : at + CONNECTIONS]
            for connection, request in zip(connections, arriving, strict=False):
                connection.data_received(request)
            while transport.answers < at + len(arriving):  # noqa: ASYNC110 - a turn of the loop is what is measured
                await asyncio.sleep(0)

    def webhook(self, publisher: KafkaPublisher) -> Webhook:
        """A public port that publishes nothing."""
        found = self._telemetry.found
        intake = Unpublished(publisher=publisher, spool=None, found=found, body_bytes_max=RECORD_BYTES_MAX)
        return Webhook(
            intake=intake,
            app_secrets=self._app_secrets,
            verify_token=SECRET,
            body_bytes_max=RECORD_BYTES_MAX,
            telemetry=self._telemetry,
            workers=1,
        )

    def authenticate(self) -> None:
        """HMAC over the body, one secret."""
        for body, signatures in self._signed:
            authenticate(body, claimed_digest=claimed_digest(signatures), app_secrets=self._app_secrets)

    def parse(self) -> None:
        """Body → items with their raw text."""
        for delivery in self._deliveries:
            parse(delivery.body)

    def describe(self) -> None:
        """Items → events: who, when, event_id."""
        notes: list[Note] = []
        for items in self._items:
            for item in items:
                describe(item, notes)

    def encode(self) -> None:
        """Events → Avro."""
        notes: list[Note] = []
        for delivery, events in zip(self._deliveries, self._events, strict=True):
            arrival = encode_arrival(delivery.received_at, delivery.delivery_id)
            for event in events:
                self._encoders[event.webhook_field].encode(event, arrival, notes)

    def records(self) -> None:
        """The street as a whole: parse, describe, encode, key and headers."""
        notes: list[Note] = []
        for delivery in self._deliveries:
            self._pipeline.records(delivery, notes)

    def count(self) -> None:
        """Metrics."""
        for at in range(0, len(self._records), TOGETHER):
            self._telemetry.found(self._records[at : at + TOGETHER], ())

    def append(self, publisher: KafkaPublisher) -> None:
        """Records → batches by topic and partition."""
        for at in range(0, len(self._records), TOGETHER):
            publisher.publish([*chain.from_iterable(self._records[at : at + TOGETHER])], _ignore)

    def close(self, publisher: KafkaPublisher) -> None:
        """Batches → their bytes, with the checksum; every flush is as large as it may be."""
        while publisher._open:  # noqa: SLF001 - what the publisher would send, if there were a Kafka
            for batches in publisher._open.popleft().batches.values():  # noqa: SLF001 - as above
                for batch in batches:
                    batch.close(producer_id=1, epoch=0, sequence=0)


class NowhereTransport(asyncio.Transport):
    """Drops the answers, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self.answers = 0

    def write(self, _data: object) -> None:
        """Count."""
        self.answers += 1

    def is_closing(self) -> bool:
        """Never."""
        return False

    def close(self) -> None:
        """Do nothing: there is no connection to close."""

    abort = close


class Unpublished(Intake):
    """Takes a delivery and answers at once."""

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Answer."""
        for _, answer in arrived:
            answer("none")


def _ignore(_refused: object) -> None:
    """Nobody waits for these records."""


async def measure(steps: Steps, rounds: int) -> dict[str, float]:
    """CPU µs per event and step, medians; ``key and headers`` is what the street takes beyond its three steps.

    Below the sum stands what comes on top when half of the events begin a conversation: the partitions of their keys.
    """
    taken: dict[str, list[float]] = {}

    def timed(name: str, step: Callable[[], None]) -> None:
        began = time.process_time_ns()
        step()
        taken.setdefault(name, []).append((time.process_time_ns() - began) / 1000 / steps.events)

    gc.collect()
    gc.freeze()  # the prepared deliveries are no garbage of the step's
    for _ in range(rounds):
        timed("authenticate", steps.authenticate)
        timed("parse", steps.parse)
        timed("describe", steps.describe)
        timed("encode", steps.encode)
        timed("street", steps.records)
        timed("count", steps.count)
        async with filling() as publisher:
            webhook = steps.webhook(publisher)
            began = time.process_time_ns()
            await steps.receive_and_answer(webhook)
            taken.setdefault("http", []).append((time.process_time_ns() - began) / 1000 / steps.events)
            await webhook.stop(0)
            timed("append, first", partial(steps.append, publisher))
            timed("close", partial(steps.close, publisher))
            timed("append", partial(steps.append, publisher))
    middle = {name: median(times) for name, times in taken.items()}
    street = middle.pop("street")
    middle["key and headers"] = street - middle["parse"] - middle["describe"] - middle["encode"]
    middle["receive and answer"] = middle.pop("http") - middle["authenticate"]
    new_conversations = middle.pop("append, first") - middle["append"]
    order = ("receive and answer", "authenticate", "parse", "describe", "encode", "key and headers", "append", "close")
    shown = {name: middle[name] for name in (*order, "count")}
    return shown | {"sum": sum(shown.values()), "partitions of new": new_conversations}


@contextlib.asynccontextmanager
async def filling() -> AsyncIterator[KafkaPublisher]:
    """A publisher that takes records and sends none, as long as nobody gives way to its task."""

    async def prepare() -> Topics:
        return Topics(PARTITIONS, RECORD_BYTES_MAX)

    publisher = KafkaPublisher(
        prepare=prepare,
        new_producer=lambda: NowhereProducer(acks="all", enable_idempotence=True),
        deadline_s=60,
    )
    running = asyncio.create_task(publisher.run())
    await publisher.until_ready()
    try:
        yield publisher
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="make profile ARGS=…", description=__doc__.partition("\n")[0])
    parser.add_argument("--events", nargs="+", type=int, default=[1, 100], help="events per delivery [1 100]")
    parser.add_argument("--rounds", type=int, default=7, help="medians are shown [%(default)s]")
    given = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # as `bridge serve` has it
        columns = {events: runner.run(measure(Steps(events), given.rounds)) for events in given.events}
    print("CPU µs per event".ljust(18) + "".join(f"{events} per delivery".rjust(18) for events in columns))
    for name in next(iter(columns.values())):
        print(name.ljust(18) + "".join(f"{column[name]:.2f}".rjust(18) for column in columns.values()))


if __name__ == "__main__":
    main()

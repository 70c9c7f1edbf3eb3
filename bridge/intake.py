"""The promise: an authentic delivery goes to Kafka within its deadline, else to the spool, else it is refused.

This file holds the failure story, and knows the publisher and the spool by what they promise, not by what they are.

DIRECT   Deliveries go to Kafka. One that is not acknowledged within its deadline goes to the spool, and so does everything
         after it: an outage costs the deadline once.
SPOOLING Deliveries go to the spool and are answered when they are on disk. Once a new producer is connected, spooled
         deliveries are published in the order in which they came, before any newer one.
HANDOVER The spool is nearly empty: new deliveries wait, for a moment, until it is, and then go direct. So draining ends
         under any load, and nothing overtakes. Should Kafka fail again, those that wait go to the spool.

Whatever happens, a delivery is answered 200 only when every one of its records is acknowledged by Kafka or the delivery is
on disk. Without a spool, what Kafka does not take is refused with 503.
"""

from __future__ import annotations

import asyncio
import enum
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Literal, Protocol

import structlog

from bridge.delivery import Delivery
from bridge.errors import NotAcknowledged, Overloaded, Refused
from bridge.notification import Note
from bridge.pipeline import Pipeline
from bridge.record import Record

_log = structlog.get_logger()

Acknowledger = Literal["kafka", "spool", "none"]
"""Who took a delivery: Kafka, the spool, or nobody because it held nothing to publish."""

Answer = Callable[[Acknowledger | Refused], None]
"""Called once for a delivery, maybe before ``take`` returns."""

Arrived = tuple[Delivery, Answer]
"""A delivery, and who waits for its answer."""

DELIVERIES_IN_FLIGHT_MAX = 4096
"""Whole deliveries that wait for their answer: four times the connections that Meta has been seen to open."""

BYTES_HELD_MAX = 24 * 1024 * 1024
"""Bodies being read, published or spooled at once: 15,000 usual ones. As records small events take five times their bytes, and
with that a process stays under 300 MB (test_thousand_connections_with_large_bodies_stay_within_the_memory)."""

DRAIN_BYTES_MAX = 256 * 1024
"""Spooled bodies read, and then forgotten, at a time: some 300 usual ones. Live ones that are being spooled wait for both."""

DRAIN_STEP_DELIVERIES = 32
"""Spooled deliveries that walk the street together, 1 to 2 ms of usual ones: so long do live ones wait for them."""

HANDOVER_DELIVERIES, HANDOVER_DELIVERIES_MAX = 100, 500
"""Spooled deliveries that are few enough to let new ones wait for, 10 ms of draining; and those that are when they do not become
fewer, because live ones come as fast as they are drained: 50 ms."""

HANDOVER_BYTES_MAX = 16 * 1024 * 1024
"""And their bodies: one largest body, or about a second of draining."""


Found = Callable[[Sequence[Sequence[Record]], Sequence[Note]], None]
"""Told of deliveries that walked the street together: the records of each, and what was odd."""


class Publisher(Protocol):
    """What the intake needs of Kafka."""

    @property
    def ready(self) -> bool:
        """Whether `publish` may be called: connected, and nothing failed since."""

    async def until_ready(self) -> None:
        """Wait for that."""

    def publish(self, records: Sequence[Record], settled: Callable[[Refused | None], None]) -> None:
        """Take records, in order; call ``settled`` with None when all are acknowledged, or with why they are not.

        When it is called with an error the producer that held the records is closed: nothing of them is sent later. What was on its
        way may still arrive, as a copy.
        """


class Spool(Protocol):
    """What the intake needs of a durable local store."""

    @property
    def deliveries(self) -> int:
        """How many it holds, on disk or on their way there."""

    @property
    def bytes(self) -> int:
        """What they take."""

    @property
    def room(self) -> bool:
        """Whether the next delivery would be taken, as far as is known."""

    def put(self, delivery: Delivery, settled: Callable[[Refused | None], None]) -> None:
        """Store a delivery; call ``settled`` with None when it is on disk, or with why it is not."""

    async def oldest(self, bytes_max: int) -> Sequence[Delivery]:
        """The oldest deliveries in the order of `put`; none when none is on disk yet, or none can be read."""

    async def forget(self, count: int) -> None:
        """Remove that many of what `oldest` gave: they are published."""


class Mode(enum.Enum):
    """Where a delivery goes; see the module."""

    DIRECT = "direct"
    SPOOLING = "spooling"
    HANDOVER = "handover"


class Intake:
    """Takes deliveries; bounded in number and bytes.

    Args:
        publisher: Kafka.
        spool: None where there is none.
        found: counts records and notes.
        body_bytes_max: the largest body; it always fits when nothing else is held.
        entered: hears of a new mode before any delivery is answered under it.

    Attributes:
        pipeline: the street; None until topics and schemas are known.
        mode: where deliveries go now.
        deliveries_in_flight, bytes_held: what is being read, published or spooled.
        drained: deliveries that went from the spool to Kafka.
    """

    def __init__(
        self,
        *,
        publisher: Publisher,
        spool: Spool | None,
        found: Found,
        body_bytes_max: int,
        entered: Callable[[Mode], None] = lambda _: None,
    ) -> None:
        self._publisher = publisher
        self._spool = spool
        self._found = found
        self._entered = entered
        self._bytes_held_max = max(BYTES_HELD_MAX, body_bytes_max)
        self._waiting: list[Arrived] = []
        self._spooling_since = time.monotonic()
        self._wake = asyncio.Event()
        self.pipeline: Pipeline | None = None
        # An earlier run may have left something behind.
        self.mode = Mode.DIRECT if spool is None else Mode.SPOOLING
        entered(self.mode)
        self.deliveries_in_flight = 0
        self.bytes_held = 0
        self.drained = 0

    @property
    def ready(self) -> bool:
        """Whether a delivery that came now would be taken by somebody."""
        if self.mode is not Mode.SPOOLING and self._publisher.ready and self.pipeline is not None:
            return True
        return self._spool is not None and self._spool.room

    def hold(self, more_bytes: int) -> None:
        """Count bytes of a body as they arrive: a slow client holds what it sent and no more.

        Raises:
            Overloaded: they are over the bound, and not counted.
        """
        if self.bytes_held + more_bytes > self._bytes_held_max:
            raise Overloaded("too many bytes in flight")
        self.bytes_held += more_bytes

    def release(self, held_bytes: int) -> None:
        """Count them no more."""
        self.bytes_held -= held_bytes

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Take deliveries in the order in which they arrived; the caller holds their bytes until they are answered."""
        room = DELIVERIES_IN_FLIGHT_MAX - self.deliveries_in_flight
        self.deliveries_in_flight += min(room, len(arrived))
        self._route(arrived[:room])
        for _, answer in arrived[room:]:
            answer(Overloaded("too many deliveries in flight"))

    def _counted(self, answer: Answer) -> Answer:
        """The answer to one of those in flight, for who answers it alone."""

        def done(outcome: Acknowledger | Refused) -> None:
            self.deliveries_in_flight -= 1
            answer(outcome)

        return done

    def _route(self, arrived: Sequence[Arrived]) -> None:
        if self.mode is Mode.HANDOVER:
            self._waiting.extend(arrived)
        elif self.mode is Mode.DIRECT:
            self._direct(arrived)
        else:
            self._set_all_aside(arrived)

    def _direct(self, arrived: Sequence[Arrived]) -> None:
        if not self._publisher.ready or self.pipeline is None:
            self._set_all_aside(arrived)
            return
        walked = self._walk(self.pipeline, [delivery for delivery, _ in arrived])
        if not all(walked):
            self._answer([each for each, records in zip(arrived, walked, strict=True) if not records], "none")
            arrived = [each for each, records in zip(arrived, walked, strict=True) if records]
        if arrived:
            self._publisher.publish([*chain.from_iterable(walked)], partial(self._settled, arrived))

    def _settled(self, arrived: Sequence[Arrived], refused: Refused | None) -> None:
        if refused is None:
            self._answer(arrived, "kafka")
        else:
            self._set_all_aside(arrived)

    def _answer(self, arrived: Sequence[Arrived], acknowledger: Acknowledger) -> None:
        self.deliveries_in_flight -= len(arrived)
        for _, answer in arrived:
            answer(acknowledger)

    def _walk(self, pipeline: Pipeline, deliveries: Sequence[Delivery]) -> Sequence[Sequence[Record]]:
        """Take deliveries down the street, the records of each; together, because so the street's code stays in the caches."""
        notes: list[Note] = []
        walked = [pipeline.records(delivery, notes) for delivery in deliveries]
        self._found(walked, notes)
        return walked

    def _set_all_aside(self, arrived: Sequence[Arrived]) -> None:
        for delivery, answer in arrived:
            self.set_aside(delivery, self._counted(answer))

    def set_aside(self, delivery: Delivery, answer: Answer) -> None:
        """Put a delivery that Kafka cannot take now into the spool; from here on everything goes there."""
        if self._spool is None:
            answer(NotAcknowledged("Kafka is away, and there is no spool"))
            return
        if self.mode is not Mode.SPOOLING:
            self._spool_from_now_on()
        self._spool.put(delivery, lambda refused: answer("spool" if refused is None else refused))
        self._wake.set()

    def _spool_from_now_on(self) -> None:
        _log.warning("spooling", reason="Kafka did not take a delivery in time")
        self._enter(Mode.SPOOLING)
        self._spooling_since = time.monotonic()
        waiting, self._waiting = self._waiting, []
        self._set_all_aside(waiting)

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        self._entered(mode)

    async def drain(self) -> None:
        """Publish what is spooled, whenever Kafka is there, until cancelled."""
        left = 0
        while True:
            if self.mode is Mode.DIRECT:
                self._wake.clear()
                await self._wake.wait()
            await self._publisher.until_ready()
            if self.pipeline is None:
                raise RuntimeError("the publisher is ready before topics and schemas are known")
            if self._spool is None or self._spool.deliveries == 0:
                self._go_direct()
            else:
                before, left = left, self._spool.deliveries
                few = left <= (HANDOVER_DELIVERIES if left < before else HANDOVER_DELIVERIES_MAX)
                if few and self._spool.bytes <= HANDOVER_BYTES_MAX and self.mode is not Mode.HANDOVER:
                    self._enter(Mode.HANDOVER)
                await self._drain_some(self._spool, self.pipeline)

    def _go_direct(self) -> None:
        """Nothing is spooled and nothing is on its way there: those that waited go first, in their order."""
        _log.info("direct", after_s=round(time.monotonic() - self._spooling_since, 1), drained=self.drained)
        self._enter(Mode.DIRECT)
        waiting, self._waiting = self._waiting, []
        # In steps: what is handed over together is sent together, however much it is.
        for at in range(0, len(waiting), DRAIN_STEP_DELIVERIES):
            self._direct(waiting[at : at + DRAIN_STEP_DELIVERIES])

    async def _drain_some(self, spool: Spool, pipeline: Pipeline) -> None:
        oldest = await spool.oldest(DRAIN_BYTES_MAX)
        if not oldest:
            return  # it was on its way to a disk that failed, or its file is damaged
        acknowledged: asyncio.Future[Refused | None] = asyncio.get_running_loop().create_future()
        unsettled = 1  # ours, until all are handed over: a publisher that is away says so at once

        def settled(refused: Refused | None) -> None:
            nonlocal unsettled
            unsettled -= 1
            if (refused is not None or unsettled == 0) and not acknowledged.done():
                acknowledged.set_result(refused)

        for at in range(0, len(oldest), DRAIN_STEP_DELIVERIES):
            began = time.monotonic()
            deliveries = oldest[at : at + DRAIN_STEP_DELIVERIES]
            for records in self._walk(pipeline, deliveries):
                if records:
                    unsettled += 1
                    self._publisher.publish(records, settled)
            # Live deliveries are read and answered meanwhile; where there are any, they have half of the time.
            await asyncio.sleep(time.monotonic() - began if self.deliveries_in_flight else 0)
            if acknowledged.done():  # refused: what follows must not overtake it
                break
        settled(None)
        if await acknowledged is not None:
            if self.mode is Mode.HANDOVER:
                self._spool_from_now_on()
            return
        await spool.forget(len(oldest))
        self.drained += len(oldest)

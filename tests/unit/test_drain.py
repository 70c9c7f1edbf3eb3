"""The way from the spool back to Kafka: the time that it leaves to live deliveries, what stops it, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

import pytest

from bridge.delivery import Delivery
from bridge.errors import Refused
from bridge.intake import (
    DRAIN_STEP_DELIVERIES,
    HANDOVER_BYTES_MAX,
    HANDOVER_DELIVERIES,
    HANDOVER_DELIVERIES_MAX,
    Acknowledger,
    Intake,
    Mode,
)
from bridge.notification import Note
from bridge.record import Record
from tests.unit.test_intake import PIPELINE, ROUNDS_MAX, ScriptedKafka, ScriptedSpool, Settled, Story, delivery, turns
from tests.unit.virtual_time import Clock, VirtualLoop

WALK_S, PUBLISH_S = 2**-11, 2**-12
"""What a delivery costs here; powers of two, so that their sums are exact."""

STEP_S = DRAIN_STEP_DELIVERIES * (WALK_S + PUBLISH_S)
"""And a whole step."""

STEPS = 4
BATCH = (STEPS - 1) * DRAIN_STEP_DELIVERIES + 1
"""What the spool gives at a time: three whole steps, and one of a single delivery."""

BATCHES = HANDOVER_DELIVERIES_MAX // BATCH + 1
"""Enough of them for live deliveries to be spooled too."""


class Kafka(ScriptedKafka):
    """Counts what it is handed.

    Attributes:
        handed: deliveries.
        told: called after each.
    """

    def __init__(self) -> None:
        super().__init__()
        self.handed = 0
        self.told: Callable[[], None] = lambda: None

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """Count, and take them into the flush."""
        super().publish(records, settled)
        self.handed += 1
        self.told()


class Spool(ScriptedSpool):
    """Gives `BATCH` deliveries at a time.

    Attributes:
        emptied: whether all that was stored is forgotten.
    """

    def __init__(self, stored: Sequence[Delivery]) -> None:
        super().__init__(stored)
        self.emptied = asyncio.Event()

    async def oldest(self, bytes_max: int) -> Sequence[Delivery]:
        """The first on disk, later."""
        del bytes_max
        await asyncio.sleep(0)
        return self.stored[:BATCH]

    async def forget(self, count: int) -> None:
        """Remove them, later."""
        await super().forget(count)
        if not self.stored:
            self.emptied.set()


class Drain:
    """An intake over such a spool.

    Attributes:
        names: of what is spooled, in order.
        walked: called for each delivery that walked the street.
        answers: of live deliveries.
    """

    def __init__(self, count: int) -> None:
        self.names = [f"old-{number}" for number in range(count)]
        self.kafka = Kafka()
        self.spool = Spool([delivery(name) for name in self.names])
        self.walked: Callable[[], None] = lambda: None
        self.answers: list[Acknowledger | Refused] = []
        self.intake = Intake(
            publisher=self.kafka,
            spool=self.spool,
            found=self._found,
            body_bytes_max=1 << 20,
        )
        self.intake.pipeline = PIPELINE

    def _found(self, walked: Sequence[Sequence[Record]], _notes: Sequence[Note]) -> None:
        for _ in walked:
            self.walked()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """It drains."""
        draining = asyncio.create_task(self.intake.drain())
        try:
            yield
            assert not draining.done(), draining
        finally:
            draining.cancel()

    def take(self, name: str) -> None:
        """A live delivery arrives."""
        self.intake.take([(delivery(name), self.answers.append)])

    async def until_handed(self, count: int) -> None:
        """Until the publisher got so many deliveries in all, looking at every turn of the loop."""
        for _ in range(count + len(self.names)):
            if self.kafka.handed >= count:
                break
            await asyncio.sleep(0)
        assert self.kafka.handed == count

    async def publishes_all_again(self, before: int) -> None:
        """A batch of which ``before`` are acknowledged: nothing is forgotten, and then all of it goes, in order."""
        await turns()
        assert [each.delivery_id for each in self.spool.stored] == self.names
        assert self.intake.drained == 0
        self.kafka.acknowledge()
        await turns()
        assert self.kafka.topic == self.names[:before] + self.names
        assert self.spool.stored == []
        assert self.intake.drained == len(self.names)


class Pace:
    """Measures a drain in virtual time; Kafka acknowledges at once.

    Attributes:
        busy_s, pauses_s: how long it worked at a stretch, and the pauses between; alternating, work first.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = clock.now
        self.busy_s: list[float] = []
        self.pauses_s: list[float] = []

    def of(self, drain: Drain) -> None:
        """Let that drain's work take its time."""
        loop = asyncio.get_running_loop()

        def published() -> None:
            self._works(PUBLISH_S)
            loop.call_soon(drain.kafka.acknowledge)

        drain.walked = lambda: self._works(WALK_S)
        drain.kafka.told = published

    def _works(self, for_s: float) -> None:
        pause_s = self._clock.now - self._until
        if not self.busy_s:
            self.busy_s.append(0)
        elif pause_s:
            self.pauses_s.append(pause_s)
            self.busy_s.append(0)
        self.busy_s[-1] += for_s
        self._clock.now += for_s
        self._until = self._clock.now


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The intake's, and a virtual loop's; where nothing moves it, a step takes no time, and turns of the loop are enough for it."""
    clock = Clock()
    monkeypatch.setattr("bridge.intake.time", clock)
    return clock


def measured(clock: Clock, live: Callable[[Drain], Coroutine[None, None, None]]) -> Pace:
    """How a spool is drained while ``live`` runs."""

    async def tell() -> Pace:
        pace, drain = Pace(clock), Drain(BATCHES * BATCH)
        pace.of(drain)
        drain.kafka.connect()
        async with drain.running():
            await live(drain)
            await drain.spool.emptied.wait()
        assert drain.kafka.topic[: BATCHES * BATCH] == drain.names
        return pace

    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        return runner.run(tell())


def test_drain_with_live_deliveries_leaves_them_as_long_as_each_step_took(clock: Clock) -> None:
    """After every step, a short one and the last of a batch too: half of the time is theirs."""

    async def live(drain: Drain) -> None:
        drain.take("live")

    pace = measured(clock, live)
    assert pace.busy_s == [*[STEP_S] * (STEPS - 1), WALK_S + PUBLISH_S] * BATCHES
    assert pace.pauses_s == pace.busy_s[:-1]


def test_drain_without_live_deliveries_makes_no_pause(clock: Clock) -> None:
    """Nobody is there to have the time."""

    async def live(_: Drain) -> None:
        pass

    pace = measured(clock, live)
    assert pace.busy_s == [BATCHES * BATCH * (WALK_S + PUBLISH_S)]
    assert pace.pauses_s == []


def test_drain_with_a_delivery_that_comes_and_is_answered_pauses_only_meanwhile(clock: Clock) -> None:
    """One that comes in a step is taken before the next, and is answered in the pause after that; then nobody waits."""

    async def live(drain: Drain) -> None:
        await drain.until_handed(DRAIN_STEP_DELIVERIES)
        drain.take("live")
        await asyncio.sleep(STEP_S + STEP_S / 2)
        assert drain.kafka.handed == 2 * DRAIN_STEP_DELIVERIES
        drain.spool.commit()
        assert drain.answers == ["spool"]

    pace = measured(clock, live)
    assert pace.busy_s[0] == 2 * STEP_S
    assert pace.pauses_s == [STEP_S]


@pytest.mark.parametrize("acknowledged", range(STEPS))
async def test_drain_with_a_step_refused_publishes_the_whole_batch_again(acknowledged: int) -> None:
    """What follows does not overtake it, though a new producer would take it, and nothing is forgotten; whichever step it is."""
    drain = Drain(BATCH)
    drain.kafka.connect()
    async with drain.running():
        before = acknowledged * DRAIN_STEP_DELIVERIES
        await drain.until_handed(before)
        drain.kafka.acknowledge()
        await drain.until_handed(min(before + DRAIN_STEP_DELIVERIES, BATCH))
        drain.kafka.fail()
        drain.kafka.connect()
        await drain.publishes_all_again(before)


@pytest.mark.parametrize("acknowledged", range(1, STEPS))
async def test_drain_with_kafka_away_between_two_steps_publishes_the_whole_batch_again(acknowledged: int) -> None:
    """The publisher says so at once, before the step is handed over: that is no less a refusal."""
    drain = Drain(BATCH)
    drain.kafka.connect()
    async with drain.running():
        before = acknowledged * DRAIN_STEP_DELIVERIES
        await drain.until_handed(before)
        drain.kafka.acknowledge()
        drain.kafka.fail()
        await drain.until_handed(min(before + DRAIN_STEP_DELIVERIES, BATCH))
        drain.kafka.connect()
        await drain.publishes_all_again(before)


@pytest.mark.parametrize("more", range(1, 4))
async def test_handover_of_a_spool_that_shrinks_begins_when_few_are_left(more: int) -> None:
    """At the first look that finds HANDOVER_DELIVERIES or fewer, and not earlier; three go between two looks."""
    async with Story.told([delivery(f"{number}") for number in range(HANDOVER_DELIVERIES_MAX + more)]) as story:
        story.kafka.connect()
        await turns()
        for _ in range(HANDOVER_DELIVERIES_MAX):
            if story.spool.deliveries <= HANDOVER_DELIVERIES:
                break
            assert story.mode_is(Mode.SPOOLING), story.spool.deliveries
            story.kafka.acknowledge()
            await turns()
        assert story.spool.deliveries <= HANDOVER_DELIVERIES
        assert story.mode_is(Mode.HANDOVER), story.spool.deliveries


@pytest.mark.parametrize(
    ("left", "mode"), [(HANDOVER_DELIVERIES_MAX, Mode.HANDOVER), (HANDOVER_DELIVERIES_MAX + 1, Mode.SPOOLING)]
)
async def test_handover_of_a_spool_that_does_not_shrink_begins_earlier(left: int, mode: Mode) -> None:
    """Live deliveries fill it as fast as it is drained: HANDOVER_DELIVERIES_MAX are few enough, and no more than that."""
    async with Story.told([delivery(f"{number}") for number in range(left + 3)]) as story:
        story.kafka.connect()
        await turns()
        story.kafka.acknowledge()
        await turns()
        assert story.spool.deliveries == left
        assert story.mode_is(Mode.SPOOLING)
        story.take("a", "b", "c")
        story.spool.commit()
        story.kafka.acknowledge()
        await turns()
        assert story.spool.deliveries == left
        assert story.mode_is(mode)


@pytest.mark.parametrize("shrinks", [False, True], ids=["does not shrink", "shrinks"])
@pytest.mark.parametrize(("more_bytes", "mode"), [(0, Mode.HANDOVER), (1, Mode.SPOOLING)])
async def test_handover_never_begins_above_its_bytes(more_bytes: int, mode: Mode, *, shrinks: bool) -> None:
    """However few deliveries they are; HANDOVER_BYTES_MAX itself is let through."""
    large = delivery("large", HANDOVER_BYTES_MAX - len(delivery("large").body) + more_bytes)
    async with Story.told([*(delivery(f"{number}") for number in range(3)), large] if shrinks else [large]) as story:
        story.kafka.connect()
        await turns()
        if shrinks:
            assert story.mode_is(Mode.SPOOLING)
            story.kafka.acknowledge()
            await turns()
        assert story.spool.bytes == HANDOVER_BYTES_MAX + more_bytes
        assert story.mode_is(mode)


async def test_handover_lets_those_that_wait_go_first_and_in_order() -> None:
    """Whatever turn of the loop a live delivery comes in, from the handover's beginning to its end and after."""
    old = [f"old-{number}" for number in range(7)]
    live: list[str] = []
    async with Story.told([delivery(name) for name in old]) as story:
        story.kafka.connect()
        await turns()
        assert story.mode_is(Mode.HANDOVER)
        while len(live) < ROUNDS_MAX:
            live.append(f"live-{len(live)}")
            story.take(live[-1])
            await asyncio.sleep(0)
            if len(live) % 7 == 0:
                story.kafka.acknowledge()
        assert story.mode_is(Mode.DIRECT)
        assert set(story.answers.values()) == {"kafka"}, "nobody was spooled"
        story.kafka.acknowledge()
        assert story.kafka.topic == old + live
        assert story.answers == dict.fromkeys(live, "kafka")


async def test_handover_answers_those_that_wait_only_when_kafka_has_them() -> None:
    """To wait is not to be safe: neither the spool's end nor the handover's is their answer."""
    async with Story.told([delivery("old")]) as story:
        story.kafka.connect()
        await turns()
        story.take("a", "b")
        story.kafka.acknowledge()
        await turns()
        assert story.mode_is(Mode.DIRECT)
        assert story.kafka.topic == ["old"]
        assert story.answers == {}
        story.kafka.acknowledge()
        assert story.answers == {"a": "kafka", "b": "kafka"}
        story.take("c")
        story.kafka.fail()
        story.spool.commit()
        assert [each.delivery_id for each in story.spool.stored] == ["c"], "nobody waits any longer"


def drains_batch_is_refused(story: Story) -> None:
    """Kafka fails what the drain published."""
    story.kafka.fail()


def workers_delivery_is_refused(story: Story) -> None:
    """Kafka failed what a worker published, and the drain does not know yet."""
    story.intake.set_aside(delivery("worker's"), lambda _: None)


@pytest.mark.parametrize("kafka_fails", [drains_batch_is_refused, workers_delivery_is_refused])
async def test_handover_in_which_kafka_fails_spools_those_that_wait_in_order(
    kafka_fails: Callable[[Story], None],
) -> None:
    """They wait for the disk instead, before whatever comes later, and go to Kafka in that order when it is back."""
    async with Story.told([delivery("old")]) as story:
        story.kafka.connect()
        await turns()
        story.take("a", "b", "c")
        assert story.mode_is(Mode.HANDOVER)
        kafka_fails(story)
        await turns()
        story.take("d")
        assert story.answers == {}
        story.spool.commit()
        assert story.answers == dict.fromkeys("abcd", "spool")
        await story.direct()
        assert [name for name in story.kafka.topic if name != "worker's"] == ["old", *"abcd"]

"""The failure story, with a Kafka and a spool that do what the test says, when it says so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder
from bridge.errors import NotAcknowledged, Overloaded, Refused, SpoolFailed
from bridge.intake import (
    BYTES_HELD_MAX,
    DELIVERIES_IN_FLIGHT_MAX,
    DRAIN_STEP_DELIVERIES,
    HANDOVER_BYTES_MAX,
    HANDOVER_DELIVERIES_MAX,
    Acknowledger,
    Intake,
    Mode,
)
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER
from tests.unit.street import ENCODERS, PREFIXES, RECEIVED_AT, SCHEMAS, item, wrapped
from tests.unit.virtual_time import Clock

TURNS = 20
"""Of the loop: more than any step of the intake needs."""

ROUNDS_MAX = 100
"""Of drains: three deliveries each, and no test has three hundred."""

PIPELINE = Pipeline(
    topic_prefix="instagram",
    encoders=ENCODERS,
    dead_letters=DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER]),
    record_bytes_max=1 << 20,
)

Settled = Callable[[Refused | None], None]


@pytest.fixture(autouse=True)
def _no_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of the drain takes none, so that turns of the loop are enough for it however slow the machine is."""
    monkeypatch.setattr("bridge.intake.time", Clock())


class ScriptedKafka:
    """Keeps `bridge.intake.Publisher`; a flush is acknowledged or fails when the test says so.

    Attributes:
        topic: delivery ids in the order of their offsets.
        flush: what waits for its acknowledgement.
    """

    def __init__(self) -> None:
        self.topic: list[str] = []
        self._connected = asyncio.Event()
        self.flush: list[tuple[Sequence[Record], Settled]] = []

    @property
    def ready(self) -> bool:
        """Whether it is connected."""
        return self._connected.is_set()

    async def until_ready(self) -> None:
        """Wait for that."""
        await self._connected.wait()

    def publish(self, records: Sequence[Record], settled: Settled) -> None:
        """Take records into the flush."""
        if self.ready:
            self.flush.append((records, settled))
        else:
            settled(NotAcknowledged("away"))

    def connect(self) -> None:
        """It is there."""
        self._connected.set()

    def acknowledge(self) -> None:
        """The flush is acknowledged."""
        self._settle(None, len(self.flush))

    def fail(self, written: int = 0) -> None:
        """The flush times out, ``written`` of its records being in the topic all the same, and the connection is gone."""
        self._connected.clear()
        self._settle(NotAcknowledged("in time"), written)

    def _settle(self, refused: Refused | None, written: int) -> None:
        flush, self.flush = self.flush, []
        for records, _ in flush[:written]:
            self.topic += [dict(record.headers)["ig_delivery_id"].decode() for record in records]
        for _, settled in flush:
            settled(refused)


class ScriptedSpool:
    """Keeps `bridge.intake.Spool`; a commit succeeds or fails when the test says so.

    Attributes:
        stored: what is on disk.
        room: whether the next delivery would be taken.
    """

    def __init__(self, stored: Sequence[Delivery] = ()) -> None:
        self.stored = list(stored)
        self.room = True
        self._waiting: list[tuple[Delivery, Settled]] = []

    @property
    def deliveries(self) -> int:
        """On disk or on their way there."""
        return len(self.stored) + len(self._waiting)

    @property
    def bytes(self) -> int:
        """What they take."""
        return sum(len(each.body) for each in [*self.stored, *(waiting for waiting, _ in self._waiting)])

    def put(self, delivery: Delivery, settled: Settled) -> None:
        """Let it wait for a commit."""
        self._waiting.append((delivery, settled))

    def commit(self, refused: Refused | None = None) -> None:
        """End the commit for everything that waits."""
        waiting, self._waiting = self._waiting, []
        if refused is None:
            self.stored += [delivery for delivery, _ in waiting]
        for _, settled in waiting:
            settled(refused)

    async def oldest(self, bytes_max: int) -> Sequence[Delivery]:
        """The first three on disk, later."""
        del bytes_max
        await asyncio.sleep(0)
        return self.stored[:3]

    async def forget(self, count: int) -> None:
        """Remove them, later."""
        assert 0 < count <= len(self.stored)
        await asyncio.sleep(0)
        del self.stored[:count]


class Story:
    """An intake that drains, what was sent to it, and what it answered.

    Attributes:
        answers: by delivery id, in the order in which they were given.
    """

    def __init__(self, stored: Sequence[Delivery] = (), *, spool: bool = True) -> None:
        self.kafka = ScriptedKafka()
        self.spool = ScriptedSpool(stored)
        self.answers: dict[str, Acknowledger | Refused] = {}
        self.intake = Intake(
            publisher=self.kafka,
            spool=self.spool if spool else None,
            found=lambda _walked, _notes: None,
            body_bytes_max=1 << 20,
        )
        self.intake.pipeline = PIPELINE

    @classmethod
    @contextlib.asynccontextmanager
    async def told(cls, stored: Sequence[Delivery] = (), *, spool: bool = True) -> AsyncIterator[Story]:
        """One whose drain runs, and is sound at the end."""
        story = cls(stored, spool=spool)
        draining = asyncio.create_task(story.intake.drain())
        try:
            await turns()
            yield story
            await turns()
            assert not draining.done(), draining
        finally:
            draining.cancel()

    def take(self, *names: str) -> None:
        """Deliveries with these ids arrive."""
        for name in names:
            self.send(delivery(name))

    def send(self, sent: Delivery) -> None:
        """A delivery arrives."""

        def answer(outcome: Acknowledger | Refused) -> None:
            assert sent.delivery_id not in self.answers, "a delivery is answered once"
            self.answers[sent.delivery_id] = outcome

        self.intake.take([(sent, answer)])

    def mode_is(self, mode: Mode) -> bool:
        """Whether deliveries go there now."""
        return self.intake.mode is mode

    async def direct(self) -> None:
        """Kafka comes, and whatever waits for it goes there."""
        for _ in range(ROUNDS_MAX):
            self.kafka.connect()
            await turns()
            self.spool.commit()
            self.kafka.acknowledge()
            if self.mode_is(Mode.DIRECT):
                return
        raise AssertionError("the drain never ends")


def delivery(name: str, body_bytes: int = 0) -> Delivery:
    """One event of a conversation that all of them share."""
    message = f'"message":{{"mid":"{name}","text":"{"x" * body_bytes}"}}'
    return Delivery(wrapped(item(message)), RECEIVED_AT, name, "new")


async def turns(count: int = TURNS) -> None:
    """Let the loop go on."""
    for _ in range(count):
        await asyncio.sleep(0)


async def test_take_acknowledged_by_kafka_is_answered_kafka() -> None:
    """In the steady state nothing touches the spool, and the answer waits for the acknowledgement."""
    async with Story.told() as story:
        await story.direct()
        story.take("a", "b")
        assert story.answers == {}
        story.kafka.acknowledge()
        assert story.answers == {"a": "kafka", "b": "kafka"}
        assert story.kafka.topic == ["a", "b"]
        assert story.spool.deliveries == 0


async def test_take_not_acknowledged_spools_it_and_everything_after_at_once() -> None:
    """An outage costs the deadline once; the answer waits for the disk."""
    async with Story.told() as story:
        await story.direct()
        story.take("a", "b")
        story.kafka.fail()
        story.take("c")
        assert story.answers == {}
        story.spool.commit()
        assert story.answers == {"a": "spool", "b": "spool", "c": "spool"}
        assert [each.delivery_id for each in story.spool.stored] == ["a", "b", "c"]


async def test_spooled_ones_are_published_in_order_before_newer_ones() -> None:
    """What came during the drain goes behind it, and the last few are waited for."""
    async with Story.told([delivery(name) for name in "abcd"]) as story:
        story.take("e")
        story.spool.commit()
        story.kafka.connect()
        await turns()
        assert story.mode_is(Mode.HANDOVER)
        story.take("f")
        for _ in range(3):
            story.kafka.acknowledge()
            await turns()
        assert "".join(story.kafka.topic) == "abcdef"
        assert story.answers == {"e": "spool", "f": "kafka"}
        assert story.mode_is(Mode.DIRECT)
        assert story.intake.drained == 5


async def test_kafka_fails_in_the_handover_spools_what_waited() -> None:
    """Nobody waits for a second outage, and the order stays."""
    async with Story.told([delivery("a")]) as story:
        story.kafka.connect()
        await turns()
        story.take("b", "c")
        story.kafka.fail()
        await turns()
        story.take("d")
        story.spool.commit()
        assert story.answers == {"b": "spool", "c": "spool", "d": "spool"}
        assert [each.delivery_id for each in story.spool.stored] == ["a", "b", "c", "d"]


async def test_those_that_waited_are_published_in_steps_and_in_order() -> None:
    """Together they would be one request, however many a broker that stalled has let wait."""
    async with Story.told([delivery("a")]) as story:
        story.kafka.connect()
        await turns()
        names = [f"{number}" for number in range(3 * DRAIN_STEP_DELIVERIES)]
        story.take(*names)
        story.kafka.acknowledge()
        await turns()
        assert [len(records) for records, _ in story.kafka.flush] == [DRAIN_STEP_DELIVERIES] * 3
        story.kafka.acknowledge()
        assert story.kafka.topic == ["a", *names]
        assert story.intake.deliveries_in_flight == 0


@pytest.mark.parametrize(
    "stored",
    [
        [delivery(f"{number}") for number in range(HANDOVER_DELIVERIES_MAX + 1)],
        [delivery("0", HANDOVER_BYTES_MAX // 2), delivery("1", HANDOVER_BYTES_MAX // 2)],
    ],
    ids=["many", "large"],
)
async def test_much_is_spooled_lets_nobody_wait(stored: list[Delivery]) -> None:
    """The handover begins when what is left takes a moment, counted in deliveries and in bytes."""
    async with Story.told(stored) as story:
        story.kafka.connect()
        await turns()
        story.take("new")
        story.spool.commit()
        assert story.answers == {"new": "spool"}
        assert story.mode_is(Mode.SPOOLING)


async def test_spool_that_fails_refuses_and_goes_on() -> None:
    """What neither takes is refused with a time to come back, also while the drain is looking for it."""
    async with Story.told() as story:
        story.take("a")
        story.kafka.connect()
        await turns(3)
        story.spool.commit(SpoolFailed("disk"))
        await turns()
        assert isinstance(story.answers["a"], SpoolFailed)
        assert story.mode_is(Mode.DIRECT)
        story.take("b")
        story.kafka.acknowledge()
        assert story.answers["b"] == "kafka"


async def test_without_a_spool_an_outage_is_refused() -> None:
    """No spool, no second chance: 503, and direct again when Kafka is there."""
    async with Story.told(spool=False) as story:
        story.take("a")
        story.kafka.connect()
        story.take("b")
        story.kafka.fail()
        story.kafka.connect()
        story.take("c")
        story.kafka.acknowledge()
        assert isinstance(story.answers["a"], NotAcknowledged)
        assert isinstance(story.answers["b"], NotAcknowledged)
        assert story.answers["c"] == "kafka"


async def test_delivery_without_events_is_answered_none() -> None:
    """It holds nothing to publish, so nobody has to take it."""
    async with Story.told() as story:
        await story.direct()
        story.send(Delivery(b'{"object":"instagram","entry":[]}', RECEIVED_AT, "a", "new"))
        assert story.answers == {"a": "none"}
        assert story.intake.deliveries_in_flight == 0


async def test_deliveries_over_the_bound_are_refused_at_once() -> None:
    """The queue does not grow; an answer makes room."""
    async with Story.told() as story:
        await story.direct()
        names = [f"{number}" for number in range(DELIVERIES_IN_FLIGHT_MAX)]
        story.take(*names, "over")
        assert list(story.answers) == ["over"]
        assert isinstance(story.answers["over"], Overloaded)
        story.kafka.acknowledge()
        story.take("next")
        assert "next" not in story.answers


def test_bytes_over_the_bound_are_refused_and_not_counted() -> None:
    """Whoever is refused holds nothing."""
    intake = Story().intake
    intake.hold(BYTES_HELD_MAX)
    with pytest.raises(Overloaded):
        intake.hold(1)
    intake.release(BYTES_HELD_MAX)
    assert intake.bytes_held == 0


async def test_ready_while_somebody_takes_deliveries() -> None:
    """Kafka or the spool is enough; a full spool is not, while everything goes there."""
    async with Story.told([delivery("a")]) as story:
        seen = [story.intake.ready]
        story.spool.room = False
        seen.append(story.intake.ready)
        story.kafka.connect()
        await turns()
        seen.append(story.intake.ready)
        await story.direct()
        seen.append(story.intake.ready)
        story.kafka.fail()
        seen.append(story.intake.ready)
    assert seen == [True, False, True, True, False]


ACTIONS = st.one_of(
    st.tuples(st.just("take"), st.integers(1, 4)),
    st.tuples(st.just("connect"), st.just(0)),
    st.tuples(st.just("acknowledge"), st.just(0)),
    st.tuples(st.just("fail"), st.integers(0, 4)),
    st.tuples(st.just("commit"), st.just(0)),
    st.tuples(st.just("commit fails"), st.just(0)),
    st.tuples(st.just("turns"), st.integers(1, 8)),
)


@settings(max_examples=500, deadline=None, derandomize=True)
@example(stored=1, actions=[("connect", 0), ("fail", 0), ("turns", 2)])
@example(stored=1, actions=[("connect", 0), ("turns", 8), ("take", 2), ("fail", 1), ("take", 1), ("connect", 0)])
@given(stored=st.integers(0, 5), actions=st.lists(ACTIONS, max_size=40))
def test_promise_holds_whatever_happens_in_whatever_order(stored: int, actions: list[tuple[str, int]]) -> None:
    """No delivery that was answered 200 is missing, and whoever came after its answer has a higher offset."""

    async def tell() -> None:
        async with Story.told([delivery(f"old-{number}") for number in range(stored)]) as story:
            answered_before: dict[str, set[str]] = {}
            for action, count in actions:
                if action == "take":
                    for _ in range(count):
                        name = f"{len(answered_before)}"
                        answered_before[name] = {one for one, what in story.answers.items() if isinstance(what, str)}
                        story.take(name)
                elif action == "turns":
                    await turns(count)
                elif action == "fail":
                    story.kafka.fail(count)
                elif action == "commit fails":
                    story.spool.commit(SpoolFailed("disk"))
                else:
                    (story.spool if action == "commit" else story.kafka).__getattribute__(action)()
            await story.direct()

            assert set(story.answers) == set(answered_before), "everybody is answered"
            first = {name: story.kafka.topic.index(name) for name in story.kafka.topic}
            safe = {name for name, outcome in story.answers.items() if isinstance(outcome, str)}
            assert safe | {f"old-{number}" for number in range(stored)} <= set(first), "nothing is lost"
            for name in safe:
                assert all(first[earlier] < first[name] for earlier in answered_before[name]), "nothing overtakes"
            old = [name for name in first if name.startswith("old-")]
            assert [first[name] for name in sorted(old)] == sorted(first[name] for name in old)
            assert story.intake.deliveries_in_flight == 0

    with asyncio.Runner() as runner:
        runner.run(tell())

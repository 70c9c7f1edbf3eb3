"""The publisher's flushes: how much goes together, in which order, and what becomes of those that wait behind a failure."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaError, MessageSizeTooLargeError

from bridge.adapters.kafka import KafkaPublisher, Topics
from bridge.adapters.produce import _Answer, _Produce
from bridge.errors import NotAcknowledged, Refused
from bridge.record import Record

RECORD_BYTES = 100_000
REQUEST_BYTES_MAX = 1_200_000
"""1 MiB, and the delivery that went over it."""

PATIENCE_S = 10.0
LIBRARYS_WORDS = "what a library says"


class Broker:
    """Takes produce requests one by one, when it is told to; a producer and its client in one."""

    def __init__(self) -> None:
        self.client = self
        self._conns: dict[object, object] = {}
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: 1)
        self._txn_manager = SimpleNamespace(producer_id=1, producer_epoch=0)
        self.sizes: list[int] = []
        self.answers: asyncio.Queue[KafkaError | None] = asyncio.Queue()

    async def start(self) -> None:
        """It is there."""

    async def stop(self) -> None:
        """As above."""

    async def send(self, _node: int, request: _Produce) -> _Answer:
        """Answer what is said next."""
        self.sizes.append(sum(len(head) + len(checked) for _, (head, checked) in request._batches))  # noqa: SLF001 - what goes over the wire
        answer = await self.answers.get()
        if answer is not None:
            raise answer
        return _Answer({place: 0 for place, _ in request._batches})  # noqa: SLF001 - as above


@contextlib.asynccontextmanager
async def publishing(*producers: Broker) -> AsyncIterator[KafkaPublisher]:
    """A publisher that is connected to the first, or after failures to one that follows; the last one is made again."""
    following = list(producers)

    async def prepare() -> Topics:
        return Topics(partitions=3, batch_bytes_max=1 << 20)

    def new_producer() -> Broker:
        return following.pop(0) if len(following) > 1 else following[0]

    publisher = KafkaPublisher(prepare=prepare, new_producer=new_producer, deadline_s=60)
    running = asyncio.create_task(publisher.run())
    try:
        async with asyncio.timeout(PATIENCE_S):
            await publisher.until_ready()
        yield publisher
    finally:
        publisher.stop()
        await running


def publish(publisher: KafkaPublisher, deliveries: int, settled: list[tuple[int, Refused | None]]) -> None:
    """Deliveries of one record each, who tell their number and what became of them."""
    for number in range(deliveries):
        record = Record.of("t", f"{number}".encode(), b"x" * RECORD_BYTES, [])
        publisher.publish([record], lambda refused, number=number: settled.append((number, refused)))  # type: ignore[misc]


async def test_much_that_arrives_meanwhile_goes_in_several_requests_and_in_its_order() -> None:
    """What is sent together is bounded, however much there is; who went first is answered first."""
    broker, settled = Broker(), list[tuple[int, Refused | None]]()
    async with publishing(broker) as publisher:
        publish(publisher, 40, settled)
        for _ in range(40):
            broker.answers.put_nowait(None)
    assert settled == [(number, None) for number in range(40)]
    assert sum(broker.sizes) >= 40 * RECORD_BYTES
    assert max(broker.sizes) <= REQUEST_BYTES_MAX


async def test_all_that_wait_behind_a_failure_are_refused_in_their_order_and_not_sent() -> None:
    """Nothing overtakes: the spool gets them as they came."""
    broker, settled = Broker(), list[tuple[int, Refused | None]]()
    async with publishing(broker) as publisher:
        publish(publisher, 40, settled)
        broker.answers.put_nowait(None)
        broker.answers.put_nowait(MessageSizeTooLargeError())
        while len(settled) < 40:  # noqa: ASYNC110 - turns of the loop
            await asyncio.sleep(0)
    assert [number for number, _ in settled] == list(range(40))
    assert len(broker.sizes) == 2
    refused = [number for number, outcome in settled if isinstance(outcome, NotAcknowledged)]
    assert refused == list(range(refused[0], 40))
    assert 0 < refused[0] < 40, "the first request was acknowledged"


class Unclosable(Broker):
    """Raises what is no KafkaError when it is closed, as aiokafka does when one of its tasks ended with that before."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error

    async def stop(self) -> None:
        """Fail."""
        raise self.error


class Unstartable(Broker):
    """Raises what is no KafkaError when it is started, as aiokafka's SCRAM does."""

    async def start(self) -> None:
        """Fail."""
        raise ValueError(LIBRARYS_WORDS)


@pytest.mark.parametrize("error", [ValueError(LIBRARYS_WORDS), asyncio.CancelledError()], ids=["failed", "cancelled"])
async def test_producer_that_cannot_be_closed_is_no_reason_not_to_answer_and_not_to_make_another(
    error: BaseException,
) -> None:
    """All that wait are refused in their order, and the next producer publishes."""
    broken, whole, settled = Unclosable(error), Broker(), list[tuple[int, Refused | None]]()
    async with publishing(broken, whole) as publisher:
        publish(publisher, 40, settled)
        broken.answers.put_nowait(MessageSizeTooLargeError())
        async with asyncio.timeout(PATIENCE_S):
            while len(settled) < 40:  # noqa: ASYNC110 - turns of the loop
                await asyncio.sleep(0)
            await publisher.until_ready()
        assert [number for number, _ in settled] == list(range(40))
        assert all(isinstance(outcome, NotAcknowledged) for _, outcome in settled)
        settled.clear()
        publish(publisher, 1, settled)
        whole.answers.put_nowait(None)
    assert settled == [(0, None)]


async def test_producer_that_cannot_be_started_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever it is of, the publisher goes on; a library's text, which could hold anything, is not told."""
    broker, settled = Broker(), list[tuple[int, Refused | None]]()
    async with publishing(Unstartable(), broker) as publisher:
        publish(publisher, 1, settled)
        broker.answers.put_nowait(None)
    assert settled == [(0, None)]
    told = "".join(capsys.readouterr())
    assert "ValueError" in told
    assert LIBRARYS_WORDS not in told

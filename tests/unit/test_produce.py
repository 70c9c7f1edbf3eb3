"""Produce requests: their bytes against aiokafka's own, and what becomes of a batch that is not acknowledged at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from io import BytesIO
from types import SimpleNamespace

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NotLeaderForPartitionError,
    OutOfOrderSequenceNumber,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.produce import ProduceRequest, ProduceRequest_v7, ProduceResponse_v7
from aiokafka.record.memory_records import MemoryRecords

from bridge.adapters.produce import Batch, Closed, Place, Sender, _Answer, _Produce
from bridge.record import Record
from tests.unit.street import aiokafkas_batch

VERSIONS = {ProduceRequest.API_KEY: (3, 12)}
NOT_LEADER, DUPLICATE, OUT_OF_ORDER, TOO_LARGE = 6, 46, 45, 10
HEADER, LENGTH = b"aiokafka's header", b"\0\1\2\3"
A, B = ("instagram.messages", 0), ("instagram.messages", 1)


def test_request_has_the_bytes_of_aiokafkas() -> None:
    """Several topics, several partitions, names beyond ASCII; after the header and the length that its connection puts before them."""
    batches = [
        (("a", 0), Closed(b"fi", b"rst")),
        (("ö.b", 7), Closed(b"", b"")),
        (("a", 11), Closed(b"x", b"x" * 2999)),
    ]
    theirs = ProduceRequest(None, -1, 3000, [("a", [(0, b"first"), (11, b"x" * 3000)]), ("ö.b", [(7, b"")])])
    ours = _Produce(3000, batches).prepare(VERSIONS).encode()
    assert len(ours) == len(theirs.build(ProduceRequest_v7).encode())
    assert LENGTH + (HEADER + ours) == LENGTH + HEADER + theirs.build(ProduceRequest_v7).encode()


def test_answer_is_read_as_aiokafka_reads_it() -> None:
    """Partitions of several topics, and the throttle time after them."""
    topics = [("a", [(0, 0, 17, -1, 0), (3, NOT_LEADER, -1, -1, -1)]), ("ö.b", [(7, TOO_LARGE, -1, -1, -1)])]
    answer = ProduceResponse_v7(topics, 100).encode()
    assert _Answer.decode(BytesIO(answer)).codes == {("a", 0): 0, ("a", 3): NOT_LEADER, ("ö.b", 7): TOO_LARGE}


def test_broker_without_this_version_is_no_silence() -> None:
    """It says so, instead of sending what nobody understands."""
    with pytest.raises(NotImplementedError):
        _Produce(3000, []).prepare({ProduceRequest.API_KEY: (0, 6)})


def batch(*values: bytes) -> Batch:
    """A batch of records."""
    made = Batch(1 << 20)
    for value in values:
        assert made.append(Record.of("instagram.messages", b"key", value, []).content, 1)
    return made


HEADERS = [("ce_id", b"1"), ("ö", b""), ("long", b"y" * 5000)]
RECORDS = [
    (Record.of("t", b"key", b"value", HEADERS), 1_763_800_000_123),
    (Record.of("t", None, b"", []), 1_763_800_000_120),
    (Record.of("t", b"", b"x" * 10_000, HEADERS[:1]), 1_763_800_010_000),
    (Record.of("t", "ö".encode(), b"x", HEADERS * 30), 1_763_800_000_123),
]


@pytest.mark.parametrize(
    "records", [RECORDS[:1], RECORDS[1:2], RECORDS, RECORDS * 2000], ids=["one", "bare", "four", "many"]
)
def test_batch_has_the_bytes_of_aiokafkas(records: Sequence[tuple[Record, int]]) -> None:
    """With and without key and headers, times that go back, more records than lengths are known by heart."""
    ours = Batch(1 << 30)
    for record, timestamp in records:
        assert ours.append(record.content, timestamp)
    assert ours.records == len(records)
    assert (
        b"".join(ours.close(4711, 3, 17)).hex()
        == aiokafkas_batch(records, producer_id=4711, epoch=3, sequence=17).hex()
    )


def test_batch_says_when_it_is_full() -> None:
    """A record that is larger than the bound fits alone."""
    made = Batch(100)
    assert made.append(Record.of("t", None, b"x" * 1000, []).content, 1)
    assert not made.append(Record.of("t", None, b"y", []).content, 1)
    assert made.records == 1


Codes = dict[Place, int]


class Cluster:
    """Answers produce requests by a script, one answer for each; what was sent stays to be looked at."""

    def __init__(self, *answers: Codes | KafkaError, partitions: int = 2) -> None:
        self.answers = list(answers)
        self.sent: list[dict[Place, Closed]] = []
        self.looked = 0
        self.partitions = partitions
        self.cluster = SimpleNamespace(leader_for_partition=lambda place: 1 if place.partition < partitions else None)
        self.client = self
        self._txn_manager = SimpleNamespace(producer_id=4711, producer_epoch=0)

    async def send(self, node: int, request: _Produce) -> _Answer:
        """The next answer."""
        assert node == 1
        self.sent.append(dict(request._batches))  # noqa: SLF001 - the bytes are compared above; here it is who got which
        answer = self.answers.pop(0)
        if isinstance(answer, KafkaError):
            raise answer
        return _Answer(answer)

    async def force_metadata_update(self) -> bool:
        """Count."""
        self.looked += 1
        return True

    async def partitions_for(self, _topic: str) -> set[int]:
        """All there are."""
        return set(range(self.partitions))


def sequences(sent: Sequence[dict[Place, Closed]], place: Place) -> list[tuple[int, int, int]]:
    """Producer id, first sequence number and number of records of each batch that was sent to a place."""
    found = []
    for request in sent:
        if place in request:
            read = MemoryRecords(b"".join(request[place])).next_batch()
            found.append((read.producer_id, read.base_sequence, len(list(read))))
    return found


async def test_sequence_numbers_follow_one_another_in_each_partition() -> None:
    """Over flushes, and over the batches of one flush, which go one after the other."""
    ok: list[Callable[[], Codes]] = [lambda: {A: 0, B: 0}, lambda: {A: 0}, lambda: {A: 0, B: 0}]
    cluster = Cluster(*(each() for each in ok))
    sender = Sender(cluster, 1000)
    await sender.send({A: [batch(b"1", b"2"), batch(b"3")], B: [batch(b"4")]})
    await sender.send({A: [batch(b"5")], B: [batch(b"6")]})
    assert sequences(cluster.sent, A) == [(4711, 0, 2), (4711, 2, 1), (4711, 3, 1)]
    assert sequences(cluster.sent, B) == [(4711, 0, 1), (4711, 1, 1)]


async def test_what_may_be_repeated_is_the_same_bytes_again_and_nothing_else() -> None:
    """After a moved leader, a lost connection, and an answer that was lost: the second try is a copy that Kafka drops."""
    cluster = Cluster({A: NOT_LEADER, B: 0}, KafkaConnectionError("gone"), {A: DUPLICATE})
    await Sender(cluster, 1000).send({A: [batch(b"1")], B: [batch(b"2")]})
    first, second, third = cluster.sent
    assert set(first) == {A, B}
    assert second == third == {A: first[A]}
    assert cluster.looked == 2, "the cluster is asked anew before each repetition"


@pytest.mark.parametrize(
    ("code", "error"), [(OUT_OF_ORDER, OutOfOrderSequenceNumber), (TOO_LARGE, MessageSizeTooLargeError)]
)
async def test_refusal_for_good_is_raised(code: int, error: type[KafkaError]) -> None:
    """At once: the publisher then gives the producer up."""
    cluster = Cluster({A: code})
    with pytest.raises(error):
        await Sender(cluster, 1000).send({A: [batch(b"1")]})
    assert len(cluster.sent) == 1


async def test_partition_that_is_not_there_is_refused() -> None:
    """A topic that was made anew with fewer of them is looked at by the publisher, not waited for."""
    with pytest.raises(UnknownTopicOrPartitionError):
        await Sender(Cluster(partitions=1), 1000).send({B: [batch(b"1")]})


async def test_request_that_failed_for_one_leader_does_not_hide_the_answers_of_another() -> None:
    """Only what was not acknowledged goes again."""
    assert NotLeaderForPartitionError.retriable
    cluster = Cluster({A: 0}, KafkaConnectionError("gone"), {B: 0})
    asked: list[int] = []

    async def send(node: int, request: _Produce) -> _Answer:
        asked.append(node)
        return await Cluster.send(cluster, 1, request)

    cluster.send = send  # type: ignore[method-assign] # two nodes instead of one
    cluster.cluster = SimpleNamespace(leader_for_partition=lambda place: place.partition + 1)
    await Sender(cluster, 1000).send({A: [batch(b"1")], B: [batch(b"2")]})
    assert asked == [1, 2, 2]
    assert set(cluster.sent[-1]) == {B}


async def test_leader_that_fails_oddly_leaves_no_other_that_sends_later() -> None:
    """Who is told of a failure may spool what the flush held; a request that is still connecting is over before that."""
    cluster, connected = Cluster({B: 0}), asyncio.Event()
    cluster.cluster = SimpleNamespace(leader_for_partition=lambda place: place.partition + 1)

    async def send(node: int, request: _Produce) -> _Answer:
        if node == 1:
            raise ValueError("no answer of Kafka's")
        await connected.wait()
        return await Cluster.send(cluster, 1, request)

    cluster.send = send  # type: ignore[method-assign] # as above
    sending = asyncio.create_task(Sender(cluster, 1000).send({A: [batch(b"1")], B: [batch(b"2")]}))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not sending.done()
    connected.set()
    with pytest.raises(ValueError, match="no answer"):
        await sending
    assert len(cluster.sent) == 1

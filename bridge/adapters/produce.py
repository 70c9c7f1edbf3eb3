"""Produce requests of our own on aiokafka's client: one for each leader and flush, however many partitions it goes to.

aiokafka's producer finds the brokers, authenticates, keeps the metadata and asks for the producer id. Its own sending costs 45 µs
of futures and turns of the loop for every partition's batch, a quarter of a delivery, and copies each record seven times
(docs/decisions/0002-publisher.md). What is here instead is short because the publisher has one flush in flight: a partition has
one unacknowledged batch at most, so its sequence number is a sum, and a repetition is the same bytes again.

Formats: kafka.apache.org/protocol, Produce v7 (Kafka 2.1 to 4.x); what idempotence asks of a client is in KIP-98.
"""

from __future__ import annotations

import asyncio
import struct
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from io import BytesIO
from typing import NamedTuple, Self

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import DuplicateSequenceNumber, KafkaError, NoError, UnknownTopicOrPartitionError, for_code
from aiokafka.protocol.api import Request
from aiokafka.protocol.produce import ProduceRequest_v7, ProduceResponse_v7
from google_crc32c import value as crc32c

from bridge.varint import LENGTHS, SHORT_BYTES, varint

_log = structlog.get_logger()

_REPEAT_AFTER_S = 0.05
"""Between tries, until the flush's deadline: a moved leader costs one, and a cluster that is away is asked twenty times a second."""

_SEQUENCES = 2**31
"""Sequence numbers of a partition, which then start at 0 again."""

Place = tuple[str, int]
"""A topic and a partition."""

_ACKNOWLEDGED = frozenset({NoError, DuplicateSequenceNumber})
"""What Kafka says when it has a batch; the second when an earlier try did arrive."""

_Outcomes = Sequence[tuple[Place, type[KafkaError]]]
"""What became of the batches of one request, by their places."""

# A record batch up to its first record. Offset, how many bytes follow, the leader's epoch, the format, the checksum; and what that is
# of: attributes, last offset, first and last time, producer, epoch, sequence, how many records; and these.
_HEAD = struct.Struct(">qiibI")
_CHECKED = struct.Struct(">hiqqqhii")
_BEFORE_LENGTH = struct.calcsize(">qi")
_HEAD_BYTES = _HEAD.size + _CHECKED.size
_NO_EPOCH, _MAGIC = -1, 2

_FRAME_BYTES_MAX = 5 + 1 + 10 + 5
"""What stands before a record's content at most: its length, its attributes, its time and its offset since the batch's first."""

_AT_FIRST = b"\0\0"
"""A record's attributes, of which there are none, and no milliseconds since the batch's first: most arrived together."""


class Closed(NamedTuple):
    """A record batch as it goes over the wire, in two pieces: the checksum stands before what it is of.

    Attributes:
        head: up to the checksum.
        checked: all that follows.
    """

    head: bytes
    checked: bytes


class Batch:
    """The records of one partition that go together; a record batch of Kafka's (v2), not compressed.

    Args:
        bytes_max: its size; one record that is larger fits alone.

    Attributes:
        records: how many are in it.
    """

    __slots__ = ("_at", "_before", "_bytes", "_bytes_max", "_first", "_last", "_parts", "records")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = _HEAD_BYTES
        self._parts = [b""]  # the first is for what is known at the end
        self._first = self._last = 0
        self._at, self._before = 0, _AT_FIRST  # the last record's time, and how a record of that time begins
        self.records = 0

    def append(self, content: bytes, timestamp: int) -> bool:
        """Add a record's content under a timestamp in milliseconds; False when there may be no room for it."""
        size, number = len(content), self.records
        total = self._bytes + size + _FRAME_BYTES_MAX
        if total > self._bytes_max and number:
            return False
        if timestamp != self._at:
            if not number:
                self._first = self._last = timestamp
            elif timestamp > self._last:
                self._last = timestamp
            since = timestamp - self._first
            self._before = b"\0" + (LENGTHS[since] if 0 <= since < SHORT_BYTES else varint(since))
            self._at = timestamp
        self._bytes = total
        self.records = number + 1
        before = self._before
        position = LENGTHS[number] if number < SHORT_BYTES else varint(number)
        size += len(before) + len(position)
        self._parts += (LENGTHS[size] if size < SHORT_BYTES else varint(size), before, position, content)
        return True

    def close(self, producer_id: int, epoch: int, sequence: int) -> Closed:
        """The bytes of the batch; once, for its records go."""
        parts = self._parts
        del self._parts
        last_offset, times = self.records - 1, (self._first, self._last)
        parts[0] = _CHECKED.pack(0, last_offset, *times, producer_id, epoch, sequence, self.records)
        checked = b"".join(parts)
        size = _HEAD.size + len(checked)
        # google-crc32c takes the processor's own instruction, a tenth of the time that aiokafka's table needs.
        return Closed(_HEAD.pack(0, size - _BEFORE_LENGTH, _NO_EPOCH, _MAGIC, crc32c(checked)), checked)


class Sender:
    """Sends the batches of one started idempotent producer, and keeps its sequence numbers. One `send` at a time.

    Args:
        producer: acks=all, idempotent, started.
        timeout_ms: for the broker to have its replicas' acknowledgements.
    """

    def __init__(self, producer: AIOKafkaProducer, timeout_ms: int) -> None:
        self._producer = producer
        self._client = producer.client
        self._timeout_ms = timeout_ms
        identity = producer._txn_manager  # noqa: SLF001 - aiokafka's own name for who an idempotent producer is
        self._producer_id: int = identity.producer_id
        self._epoch: int = identity.producer_epoch
        self._sequences: defaultdict[Place, int] = defaultdict(int)

    async def send(self, batches: Mapping[Place, Sequence[Batch]]) -> None:
        """Send until all are acknowledged; who calls bounds the time.

        Raises:
            KafkaError: one was refused for good, and this producer's sequence numbers are no more of use.
        """
        for turn in range(max(map(len, batches.values()))):  # a request has one batch for a partition
            await self._send(
                {place: self._closed(place, those[turn]) for place, those in batches.items() if turn < len(those)}
            )

    def _closed(self, place: Place, batch: Batch) -> Closed:
        sequence = self._sequences[place]
        self._sequences[place] = (sequence + batch.records) % _SEQUENCES
        return batch.close(self._producer_id, self._epoch, sequence)

    async def _send(self, unsent: dict[Place, Closed]) -> None:
        told = False
        while True:
            leaders = await self._leaders(unsent)
            requests = (self._ask(leader, places, unsent) for leader, places in leaders.items() if leader >= 0)
            asked = await _all_of(requests) if len(leaders) > 1 else [await request for request in requests]
            problems = set()
            for place, error in (answer for answers in asked for answer in answers):
                if error in _ACKNOWLEDGED:
                    del unsent[place]
                elif error.retriable:
                    problems.add(error.__name__)
                else:
                    raise error
            if not unsent:
                return
            if not told:  # once for a flush, not twenty times a second
                _log.warning("produce_repeated", partitions=len(unsent), errors=sorted(problems) or "no leader")
                told = True
            await asyncio.sleep(_REPEAT_AFTER_S)
            await self._client.force_metadata_update()

    async def _leaders(self, unsent: Mapping[Place, Closed]) -> Mapping[int, list[Place]]:
        """The places by their leader's node; -1 for those that have none now.

        Raises:
            KafkaError: a topic or a partition is not there, or not ours to see.
        """
        leader_of = self._client.cluster.leader_for_partition
        leaders: dict[int, list[Place]] = {}
        for place in unsent:
            leader = leader_of(TopicPartition(*place))
            if leader is None:  # the first record of this topic
                await self._producer.partitions_for(place[0])
                leader = leader_of(TopicPartition(*place))
                if leader is None:
                    raise UnknownTopicOrPartitionError
            leaders.setdefault(leader, []).append(place)
        return leaders

    async def _ask(self, leader: int, places: Sequence[Place], unsent: Mapping[Place, Closed]) -> _Outcomes:
        """Send one request; what became of each place, of all of them when there was no answer."""
        try:
            answer = await self._client.send(
                leader, _Produce(self._timeout_ms, [(place, unsent[place]) for place in places])
            )
        except KafkaError as error:
            return [(place, type(error)) for place in places]
        return [(place, for_code(code) if code else NoError) for place, code in answer.codes.items()]


async def _all_of(requests: Iterable[Coroutine[None, None, _Outcomes]]) -> list[_Outcomes]:
    """What became of each; what is no answer is raised when the last of them is over, so that none sends afterwards."""
    outcomes = []
    for outcome in await asyncio.gather(*requests, return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
        outcomes.append(outcome)
    return outcomes


_INT16, _INT32 = struct.Struct(">h"), struct.Struct(">i")
_BEGIN = struct.Struct(">hhii")  # no transactional id, acks, time-out in ms, how many topics
_PARTITION = struct.Struct(">ii")  # its number, how many bytes follow
_OUTCOME = struct.Struct(">ihqqq")  # partition, error code, offset, time, the log's first offset
_ACKS_ALL = -1


class _Answer(ProduceResponse_v7):  # type: ignore[misc] # aiokafka ships no types
    """What became of each batch.

    Attributes:
        codes: Kafka's error code for every place; 0 is none.
    """

    def __init__(self, codes: dict[Place, int]) -> None:
        self.codes = codes

    @classmethod
    def decode(cls, data: BytesIO) -> Self:
        """Read it; the throttle time at its end is the broker's to keep."""
        codes: dict[Place, int] = {}
        (topics,) = _INT32.unpack(data.read(4))
        for _ in range(topics):
            (size,) = _INT16.unpack(data.read(2))
            topic = data.read(size).decode()
            (partitions,) = _INT32.unpack(data.read(4))
            for partition, code, *_ in _OUTCOME.iter_unpack(data.read(partitions * _OUTCOME.size)):
                codes[topic, partition] = code
        return cls(codes)


class _Message:
    """A request's parts, which are joined when aiokafka has put its header and then a length before them.

    It adds twice, and of bytes each sum would copy a megabyte.
    """

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def __len__(self) -> int:
        return sum(map(len, self._parts))

    def __radd__(self, before: bytes) -> _Message | bytes:
        """The header makes it a message, the length what goes over the wire."""
        if len(before) == _INT32.size:
            return b"".join((before, *self._parts))
        return _Message((before, *self._parts))


class _ProduceV7(ProduceRequest_v7):  # type: ignore[misc] # as above
    """A request as it goes over the wire."""

    RESPONSE_TYPE = _Answer

    def __init__(self, parts: Sequence[bytes]) -> None:
        self._parts = parts

    def encode(self) -> _Message:
        """Its parts, for aiokafka to put the header before them."""
        return _Message(self._parts)


class _Produce(Request[_ProduceV7]):  # type: ignore[misc] # as above
    """A request as aiokafka's client takes it."""

    API_KEY = ProduceRequest_v7.API_KEY

    def __init__(self, timeout_ms: int, batches: Sequence[tuple[Place, Closed]]) -> None:
        self._timeout_ms = timeout_ms
        self._batches = batches

    def build(self, request_struct_class: type[_ProduceV7]) -> _ProduceV7:
        """Called by the connection, when it knows that the broker speaks this version."""
        return request_struct_class([*self._parts()])

    def _parts(self) -> Iterator[bytes]:
        topics: dict[str, list[tuple[int, Closed]]] = {}
        for (topic, partition), batch in self._batches:
            topics.setdefault(topic, []).append((partition, batch))
        yield _BEGIN.pack(-1, _ACKS_ALL, self._timeout_ms, len(topics))
        for topic, batches in topics.items():
            name = topic.encode()
            yield _INT16.pack(len(name)) + name + _INT32.pack(len(batches))
            for partition, (head, checked) in batches:
                yield _PARTITION.pack(partition, len(head) + len(checked)) + head
                yield checked

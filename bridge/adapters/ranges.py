"""A range of a topic: which records it is, and their copies in another topic or in the same.

A copy has the key, the value and the headers of its original, which keeps what `received_at` says; it is stamped with the
time of the copying, and two headers tell that it is one. Copies are in the order of their partitions, and of nothing else.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from bridge.adapters.reader import Decoder, Undecodable
from bridge.adapters.replaying import Republisher, copy_headers, is_copy, scan
from bridge.encoding import Schema
from bridge.record import Record
from bridge.settings import KafkaSettings


@dataclass(frozen=True, slots=True)
class Range:
    """Which records of a topic are meant; None where anything goes.

    Attributes:
        topic: its whole name.
        since_ms, until_ms: by when the bridge received the event, milliseconds since the Unix epoch; ``until`` is not in it.
        account, customer: ids in the value.
        webhook_field: the event's, or what a change named for which there is no schema.
    """

    topic: str
    since_ms: int | None = None
    until_ms: int | None = None
    account: str | None = None
    customer: str | None = None
    webhook_field: str | None = None

    def holds(self, value: Mapping[str, Any], timestamp: int) -> bool:
        """Whether a record is in it; the timestamp counts where the value does not say when it was received."""
        received_at = value.get("received_at", timestamp)
        return (
            (self.since_ms is None or received_at >= self.since_ms)
            and (self.until_ms is None or received_at < self.until_ms)
            and self.account in (None, value.get("account_id"))
            and self.customer in (None, value.get("customer_id"))
            and self.webhook_field in (None, value.get("webhook_field"), value.get("named_field"))
        )


@dataclass(frozen=True, slots=True)
class Copying:
    """A replay of a range into a topic, and how far it came; the journal keeps the last of these.

    Attributes:
        asked: the options as they were typed: with other ones it would be another replay.
        what: the range, its times fixed.
        target: the topic that takes the copies.
        left: of each partition of the source the offsets that are still to be read.
        copied: how many copies there are.
    """

    asked: Mapping[str, str | None]
    what: Range
    target: str
    left: Mapping[int, range]
    copied: int = 0

    @property
    def spans(self) -> dict[TopicPartition, range]:
        """What is still to be read."""
        return {TopicPartition(self.what.topic, number): span for number, span in self.left.items()}

    def after(self, read_to: Mapping[TopicPartition, int], copies: int) -> Copying:
        """The same replay when more of it is done."""
        left = {place.partition: range(offset, self.left[place.partition].stop) for place, offset in read_to.items()}
        return replace(self, left=left, copied=self.copied + copies)

    def entry(self, replay_id: str) -> dict[str, dict[str, Any]]:
        """What the journal keeps, under its name."""
        kept = asdict(self) | {"left": {number: (span.start, span.stop) for number, span in self.left.items()}}
        return {_name(replay_id): kept}


class Found(NamedTuple):
    """What of a batch is in a range: each record with its schema and value.

    Attributes:
        undecodable: records whose value cannot be read, so that nobody knows whether they are in it.
    """

    records: list[tuple[ConsumerRecord, Schema, dict[str, Any]]]
    read_to: Mapping[TopicPartition, int]
    undecodable: int


def _name(replay_id: str) -> str:
    return f"range/{replay_id}"


def stored(entries: Mapping[str, Mapping[str, Any]], replay_id: str) -> Copying | None:
    """The replay of that id as the journal has it; None when it was never begun."""
    entry = entries.get(_name(replay_id))
    if entry is None:
        return None
    left = {int(number): range(*span) for number, span in entry["left"].items()}
    return Copying(entry["asked"], Range(**entry["what"]), entry["target"], left, entry["copied"])


async def find(
    settings: KafkaSettings, what: Range, spans: Mapping[TopicPartition, range]
) -> AsyncGenerator[Found, None]:
    """The records of a range, some at a time. Copies of records of the same topic are not in it: the originals are.

    Raises:
        Misconfigured, RegistryUnreachable, KafkaError, OSError: as of `scan` and `Decoder`.
    """
    decoder = Decoder(settings)
    async with aclosing(scan(settings, spans)) as batches:
        async for batch in batches:
            found, undecodable = [], 0
            for record in batch.records:
                if is_copy(record):
                    continue
                try:
                    schema, value = await decoder.decode_with_schema(record.value)
                except Undecodable:
                    undecodable += 1
                    continue
                if what.holds(value, record.timestamp):
                    found.append((record, schema, value))
            yield Found(found, batch.read_to, undecodable)


async def copy(
    settings: KafkaSettings, replay_id: str, copying: Copying, republisher: Republisher
) -> AsyncGenerator[tuple[Copying, int], None]:
    """Copy what is left of a replay; gives how far it is after each transaction, and how many records could not be read.

    Raises:
        Misconfigured, RegistryUnreachable, KafkaError, OSError: as of `find` and `Republisher.publish`; what was given
            stays copied and is not copied again.
    """
    await republisher.publish([], copying.entry(replay_id), now_ms=_now_ms())  # its ends are fixed from here on
    undecodable = 0
    async with aclosing(find(settings, copying.what, copying.spans)) as some:
        async for found in some:
            records = [_copied(record, replay_id, copying.target) for record, _, _ in found.records]
            undecodable += found.undecodable
            copying = copying.after(found.read_to, len(records))
            await republisher.publish(records, copying.entry(replay_id), now_ms=_now_ms())
            yield copying, undecodable


def _copied(record: ConsumerRecord, replay_id: str, target: str) -> Record:
    source = (record.topic, record.partition, record.offset)
    return Record.of(target, record.key, record.value, copy_headers(record.headers, replay_id, source))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000

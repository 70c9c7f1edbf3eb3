"""Dead letters: read back, walked down the street once more, and put where they belong, each once.

A letter that holds a delivery is that delivery again. One that holds a lone item (`record_too_large`) is given an envelope
that makes the same event of it: the entry's id is the account that its `ce_source` names, which is what the event_id and the
key follow from. The entry's time is not known any more, so `sent_at` is null.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from bridge.adapters.reader import Decoder, Undecodable
from bridge.adapters.replaying import TRANSACTION_RECORDS_MAX, Republisher, copy_headers, scan
from bridge.delivery import Delivery
from bridge.event import STANDBY
from bridge.pipeline import RECORD_TOO_LARGE, Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER, topic_name
from bridge.settings import KafkaSettings

_SOURCE = "/instagram/"
_NOT_READ = "undecodable"


class Letter(NamedTuple):
    """A dead letter, and what the street makes of it now.

    Attributes:
        place: its partition and offset.
        reason: why it was set aside.
        records: what to publish; none when it fails again, and none of a delivery without a single item.
        failure: why it fails again, as reason and detail; None when it does not.
        put_back: whether that was done before.
    """

    place: tuple[int, int]
    received_at: int
    delivery_id: str
    reason: str
    records: Sequence[Record] = ()
    failure: tuple[str, str] | None = None
    put_back: bool = False

    @property
    def entry(self) -> str:
        """The name under which the journal knows it."""
        partition, offset = self.place
        return f"{DEAD_LETTER}/{partition}/{offset}"


class Letters(NamedTuple):
    """Some letters, and how far the topic was read."""

    letters: list[Letter]
    read_to: Mapping[TopicPartition, int]


async def read(
    settings: KafkaSettings,
    pipeline: Pipeline,
    journal: Mapping[str, Mapping[str, Any]],
    spans: Mapping[TopicPartition, range],
) -> AsyncGenerator[Letters, None]:
    """The dead letters of the spans; each is walked down the street, and nothing is published.

    Raises:
        Misconfigured, RegistryUnreachable, KafkaError, OSError: as of `scan` and `Decoder`.
    """
    decoder = Decoder(settings)
    async with aclosing(scan(settings, spans)) as batches:
        async for batch in batches:
            yield Letters(
                [await _letter(record, decoder, pipeline, journal) for record in batch.records], batch.read_to
            )


async def put_back(letters: Sequence[Letter], replay_id: str, republisher: Republisher) -> AsyncGenerator[int, None]:
    """Publish what the letters hold, and remember that; after each transaction the number of records in it.

    Letters that fail again, or were put back before, are left alone.
    """
    waiting: list[Letter] = []
    for letter in (*letters, None):
        full = sum(len(one.records) for one in waiting) >= TRANSACTION_RECORDS_MAX
        if waiting and (letter is None or full):
            yield await _publish(waiting, replay_id, republisher)
            waiting = []
        if letter is not None and letter.failure is None and not letter.put_back:
            waiting.append(letter)


async def _publish(letters: Sequence[Letter], replay_id: str, republisher: Republisher) -> int:
    entries = {
        letter.entry: {"delivery_id": letter.delivery_id, "replay_id": replay_id, "records": len(letter.records)}
        for letter in letters
    }
    records = [record for letter in letters for record in _marked(letter, replay_id)]
    await republisher.publish(records, entries, now_ms=time.time_ns() // 1_000_000)
    return len(records)


def _marked(letter: Letter, replay_id: str) -> list[Record]:
    return [
        Record.of(
            record.topic,
            record.key,
            record.value,
            copy_headers(record.headers, replay_id, (DEAD_LETTER, *letter.place)),
        )
        for record in letter.records
    ]


async def _letter(
    record: ConsumerRecord, decoder: Decoder, pipeline: Pipeline, journal: Mapping[str, Mapping[str, Any]]
) -> Letter:
    place = (record.partition, record.offset)
    try:
        value = await decoder.decode(record.value)
    except Undecodable as error:
        return Letter(place, record.timestamp, "", _NOT_READ, failure=(_NOT_READ, str(error)))
    letter = Letter(place, value["received_at"], value["delivery_id"], value["reason"])
    known = journal.get(letter.entry)
    if known is not None and known["delivery_id"] == letter.delivery_id:  # else the topic was made anew since
        return letter._replace(put_back=True)
    body = value["body"]
    if letter.reason == RECORD_TOO_LARGE:
        body = _envelope(body, value["detail"] or "", _account_id(record))
    delivery = Delivery(body, letter.received_at, letter.delivery_id, value["app_secret_label"] or "")
    records = pipeline.records(delivery, [])
    again = [one for one in records if one.topic.endswith(f".{DEAD_LETTER}")]
    if records and len(again) == len(records):
        failed = await decoder.decode(again[0].value)
        return letter._replace(failure=(failed["reason"], failed["detail"] or ""))
    return letter._replace(records=records)


def _account_id(record: ConsumerRecord) -> str | None:
    source = dict(record.headers).get("ce_source", b"").decode("utf-8", "replace")
    return source.removeprefix(_SOURCE) if source.startswith(_SOURCE) else None


def _envelope(raw: bytes, detail: str, account_id: str | None) -> bytes:
    """A notification that holds a lone item."""
    item = json.loads(raw)  # not msgspec: it was an item, maybe with a lone surrogate
    members = item.keys() if isinstance(item, dict) else frozenset()
    if members >= {"field", "value"} and account_id is None:
        return raw  # a bare change: in an entry it would have had an account
    if "id" in members and not members & {"sender", "recipient"}:
        return b'{"object":"instagram","entry":[' + raw + b"]}"  # a flat change, or an entry that yielded nothing
    place = b"changes" if "field" in members else b"standby" if f".{STANDBY}," in detail else b"messaging"
    entry_id = b"" if account_id is None else b'"id":' + json.dumps(account_id).encode() + b","
    return b'{"object":"instagram","entry":[{' + entry_id + b'"' + place + b'":[' + raw + b"]}]}"


def topic(settings: KafkaSettings) -> str:
    """The dead letters' topic."""
    return topic_name(settings.topic_prefix, DEAD_LETTER)

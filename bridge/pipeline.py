"""The street as one walk: an authentic delivery in, its Kafka records out. Does no IO, reads no clock.

Every item becomes exactly one record. What cannot be read, or not be published, becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

import msgspec

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, encode_arrival
from bridge.errors import Unreadable
from bridge.event import WEBHOOK_FIELDS, Event, describe
from bridge.notification import Note, parse
from bridge.routing import DEAD_LETTER, record_key, topic_name

UNPROCESSABLE = "unprocessable"
"""The reason of a dead letter over which our own code failed."""

RECORD_TOO_LARGE = "record_too_large"
"""The reason of a dead letter whose record Kafka would refuse for its size."""

_BATCH_OVERHEAD_BYTES = 61 + 40
"""A record batch's header, and the most that varints, attributes and counts add to a lone record (Kafka's message format v2)."""

_HEADER_OVERHEAD_BYTES = 10

Header = tuple[str, bytes]


class Record(msgspec.Struct, frozen=True, gc=False):
    """A Kafka record that has no offset yet; its timestamp is the delivery's ``received_at``.

    Attributes:
        account_id, occurred_at, sent_at: of the event in it, as Event's; null for a dead letter.
    """

    topic: str
    key: bytes | None
    value: bytes
    headers: list[Header]
    account_id: str | None = None
    occurred_at: int | None = None
    sent_at: int | None = None


class Pipeline:
    """Turns deliveries into records.

    Args:
        topic_prefix: what all topics begin with.
        encoders: one per webhook field.
        dead_letters: the dead letters' encoder.
        record_bytes_max: the largest record, alone in its batch, that goes to an event topic.
    """

    def __init__(
        self,
        *,
        topic_prefix: str,
        encoders: Mapping[str, Encoder],
        dead_letters: DeadLetterEncoder,
        record_bytes_max: int,
    ) -> None:
        self._routes = {
            webhook_field: (
                topic_name(topic_prefix, webhook_field),
                encoders[webhook_field].encode,
                ("ce_type", f"instagram_bridge.{webhook_field}.v1".encode()),
            )
            for webhook_field in WEBHOOK_FIELDS
        }
        self._dead_letters = dead_letters
        self._dead_letter_topic = topic_name(topic_prefix, DEAD_LETTER)
        self._record_bytes_max = record_bytes_max

    def records(self, delivery: Delivery, notes: list[Note]) -> list[Record]:
        """A delivery's records in the order of its items; what is odd but kept goes to ``notes``.

        Nothing is raised: an unreadable delivery is one dead letter, and so is one that a fault of ours stumbles over, for
        a delivery that fails every time it comes would end the subscription.
        """
        try:
            records = self._walk(delivery, notes)
        except Unreadable as error:
            records = [self._unreadable(delivery, notes, error.reason, str(error))]
        except Exception as error:  # noqa: BLE001 - see above; its text could hold the body, so only its type is told
            records = [self._unreadable(delivery, notes, UNPROCESSABLE, type(error).__name__)]
        if delivery.traceparent is not None:
            traceparent = ("traceparent", delivery.traceparent.encode())
            for record in records:
                record.headers.append(traceparent)
        return records

    def _unreadable(self, delivery: Delivery, notes: list[Note], reason: str, detail: str) -> Record:
        notes.append(Note("unreadable", reason))
        return self._dead_letter(delivery, delivery.body, reason, detail)

    def _walk(self, delivery: Delivery, notes: list[Note]) -> list[Record]:
        notification = parse(delivery.body)
        notes.extend(notification.notes)
        arrival = encode_arrival(delivery.received_at, delivery.delivery_id)
        header = ("ig_delivery_id", delivery.delivery_id.encode())
        records = [self._record(describe(item, notes), delivery, arrival, header, notes) for item in notification.items]
        for part in notification.unreadable:
            notes.append(Note("unreadable", part.error.reason))
            records.append(self._dead_letter(delivery, part.raw, part.error.reason, str(part.error)))
        return records

    def _record(
        self, event: Event, delivery: Delivery, arrival: bytes, delivery_header: Header, notes: list[Note]
    ) -> Record:
        topic, encode, type_header = self._routes[event.webhook_field]
        value = encode(event, arrival, notes)
        key = record_key(event.account_id, event.customer_id)
        headers = [
            _SPECVERSION,
            ("ce_id", event.event_id.encode()),
            _source(event.account_id),
            type_header,
            _CONTENT_TYPE,
            delivery_header,
        ]
        if event.occurred_at is not None:
            headers.append(("ce_time", _rfc3339(event.occurred_at)))
        record = Record(topic, key, value, headers, event.account_id, event.occurred_at, event.sent_at)
        # The key and the source are in the value too: three times its size is more than the record can have.
        if len(value) * 3 > self._record_bytes_max and (size := _size_bytes(record, delivery)) > self._record_bytes_max:
            notes.append(Note("unreadable", RECORD_TOO_LARGE))
            detail = f"{size} bytes for {topic}, at most {self._record_bytes_max}"
            return self._dead_letter(delivery, event.raw, RECORD_TOO_LARGE, detail, event.account_id)
        return record

    def _dead_letter(
        self, delivery: Delivery, body: bytes, reason: str, detail: str, account_id: str | None = None
    ) -> Record:
        value = self._dead_letters.encode(
            {
                "received_at": delivery.received_at,
                "delivery_id": delivery.delivery_id,
                "reason": reason,
                "detail": detail,
                "body": body,
                "app_secret_label": delivery.app_secret_label,
            }
        )
        headers = [
            _SPECVERSION,
            _source(account_id),  # of an item: who puts it back could not tell it from raw
            ("ce_type", b"instagram_bridge.dead_letter.v1"),
            _CONTENT_TYPE,
            ("ig_delivery_id", delivery.delivery_id.encode()),
        ]
        return Record(self._dead_letter_topic, None, value, headers)


# CloudEvents 1.0 Kafka binding, binary content mode: attributes as ce_ headers, the payload's type as content-type.
_SPECVERSION: Header = ("ce_specversion", b"1.0")
_CONTENT_TYPE: Header = ("content-type", b"application/avro")


@lru_cache(maxsize=4096)  # accounts that one process sees at a time; an account more costs a few hundred bytes
def _source(account_id: str | None) -> Header:
    return ("ce_source", b"/instagram" if account_id is None else f"/instagram/{account_id}".encode())


@lru_cache(maxsize=1024)  # events of a delivery and of its neighbours share their seconds
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _rfc3339(milliseconds: int) -> bytes:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{_second(seconds)}.{rest:03d}Z".encode()


def _size_bytes(record: Record, delivery: Delivery) -> int:
    """An upper bound of what a record takes alone in its batch, with the header that it may still get."""
    headers = sum(len(name) + len(content) + _HEADER_OVERHEAD_BYTES for name, content in record.headers)
    if delivery.traceparent is not None:
        headers += len("traceparent") + len(delivery.traceparent) + _HEADER_OVERHEAD_BYTES
    return _BATCH_OVERHEAD_BYTES + len(record.key or b"") + len(record.value) + headers

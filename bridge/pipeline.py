"""The street as one walk: an authentic delivery in, its Kafka records out. Does no IO, reads no clock.

Every item becomes exactly one record. What cannot be read, or not be published, becomes a dead letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import lru_cache

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, encode_arrival
from bridge.errors import Unreadable
from bridge.event import EVENT_ID_DIGITS, WEBHOOK_FIELDS, Event, describe
from bridge.notification import Note, parse
from bridge.record import ALONE_OVERHEAD_BYTES, Record, content, header
from bridge.routing import DEAD_LETTER, record_key, topic_name
from bridge.varint import counted

UNPROCESSABLE = "unprocessable"
"""The reason of a dead letter over which our own code failed."""

RECORD_TOO_LARGE = "record_too_large"
"""The reason of a dead letter whose record Kafka would refuse for its size."""


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
                header("ce_type", f"instagram_bridge.{webhook_field}.v1".encode()),
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
            notification = parse(delivery.body)
            arrival = encode_arrival(delivery.received_at, delivery.delivery_id)
            shared = _shared_headers(delivery)
            records = [
                self._record(describe(item, notes), delivery, arrival, shared, notes) for item in notification.items
            ]
            if notification.unreadable or notification.notes:
                notes.extend(notification.notes)
                records += [
                    self._unreadable(delivery, part.raw, notes, part.error.reason, str(part.error))
                    for part in notification.unreadable
                ]
        except Unreadable as error:
            return [self._unreadable(delivery, delivery.body, notes, error.reason, str(error))]
        except Exception as error:  # noqa: BLE001 - see above; its text could hold the body, so only its type is told
            return [self._unreadable(delivery, delivery.body, notes, UNPROCESSABLE, type(error).__name__)]
        return records

    def _unreadable(self, delivery: Delivery, body: bytes, notes: list[Note], reason: str, detail: str) -> Record:
        notes.append(Note("unreadable", reason))
        return self._dead_letter(delivery, body, reason, detail)

    def _record(
        self, event: Event, delivery: Delivery, arrival: bytes, shared: tuple[int, bytes], notes: list[Note]
    ) -> Record:
        topic, encode, type_header = self._routes[event.webhook_field]
        key = record_key(event.account_id, event.customer_id)
        count, shared_headers = shared
        occurred_at = event.occurred_at
        time_header = b""
        if occurred_at is not None:
            count += 1
            time_header = _second(occurred_at // 1000) + _MILLISECONDS[occurred_at % 1000]
        written = content(
            key,
            encode(event, arrival, notes),
            count,
            (
                _ID_HEADER,
                event.event_id.encode(),
                _source_header(event.account_id),
                type_header,
                shared_headers,
                time_header,
            ),
        )
        size = len(written) + ALONE_OVERHEAD_BYTES
        if size > self._record_bytes_max:
            notes.append(Note("unreadable", RECORD_TOO_LARGE))
            detail = f"{size} bytes for {topic}, at most {self._record_bytes_max}"
            return self._dead_letter(delivery, event.raw, RECORD_TOO_LARGE, detail, event.account_id)
        return Record(topic, key, written, delivery.received_at, event.account_id, occurred_at, event.sent_at)

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
        count, shared_headers = _shared_headers(delivery)
        # The source of an item: who puts it back could not tell it from raw.
        headers = (_source_header(account_id), _DEAD_LETTER_TYPE_HEADER, shared_headers)
        written = content(None, value, count - 1, headers)  # no event, no ce_id
        return Record(self._dead_letter_topic, None, written, delivery.received_at)


# CloudEvents 1.0 Kafka binding, binary content mode: attributes as ce_ headers, the payload's type as content-type.
_SHARED_HEADERS = (
    header("ce_specversion", b"1.0") + header("content-type", b"application/avro") + counted(b"ig_delivery_id")
)
"""Those of a delivery's events, up to the delivery's id."""

_DEAD_LETTER_TYPE_HEADER = header("ce_type", b"instagram_bridge.dead_letter.v1")
_ID_HEADER = header("ce_id", bytes(EVENT_ID_DIGITS))[:-EVENT_ID_DIGITS]
_TIME_HEADER = header("ce_time", b"2026-11-22T12:00:00.000Z")[: -len("2026-11-22T12:00:00.000Z")]
"""What stands before an id, and before a time: they have always the same length."""

_HEADERS = 6
"""Of every event: ce_specversion, content-type, ig_delivery_id, ce_id, ce_source, ce_type."""

_MILLISECONDS = [b".%03dZ" % rest for rest in range(1000)]
"""What ends a time in RFC 3339."""


def _shared_headers(delivery: Delivery) -> tuple[int, bytes]:
    """Of a delivery's events: how many headers each has beside its time, and those of them that all share."""
    written = _SHARED_HEADERS + counted(delivery.delivery_id.encode())
    if delivery.traceparent is None:
        return _HEADERS, written
    return _HEADERS + 1, written + header("traceparent", delivery.traceparent.encode())


@lru_cache(maxsize=4096)  # accounts that one process sees at a time; an account more costs a few hundred bytes
def _source_header(account_id: str | None) -> bytes:
    return header("ce_source", b"/instagram" if account_id is None else f"/instagram/{account_id}".encode())


@lru_cache(maxsize=1024)  # events of a delivery and of its neighbours share their seconds
def _second(seconds: int) -> bytes:
    """A time's header but for its milliseconds; no time that `bridge.coercion` gives is after the year 5138."""
    return _TIME_HEADER + datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()

"""The street on real schemas, for unit tests and properties: a body in, its records, events and notes out."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import fastavro
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, single_object_prefix
from bridge.event import WEBHOOK_FIELDS, Event, describe
from bridge.notification import Note, parse
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER, TOPIC_FIELDS
from bridge.schemas import load

RECEIVED_AT, DELIVERY_ID = 1_763_800_000_123, "0123456789abcdef0123456789abcdef"
RECORD_BYTES_MAX = 1 << 20

ACCOUNT, CUSTOMER = "17841400000000001", "1254459154682919"
PARTIES = f'"sender":{{"id":"{CUSTOMER}"}},"recipient":{{"id":"{ACCOUNT}"}}'
"""Members of an item that the customer caused."""

SCHEMAS = {topic_field: load(topic_field) for topic_field in TOPIC_FIELDS}
PREFIXES = {topic_field: single_object_prefix(schema) for topic_field, schema in SCHEMAS.items()}


def _plain(node: Any) -> Any:  # noqa: ANN401 - any part of a schema
    """A schema without logical types, so that a time is read as the number it is."""
    if isinstance(node, list):
        return [_plain(part) for part in node]
    return {key: _plain(part) for key, part in node.items() if key != "logicalType"} if isinstance(node, dict) else node


PARSED = {topic_field: fastavro.parse_schema(_plain(schema)) for topic_field, schema in SCHEMAS.items()}
ENCODERS = {
    webhook_field: Encoder(webhook_field, SCHEMAS[webhook_field], PREFIXES[webhook_field])
    for webhook_field in WEBHOOK_FIELDS
}


def wrapped(*elements: str, array: str = "messaging", entry_id: str = f'"{ACCOUNT}"') -> bytes:
    """A body with one entry whose array holds these items, each as JSON text."""
    entry = f'{{"id":{entry_id},"time":1569262486134,"{array}":[{",".join(elements)}]}}'
    return f'{{"object":"instagram","entry":[{entry}]}}'.encode()


def item(members: str, timestamp: str = "1569262485349") -> str:
    """A messaging item of the customer's with these further members."""
    return f'{{{PARTIES},"timestamp":{timestamp},{members}}}'


def change(webhook_field: str, value: str) -> str:
    """An element of changes[]."""
    return f'{{"field":"{webhook_field}","value":{value}}}'


def delivery_of(body: bytes) -> Delivery:
    """The body as an authentic delivery."""
    return Delivery(body=body, received_at=RECEIVED_AT, delivery_id=DELIVERY_ID, app_secret_label="main")  # noqa: S106 - a label is no secret


def events(body: bytes) -> list[Event]:
    """The events of a body that can be read."""
    return [describe(one, []) for one in parse(body).items]


def event(body: bytes) -> Event:
    """The only event of a body."""
    (only,) = events(body)
    return only


def walk(body: bytes, *, record_bytes_max: int = RECORD_BYTES_MAX) -> tuple[list[Record], list[Note]]:
    """The records of a body, and what is noted."""
    pipeline = Pipeline(
        topic_prefix="instagram",
        encoders=ENCODERS,
        dead_letters=DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER]),
        record_bytes_max=record_bytes_max,
    )
    notes: list[Note] = []
    return pipeline.records(delivery_of(body), notes), notes


def records(body: bytes) -> list[Record]:
    """All records of a body."""
    return walk(body)[0]


def record(body: bytes) -> Record:
    """The only record of a body."""
    (only,) = records(body)
    return only


def notes_of(body: bytes) -> set[tuple[str, str]]:
    """What is noted about a body: kind and path."""
    return set(walk(body)[1])


def topic_field_of(one: Record) -> str:
    """``messages`` of ``instagram.messages``."""
    return one.topic.removeprefix("instagram.")


def avro(one: Record) -> bytes:
    """A record's value without its single-object prefix."""
    assert one.value.startswith(PREFIXES[topic_field_of(one)])
    return one.value[len(PREFIXES[topic_field_of(one)]) :]


def decoded(one: Record) -> dict[str, Any]:
    """A record's value as fastavro reads it; times are milliseconds."""
    stream = io.BytesIO(avro(one))
    value = fastavro.schemaless_reader(stream, PARSED[topic_field_of(one)])
    assert isinstance(value, dict)
    assert not stream.read()
    return value


def rewritten(one: Record) -> bytes:
    """The same value as fastavro writes it."""
    written = io.BytesIO()
    fastavro.schemaless_writer(written, PARSED[topic_field_of(one)], decoded(one))
    return written.getvalue()


def dead_letter(body: bytes) -> dict[str, Any]:
    """The only record of a body, which is a dead letter."""
    only = record(body)
    assert only.topic == "instagram.dead_letter"
    return decoded(only)


def aiokafkas_batch(records: Sequence[tuple[Record, int]], *, producer_id: int, epoch: int, sequence: int) -> bytes:
    """The record batch that aiokafka makes of these records and their timestamps."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=producer_id,
        producer_epoch=epoch,
        base_sequence=sequence,
        batch_size=1 << 30,
    )
    for number, (record, timestamp) in enumerate(records):
        builder.append(number, timestamp, record.key, record.value, record.headers)
    return bytes(builder.build())

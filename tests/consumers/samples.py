"""Events for the consumers' tests, and their bytes, written by fastavro from the schema files alone."""

import io
import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fastavro
from aiokafka import ConsumerRecord
from fastavro.schema import fingerprint, to_parsing_canonical_form

from consumers.decoding import Event

SCHEMAS = Path(__file__).parents[2] / "schemas" / "avro"
ACCOUNT, CUSTOMER = "17841405822304914", "6427243947351998"


def schema(record_name: str) -> dict[str, Any]:
    """A packaged schema, as its file says it."""
    document: dict[str, Any] = json.loads((SCHEMAS / f"instagram_bridge.{record_name}.avsc").read_text("utf-8"))
    return document


def wider(writer: dict[str, Any]) -> dict[str, Any]:
    """The schema of a newer writer, which has one more field in the middle."""
    extra = {"name": "from_the_future", "type": ["null", "string"], "default": None}
    return writer | {"fields": [*writer["fields"][:3], extra, *writer["fields"][3:]]}


def body(writer: dict[str, Any], value: dict[str, Any]) -> bytes:
    """A value in Avro's binary encoding."""
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer), value)
    return stream.getvalue()


def single_object(record_name: str, value: dict[str, Any]) -> bytes:
    """A value in Avro single-object encoding."""
    writer = schema(record_name)
    canonical = to_parsing_canonical_form(fastavro.parse_schema(writer))
    return b"\xc3\x01" + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")) + body(writer, value)


def confluent(schema_id: int, writer: dict[str, Any], value: dict[str, Any]) -> bytes:
    """A value in the Confluent wire format."""
    return b"\x00" + schema_id.to_bytes(4, "big") + body(writer, value)


def event(webhook_field: str, **changes: object) -> dict[str, Any]:
    """A record's fields as the bridge fills them, for a customer who did something just now."""
    now = datetime.now(UTC)
    return {
        "event_id": secrets.token_hex(16),
        "webhook_field": webhook_field,
        "origin": "messaging",
        "entry_id": ACCOUNT,
        "account_id": ACCOUNT,
        "customer_id": CUSTOMER,
        "sender_id": CUSTOMER,
        "recipient_id": ACCOUNT,
        "occurred_at": now,
        "sent_at": now,
        "received_at": now,
        "delivery_id": secrets.token_hex(8),
        "raw": "{}",
    } | changes


def message(
    text: str | None = "Hello there", *, part: dict[str, Any] | None = None, **changes: object
) -> dict[str, Any]:
    """An event of the topic `messages`: `part` changes its message, everything else the event."""
    return event("messages", message={"mid": secrets.token_hex(8), "text": text} | (part or {}), **changes)


def record(
    value: bytes | None,
    *,
    topic: str = "instagram.messages",
    headers: tuple[tuple[str, bytes], ...] = (),
) -> ConsumerRecord[bytes, bytes]:
    """A record as aiokafka hands it out, at partition 2, offset 7."""
    size = len(value) if value else -1
    return ConsumerRecord(topic, 2, 7, 1763800000000, 0, b"key", value, None, 3, size, headers)


def decoded(value: dict[str, Any], *, record_name: str = "Messages", replay_id: str | None = None) -> Event:
    """The event that a consumer gets for a value, with every field that the schema has."""
    parsed = fastavro.parse_schema(schema(record_name))
    read = fastavro.schemaless_reader(io.BytesIO(body(schema(record_name), value)), parsed, None)
    assert isinstance(read, dict)
    topic = f"instagram.{value['webhook_field']}"
    return Event(topic, 0, 0, value["webhook_field"], read, replay_id)

"""From a Kafka record to an event: finds the writer's schema, resolves it to ours, and keeps to this process's memory.

Two value encodings are read, told apart by their first bytes:

- `00` + schema id (4 bytes, big-endian): the Confluent wire format; the writer's schema is fetched from the registry.
- `C3 01` + CRC-64-AVRO fingerprint (8 bytes, little-endian): Avro single-object encoding; the writer's schema is one
  of those packaged in schemas/avro, released versions under its history/ among them.

The reader's schema is always the packaged one of the record's topic, so a newer writer's extra fields are passed over
and a missing one takes its default (Avro specification 1.12, "Schema Resolution").
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any, NoReturn

import fastavro
from aiokafka import ConsumerRecord
from fastavro.schema import SchemaParseException, fingerprint, to_parsing_canonical_form
from fastavro.types import Schema

from consumers.errors import UndecodableError
from consumers.registry import SchemaRegistry

CONFLUENT_MARKER = b"\x00"
CONFLUENT_HEADER_BYTES = 5  # the marker and a 4-byte schema id
SINGLE_OBJECT_MARKER = b"\xc3\x01"
SINGLE_OBJECT_HEADER_BYTES = 10  # the marker and an 8-byte fingerprint

# A schema id never changes its schema, so what is known stays known; a thousand is far beyond what a deployment's
# history holds and bounds what a hostile stream of ids can make us keep.
WRITER_SCHEMAS_MAX = 1000

# These have topics of their own but are no events of Meta's: deliveries that could not be read, our own decisions.
NOT_EVENTS = frozenset({"DeadLetter", "AutoReplies"})
AUTO_REPLIES = "auto_replies"  # the one topic that is none of the events' and is read all the same


@dataclass(frozen=True, slots=True)
class Event:
    """What happened, as the bridge published it, and where it lies.

    Attributes:
        webhook_field: Meta's name of the webhook field (`messages`), taken from the topic.
        value: The Avro record as a dictionary; times are aware datetimes in UTC.
        replay_id: The `ig_replay_id` header of a record that was published again, else None.
    """

    topic: str
    partition: int
    offset: int
    webhook_field: str
    value: dict[str, Any]
    replay_id: str | None

    @property
    def event_id(self) -> str:
        """The identity that a redelivery keeps: 32 hex digits."""
        return str(self.value["event_id"])


class Decoder:
    """Decodes records of the topics `<topic prefix>.<webhook field>`.

    Args:
        topic_prefix: What stands before the dot in the topics' names.
        registry: Where writers' schemas of the Confluent wire format come from; None when there is no registry.
    """

    def __init__(self, *, topic_prefix: str, registry: SchemaRegistry | None) -> None:
        self._topic_prefix = topic_prefix
        self._registry = registry
        self._readers = reader_schemas() | {AUTO_REPLIES: packaged_schema("AutoReplies")}
        self._by_fingerprint: dict[bytes, Schema] = {_fingerprint(schema): schema for schema in _packaged("history")}
        self._by_fingerprint |= {_fingerprint(schema): schema for schema in self._readers.values()}
        self._by_schema_id: dict[int, Schema] = {}

    async def decode(self, record: ConsumerRecord[bytes, bytes]) -> Event:
        """The event in a record, with its writer's schema resolved to the packaged one.

        Raises:
            UndecodableError: The value is not readable and never will be.
            RegistryUnavailableError: The registry could not be asked for the writer's schema.
        """
        writer, begin = await self.writer(record)
        webhook_field = record.topic.removeprefix(f"{self._topic_prefix}.")
        return Event(
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            webhook_field=webhook_field,
            value=self._read(record, (record.value or b"")[begin:], writer, self._readers[webhook_field]),
            replay_id=_header(record, "ig_replay_id"),
        )

    async def writer(self, record: ConsumerRecord[bytes, bytes]) -> tuple[Schema, int]:
        """The schema that a record was written with, and where in its value the Avro bytes begin.

        Raises:
            UndecodableError: It names none, or one that nobody knows.
            RegistryUnavailableError: The registry could not be asked.
        """
        value = record.value
        if not value:
            _refuse(record, "no_value", "the record has no value")
        if value.startswith(SINGLE_OBJECT_MARKER) and len(value) >= SINGLE_OBJECT_HEADER_BYTES:
            fingerprinted = value[len(SINGLE_OBJECT_MARKER) : SINGLE_OBJECT_HEADER_BYTES]
            return self._packaged_writer(record, fingerprinted), SINGLE_OBJECT_HEADER_BYTES
        if not value.startswith(CONFLUENT_MARKER) or len(value) < CONFLUENT_HEADER_BYTES:
            _refuse(record, "unknown_encoding", "neither Confluent wire format nor Avro single-object encoding")
        schema_id = int.from_bytes(value[len(CONFLUENT_MARKER) : CONFLUENT_HEADER_BYTES], "big")
        return await self._registered_writer(record, schema_id), CONFLUENT_HEADER_BYTES

    def _packaged_writer(self, record: ConsumerRecord[bytes, bytes], wanted: bytes) -> Schema:
        writer = self._by_fingerprint.get(wanted)
        if writer is None:
            _refuse(
                record, "unknown_fingerprint", "no packaged schema has its fingerprint; is the bridge newer than us?"
            )
        return writer

    async def _registered_writer(self, record: ConsumerRecord[bytes, bytes], schema_id: int) -> Schema:
        known = self._by_schema_id.get(schema_id)
        if known is not None:
            return known
        if self._registry is None:
            _refuse(record, "no_registry", "it names a registered schema, and …_SCHEMA_REGISTRY_URL is not set")
        text = await self._registry.schema(schema_id)
        if text is None:
            _refuse(record, "unknown_schema_id", f"the schema registry has no schema {schema_id}")
        try:
            writer = fastavro.parse_schema(json.loads(text))
        except (SchemaParseException, ValueError, KeyError, TypeError):
            _refuse(record, "unusable_schema", f"schema {schema_id} of the registry is not an Avro schema")
        # The same schema as ours is kept as ours, so that `_read` sees that there is nothing to resolve.
        writer = self._by_fingerprint.get(_fingerprint(writer), writer)
        while len(self._by_schema_id) >= WRITER_SCHEMAS_MAX:
            del self._by_schema_id[next(iter(self._by_schema_id))]
        self._by_schema_id[schema_id] = writer
        return writer

    @staticmethod
    def _read(record: ConsumerRecord[bytes, bytes], body: bytes, writer: Schema, reader: Schema) -> dict[str, Any]:
        stream = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(stream, writer, None if writer is reader else reader)
        except fastavro.read.SchemaResolutionError:
            _refuse(record, "schema_mismatch", "its writer's schema does not resolve to this topic's schema")
        except Exception:  # noqa: BLE001 - bytes that are no Avro fail in many ways, and their texts hold content
            _refuse(record, "broken_value", "its bytes do not follow its writer's schema")
        if stream.tell() != len(body):
            _refuse(record, "broken_value", "bytes are left over after the record")
        if not isinstance(value, dict):
            _refuse(record, "schema_mismatch", "its writer's schema is not a record")
        return value


def reader_schemas() -> dict[str, dict[str, Any]]:
    """The packaged schemas of the event topics, by webhook field (`message_reactions`)."""
    schemas = {}
    for schema in _packaged(""):
        name = str(schema["name"]).rpartition(".")[2]
        if name not in NOT_EVENTS:
            schemas[re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()] = schema
    return schemas


def packaged_schema(record_name: str) -> dict[str, Any]:
    """The schema of a record, `AutoReplies`, as it is packaged."""
    return next(schema for schema in _packaged("") if schema["name"] == f"instagram_bridge.{record_name}")


def packaged_text(record_name: str) -> str:
    """The text of that schema's file, as a registry gets it."""
    return (resources.files("schemas") / "avro" / f"instagram_bridge.{record_name}.avsc").read_text(encoding="utf-8")


def _packaged(folder: str) -> Iterator[dict[str, Any]]:
    root = resources.files("schemas") / "avro"
    for file in _files(root / folder if folder else root, deep=bool(folder)):
        if file.name.endswith(".avsc"):
            schema = fastavro.parse_schema(json.loads(file.read_text(encoding="utf-8")))
            if isinstance(schema, dict):  # it is: each file holds one record
                yield schema


def _files(folder: Traversable, *, deep: bool) -> Iterator[Traversable]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_file():
            yield entry
        elif deep:
            yield from _files(entry, deep=True)


def _fingerprint(schema: Schema) -> bytes:
    # fastavro's text is already in the byte order of single-object encoding.
    return bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


def _header(record: ConsumerRecord[bytes, bytes], name: str) -> str | None:
    for key, value in record.headers:
        if key == name:
            return bytes(value or b"").decode("utf-8", "replace")
    return None


def _refuse(record: ConsumerRecord[bytes, bytes], reason: str, detail: str) -> NoReturn:
    raise UndecodableError(
        topic=record.topic, partition=record.partition, offset=record.offset, reason=reason, detail=detail
    ) from None

"""Reads the bridge's topics for operators, from now or from a time on, in both value encodings; commits nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any

import fastavro
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from fastavro.schema import SchemaParseException
from fastavro.types import Schema as ParsedSchema

from bridge import schemas
from bridge.adapters.connection import admin, consumer
from bridge.adapters.registry import Registry
from bridge.encoding import Schema, single_object_prefix
from bridge.errors import BridgeError, Misconfigured
from bridge.routing import MANAGED_FIELDS
from bridge.settings import KafkaSettings

OFFSETS_TIMEOUT_S = 10.0
"""For the offsets of all partitions: one request per broker, milliseconds on a healthy cluster."""

_FETCH_TIMEOUT_MS = 500
"""How long a fetch waits for a record; nothing hangs on it."""

_CONFLUENT_MARKER, _CONFLUENT_BYTES = b"\0", 5
_SINGLE_OBJECT_MARKER, _SINGLE_OBJECT_BYTES = b"\xc3\x01", 10


class Undecodable(BridgeError):
    """A record whose value cannot be read; the message says why and holds nothing of it."""

    reason = "undecodable"


async def partitions_of(settings: KafkaSettings, topics: Collection[str]) -> list[TopicPartition]:
    """All partitions of topics, in order.

    Raises:
        Misconfigured: one of them does not exist.
        KafkaError, OSError: Kafka cannot be reached.
    """
    async with asyncio.timeout(OFFSETS_TIMEOUT_S), admin(settings) as client:
        described = await client.describe_topics()  # of all topics: asking for one by name may create it
    found = {topic["topic"]: topic["partitions"] for topic in described if topic["topic"] in topics}
    if missing := sorted(set(topics) - found.keys()):
        raise Misconfigured(f"no such topic: {', '.join(missing)}: `bridge topics list` shows the bridge's own")
    return sorted(TopicPartition(name, part["partition"]) for name, parts in found.items() for part in parts)


async def spans(client: AIOKafkaConsumer, partitions: list[TopicPartition]) -> dict[TopicPartition, range]:
    """The offsets that each partition holds; its stop is the next record's."""
    first, end = await client.beginning_offsets(partitions), await client.end_offsets(partitions)
    return {partition: range(first[partition], end[partition]) for partition in partitions}


async def first_since(
    client: AIOKafkaConsumer, partitions: list[TopicPartition], since_ms: int
) -> dict[TopicPartition, int]:
    """Of each partition the first record whose timestamp is this or later (milliseconds), else its end."""
    end = await client.end_offsets(partitions)
    found = await client.offsets_for_times(dict.fromkeys(partitions, since_ms))
    return {partition: found[partition].offset if found.get(partition) else end[partition] for partition in partitions}


async def held(settings: KafkaSettings, topics: Collection[str]) -> dict[str, int]:
    """How many offsets lie between the earliest and the latest record of each topic.

    Raises:
        Misconfigured: one of them does not exist.
        KafkaError, OSError: Kafka cannot be reached.
    """
    partitions = await partitions_of(settings, topics)
    counts = dict.fromkeys(topics, 0)
    async with asyncio.timeout(OFFSETS_TIMEOUT_S), consumer(settings) as client:
        client.assign(partitions)
        for partition, span in (await spans(client, partitions)).items():
            counts[partition.topic] += len(span)
    return counts


@contextlib.asynccontextmanager
async def following(
    settings: KafkaSettings, topics: Collection[str], since_ms: int | None
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer that stands at the first record since a time (milliseconds), or at the end.

    Raises:
        Misconfigured: one of the topics does not exist.
        KafkaError, OSError: Kafka cannot be reached.
    """
    partitions = await partitions_of(settings, topics)
    async with consumer(settings) as client:
        async with asyncio.timeout(OFFSETS_TIMEOUT_S):
            client.assign(partitions)
            if since_ms is None:
                starts = await client.end_offsets(partitions)
            else:
                starts = await first_since(client, partitions, since_ms)
        for partition, offset in starts.items():
            client.seek(partition, offset)
        yield client


async def fetch(client: AIOKafkaConsumer) -> list[ConsumerRecord]:
    """What came, by timestamp; empty when nothing did for a moment."""
    fetched = await client.getmany(timeout_ms=_FETCH_TIMEOUT_MS)
    return sorted((record for records in fetched.values() for record in records), key=lambda record: record.timestamp)


class Decoder:
    """Reads values by their writer's schema: from the registry by its id, or packaged with us by its fingerprint."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        packaged: Iterable[Schema] = (*map(schemas.load, MANAGED_FIELDS), *(schema for _, schema in schemas.released()))
        self._by_fingerprint = {single_object_prefix(schema): (schema, _readable(schema)) for schema in packaged}
        self._by_id: dict[int, tuple[Schema, ParsedSchema]] = {}

    async def decode(self, value: bytes | None) -> dict[str, Any]:
        """The record in a value: times in milliseconds since the Unix epoch, bytes as bytes.

        Raises: as of `decode_with_schema`.
        """
        return (await self.decode_with_schema(value))[1]

    async def decode_with_schema(self, value: bytes | None) -> tuple[Schema, dict[str, Any]]:
        """The schema that a value was written with, and the record in it, as of `decode`.

        Raises:
            Undecodable: the value is in no encoding that we know, or not what its schema says.
            RegistryUnreachable: the registry does not tell the writer's schema.
        """
        if not value:
            raise Undecodable("it has no value")
        if value.startswith(_SINGLE_OBJECT_MARKER):
            known = self._by_fingerprint.get(value[:_SINGLE_OBJECT_BYTES])
            start = _SINGLE_OBJECT_BYTES
            if known is None:
                raise Undecodable("its schema's fingerprint is none of this version's")
        elif value.startswith(_CONFLUENT_MARKER) and len(value) >= _CONFLUENT_BYTES:
            known = await self._registered(int.from_bytes(value[1:_CONFLUENT_BYTES], "big"))
            start = _CONFLUENT_BYTES
        else:
            raise Undecodable("it is neither in Confluent's wire format nor in Avro's single-object encoding")
        schema, readable = known
        try:
            decoded = fastavro.schemaless_reader(io.BytesIO(value[start:]), readable, None)
        except Exception as error:  # noqa: BLE001 - bytes that are no Avro fail in many ways, and the texts hold content
            raise Undecodable(f"its bytes do not follow its schema ({type(error).__name__})") from None
        return schema, decoded if isinstance(decoded, dict) else {"value": decoded}

    async def _registered(self, schema_id: int) -> tuple[Schema, ParsedSchema]:
        if schema_id not in self._by_id:
            if self._settings.schema_registry_url is None:
                raise Undecodable("its schema is in a registry: set BRIDGE_SCHEMA_REGISTRY_URL")
            async with Registry(self._settings) as registry:
                schema = await registry.schema(schema_id)
            if schema is None:
                raise Undecodable(f"the registry has no schema {schema_id}")
            try:
                self._by_id[schema_id] = schema, _readable(schema)
            except (SchemaParseException, ValueError, KeyError, TypeError):  # what fastavro says of odd schemas
                raise Undecodable(f"schema {schema_id} of the registry is no Avro schema") from None
        return self._by_id[schema_id]


def _readable(schema: Schema) -> ParsedSchema:
    """A schema whose times stay the numbers that they are; a date that Python cannot hold would fail the record."""
    plain = json.loads(
        json.dumps(schema), object_hook=lambda node: {key: node[key] for key in node if key != "logicalType"}
    )
    return fastavro.parse_schema(plain)

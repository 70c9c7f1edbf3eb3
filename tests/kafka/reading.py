"""What lies in Kafka, read by others than our own code: confluent-kafka, and Apache's `avro`."""

from __future__ import annotations

import asyncio
import io
import json
import time
import urllib.request
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from avro import schema as avro_schema
from avro.io import BinaryDecoder, DatumReader
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

AVSC = Path(__file__).parents[2] / "schemas" / "avro"
TOPIC_FIELDS = (
    *("messages", "message_reactions", "messaging_postbacks", "messaging_seen", "messaging_referral", "standby"),
    *("message_edit", "messaging_handover", "messaging_optins"),
    *("comments", "live_comments", "mentions", "story_insights", "other", "dead_letter"),
)
"""The topics of contract.md, without their prefix."""

_DEADLINE_S = 60  # everything that is asked for is in Kafka already: a busy machine needs its time


class Record(NamedTuple):
    """One record.

    Attributes:
        topic_field: the topic without its prefix.
        timestamp: milliseconds.
    """

    topic_field: str
    partition: int
    offset: int
    key: bytes | None
    timestamp: int
    headers: dict[str, str]
    value: bytes

    @property
    def delivery_id(self) -> str:
        """Of the delivery that it came with."""
        return self.headers["ig_delivery_id"]


class Reader:
    """Reads all topics of one prefix, from their beginning.

    Args:
        bootstrap_servers: the broker's.
        prefix: of the topics; all of them exist.
    """

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self._prefix = prefix
        self._client = {"bootstrap.servers": bootstrap_servers, "log_level": 0}  # brokers that go away are no news here
        self._admin = AdminClient(self._client)
        self._consumer = Consumer({**self._client, "group.id": prefix, "enable.auto.commit": False})
        known = self._consumer.list_topics(timeout=_DEADLINE_S).topics
        self._places = {
            (name, partition): 0
            for name in (f"{prefix}.{field}" for field in TOPIC_FIELDS)
            for partition in known[name].partitions
        }
        self._consumer.assign([TopicPartition(*place, 0) for place in self._places])

    async def new(self) -> list[Record]:
        """Everything that was acknowledged before the call and was not read yet; in order within a partition."""
        return await asyncio.to_thread(self._new)

    async def of(self, delivery_id: str) -> list[Record]:
        """Of what is new, the records of one delivery."""
        return [record for record in await self.new() if record.delivery_id == delivery_id]

    def close(self) -> None:
        """Leave the broker."""
        self._consumer.close()

    def _new(self) -> list[Record]:
        ends = self._ends()
        missing = sum(ends.values()) - sum(self._places.values())
        found: list[Record] = []
        while len(found) < missing:
            messages = self._consumer.consume(missing - len(found), timeout=_DEADLINE_S / 10)
            assert messages, f"{missing} records are there, and only {len(found)} can be read"
            for message in messages:
                assert message.error() is None, message.error()
                found.append(self._read(message))
        return found

    def _ends(self) -> dict[tuple[str, int], int]:
        deadline = time.monotonic() + _DEADLINE_S
        while True:
            asked = self._admin.list_offsets({TopicPartition(*place): OffsetSpec.latest() for place in self._places})
            try:
                return {(of.topic, of.partition): answer.result(_DEADLINE_S).offset for of, answer in asked.items()}
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                self._admin = AdminClient(self._client)  # the old one remembers the leaders of before a restart

    def _read(self, message: Message) -> Record:
        topic, partition, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        assert value is not None
        assert offset == self._places[topic, partition], "no transaction, no compaction: offsets have no gaps"
        self._places[topic, partition] = offset + 1
        headers = [(name, bytes(content).decode()) for name, content in message.headers() or ()]
        assert len(dict(headers)) == len(headers), f"a header is repeated: {headers}"
        return Record(
            topic_field=topic.removeprefix(f"{self._prefix}."),
            partition=partition,
            offset=offset,
            key=message.key(),
            timestamp=message.timestamp()[1],
            headers=dict(headers),
            value=value,
        )


Decode = Callable[[Record], dict[str, Any]]
"""A record's value, times as milliseconds."""


def decode_single_object(record: Record) -> dict[str, Any]:
    """A value in Avro's single-object encoding, by the schema file that its topic's field names."""
    schema = _schema_of(record.topic_field)
    assert record.value[:10] == b"\xc3\x01" + _fingerprint_of(record.topic_field), "C3 01 and the schema's fingerprint"
    return _decode(schema, record.value[10:])


def confluent_decoder(registry_url: str) -> Decode:
    """For values in Confluent's wire format, by the schema that the registry gives for the id in the bytes."""

    @cache
    def registered(schema_id: int) -> avro_schema.Schema:
        url = f"{registry_url}/schemas/ids/{schema_id}"
        with urllib.request.urlopen(url, timeout=_DEADLINE_S) as answer:  # noqa: S310 - the test's own registry
            return avro_schema.parse(json.load(answer)["schema"])

    def decode(record: Record) -> dict[str, Any]:
        assert record.value[0] == 0, "Confluent's magic byte"
        schema = registered(int.from_bytes(record.value[1:5], "big"))
        assert schema.fullname == _schema_of(record.topic_field).fullname
        return _decode(schema, record.value[5:])

    return decode


def avsc(topic_field: str) -> dict[str, Any]:
    """The schema file of a topic."""
    name = "".join(word.capitalize() for word in topic_field.split("_"))
    found: dict[str, Any] = json.loads((AVSC / f"instagram_bridge.{name}.avsc").read_text("utf-8"))
    return found


@cache
def _schema_of(topic_field: str) -> avro_schema.RecordSchema:
    schema = avro_schema.parse(json.dumps(avsc(topic_field)))
    assert isinstance(schema, avro_schema.RecordSchema)
    return schema


@cache
def _fingerprint_of(topic_field: str) -> bytes:
    """CRC-64-AVRO, little-endian. `avro` forgets to shorten ``{"type": "long"}`` when a logicalType is stripped."""

    def simple(node: Any) -> Any:  # noqa: ANN401 - any part of a schema
        if isinstance(node, list):
            return [simple(part) for part in node]
        if not isinstance(node, dict):
            return node
        return node["type"] if "logicalType" in node else {key: simple(part) for key, part in node.items()}

    fingerprint: bytes = avro_schema.parse(json.dumps(simple(avsc(topic_field)))).fingerprint("CRC-64-AVRO")
    return fingerprint


def _decode(schema: avro_schema.Schema, data: bytes) -> dict[str, Any]:
    source = io.BytesIO(data)
    value = DatumReader(schema, schema).read(BinaryDecoder(source))
    assert not source.read(), "nothing follows the record"
    assert isinstance(value, dict)
    return {key: _plain(part) for key, part in value.items()}


def _plain(value: Any) -> Any:  # noqa: ANN401 - any Avro value
    if isinstance(value, datetime):
        return round(value.timestamp() * 1000)
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def without_nulls(value: Any) -> Any:  # noqa: ANN401 - any Avro value
    """The value as Meta would have written it: nothing where nothing was."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value

"""What lies in topics since a time, decoded; up to what was committed when it was asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing
from typing import Any, NamedTuple

from aiokafka import ConsumerRecord, TopicPartition

from bridge.adapters.connection import consumer
from bridge.adapters.reader import OFFSETS_TIMEOUT_S, Decoder, Undecodable, first_since, partitions_of, spans
from bridge.adapters.replaying import is_copy, scan
from bridge.settings import KafkaSettings

Value = Mapping[str, Any]


class Some(NamedTuple):
    """Some records.

    Attributes:
        records: each with its value; None for one that cannot be decoded.
        done: how many offsets of the spans are read.
    """

    records: list[tuple[ConsumerRecord, Value | None]]
    done: int


async def spans_since(settings: KafkaSettings, topics: Collection[str], since_ms: int) -> dict[TopicPartition, range]:
    """The offsets of each partition from the first record that was received then or later (milliseconds).

    Raises:
        Misconfigured: one of the topics does not exist, or Kafka refuses.
        KafkaError, OSError: Kafka cannot be reached.
    """
    partitions = await partitions_of(settings, topics)
    async with asyncio.timeout(OFFSETS_TIMEOUT_S), consumer(settings, committed_only=True) as client:
        client.assign(partitions)
        found = await spans(client, partitions)
        starts = await first_since(client, partitions, since_ms)
    return {place: range(min(starts[place], span.stop), span.stop) for place, span in found.items()}


async def read(settings: KafkaSettings, wanted: Mapping[TopicPartition, range]) -> AsyncGenerator[Some, None]:
    """All records of these spans but copies that a replay made; in order within a partition.

    Whoever may stop before the end closes it (`contextlib.aclosing`): a consumer is open meanwhile.

    Raises:
        Misconfigured: nothing can be read for a minute, or Kafka or the registry refuses.
        RegistryUnreachable: the registry does not tell a writer's schema.
        KafkaError, OSError: Kafka cannot be reached.
    """
    decoder = Decoder(settings)
    async with aclosing(scan(settings, wanted)) as batches:
        async for batch in batches:
            records: list[tuple[ConsumerRecord, Value | None]] = []
            for record in batch.records:
                if is_copy(record):
                    continue
                try:
                    records.append((record, await decoder.decode(record.value)))
                except Undecodable:
                    records.append((record, None))
            yield Some(records, sum(offset - wanted[place].start for place, offset in batch.read_to.items()))

"""Where a consumer group stands in its topics, and how it is set elsewhere while none of its members runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from aiokafka import TopicPartition
from aiokafka.errors import CommitFailedError, KafkaError, for_code

from bridge.adapters.connection import admin, consumer
from bridge.adapters.reader import first_since, partitions_of, spans
from bridge.errors import Misconfigured
from bridge.settings import KafkaSettings

GROUP_TIMEOUT_S = 10.0
"""For a group's coordinator to be found and to answer; a broker that just started loads its groups for a second."""

_RETRY_INTERVAL_S = 0.2

_REBUILD = "--rebuild"
"""What stands in the metadata of a consumer's offsets when setting them would not make it read again; the option that does."""


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group as Kafka has it.

    Attributes:
        members: how many of its consumers run.
        committed: the offset that each partition goes on from.
        notes: what the group wrote beside its offsets, Kafka's metadata; each text once.
    """

    members: int
    committed: Mapping[TopicPartition, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a group is to go on: milliseconds since the Unix epoch for ``time``, an offset for ``offset``."""

    kind: Literal["beginning", "end", "time", "offset"]
    value: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """What a target means for one partition.

    Attributes:
        current: the committed offset; None where the group has none.
        target: the offset to go on from, within what the partition holds.
        end: the offset after the partition's last record.
    """

    topic: str
    partition: int
    current: int | None
    target: int
    end: int


async def find(settings: KafkaSettings, group_id: str) -> Group | None:
    """The group; None when Kafka knows neither offsets nor members of it.

    Raises:
        KafkaError, OSError: Kafka cannot be reached, or does not tell.
    """
    async with asyncio.timeout(GROUP_TIMEOUT_S), admin(settings) as client:
        while True:
            try:
                [answer] = await client.describe_consumer_groups([group_id])
                code, _, _, _, _, members, *_ = answer.groups[0]
                if code:
                    raise for_code(code)
                committed = await client.list_consumer_group_offsets(group_id)
            except KafkaError as error:
                if not error.retriable:
                    raise
                await asyncio.sleep(_RETRY_INTERVAL_S)
            else:
                break
    if not members and not committed:
        return None
    return Group(
        len(members),
        {partition: position.offset for partition, position in committed.items()},
        tuple(sorted({position.metadata for position in committed.values() if position.metadata})),
    )


async def plan(settings: KafkaSettings, group: Group, topics: Collection[str], target: Target) -> list[Move]:
    """What the target means for every partition of the topics.

    Raises:
        Misconfigured: one of the topics does not exist.
        KafkaError, OSError: Kafka cannot be reached.
    """
    partitions = await partitions_of(settings, topics)
    async with asyncio.timeout(GROUP_TIMEOUT_S), consumer(settings) as client:
        client.assign(partitions)
        held = await spans(client, partitions)
        since = await first_since(client, partitions, target.value) if target.kind == "time" else {}
    moves = []
    for partition, span in held.items():
        if target.kind == "beginning":
            offset = span.start
        elif target.kind == "end":
            offset = span.stop
        else:
            offset = max(span.start, min(since.get(partition, target.value), span.stop))
        moves.append(Move(partition.topic, partition.partition, group.committed.get(partition), offset, end=span.stop))
    return moves


async def move(settings: KafkaSettings, group_id: str, moves: Collection[Move]) -> None:
    """Commit the targets in the group's name.

    Raises:
        Misconfigured: the group has a member by now; nothing is committed.
        KafkaError, OSError: Kafka cannot be reached, or refuses.
    """
    targets = {TopicPartition(move.topic, move.partition): move.target for move in moves}
    async with asyncio.timeout(GROUP_TIMEOUT_S), consumer(settings, group_id) as client:
        client.assign(list(targets))
        try:
            await client.commit(targets)
        except CommitFailedError:  # Kafka takes a stranger's commit only while the group is empty
            raise active(group_id) from None


def refuse_rebuilders(group_id: str, group: Group) -> None:
    """A consumer that keeps its position elsewhere too, and says so beside its offsets, is not moved by them.

    Raises:
        Misconfigured: the group is such a one.
    """
    if any(_REBUILD in note for note in group.notes):
        raise Misconfigured(
            f"group {group_id} keeps what it has read in a store of its own, which other offsets would contradict: run its "
            f"consumer with {_REBUILD} instead"
        )


def active(group_id: str) -> Misconfigured:
    """That a group cannot be set while it is read with."""
    return Misconfigured(f"group {group_id} has members that run: stop them first, then try again")

"""Topics of one measurement: made as `bridge topics apply` makes them, counted by their offsets, deleted after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from bridge.adapters import topics
from bridge.adapters.connection import admin, consumer
from bridge.errors import Misconfigured
from bridge.routing import DEAD_LETTER, MANAGED_FIELDS, topic_name
from bridge.settings import KafkaSettings

MESSAGES = "messages"
"""The webhook field of all that the load sends."""

CREATE_DEADLINE_S = 150.0
"""1,800 partitions took a busy machine half a minute."""


@asynccontextmanager
async def existing(settings: KafkaSettings) -> AsyncIterator[None]:
    """Create a prefix's topics, and delete them afterwards: a measurement leaves gigabytes.

    Raises:
        Misconfigured: the broker refuses them, or does not make them in time.
    """
    try:
        async with asyncio.timeout(CREATE_DEADLINE_S):
            await topics.apply(settings, {}, topics.plan(settings, {}))
            while not await _exist(settings):
                pass
    except (KafkaError, TimeoutError) as error:
        raise Misconfigured(f"Kafka could not make the topics ({type(error).__name__})") from None
    try:
        yield
    finally:
        async with admin(settings) as client:
            await client.delete_topics(
                [topic_name(settings.topic_prefix, topic_field) for topic_field in MANAGED_FIELDS]
            )


async def _exist(settings: KafkaSettings) -> bool:
    """Whether the broker serves them: it shows topics before it has made all of their logs."""
    try:
        await records(settings)
    except Misconfigured:  # after a time-out of its own
        return False
    return True


async def records(settings: KafkaSettings) -> tuple[int, int]:
    """How many records `messages` and `dead_letter` have ever held: the sums of their partitions' end offsets.

    The load holds nothing but messages: an event that went to any other topic is missing here, and is found missing.

    Raises:
        Misconfigured: the broker does not tell.
    """
    messages, dead_letters = (topic_name(settings.topic_prefix, topic_field) for topic_field in (MESSAGES, DEAD_LETTER))
    places = [
        TopicPartition(name, partition)
        for name in (messages, dead_letters)
        for partition in range(settings.topic_partitions)
    ]
    try:
        async with consumer(settings) as client:
            ends = await client.end_offsets(places)
    except (KafkaError, OSError) as error:
        raise Misconfigured(f"cannot read the offsets back ({type(error).__name__})") from None
    counts = {name: sum(end for place, end in ends.items() if place.topic == name) for name in (messages, dead_letters)}
    return counts[messages], counts[dead_letters]

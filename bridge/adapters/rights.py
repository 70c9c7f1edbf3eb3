"""What a cluster lets us do, and how its topics stand now: asked, and nothing is changed.

aiokafka's own metadata request is version 5; which operations a user may do comes with version 8 (KIP-430).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaConnectionError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

from bridge.adapters.connection import CONNECT_TIMEOUT_S, connection, explain
from bridge.settings import KafkaSettings

WRITE, DESCRIBE, DESCRIBE_CONFIGS = 4, 8, 10
"""org.apache.kafka.common.acl.AclOperation's codes."""

_NOT_TOLD = -(1 << 31)
_ALL_TOPICS = None
_PRODUCER_ID_TIMEOUT_MS = 1000
_RETRY_INTERVAL_S = 0.2


class _Metadata(Response):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 3
    API_VERSION = 8
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("brokers", Array(("node_id", Int32), ("host", String()), ("port", Int32), ("rack", String()))),
        ("cluster_id", String()),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("name", String()),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("isr", Array(Int32)),
                        ("offline_replicas", Array(Int32)),
                    ),
                ),
                ("operations", Int32),
            ),
        ),
        ("operations", Int32),
    )


class _MetadataWithRights(RequestStruct):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 3
    API_VERSION = 8
    RESPONSE_TYPE = _Metadata
    SCHEMA = Schema(
        ("topics", Array(String())),
        ("allow_auto_topic_creation", Boolean),
        ("include_cluster_authorized_operations", Boolean),
        ("include_topic_authorized_operations", Boolean),
    )


class _Asking(Request[_MetadataWithRights]):  # type: ignore[misc] # aiokafka ships no types
    API_KEY = 3

    def build(self, request_struct_class: type[_MetadataWithRights]) -> _MetadataWithRights:
        return request_struct_class(_ALL_TOPICS, False, False, True)  # noqa: FBT003 - a row of the protocol


class Partition(NamedTuple):
    """A partition now; leader is -1 where there is none."""

    leader: int
    replicas: int
    in_sync: int


class Standing(NamedTuple):
    """A topic now.

    Attributes:
        operations: what we may do, by code; None where the broker does not tell.
    """

    operations: frozenset[int] | None
    partitions: tuple[Partition, ...]


class Cluster(NamedTuple):
    """What answers.

    Attributes:
        producing: None, or why an idempotent producer is not let in, the error's name.
    """

    cluster_id: str | None
    brokers: int
    topics: Mapping[str, Standing]
    producing: str | None


async def look(settings: KafkaSettings) -> Cluster:
    """The cluster as the settings' user sees it.

    Raises:
        Misconfigured: Kafka refuses us, or is not to be trusted.
        KafkaError, OSError: it cannot be reached.
    """
    client = AIOKafkaClient(**connection(settings))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT_S):
            await client.bootstrap()
            node = client.get_random_node()
            metadata = await client.send(node, _Asking())
            while True:
                producer = await client.send(node, InitProducerIdRequest(None, _PRODUCER_ID_TIMEOUT_MS))
                if not producer.error_code or not for_code(producer.error_code).retriable:
                    break
                await asyncio.sleep(_RETRY_INTERVAL_S)  # a broker that just started has to look around first
    except (KafkaConnectionError, ValueError):
        await explain(settings)
        raise
    finally:
        await client.close()
    topics = {
        name: Standing(
            None if operations == _NOT_TOLD else frozenset(code for code in range(31) if operations >> code & 1),
            tuple(Partition(leader, len(replicas), len(isr)) for _, _, leader, _, replicas, isr, _ in partitions),
        )
        for _, name, _, partitions, operations in metadata.topics
    }
    refused = for_code(producer.error_code).__name__ if producer.error_code else None
    return Cluster(metadata.cluster_id, len(metadata.brokers), topics, refused)

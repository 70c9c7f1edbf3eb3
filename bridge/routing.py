"""Where a record goes: its topic, its key and its partition. Does no IO, reads no clock.

The partition follows from the key by Kafka's own default (murmur2), so that one conversation stays in one partition of each
topic, in order, for every client that asks the same way.
"""

from __future__ import annotations

import struct

from bridge.event import WEBHOOK_FIELDS

DEAD_LETTER = "dead_letter"
TOPIC_FIELDS = (*WEBHOOK_FIELDS, DEAD_LETTER)
"""What stands after the prefix in the names of the topics that the bridge writes."""

AUTO_REPLIES = "auto_replies"
MANAGED_FIELDS = (*TOPIC_FIELDS, AUTO_REPLIES)
"""Those, and the topic of the sample consumer's ledger: created, listed and registered with the others, and not needed to serve."""


def topic_name(prefix: str, topic_field: str) -> str:
    """``instagram`` and ``messages`` → ``instagram.messages``. Neither part ever comes from a payload."""
    return f"{prefix}.{topic_field}"


def record_key(account_id: str | None, customer_id: str | None) -> bytes | None:
    """``<account_id>:<customer_id>``, or the account alone; null only where there is no account."""
    if account_id is None:
        return None
    return (account_id if customer_id is None else f"{account_id}:{customer_id}").encode()


_SEED, _FACTOR, _32_BITS = 0x9747B28C, 0x5BD1E995, 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF
"""Kafka's mask that makes a hash positive (org.apache.kafka.common.utils.Utils.toPositive)."""

_WORDS = [struct.Struct(f"<{words}I").unpack_from for words in range(32)]
"""Reads the 32-bit words of a key, by how many there are: two ids make nine."""


def partition(key: bytes, partitions: int) -> int:
    """A key's partition, as Java's default partitioner has it: 32-bit murmur2 (org.apache.kafka.common.utils.Utils.murmur2).

    aiokafka's own takes twice as long, half of what the street takes for an event, and every new conversation pays it.
    """
    size = len(key)
    words = size // 4
    read = _WORDS[words] if words < len(_WORDS) else struct.Struct(f"<{words}I").unpack_from
    state = _SEED ^ size
    for word in read(key):
        mixed = word * _FACTOR & _32_BITS
        state = state * _FACTOR & _32_BITS ^ (mixed ^ mixed >> 24) * _FACTOR & _32_BITS
    if size % 4:
        state = (state ^ int.from_bytes(key[words * 4 :], "little")) * _FACTOR & _32_BITS
    state = (state ^ state >> 13) * _FACTOR & _32_BITS
    return ((state ^ state >> 15) & _POSITIVE) % partitions

"""Where a record goes: its topic and its key. Does no IO, reads no clock.

The partition follows from the key by Kafka's own default (murmur2), so that one conversation stays in one partition of each
topic, in order, for every client that asks the same way; the publisher computes it (bridge/adapters/kafka.py).
"""

from __future__ import annotations

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

"""Topics, keys, and the partition that follows from a key."""

from __future__ import annotations

import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from bridge.routing import MANAGED_FIELDS, TOPIC_FIELDS, partition, record_key, topic_name


def test_topics_are_those_of_the_contract() -> None:
    """One topic per webhook field with a schema, one for the rest, one for dead letters."""
    assert set(TOPIC_FIELDS) == {
        *("messages", "message_reactions", "messaging_postbacks", "messaging_seen", "messaging_referral", "standby"),
        *("message_edit", "messaging_handover", "messaging_optins"),
        *("comments", "live_comments", "mentions", "story_insights"),
        *("other", "dead_letter"),
    }
    assert len(set(TOPIC_FIELDS)) == len(TOPIC_FIELDS)
    assert set(MANAGED_FIELDS) - set(TOPIC_FIELDS) == {"auto_replies"}


def test_topic_name_is_prefix_and_field() -> None:
    """A dot between the two, nothing else."""
    assert topic_name("instagram", "message_edit") == "instagram.message_edit"


@pytest.mark.parametrize(
    ("account_id", "customer_id", "key"),
    [
        ("17841400000000001", "1254459154682919", b"17841400000000001:1254459154682919"),
        ("17841400000000001", None, b"17841400000000001"),
        ("ü", "😀", "ü:😀".encode()),
        (None, None, None),
        (None, "1254459154682919", None),
    ],
)
def test_record_key_is_account_and_customer(account_id: str | None, customer_id: str | None, key: bytes | None) -> None:
    """The conversation, or the account alone; null only where there is no account."""
    assert record_key(account_id, customer_id) == key


JAVA = {
    "21": -973932308,
    "foobar": -790332482,
    "a-little-bit-long-string": -985981536,
    "a-little-bit-longer-string": -1486304829,
    "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    "abc": 479470107,
}
"""Apache Kafka, UtilsTest.testMurmur2."""


@pytest.mark.parametrize(("key", "java"), JAVA.items())
def test_partition_of_a_key_is_java_s(key: str, java: int) -> None:
    """So one conversation has one partition for all who write."""
    assert partition(key.encode(), 12) == (java & 0x7FFFFFFF) % 12


@given(st.binary(max_size=300), st.integers(1, 1000))
def test_partition_of_any_key_is_aiokafka_s(key: bytes, partitions: int) -> None:
    """Empty keys, keys that end within a word, long ones."""
    numbers = list(range(partitions))
    assert partition(key, partitions) == DefaultPartitioner()(key, numbers, numbers)

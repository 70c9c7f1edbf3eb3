"""A record's content: what goes in comes out, and a varint is the one of Avro."""

from __future__ import annotations

import io

import pytest
from fastavro import schemaless_writer

from bridge.record import Header, Record
from bridge.varint import SHORT_BYTES, read, varint

NUMBERS = [0, -1, 1, -64, 63, 64, SHORT_BYTES, 1 << 34, (1 << 34) - 1, (1 << 41) - 1, 1 << 41, 2**63 - 1, -(2**63)]


@pytest.mark.parametrize("number", NUMBERS)
def test_varint_is_avros_long_and_is_read_again(number: int) -> None:
    """By fastavro, on both sides of every shortcut."""
    out = io.BytesIO()
    schemaless_writer(out, {"type": "long"}, number)
    assert varint(number) == out.getvalue()
    assert read(b"." + varint(number) + b".", 1) == (number, 1 + len(out.getvalue()))


@pytest.mark.parametrize("key", [None, b"", b"17841400000000001:1254459154682919", b"k" * SHORT_BYTES])
@pytest.mark.parametrize("headers", [[], [("ce_id", b"1"), ("ö", b"")], [("name", b"x" * SHORT_BYTES)] * 70])
def test_record_is_read_as_it_was_written(key: bytes | None, headers: list[Header]) -> None:
    """Its parts are those that it was made of; that Kafka's clients read the same, tests/kafka shows."""
    made = Record.of("instagram.messages", key, b"value", headers)
    assert (made.key, made.value, made.headers) == (key, b"value", headers)

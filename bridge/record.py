"""A Kafka record that has no place yet: its key, value and headers are written once, as they go over the wire.

Kafka's record format (v2; kafka.apache.org/documentation, "Record"). What stands before the key, how a record differs from its
batch in time and offset, is written when it joins one (bridge.adapters.produce). Does no IO, reads no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec

from bridge.varint import LENGTHS, SHORT_BYTES, counted, read, varint

Header = tuple[str, bytes]

_NO_KEY = varint(-1)

ALONE_OVERHEAD_BYTES = 61 + 5 + 3
"""What a lone record takes in its batch beside its content: the batch's header, the record's length, its attributes and deltas."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record.

    Attributes:
        topic: where it goes.
        key: decides the partition; null for one that may go to any.
        content: key, value and headers in Kafka's format, see `content`.
        timestamp: the delivery's ``received_at``, milliseconds since the Unix epoch.
        account_id, occurred_at, sent_at: of the event in it, as Event's; null for a dead letter.
    """

    topic: str
    key: bytes | None
    content: bytes
    timestamp: int
    account_id: str | None = None
    occurred_at: int | None = None
    sent_at: int | None = None

    @classmethod
    def of(cls, topic: str, key: bytes | None, value: bytes, headers: Sequence[Header], timestamp: int = 0) -> Self:
        """Make one of its parts."""
        return cls(topic, key, content(key, value, len(headers), [header(*each) for each in headers]), timestamp)

    @property
    def value(self) -> bytes:
        """The value; read from the content every time."""
        return self._value_and_headers_at()[0]

    @property
    def headers(self) -> list[Header]:
        """The headers in their order, the same way."""
        count, at = read(self.content, self._value_and_headers_at()[1])
        found = []
        for _ in range(count):
            name, at = _counted_at(self.content, at)
            text, at = _counted_at(self.content, at)
            found.append((name.decode(), text))
        return found

    def _value_and_headers_at(self) -> tuple[bytes, int]:
        return _counted_at(self.content, len(_NO_KEY) if self.key is None else len(counted(self.key)))


def content(key: bytes | None, value: bytes, headers: int, written: Sequence[bytes]) -> bytes:
    """Key, value and headers as they go over the wire.

    Args:
        key: of the record, or none.
        value: Avro.
        headers: how many.
        written: them, as `header` writes each, in any pieces.
    """
    size = len(value)
    return b"".join(
        (
            _NO_KEY if key is None else counted(key),
            LENGTHS[size] if size < SHORT_BYTES else varint(size),
            value,
            LENGTHS[headers] if headers < SHORT_BYTES else varint(headers),
            *written,
        )
    )


def header(name: str, text: bytes) -> bytes:
    """A header as it goes over the wire."""
    return counted(name.encode()) + counted(text)


def _counted_at(content: bytes, at: int) -> tuple[bytes, int]:
    size, at = read(content, at)
    return content[at : at + size], at + size

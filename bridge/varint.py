"""Whole numbers in as few bytes as they need: zigzag, then seven bits a byte, the lowest first.

Avro writes its long, and the length of a string, like this (Avro 1.12 specification, "Primitive Types"); Kafka the lengths in a
record (kafka.apache.org/documentation, "Record"). Does no IO, reads no clock.
"""

from __future__ import annotations

SHORT_BYTES = 4096
"""Lengths below are looked up in ``LENGTHS`` instead of computed: nearly every string of a delivery; a quarter of a MB a process."""

_MORE = 0x80
"""The bit of a byte that says another follows."""

_TIME_MIN, _TIME_MAX = 1 << 35, 1 << 42
"""Six bytes: milliseconds from 1970-07 to 2039, three of them in every event, so they go without the loop."""


def varint(number: int) -> bytes:
    """A number of at most 64 bits."""
    number = (number << 1) ^ (number >> 63)
    if _TIME_MIN <= number < _TIME_MAX:
        return bytes(
            (
                number & 0x7F | _MORE,
                number >> 7 & 0x7F | _MORE,
                number >> 14 & 0x7F | _MORE,
                number >> 21 & 0x7F | _MORE,
                number >> 28 & 0x7F | _MORE,
                number >> 35,
            )
        )
    out = bytearray()
    while number >= _MORE:
        out.append(number & 0x7F | _MORE)
        number >>= 7
    out.append(number)
    return bytes(out)


LENGTHS = [varint(size) for size in range(SHORT_BYTES)]


def counted(content: bytes) -> bytes:
    """Content after its length: Avro's string and bytes, a key, a value or a header of Kafka's."""
    size = len(content)
    return (LENGTHS[size] if size < SHORT_BYTES else varint(size)) + content


def read(content: bytes, at: int) -> tuple[int, int]:
    """The number that stands there, and where the next thing begins."""
    number = shift = 0
    while True:
        byte = content[at]
        at += 1
        number |= (byte & ~_MORE) << shift
        if byte < _MORE:
            return (number >> 1) ^ -(number & 1), at
        shift += 7

"""Meta's scalars, as tolerant as Meta is loose: ids, times, flags and counts from a number or a string.

Every function takes any JSON value and returns the typed one, or None where the value has a wrong type or is out of range
(then the typed part is null, the path is counted, and ``raw`` still holds what came). Does no IO, reads no clock.
"""

from __future__ import annotations

import re
from decimal import Decimal

_LONG_MIN, _LONG_MAX = -(2**63), 2**63 - 1
"""Avro's long (Avro 1.12 specification, "Primitive Types"): 64-bit signed."""

_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)
_DECIMAL = re.compile(r"[0-9]{1,17}(\.[0-9]{1,9})?", re.ASCII)

_SECONDS_BELOW = 10**11
_MILLISECONDS_BELOW = 10**14
_MICROSECONDS_BELOW = 10**17
"""One time in three units: no second before the year 5138 reaches 10¹¹, no millisecond after 1973 lies below it."""

_FLAGS: dict[object, bool] = {"true": True, "false": False, "1": True, "0": False}


def as_id(value: object) -> str | None:
    """An id, which Meta sends as a string and sometimes as a whole number larger than 2^53."""
    if type(value) is str:
        return value
    if type(value) is int:
        return str(value)
    return None


def as_long(value: object) -> int | None:
    """A count: a whole number within Avro's long, or its decimal text."""
    if type(value) is str:
        if not _INTEGER.fullmatch(value):
            return None
        value = int(value)
    elif type(value) is float:
        if not value.is_integer():
            return None
        value = int(value)
    if type(value) is int and _LONG_MIN <= value <= _LONG_MAX:
        return value
    return None


def as_flag(value: object) -> bool | None:
    """A flag: true or false, 1 or 0, or their text."""
    if value is None or type(value) is bool:
        return value
    if type(value) is int and value in (0, 1):
        return value == 1
    return _FLAGS.get(value) if type(value) is str else None


def as_milliseconds(value: object) -> int | None:
    """A time in seconds, milliseconds or microseconds since the Unix epoch, told apart by magnitude; in whole milliseconds."""
    if type(value) is int:
        if _SECONDS_BELOW <= value < _MILLISECONDS_BELOW:
            return value
        number: int | Decimal = value
    elif type(value) is str and _DECIMAL.fullmatch(value):
        number = Decimal(value)
    elif type(value) is float and 0 <= value < _MICROSECONDS_BELOW:
        number = Decimal(repr(value))
    else:
        return None
    if number < 0 or number >= _MICROSECONDS_BELOW:
        return None
    if number < _SECONDS_BELOW:
        return int(number * 1000)
    return int(number) if number < _MILLISECONDS_BELOW else int(number) // 1000

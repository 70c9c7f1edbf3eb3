"""JSON text read without losing how it was written: slices, depth, canonical form. Does no IO, reads no clock.

Two scanners give the same slices of the same text (tests/properties). FAST is msgspec's, whose Raw hands them out without
parsing. CAREFUL is built on the standard library's json and reads what msgspec refuses although JSON allows it: a lone
surrogate, 1e999. It wants text that `check` has passed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from bridge.errors import NestedTooDeep, NotJson

DEPTH_MAX = 64
"""Objects and arrays within one another. Meta's deepest documented body has 9; the limit keeps every recursion bounded."""

_INTEGER_DIGITS_MAX = 4300
"""CPython's own limit for int(str) (sys.int_info.default_max_str_digits); a longer number is no id, time or count."""

WHITESPACE = b" \t\n\r"
"""RFC 8259 section 2."""

Slice = bytes | msgspec.Raw


class Scanner(NamedTuple):
    """Three ways to look at a slice. ``members`` and ``elements`` give None when it is no object, or no array.

    FAST raises msgspec.DecodeError or RecursionError for text that it cannot read.
    """

    members: Callable[[Slice], Mapping[str, Slice] | None]
    elements: Callable[[Slice], Sequence[Slice] | None]
    value: Callable[[Slice], object]


def openings(raw: bytes) -> int:
    """How many brackets open, those inside strings too: at least the depth, and quick to count."""
    # `in` is many times faster than a count, and usually finds none.
    return raw.count(b"{") + (raw.count(b"[") if b"[" in raw else 0)


def check(text: bytes) -> None:
    """Make sure that the careful scanner can read this.

    Args:
        text: UTF-8 without whitespace around it.

    Raises:
        NestedTooDeep: deeper than DEPTH_MAX.
        NotJson: not one JSON value; NaN and Infinity are none (RFC 8259 section 6).
    """
    if _depth(text) > DEPTH_MAX:
        raise NestedTooDeep(f"nested deeper than {DEPTH_MAX}")
    decoded = text.decode()
    try:
        _, end = _DECODER.raw_decode(decoded)
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON at character {error.pos}") from None
    if end != len(decoded):
        raise NotJson(f"something follows the JSON at character {end}")


def canonical(raw: bytes, *, only: tuple[str, ...] = (), under: str | None = None) -> bytes:
    """The canonical form of an item's JSON text: what identifies an event that carries no id of its own.

    Keys sorted by code point, no whitespace, strings as json.dumps(ensure_ascii=False) writes them, lone surrogates
    U+FFFD, numbers exactly as written, the last of duplicate keys.

    Args:
        raw: JSON text that has been read before.
        only: of an object, these keys alone.
        under: of an object, the value of this key.
    """
    value = _clean(_LEXEMES.raw_decode(raw.decode())[0])
    if under is not None:
        value = value[under]
    if only:
        value = {key: value[key] for key in only}
    return _canonical(value).encode()


def _canonical(value: object) -> str:
    if isinstance(value, _Lexeme):
        return value.text
    if isinstance(value, dict):
        return "{" + ",".join(f"{_quote(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return _quote(value)


class _Lexeme(NamedTuple):
    """A number as it was written: 1.0 and 1 are not the same text."""

    text: str


_SKIP = re.compile(r"[ \t\n\r]*", re.ASCII)
# Possessive (++, *+): a star that may give back remembers a state for every character of a string, a hundred times its size.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_quote = json.JSONEncoder(ensure_ascii=False).encode


def _depth(raw: bytes) -> int:
    """How deep objects and arrays lie within one another, strings aside; no more is counted once it is too deep."""
    depth = deepest = 0
    for token in _TOKEN.finditer(raw):
        first = token[0][0]
        if first in b"{[":
            depth += 1
            deepest = max(deepest, depth)
            if depth > DEPTH_MAX:
                break
        elif first in b"}]":
            depth -= 1
    return deepest


def _refuse_constant(name: str) -> object:
    raise json.JSONDecodeError(f"{name} is not JSON", name, 0)


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _INTEGER_DIGITS_MAX else float("inf")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_whole)
_LEXEMES = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_Lexeme, parse_float=_Lexeme)


def _clean(value: Any) -> Any:  # noqa: ANN401 - any JSON value in, the same without lone surrogates out
    if isinstance(value, str):
        return _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, _Lexeme):
        return value
    if isinstance(value, list):
        return [_clean(element) for element in value]
    if isinstance(value, dict):
        return {_clean(key): _clean(element) for key, element in value.items()}
    return value


def _slices(text: str, closing: str) -> Iterator[tuple[str | None, str]]:
    """The members or elements of an object or array that is known to be well-formed: key (or None) and slice."""
    at = _skip(text, 1)
    while text[at] != closing:
        key = None
        if closing == "}":
            key, at = _DECODER.raw_decode(text, at)
            at = _skip(text, _skip(text, at) + 1)
        _, end = _DECODER.raw_decode(text, at)
        yield key, text[at:end]
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _skip(text: str, at: int) -> int:
    match = _SKIP.match(text, at)
    return match.end() if match else at


def _careful_members(raw: Slice) -> dict[str, Slice] | None:
    text = bytes(raw).decode()
    if not text.startswith("{"):
        return None
    return {_clean(key): piece.encode() for key, piece in _slices(text, "}")}


def _careful_elements(raw: Slice) -> list[Slice] | None:
    text = bytes(raw).decode()
    if not text.startswith("["):
        return None
    return [piece.encode() for _, piece in _slices(text, "]")]


def _careful_value(raw: Slice) -> object:
    return _clean(_DECODER.raw_decode(bytes(raw).decode())[0])


_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_elements_of = msgspec.json.Decoder(list[msgspec.Raw]).decode


def _fast_members(raw: Slice) -> Mapping[str, Slice] | None:
    try:
        return _members_of(raw)
    except msgspec.ValidationError:
        FAST.value(raw)  # the wrong type is seen at its first byte: "null!" is no JSON at all
        return None


def _fast_elements(raw: Slice) -> Sequence[Slice] | None:
    try:
        return _elements_of(raw)
    except msgspec.ValidationError:
        return None


FAST = Scanner(_fast_members, _fast_elements, msgspec.json.Decoder().decode)
CAREFUL = Scanner(_careful_members, _careful_elements, _careful_value)

"""JSON text as nodes that keep how it was written, and Meta's scalars read from them. Shares no line with bridge/.

Numbers stay the text they were written as, so that no rounding can hide.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

_TOKEN = re.compile(r'[ \t\n\r]*("(?:[^"\\]|\\.)*"|[\[\]{},:]|[^ \t\n\r\[\]{},:"]+)')


class Number(str):
    """A JSON number, as it was written."""

    __slots__ = ()


@dataclass(frozen=True)
class Node:
    """A JSON value and its exact text. Members stand under their keys without lone surrogates, the last of equal keys."""

    text: str
    value: dict[str, Node] | list[Node] | str | bool | None  # a Number is a str


def depth(text: str) -> int:
    """How deep objects and arrays nest."""
    level = deepest = 0
    for match in _TOKEN.finditer(text):
        level += (match[1] in "[{") - (match[1] in "]}")
        deepest = max(deepest, level)
    return deepest


def parse(text: str) -> Node:
    """JSON text as nodes.

    Raises:
        ValueError: it is no JSON.
    """
    json.loads(text, parse_int=Number, parse_float=Number, parse_constant=_refuse)
    return _Tree(text).node()


def _refuse(constant: str) -> None:
    raise ValueError(constant)


class _Tree:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [(match.start(1), match.end(1)) for match in _TOKEN.finditer(text)]
        self.at = 0

    def peek(self) -> str:
        start, end = self.tokens[self.at]
        return self.text[start:end]

    def node(self) -> Node:
        start = self.tokens[self.at][0]
        lexeme = self.peek()
        value: Any
        if lexeme == "{":
            value = {clean(key): node for key, node in self.inside("}", keyed=True)}
        elif lexeme == "[":
            value = [node for _, node in self.inside("]", keyed=False)]
        else:
            value = json.loads(lexeme, parse_int=Number, parse_float=Number)
            value = clean(value) if type(value) is str else value
        self.at += 1
        return Node(self.text[start : self.tokens[self.at - 1][1]], value)

    def inside(self, closing: str, *, keyed: bool) -> Iterator[tuple[str, Node]]:
        self.at += 1
        while self.peek() != closing:
            key = ""
            if keyed:
                key = json.loads(self.peek())
                self.at += 2  # the key and its colon
            yield key, self.node()
            if self.peek() == ",":
                self.at += 1


def clean(text: str) -> str:
    """U+FFFD for each lone surrogate."""
    return re.sub("[\ud800-\udfff]", "\ufffd", text)


def canonical(node: Node) -> str:
    """Keys sorted by code point, no whitespace, numbers as written."""
    if isinstance(node.value, dict):
        return "{" + ",".join(f"{compact(key)}:{canonical(node.value[key])}" for key in sorted(node.value)) + "}"
    if isinstance(node.value, list):
        return "[" + ",".join(map(canonical, node.value)) + "]"
    return node.value if isinstance(node.value, Number) else compact(node.value)


def compact(value: object) -> str:
    """JSON text without spaces, non-ASCII unescaped."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def member(node: Node | None, *keys: str) -> Node | None:
    """What stands under the keys, one within the other; None where nothing does."""
    for key in keys:
        node = node.value.get(key) if node and isinstance(node.value, dict) else None
    return node


def elements(node: Node | None) -> list[Node] | None:
    """An array's elements; None where there is no array."""
    return node.value if node and isinstance(node.value, list) else None


def is_object(node: Node | None) -> bool:
    """Whether there is an object."""
    return node is not None and isinstance(node.value, dict)


# Meta's scalars: None for any other type, and for what Avro cannot hold.


def identifier(node: Node | None) -> str | None:
    """A string, or the digits of a whole number."""
    value = node.value if node else None
    if isinstance(value, Number):
        return str(value) if re.fullmatch("-?[0-9]+", value) else None
    return value if isinstance(value, str) else None


def string(node: Node | None) -> str | None:
    """A string."""
    value = node.value if node else None
    return value if isinstance(value, str) and not isinstance(value, Number) else None


def whole(node: Node | None) -> int | None:
    """A whole number that fits in 64 bits, however it is written, or its digits as a string."""
    value = node.value if node else None
    if not isinstance(value, str) or not (isinstance(value, Number) or re.fullmatch("-?[0-9]+", value)):
        return None
    number = Decimal(value)
    if number != number.to_integral_value() or not -(2**63) <= number < 2**63:
        return None
    return int(number)


def flag(node: Node | None) -> bool | None:
    """A flag from true or false, 1 or 0, or their text."""
    value = node.value if node else None
    if isinstance(value, bool):
        return value
    return {"true": True, "1": True, "false": False, "0": False}.get(value) if isinstance(value, str) else None


def milliseconds(node: Node | None) -> int | None:
    """A time by its magnitude."""
    value = node.value if node else None
    if not isinstance(value, str) or not (isinstance(value, Number) or re.fullmatch(r"[0-9]+(\.[0-9]+)?", value)):
        return None
    number = Decimal(value)
    if number < 0 or number >= 10**17:
        return None
    if number < 10**11:
        return int(number * 1000)
    return int(number) if number < 10**14 else int(number) // 1000

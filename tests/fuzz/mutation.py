"""Bytes made worse, from a seed: what is cut, doubled, overwritten, or replaced by what parsers have stumbled over before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

VECTORS = Path(__file__).parents[1] / "vectors" / "seed"

PIECE_BYTES_MAX = 64
GROWTH_BYTES_MAX = 256 * 1024
"""What one mutation may add by repeating: enough to see that time grows faster than size."""

_GROWTHS = 0.05
"""Of the repetitions, so many are as long as that: they take a thousand times as long as others."""

_DEEPER = 0.95
"""How likely a walk through a document goes on, to larger parts rather than to small ones: five levels down it gets interesting."""

JSON_TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b":",
        b",",
        b"\\",
        b"\\u",
        b"\\ud800",
        b"\\udc00\\ud800",
        b"\\u0000",
        b"\x00",
        b" ",
    ),
    *(b"null", b"true", b"false", b"NaN", b"Infinity", b"-", b"-0", b"1e999", b"1E-400", b"0.1e1", b"01", b"1.", b"+1"),
    *(b"9223372036854775808", b"-9223372036854775809", b"1" * 400, b"1e" + b"9" * 30, b"0." + b"3" * 300),
    *(b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xf4\x90\x80\x80", "😀\u2028".encode()),
    *(
        b'"object":"instagram",',
        b'"entry":[',
        b'"messaging":[{',
        b'"standby":[',
        b'"changes":[{"field":"comments","value":',
    ),
    *(b'"message":{"mid":"m"}', b'"read":{}', b'"reaction":null', b'"message_edit":{"num_edit":0}', b'"postback":[]'),
    *(
        b'"sender":{"id":',
        b'"timestamp":',
        b'"id":',
        b'"is_echo":"true"',
        b'"attachments":[{"payload":',
        b"{}",
        b"[]",
        b'""',
    ),
]
VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1e999,
    2**63,
    2**70,
    0.5,
    "",
    "0",
    "\ud800",
    "ü" * 100,
    [],
    {},
    [[]],
    {"": None},
    [{}] * 9,
]


def seeds() -> list[bytes]:
    """The source document's examples, as bodies."""
    return [path.read_bytes() for path in sorted(VECTORS.glob("*.json"))]


def mutated(random: Random, data: bytes, corpus: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    """The data after one to eight mutations."""
    for _ in range(random.choice((1, 1, 2, 3, 8))):
        data = _once(random, data, corpus, tokens)
    return data


def _once(random: Random, data: bytes, corpus: Sequence[bytes], tokens: Sequence[bytes]) -> bytes:
    at = random.randint(0, len(data))
    to = min(len(data), at + random.randint(0, PIECE_BYTES_MAX))
    piece = data[at:to]
    token, rest = random.choice(tokens), data[to:]
    match random.randrange(9):
        case 0:
            piece = b""
        case 1:
            piece = rest = b""
        case 2:
            piece *= random.randint(2, 4)
        case 3:
            piece *= random.randint(1, GROWTH_BYTES_MAX) // (len(piece) or 1) if random.random() < _GROWTHS else 20
        case 4:
            piece = bytes([random.randrange(256)]) + piece[1:]
        case 5:
            other = random.choice(corpus)
            start = random.randint(0, len(other))
            piece = other[start : start + random.randint(0, 4 * PIECE_BYTES_MAX)]
        case 6:
            piece += token
        case _:
            piece = token
    return data[:at] + piece + rest


def reshaped(random: Random, data: bytes) -> bytes:
    """A JSON text with one to four of its parts replaced, renamed, doubled or wrapped: still JSON, and of another shape."""
    document: Any = json.loads(data)
    for _ in range(random.randint(1, 4)):
        document = _replace(random, document, document)
    return json.dumps(document, ensure_ascii=random.random() < 0.5, indent=random.choice((None, None, 1))).encode(
        "utf-8", "surrogatepass"
    )


def _replace(random: Random, node: Any, root: Any) -> Any:  # noqa: ANN401 - any part of a document
    """The node with one part of it, found by walking down at random, made different."""
    if isinstance(node, dict) and node and random.random() < _DEEPER:
        key = random.choices(list(node), [len(repr(value)) for value in node.values()])[0]
        if random.random() < 0.1:
            other = random.choice(("field", "value", "message", "read", "referral", "id", "mid", "entry", "time", "né"))
            return {other if name == key else name: value for name, value in node.items()}
        return {**node, key: _replace(random, node[key], root)}
    if isinstance(node, list) and node and random.random() < _DEEPER:
        at = random.choices(range(len(node)), [len(repr(element)) for element in node])[0]
        return [*node[:at], _replace(random, node[at], root), *node[at + 1 :]]
    key = random.choice(("id", "message", "payload", "\ud800"))
    whole = root if len(json.dumps(root)) < GROWTH_BYTES_MAX else None
    return random.choice(([node, node], {key: node}, str(node), whole, *[random.choice(VALUES)] * 4))

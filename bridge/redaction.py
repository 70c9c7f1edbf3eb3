"""A body without its people: ids, texts and URLs replaced, its shape kept. Does no IO, reads no clock.

Only Meta's own words stay: keys and values that the schemas or this module name, flags, times, and numbers of few digits. Every
other string is replaced character by character by another one of its kind, so that lengths, punctuation, escapes, emoji and
halves of surrogate pairs are as they were. What is replaced follows from the string and a secret key: the same id becomes the
same id everywhere, as a number too, and without the key nobody finds the way back.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator
from functools import cache
from typing import Any

from bridge.errors import NotUtf8
from bridge.event import ATTACHMENT_TYPES, MESSAGING_FIELDS, WEBHOOK_FIELD_OF_KEY, WEBHOOK_FIELDS
from bridge.jsontext import WHITESPACE, check
from bridge.schemas import load

HOST = "media.example"
"""Where every URL leads: a reserved name (RFC 2606), so that nothing of a sample can be fetched."""

_DIGITS_KEPT_MAX = 4
"""A count, a version, a price; a longer number may be an id, a telephone number, an amount."""

_PLAIN_KEYS = frozenset({"timestamp", "time", "watermark", "num_edit"})
_PLAIN_VALUE = re.compile(r"[0-9]{1,17}|true|false", re.ASCII)

_WORDS = {
    "object": frozenset({"instagram", "page"}),
    "field": MESSAGING_FIELDS | frozenset(WEBHOOK_FIELDS),
    "type": ATTACHMENT_TYPES | {"OPEN_THREAD", "postback", "web_url", "notification_messages"},
    "action": frozenset({"react", "unreact"}),
    "reaction": frozenset({"love", "haha", "smile", "wow", "sad", "angry", "like", "dislike", "other"}),
    "source": frozenset({"ADS", "SHORTLINK", "IGME-SOURCE-LINK", "CUSTOMER_CHAT_PLUGIN"}),
    "media_product_type": frozenset({"AD", "FEED", "STORY", "REELS", "LIVE"}),
    "folder": frozenset({"general", "primary", "requests"}),
}
"""Values that are Meta's choice, by their key; the same word under another key may be somebody's text."""

_ENVELOPE = frozenset(
    {
        "object",
        "entry",
        "id",
        "time",
        "messaging",
        "standby",
        "changes",
        "field",
        "value",
        "sender",
        "recipient",
        "timestamp",
    }
)
_FREE_FORM = frozenset({"elements", "subtitle", "image_url", "buttons", "price"})
"""Of templates and products, whose objects have no schema (Messenger Platform, "Generic template"; Meta's Instagram examples)."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,39}", re.ASCII)
_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|-?[0-9][0-9.eE+-]*|[{}\[\],:]|[a-z]+|[ \t\n\r]+', re.ASCII | re.DOTALL)
_UNIT = re.compile(
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[0-9a-fA-F]{4}|\\.|.", re.ASCII | re.DOTALL
)
_URL = re.compile(r"(https?:(?:/|\\/){2})((?:[^/?#\\]|\\u[0-9a-fA-F]{4})*)", re.IGNORECASE)
_BYTES_PER_CHARACTER = 2

_LETTERS_OF_2_BYTES, _LETTERS_OF_3_BYTES = range(0xE0, 0xF6), range(0x3042, 0x3082)
_SYMBOLS, _EMOJI = range(0x2600, 0x2604), range(0x1F600, 0x1F640)
_BMP_END, _ASCII_END, _TWO_BYTES_END = 0x10000, 0x80, 0x800


class Redactor:
    """Replaces what belongs to people; equal strings alike in all bodies of one redactor.

    Args:
        key: secret and random; what it redacted cannot be joined with what another key did.
        keep_names: leave keys, and values of ``field`` and ``type``, that nobody knows but that look like Meta's names.
    """

    def __init__(self, key: bytes, *, keep_names: bool = False) -> None:
        self._key = key
        self._keep_names = keep_names

    def redact(self, body: bytes) -> bytes:
        """The same JSON, to the last space, with its strings and numbers replaced.

        Raises:
            NotUtf8, NotJson, NestedTooDeep: nobody can say what in it is whose.
        """
        try:
            text = body.decode()
        except UnicodeDecodeError as error:
            raise NotUtf8(f"invalid UTF-8 at byte {error.start}") from None
        check(body.strip(WHITESPACE))
        return "".join(self._tokens(text)).encode()

    def _tokens(self, text: str) -> Iterator[str]:
        key, is_key = "", False
        around: list[tuple[str, str]] = []  # what opened each object and array around, and the key it stands under
        for match in _TOKEN.finditer(text):
            token = match[0]
            first = token[0]
            if first in "{[":
                around.append((first, key))
                is_key = first == "{"
            elif first in "}]":
                _, key = around.pop()
                is_key = False
            elif first in ",:":
                is_key = first == "," and bool(around) and around[-1][0] == "{"
            elif first == '"' and is_key:
                key = json.loads(token)
                token = token if key in _known_keys() or self._is_name(key) else self._string(token, key)
            elif first == '"':
                token = self._value(token, key)
            elif first in "-0123456789":
                token = self._number(token, key)
            yield token

    def _is_name(self, text: str) -> bool:
        return self._keep_names and _NAME.fullmatch(text) is not None

    def _value(self, literal: str, key: str) -> str:
        text = json.loads(literal)
        plain = key in _PLAIN_KEYS or key.startswith("is_")
        if text in _WORDS.get(key, ()) or (plain and _PLAIN_VALUE.fullmatch(text)):
            return literal
        return literal if key in {"field", "type"} and self._is_name(text) else self._string(literal, text)

    def _number(self, token: str, key: str) -> str:
        if key in _PLAIN_KEYS or sum(map(str.isdigit, token)) <= _DIGITS_KEPT_MAX:
            return token
        mantissa, e, exponent = re.split("([eE])", token, maxsplit=1) if "e" in token.lower() else (token, "", "")
        return self._replaced(mantissa, mantissa) + e + exponent

    def _string(self, literal: str, text: str) -> str:
        inner = literal[1:-1]
        url = _URL.match(inner)
        if url is None:
            return f'"{self._replaced(inner, text)}"'
        return f'"{url[1]}{HOST}{self._replaced(inner[url.end() :], text)}"'

    def _replaced(self, inner: str, text: str) -> str:
        """The units of a literal, each replaced by another of its kind, in its form.

        Args:
            inner: as it is written.
            text: as it is read; all that the replacement depends on besides the key.
        """
        units = _UNIT.findall(inner)
        seed = self._key + text.encode("utf-8", "surrogatepass")
        stream = hashlib.shake_256(seed).digest(_BYTES_PER_CHARACTER * len(units))
        out, after_digit = [], False
        for place, unit in enumerate(units):
            start = place * _BYTES_PER_CHARACTER
            chance = int.from_bytes(stream[start : start + _BYTES_PER_CHARACTER], "big")
            if unit.startswith("\\u"):
                character: str = json.loads(f'"{unit}"')
                out.append(_escaped(_other(character, chance, leading=not after_digit)))
            else:
                character = unit[-1]
                out.append(unit if len(unit) > 1 else _other(unit, chance, leading=not after_digit))
            after_digit = character.isdigit()
        return "".join(out)


def _escaped(character: str) -> str:
    return json.dumps(character)[1:-1] if ord(character) >= _ASCII_END else f"\\u{ord(character):04x}"


def _other(character: str, chance: int, *, leading: bool) -> str:
    """Another character of the same kind; itself where it says nothing by itself: punctuation, spaces, joiners.

    Args:
        character: any.
        chance: which of the others.
        leading: for a digit, that none stands before it: zero stays, and no other becomes zero.
    """
    code = ord(character)
    if character in "0123456789":
        digits = range(ord("1"), ord("9") + 1) if leading else range(ord("0"), ord("9") + 1)
        return _another(code, digits, chance) if code in digits else character
    if code < _ASCII_END:
        letters = range(ord("a"), ord("z") + 1) if character.islower() else range(ord("A"), ord("Z") + 1)
        return _another(code, letters, chance) if character.isalpha() else character
    category = unicodedata.category(character)
    if category[0] in "LN":
        small = _LETTERS_OF_2_BYTES if code < _TWO_BYTES_END else _LETTERS_OF_3_BYTES
        return _another(code, small if code < _BMP_END else _EMOJI, chance)
    if category == "So":
        return _another(code, _SYMBOLS if code < _BMP_END else _EMOJI, chance)
    return character


def _another(code: int, among: range, chance: int) -> str:
    """One of a range, never the same."""
    if code not in among:
        return chr(among[chance % len(among)])
    return chr(among[(among.index(code) + 1 + chance % (len(among) - 1)) % len(among)])


@cache
def _known_keys() -> frozenset[str]:
    """Every key that a schema has, and those of the envelope."""

    def names(node: Any) -> Iterator[str]:  # noqa: ANN401 - any part of a schema
        if isinstance(node, list):
            for part in node:
                yield from names(part)
        elif isinstance(node, dict):
            for member in node.get("fields", ()):
                yield str(member["name"]).removesuffix("_json")
                yield from names(member["type"])
            yield from names(node.get("items"))

    return frozenset(
        {
            *_ENVELOPE,
            *_FREE_FORM,
            *WEBHOOK_FIELD_OF_KEY,
            *(name for field in WEBHOOK_FIELDS for name in names(load(field))),
        }
    )

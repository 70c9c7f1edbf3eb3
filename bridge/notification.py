"""A notification: the parsed body, split into the items that become records. Does no IO, reads no clock.

The shapes (developers.facebook.com/docs/graph-api/webhooks/getting-started and the Instagram reference, read 2026-11-22):
``{object, entry: [{id, time, messaging: […], standby: […], changes: [{field, value}, …]}, …]}``; the flat form puts
``field`` and ``value`` into the entry, the bare form is a lone ``{field, value}``, and a body may be an array of these.

Every item keeps its exact bytes. There are three ways to the same items (tests/properties), each for what the one before
leaves: the usual delivery in one call of msgspec for the body and one for each item; any other, member by member,
with msgspec's Raw; and what msgspec refuses although JSON allows it (a lone surrogate, 1e999), or what looks deeply nested,
with a scanner on the standard library's json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from bridge.coercion import as_id, as_milliseconds
from bridge.errors import NotUtf8, Unreadable, UnsupportedObject, WrongShape
from bridge.jsontext import CAREFUL, DEPTH_MAX, FAST, WHITESPACE, Scanner, Slice, check, openings

_ENVELOPE_DEPTH = 5
"""An array of notifications, the body, its entry array, an entry, its messaging array: what may lie above an item."""

_BODY_KEYS = frozenset({"object", "entry"})
_ENTRY_KEYS = frozenset({"id", "time", "messaging", "standby", "changes", "field", "value"})

Origin = Literal["messaging", "standby", "changes", "entry"]
_Array = Literal["messaging", "standby", "changes"]
_ARRAYS: tuple[_Array, ...] = ("messaging", "standby", "changes")
_Scalar = TypeVar("_Scalar", str, int)


class Note(NamedTuple):
    """Something unexpected that was kept anyway; counted, never fatal.

    ``kind`` is ``unknown_key``, ``unknown_value``, ``wrong_type``, ``second_key``, ``empty`` or ``unreadable``; ``path`` is made of Meta's
    keys and ``[]``, but for what is unreadable: there it is the dead letter's reason.
    """

    kind: str
    path: str


class Item(msgspec.Struct, frozen=True, gc=False):
    """One element of messaging[], standby[] or changes[], one flat or bare change, or an entry that holds none.

    Attributes:
        origin: where it stood; bare and flat changes are ``changes``.
        raw: its JSON text, sliced from the body: the array element, the flat form's entry, the bare form's body.
        value: the same, parsed; lone surrogates are U+FFFD. Of a flat form only its ``field`` and ``value``.
        entry_id: the entry's id; null for a bare form.
        sent_at: the entry's time, milliseconds since the Unix epoch.
        flat: the change stands in the entry itself, so ``raw`` holds more than the item.
    """

    origin: Origin
    raw: bytes
    value: object
    entry_id: str | None
    sent_at: int | None
    flat: bool = False


class UnreadablePart(msgspec.Struct, frozen=True):
    """An element of an array of notifications that is none; its neighbours are read."""

    raw: bytes
    error: Unreadable


class Notification(msgspec.Struct, frozen=True):
    """What a body holds, in the order in which it stood."""

    items: list[Item]
    unreadable: list[UnreadablePart]
    notes: list[Note]


def parse(body: bytes) -> Notification:
    """Read a body into its items.

    Raises:
        NotUtf8, NotJson, NestedTooDeep, WrongShape, UnsupportedObject: nothing of it can be read.
    """
    if not body.isascii():
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise NotUtf8(f"invalid UTF-8 at byte {error.start}") from None
    usual = _usual(body)
    if usual is not None:
        return usual
    brackets = openings(body)
    maybe_deep = brackets > DEPTH_MAX
    reader = _Reader(FAST, count_brackets=maybe_deep)
    try:
        found = reader.read(body)
        if not maybe_deep or reader.shallow_brackets == brackets:
            return found
    except Unreadable:
        if not maybe_deep:
            raise
    except (msgspec.DecodeError, RecursionError):
        pass
    # What msgspec refuses may still be JSON, and brackets that no item accounts for may nest: the careful scanner decides.
    text = body.strip(WHITESPACE)
    check(text)
    return _Reader(CAREFUL).read(text)


class _Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A usual entry: nothing in it but these, nothing of a wrong type, and the bytes of its items."""

    id: str
    time: int
    messaging: list[msgspec.Raw] = []
    standby: list[msgspec.Raw] = []


class _Body(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A usual body."""

    object: Literal["instagram"]
    entry: list[_Entry]


def _values(depth: int) -> Any:  # noqa: ANN401 - a type that is made here
    """The type of JSON that has at most so many objects and arrays within one another."""
    scalar = str | int | float | bool | None
    if not depth:
        return scalar
    within = _values(depth - 1)
    return scalar | dict[str, within] | list[within]  # type: ignore[valid-type] # made here, for msgspec to read


_ITEM_DEPTH_MAX = 8
"""Objects and arrays within a usual item; Meta's deepest documented one has 4. msgspec holds it, so nobody has to count brackets."""

_body_of = msgspec.json.Decoder(_Body).decode
_item_of: Callable[[msgspec.Raw], object] = msgspec.json.Decoder(dict[str, _values(_ITEM_DEPTH_MAX)]).decode  # type: ignore[misc] # a type that is made


def _usual(body: bytes) -> Notification | None:
    """Read a body that holds items of messaging[] or standby[], and nothing odd outside them; None for any other."""
    items: list[Item] = []
    try:
        for entry in _body_of(body).entry:
            entry_id, sent_at = entry.id, as_milliseconds(entry.time)
            if sent_at is None or not (entry.messaging or entry.standby):
                return None
            for text in entry.messaging:
                items.append(Item("messaging", bytes(text), _item_of(text), entry_id, sent_at))  # noqa: PERF401 - most have one
            for text in entry.standby:
                items.append(Item("standby", bytes(text), _item_of(text), entry_id, sent_at))  # noqa: PERF401 - as above
    except (msgspec.DecodeError, RecursionError):
        return None
    return Notification(items, [], []) if items else None


class _Reader:
    """Walks one body with one scanner."""

    def __init__(self, scan: Scanner, *, count_brackets: bool = False) -> None:
        self._scan = scan
        self._count_brackets = count_brackets
        self.shallow_brackets = 0
        """Opening brackets in places that are certainly not too deep: the envelope's own, and those of small items."""
        self._found = Notification(items=[], unreadable=[], notes=[])

    def read(self, body: bytes) -> Notification:
        several = self._scan.elements(body) if body.lstrip(WHITESPACE)[:1] == b"[" else None
        if several is None:
            self._notification(body)
            return self._found
        self.shallow_brackets += 1
        for element in several:
            try:
                self._notification(element)
            except Unreadable as error:
                self._found.unreadable.append(UnreadablePart(raw=bytes(element), error=error))
        if not several:
            self._note("empty", "[]")
        return self._found

    def _notification(self, text: Slice) -> None:
        body = self._scan.members(text)
        if body is None:
            raise WrongShape("neither an object nor an array")
        if "entry" not in body and "field" in body and "value" in body:
            raw = bytes(text).strip(WHITESPACE)
            self._found.items.append(Item("changes", raw, self._scan.value(text), entry_id=None, sent_at=None))
            return
        if "object" not in body or self._scan.value(body["object"]) != "instagram":
            raise UnsupportedObject("object is missing or not instagram")
        entries = self._scan.elements(body["entry"]) if "entry" in body else None
        if entries is None:
            raise WrongShape("entry is missing or no array")
        self.shallow_brackets += 2
        self._unknown_keys(body, _BODY_KEYS, "")
        if not entries:
            self._note("empty", "entry")
        for entry in entries:
            self._entry(entry)

    def _entry(self, text: Slice) -> None:
        items = self._found.items
        before = len(items)
        entry = self._scan.members(text)
        entry_id = sent_at = None
        if entry is not None:
            self.shallow_brackets += 1
            entry_id = self._scalar(entry, "id", as_id)
            sent_at = self._scalar(entry, "time", as_milliseconds)
            for origin in _ARRAYS:
                if origin in entry:
                    self._array(entry[origin], origin, entry_id, sent_at)
            if "field" in entry and "value" in entry:
                change = {key: self._scan.value(entry[key]) for key in ("field", "value")}
                items.append(Item("changes", bytes(text), change, entry_id, sent_at, flat=True))
            self._unknown_keys(entry, _ENTRY_KEYS, "entry[].")
        if len(items) == before:
            self._note("empty", "entry[]")
            items.append(Item("entry", bytes(text), self._scan.value(text), entry_id, sent_at))

    def _array(self, text: Slice, origin: _Array, entry_id: str | None, sent_at: int | None) -> None:
        elements = self._scan.elements(text)
        if elements is None:
            self._note("wrong_type", f"entry[].{origin}")
            return
        self.shallow_brackets += 1
        for element in elements:
            raw = bytes(element)
            if self._count_brackets:
                self._count(raw)
            self._found.items.append(Item(origin, raw, self._scan.value(element), entry_id, sent_at))

    def _scalar(
        self, entry: Mapping[str, Slice], key: str, coerce: Callable[[object], _Scalar | None]
    ) -> _Scalar | None:
        value = self._scan.value(entry[key]) if key in entry else None
        scalar = None if value is None else coerce(value)
        if scalar is None and value is not None:
            self._note("wrong_type", f"entry[].{key}")
        return scalar

    def _unknown_keys(self, members: Mapping[str, Slice], known: frozenset[str], path: str) -> None:
        if not known.issuperset(members):
            for key in members.keys() - known:
                self._note("unknown_key", path + key)
                if self._count_brackets:
                    self._count(bytes(members[key]))

    def _count(self, raw: bytes) -> None:
        """Account for the brackets of an item, or of an unknown key, unless it could be too deep where it stands."""
        brackets = openings(raw)
        if brackets <= DEPTH_MAX - _ENVELOPE_DEPTH:
            self.shallow_brackets += brackets

    def _note(self, kind: str, path: str) -> None:
        self._found.notes.append(Note(kind, path))

"""Avro: from each .avsc, one function that types an event and writes it, in one pass. Does no IO, reads no clock.

The schema file is the table of what Meta sends; there is no second list of keys. From it, at start, ``Encoder`` generates
Python source (``Encoder.source`` shows it) whose bytes equal fastavro's (tests/properties), at a quarter of its time. A
field is read by these rules:

- a string named ``id``, ``mid`` or ``…_id`` is an id, which may come as a whole number;
- a string named ``<key>_json`` holds the JSON text of whatever stands under Meta's ``<key>``;
- ``long``, ``timestamp-millis`` and ``boolean`` take what `bridge.coercion` takes;
- everything else takes its own JSON type. A wrong type is null and noted; a key without a field is noted, and so is an
  attachment's type that is not known.

Value layouts: Confluent's (0x00, four bytes of schema id, big-endian) with a registry, Avro's single-object encoding
(C3 01, CRC-64-AVRO little-endian; Avro 1.12 specification, "Single-object encoding") without one.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any, get_args

import fastavro
import msgspec
from fastavro.schema import fingerprint, to_parsing_canonical_form

from bridge.coercion import as_flag, as_id, as_long, as_milliseconds
from bridge.event import ATTACHMENT_TYPES, CHANGE_FIELDS, STANDBY, WEBHOOK_FIELD_OF_KEY, Event
from bridge.notification import Note, Origin
from bridge.varint import LENGTHS, SHORT_BYTES, counted, varint

Schema = dict[str, Any]
"""A parsed .avsc."""

_IDS_MAX, _ID_BYTES_MAX = 4096, 64
"""Accounts' ids that are remembered as they are written, and the longest of them: 0.6 MB, then they start afresh. Meta's have 15 to 20
digits. A customer's is written anew: there are so many that finding one costs more than writing it."""

_TIMES_MAX = 4096
"""Times that are remembered: a few deliveries' worth, half a MB."""

_KNOWN_VALUES = {"attachments[].type": ATTACHMENT_TYPES}
"""Where Meta chooses from a list that grows, by the end of the path."""

_VALUE_TO_NAME = re.compile(r"[a-z0-9_]{1,40}", re.ASCII)
"""A value that looks like a word of Meta's is noted by name; anything else might be content."""

_MESSAGING_KEYS = frozenset({"sender", "recipient", "timestamp", *WEBHOOK_FIELD_OF_KEY})
_CHANGE_KEYS = frozenset({"field", "value"})


def pascal_case(webhook_field: str) -> str:
    """The record's name for a webhook field or topic: ``message_edit`` → ``MessageEdit``."""
    return "".join(word.capitalize() for word in webhook_field.split("_"))


def root_path(webhook_field: str) -> str:
    """What the paths of its notes begin with: a change's value and standby's keys say nothing of their webhook field."""
    return f"{webhook_field}." if webhook_field in {STANDBY, *CHANGE_FIELDS} else ""


def confluent_prefix(schema_id: int) -> bytes:
    """Confluent wire format's five bytes (docs.confluent.io, "Wire format")."""
    return b"\0" + schema_id.to_bytes(4, "big")


def single_object_prefix(schema: Schema) -> bytes:
    """Single-object encoding's ten bytes; fastavro gives the fingerprint in little-endian order already."""
    return b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"))


class Encoder:
    """Writes the events of one webhook field.

    Args:
        webhook_field: the topic's field.
        schema: its record, as parsed from the .avsc.
        prefix: what stands before the Avro bytes, see ``confluent_prefix`` and ``single_object_prefix``.
    """

    def __init__(self, webhook_field: str, schema: Schema, prefix: bytes) -> None:
        generator = _Generator(webhook_field, schema, prefix)
        self.source = generator.source()
        exec(compile(self.source, f"<{schema['name']}.avsc>", "exec"), generator.names)  # noqa: S102 - our own text, made from our own schema files
        self.encode: Callable[[Event, bytes, list[Note]], bytes] = generator.names["encode"]
        """``encode(event, arrival, notes) → value``; ``arrival`` is ``encode_arrival`` of the delivery."""


def encode_arrival(received_at: int, delivery_id: str) -> bytes:
    """The two fields that all records of a delivery share, written once per delivery."""
    return _TIMES[received_at][1:] + counted(delivery_id.encode())  # without the branch: neither is nullable


class DeadLetterEncoder:
    """Writes dead letters: rare, so by fastavro as it is."""

    def __init__(self, schema: Schema, prefix: bytes) -> None:
        self._schema = fastavro.parse_schema(schema)
        self._prefix = prefix

    def encode(self, dead_letter: Mapping[str, object]) -> bytes:
        """The value of one DeadLetter record."""
        out = io.BytesIO(self._prefix)
        out.seek(0, io.SEEK_END)
        fastavro.schemaless_writer(out, self._schema, dead_letter)
        return out.getvalue()


class _Generator:
    """Source text of one ``encode``. A branch of a nullable union is its index: 0 null, 1 the value (zigzag 02)."""

    def __init__(self, webhook_field: str, schema: Schema, prefix: bytes) -> None:
        self._schema = schema
        self._root = root_path(webhook_field)
        self._lines = [
            "def encode(event, arrival, notes):",
            *_CUSTOMER,
            " typed = event.typed",
            " text = event.event_id.encode()",
        ]
        self._types: dict[str, Schema] = {}
        self.names: dict[str, Any] = {
            "PREFIX": prefix,
            "SHORT": SHORT_BYTES,
            "SOME": _SOME_LENGTHS,
            "ID": _IDS,
            "TIME": _TIMES,
            "ONCE": (None,),
            "some": _some,
            "some_length": _some_length,
            "SIZE": LENGTHS,
            "FIELD_AND_ORIGIN": {
                origin: counted(webhook_field.encode()) + counted(origin.encode()) for origin in get_args(Origin)
            },
            "varint": varint,
            "as_id": as_id,
            "as_long": as_long,
            "as_flag": as_flag,
            "as_milliseconds": as_milliseconds,
            "json": msgspec.json.encode,
            "Note": Note,
            "note_unknown": _note_unknown,
            "note_value": _note_value,
        }

    def source(self) -> str:
        typed_keys: set[str] = set()
        members = self._schema["fields"]
        head = [*itertools.takewhile(_EVERY.__contains__, (member["name"] for member in members))]
        self._put(1, f"out = [PREFIX, {', '.join(part for name in head for part in _EVERY[name])}]", "put = out.append")
        for member in members[len(head) :]:
            name = member["name"]
            if name == "named_field":
                self._put(1, "text = event.named_field", "put(b'\\0' if text is None else some(text.encode()))")
            elif name == "raw":
                self._put(1, "text = event.raw", "size = len(text)")
                self._put(1, "put(SIZE[size] if size < SHORT else varint(size))", "put(text)")
            else:
                self._typed(member, "typed", self._root, 1)
                typed_keys.add(_key(name))
        if typed_keys:
            known = _CHANGE_KEYS if "value" in typed_keys else _MESSAGING_KEYS
            self._unknown("typed", known | typed_keys, self._root, 1)
            for party in sorted({"sender", "recipient"} & known):
                self._put(1, f"party = typed.get({party!r})", "if party.__class__ is dict and len(party) > 1:")
                self._unknown("party", frozenset({"id"}), f"{self._root}{party}.", 2)
        self._put(1, "return b''.join(out)")
        return "\n".join(self._lines)

    def _put(self, depth: int, *lines: str) -> None:
        self._lines.extend(" " * depth + line for line in lines)

    def _unknown(self, holder: str, known: frozenset[str], path: str, depth: int) -> None:
        constant = f"KNOWN_{len(self.names)}"
        self.names[constant] = known
        self._put(depth, f"if not {constant}.issuperset({holder}):")
        self._put(depth, f" note_unknown({holder}, {constant}, {path!r}, notes)")

    def _typed(self, member: Schema, holder: str, path: str, depth: int) -> None:
        """Write one nullable field of an object that is held in a variable."""
        name = member["name"]
        kind = next(branch for branch in member["type"] if branch != "null")
        kind = self._types.get(kind, kind) if isinstance(kind, str) else kind
        value = f"v{depth}"
        path += _key(name)
        self._put(depth, f"{value} = {holder}.get({_key(name)!r})", f"if {value} is None: put(b'\\0')")
        if isinstance(kind, dict) and kind["type"] == "record":
            self._put(depth, f"elif {value}.__class__ is dict:", " put(b'\\2')")
            self._record(kind, value, f"{path}.", depth + 1)
            self._wrong(depth, path)
        elif isinstance(kind, dict) and kind["type"] == "array":
            self._put(depth, f"elif {value}.__class__ is list:", " put(b'\\2')")
            self._array(kind["items"], value, path, depth + 1)
            self._wrong(depth, path)
        elif name.endswith("_json"):
            self._put(depth, "else:", f" put(some(json({value})))")
        else:
            self._scalar(name, kind, value, path, depth)

    def _scalar(self, name: str, kind: Any, value: str, path: str, depth: int) -> None:  # noqa: ANN401 - an Avro type: name or object
        if kind == "string":
            self._put(depth, f"elif {value}.__class__ is str:")
            self._string(value, depth + 1)
            for known in (values for place, values in _KNOWN_VALUES.items() if path.endswith(place)):
                constant = f"KNOWN_{len(self.names)}"
                self.names[constant] = known
                self._put(depth + 1, f"if {value} not in {constant}: note_value({value}, {path!r}, notes)")
            if name in {"id", "mid"} or name.endswith("_id"):
                self._put(depth, f"elif {value}.__class__ is int: put(some(str({value}).encode()))")
        elif kind == "boolean":
            self._put(depth, f"elif (flag := as_flag({value})) is not None: put(b'\\2\\1' if flag else b'\\2\\0')")
        else:
            coerce = "as_long" if kind == "long" else "as_milliseconds"
            self._put(depth, f"elif (number := {coerce}({value})) is not None: put(b'\\2' + varint(number))")
        self._wrong(depth, path)

    def _record(self, kind: Schema, holder: str, path: str, depth: int) -> None:
        self._types[kind["name"]] = self._types[f"{kind.get('namespace', 'instagram_bridge.types')}.{kind['name']}"] = (
            kind
        )
        # Most objects have few of their keys, and the usual ones first: when all that are there are written, nulls follow.
        members, left = kind["fields"], f"left{depth}"
        self._put(depth, f"{left} = len({holder})", "for _ in ONCE:")
        for at, member in enumerate(members, 1):
            self._typed(member, holder, path, depth + 1)
            self._put(depth + 1, f"if v{depth + 1} is not None:", f" {left} -= 1", f" if not {left}:")
            nulls = bytes(len(members) - at)
            self._put(depth + 3, *([f"put({nulls!r})"] if nulls else []), "break")
        self._put(depth, "else:")
        self._unknown(holder, frozenset(_key(member["name"]) for member in members), path, depth + 1)

    def _array(self, items: Any, value: str, path: str, depth: int) -> None:  # noqa: ANN401 - an Avro type: name or object
        """Write one block. An element of a wrong type keeps its place as a record of nulls: positions stay Meta's."""
        element = f"e{depth}"
        record: Schema = self._types[items] if isinstance(items, str) else items
        self._put(depth, f"if {value}:", f" put(varint(len({value})))", f" for {element} in {value}:")
        self._put(depth + 2, f"if {element}.__class__ is not dict:")
        self._put(depth + 2, f" notes.append(Note('wrong_type', '{path}[]'))", f" {element} = {{}}")
        self._record(record, element, f"{path}[].", depth + 2)
        self._put(depth, "put(b'\\0')")

    def _string(self, value: str, depth: int) -> None:
        self._put(depth, f"text = {value}.encode()", "size = len(text)")
        self._put(depth, "put(SOME[size] if size < SHORT else some_length(size))", "put(text)")

    def _wrong(self, depth: int, path: str) -> None:
        self._put(depth, "else:", " put(b'\\0')", f" notes.append(Note('wrong_type', {path!r}))")


def _key(name: str) -> str:
    """Meta's key for a field."""
    return name.removesuffix("_json")


_EVERY = {
    "event_id": ("SIZE[len(text)]", "text"),
    "webhook_field": (),
    "origin": ("FIELD_AND_ORIGIN[event.origin]",),
    **{name: (f"ID[event.{name}]",) for name in ("entry_id", "account_id")},
    "customer_id": ("customer",),
    **{
        name: (f"customer if event.{name} is customer_id else ID[event.{name}]",)
        for name in ("sender_id", "recipient_id")
    },
    **{name: (f"TIME[event.{name}]",) for name in ("occurred_at", "sent_at")},
    "received_at": ("arrival",),
    "delivery_id": (),
}
"""How the fields that every event begins with are written: from the event, not from Meta's keys."""

_CUSTOMER = (
    " customer_id = event.customer_id",
    " if customer_id is None: customer = b'\\0'",
    " else:",
    "  text = customer_id.encode()",
    "  size = len(text)",
    "  customer = (SOME[size] if size < SHORT else some_length(size)) + text",
)
"""The customer's id, for its own field and for the party that it is."""


def _some_length(size: int) -> bytes:
    return b"\2" + varint(size)


def _some(content: bytes) -> bytes:
    """The string branch of a nullable string."""
    return b"\2" + counted(content)


_SOME_LENGTHS = [_some_length(size) for size in range(SHORT_BYTES)]


class _Ids(dict[str | None, bytes]):
    """Nullable ids as Avro writes them: an event names its account three times."""

    def __missing__(self, text: str | None) -> bytes:
        written = b"\0" if text is None else _some(text.encode())
        if len(written) <= _ID_BYTES_MAX:
            if len(self) >= _IDS_MAX:
                self.clear()
            self[text] = written
        return written


class _Times(dict[int | None, bytes]):
    """Nullable times as Avro writes them: the events of an entry share its time."""

    def __missing__(self, number: int | None) -> bytes:
        written = b"\0" if number is None else b"\2" + varint(number)
        if len(self) >= _TIMES_MAX:
            self.clear()
        self[number] = written
        return written


_IDS, _TIMES = _Ids(), _Times()


def _note_value(value: str, path: str, notes: list[Note]) -> None:
    notes.append(Note("unknown_value", f"{path}={value if _VALUE_TO_NAME.fullmatch(value) else '(other)'}"))


def _note_unknown(holder: Mapping[str, object], known: frozenset[str], path: str, notes: list[Note]) -> None:
    notes.extend(Note("unknown_key", path + key) for key in holder.keys() - known)

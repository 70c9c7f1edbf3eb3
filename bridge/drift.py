"""Drift: what Meta sends that the schemas do not know, found by walking records down the street again. Does no IO, reads no clock.

The records' own ``raw`` is read with today's schemas, whichever bridge wrote them: what has got a type since is no drift.
Keys of an envelope are in no record; ``instagram_bridge_unexpected_total`` counts those.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bridge.encoding import Encoder, encode_arrival, root_path
from bridge.event import CHANGE_FIELDS, MESSAGING_FIELDS, OTHER, WEBHOOK_FIELDS, Event, describe
from bridge.notification import Item, Note, parse
from bridge.reassembly import body_of
from bridge.schemas import load

FINDINGS_MAX = 500
"""Different findings that are told apart; more are counted together. All of Meta's schema has about 150 keys."""

MORE = "(more)"
_PATH_CHARACTERS_MAX = 100
"""A key longer than this is no key of Meta's; its beginning names it."""

_ENVELOPE_OF_ITEM = frozenset({"sender", "recipient", "timestamp"})
_NO_DRIFT = frozenset({"empty", "unreadable"})
"""Notes of deliveries that hold nothing, or nothing that can be read: no new key helps them."""


@dataclass
class Finding:
    """Something that the schemas do not know.

    Attributes:
        webhook_field: of the records that have it.
        kind: ``unknown_key``, ``unknown_value`` (a type of attachment), ``wrong_type``, ``second_key``, ``unknown_field`` (a
            change of a webhook field without a schema), or ``unknown_item`` (an item whose key belongs to no webhook field).
        path: Meta's keys, ``[]`` for an array's elements.
        first_ms, last_ms: when the first and the last of these records were received, milliseconds since the Unix epoch.
        place: topic, partition and offset of the first.
        types: the JSON types that the values of an unknown key had.
    """

    webhook_field: str
    kind: str
    path: str
    first_ms: int
    last_ms: int
    place: tuple[str, int, int]
    count: int = 0
    types: set[str] = field(default_factory=set)


class Drift:
    """Collects findings; its memory is bounded by FINDINGS_MAX."""

    def __init__(self) -> None:
        self._findings: dict[tuple[str, str, str], Finding] = {}
        self._encoders = {
            webhook_field: Encoder(webhook_field, load(webhook_field), b"") for webhook_field in WEBHOOK_FIELDS
        }
        self._arrival = encode_arrival(0, "")

    @property
    def findings(self) -> list[Finding]:
        """The newest first."""
        return sorted(
            self._findings.values(), key=lambda each: (-each.first_ms, each.webhook_field, each.kind, each.path)
        )

    def look(self, value: Mapping[str, Any], place: tuple[str, int, int]) -> None:
        """Walk one record.

        Args:
            value: the decoded record; times in milliseconds since the Unix epoch.
            place: its topic, partition and offset.

        Raises:
            Unreadable: its raw is no item; the bridge wrote no such record.
        """
        notification = parse(body_of(value))
        for item in notification.items:
            notes = list(notification.notes)
            event = describe(item, notes)
            self._encoders[event.webhook_field].encode(event, self._arrival, notes)
            notes += _untyped(item, event)
            for note in set(notes):
                if note.kind not in _NO_DRIFT:
                    self._count(event, note, int(value["received_at"]), place)

    def _count(self, event: Event, note: Note, received_at: int, place: tuple[str, int, int]) -> None:
        name = (event.webhook_field, note.kind, note.path[:_PATH_CHARACTERS_MAX])
        if name not in self._findings and len(self._findings) >= FINDINGS_MAX:
            name = (event.webhook_field, note.kind, MORE)
        finding = self._findings.setdefault(name, Finding(*name, received_at, received_at, place))
        finding.count += 1
        finding.last_ms = max(finding.last_ms, received_at)
        if received_at < finding.first_ms:
            finding.first_ms, finding.place = received_at, place
        if note.kind == "unknown_key":
            path = note.path.removeprefix(root_path(event.webhook_field))
            finding.types.update(_json_type(found) for found in _found(event.typed, path))


def _untyped(item: Item, event: Event) -> Iterator[Note]:
    """Of what went to ``other``: the field that a change names, or the keys that name no webhook field."""
    if event.webhook_field != OTHER or event.origin == "entry" or not isinstance(item.value, dict):
        return
    holder = item.value
    if event.named_field in MESSAGING_FIELDS:
        holder = item.value["value"]
    elif event.named_field is not None:
        if event.named_field not in CHANGE_FIELDS:  # else its value is no object, which is noted
            yield Note("unknown_field", event.named_field)
        return
    if event.kind is None:
        for key in holder.keys() - _ENVELOPE_OF_ITEM:
            yield Note("unknown_item", key)


def _found(holder: object, path: str) -> Iterator[object]:
    """The values under a path; an array's elements are looked through."""
    if not isinstance(holder, dict):
        return
    if path in holder:  # the last of them, which may have a dot itself
        yield holder[path]
        return
    key, _, rest = path.partition(".")
    inner = holder.get(key.removesuffix("[]"))
    for element in inner if key.endswith("[]") and isinstance(inner, list) else [inner]:
        yield from _found(element, rest)


def _json_type(value: object) -> str:
    names: dict[type, str] = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        dict: "object",
        list: "array",
    }
    return names.get(type(value), "null")

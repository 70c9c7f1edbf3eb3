"""The next schemas: what drift found, as fields to be added. Does no IO, reads no clock.

A proposal keeps the rules of schemas/README.md: nullable, null first, default null; ids are strings; what has no single simple
type becomes ``<key>_json``. A nested type is changed in every schema that has it. What a key means a person has to say.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bridge.drift import Finding
from bridge.encoding import Schema, root_path

_DOC = "TODO: say what it is, in which unit, and where Meta documents it, null when absent or unreadable."
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
_ID_NAMES = frozenset({"id", "mid"})


class Proposal(NamedTuple):
    """What became of findings.

    Attributes:
        schemas: the changed ones, by topic field.
        added: of each field its path, and its name in the schema.
        left: findings from which no field can be made, and why.
    """

    schemas: dict[str, Schema]
    added: list[tuple[str, str]]
    left: list[tuple[Finding, str]]


def propose(webhook_field: str, findings: Iterable[Finding], schemas: Mapping[str, Schema]) -> Proposal:
    """Add the unknown keys of a webhook field to its schema, and to all others that share the changed types.

    Args:
        webhook_field: whose findings these are.
        findings: of `bridge.drift`.
        schemas: the packaged ones, by topic field; they are not changed.
    """
    changed = {name: copy.deepcopy(schema) for name, schema in schemas.items()}
    added, left = [], []
    for finding in sorted(findings, key=lambda each: each.path):
        try:
            added.append((finding.path, _add(finding, webhook_field, changed)))
        except _NotProposed as why:
            left.append((finding, str(why)))
    return Proposal({name: schema for name, schema in changed.items() if schema != schemas[name]}, added, left)


class _NotProposed(Exception):
    """Why there is no field for a finding."""


def _add(finding: Finding, webhook_field: str, schemas: Mapping[str, Schema]) -> str:
    """Add a field to the type that holds it, wherever that is defined; gives its name."""
    if finding.kind != "unknown_key":
        raise _NotProposed(_REMEDIES.get(finding.kind, "it is no key"))
    *holders, key = finding.path.removeprefix(root_path(webhook_field)).split(".")
    if not _NAME.fullmatch(key):
        raise _NotProposed("Avro has no such name; give it one by hand")
    member = _member(key, finding.types)
    holder = _holder(schemas[webhook_field], holders)
    for schema in schemas.values():
        for definition in _definitions(schema):
            if _full_name(definition) == _full_name(holder) and definition is not holder:
                _insert(definition, member)
    _insert(holder, member)
    return str(member["name"])


_REMEDIES = {
    "unknown_value": "add it to ATTACHMENT_TYPES in bridge/event.py; it is published already",
    "wrong_type": "a released field keeps its type: raw has the value",
    "second_key": "raw has it",
    "unknown_field": 'it needs a schema of its own: see CONTRIBUTING.md, "A key that Meta added"',
    "unknown_item": 'it needs a webhook field of its own: see CONTRIBUTING.md, "A key that Meta added"',
}


def _member(key: str, types: set[str]) -> Schema:
    """The field for a key whose values had these JSON types."""
    seen = types - {"null"}
    name = key
    kind: object = None
    if not seen:
        raise _NotProposed("only null was seen, so nobody knows its type")
    if key in _ID_NAMES or key.endswith("_id"):
        kind = "string" if seen <= {"string", "integer"} else None
    elif key.startswith("is_"):
        kind = "boolean" if seen <= {"boolean", "string", "integer"} else None
    elif seen == {"integer"}:
        kind = _MILLIS if key.endswith(("_at", "_timestamp")) else "long"
    elif len(seen) == 1:
        kind = {"string": "string", "boolean": "boolean"}.get(*seen)
    if kind is None:
        name = f"{key}_json"
        kind = "string"
    return {"name": name, "doc": _DOC, "type": ["null", copy.copy(kind)], "default": None}


def _holder(schema: Schema, path: list[str]) -> Schema:
    """The record type that a path of keys leads to."""
    types = {_full_name(definition): definition for definition in _definitions(schema)}
    holder = schema
    for key in path:
        kind = next((member["type"] for member in holder["fields"] if member["name"] == key.removesuffix("[]")), None)
        kind = kind[-1] if isinstance(kind, list) else kind
        if isinstance(kind, dict) and kind["type"] == "array":
            kind = kind["items"]
        kind = types.get(kind) if isinstance(kind, str) else kind
        if not isinstance(kind, dict) or kind["type"] != "record":
            raise _NotProposed(f"no schema has an object under {key}: raw has it")
        holder = kind
    return holder


def _insert(definition: Schema, member: Schema) -> None:
    fields = definition["fields"]
    if all(known["name"] != member["name"] for known in fields):
        place = len(fields) - 1 if fields[-1]["name"] == "raw" else len(fields)
        fields.insert(place, copy.deepcopy(member))


def _definitions(node: Any) -> Iterator[Schema]:  # noqa: ANN401 - any part of a schema
    """The record types of a schema, itself the first."""
    if isinstance(node, list):
        for part in node:
            yield from _definitions(part)
    elif isinstance(node, dict):
        if node.get("type") == "record":
            yield node
        for part in node.values():
            yield from _definitions(part)


def _full_name(definition: Schema) -> str:
    return f"{definition.get('namespace')}.{definition['name']}"

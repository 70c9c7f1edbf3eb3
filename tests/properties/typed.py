"""The typed part as the schemas alone say it: a tolerant reading that shares no line with bridge/."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.properties.jsontree import Node, elements, flag, identifier, is_object, member, milliseconds, string, whole
from tests.properties.reference import Expected


def typed_record(schema: dict[str, Any], expected: Expected, *, received_at: int, delivery_id: str) -> dict[str, Any]:
    """The whole record as fastavro takes it."""
    named = {f"{found['namespace']}.{found['name']}": found for found in _records(schema)}
    common = {**vars(expected), "received_at": received_at, "delivery_id": delivery_id}
    return {
        field["name"]: common[field["name"]] if field["name"] in common else _typed(field, expected.holder, named)
        for field in schema["fields"]
    }


def _records(node: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any part of a schema
    if isinstance(node, dict):
        if node.get("type") == "record":
            yield node
        for child in node.values():
            yield from _records(child)
    elif isinstance(node, list):
        for child in node:
            yield from _records(child)


def _typed(field: dict[str, Any], holder: Node, named: dict[str, dict[str, Any]]) -> Any:  # noqa: ANN401 - any Avro value
    name, kind = field["name"], field["type"][1]
    if name.endswith("_json"):
        node = member(holder, name.removesuffix("_json"))
        return None if node is None or node.value is None else node.text
    return _value(name, kind, member(holder, name), named)


def _value(name: str, kind: Any, node: Node | None, named: dict[str, dict[str, Any]]) -> Any:  # noqa: ANN401 - any Avro value
    is_id = name in ("id", "mid") or name.endswith("_id")
    scalars = {"string": identifier if is_id else string, "boolean": flag, "long": whole}
    if isinstance(kind, str) and kind in scalars:
        return scalars[kind](node)
    kind = named.get(kind, kind) if isinstance(kind, str) else kind
    if kind.get("logicalType") == "timestamp-millis":
        return milliseconds(node)
    if kind["type"] == "array":
        found = elements(node)
        objects = [element if is_object(element) else Node("{}", {}) for element in found or ()]
        return None if found is None else [_value(name, kind["items"], element, named) for element in objects]
    if node is None or not is_object(node):
        return None
    return {field["name"]: _typed(field, node, named) for field in kind["fields"]}

"""A record of an event as the body of a delivery that walks the street to the same record. Does no IO, reads no clock.

What a body held besides the item is not kept in its record: the other items, and keys of the entry that nobody knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bridge.coercion import as_id, as_milliseconds


def body_of(value: Mapping[str, Any]) -> bytes:
    """A body with one item, in the form in which it came: in an array of its entry, flat, or bare.

    Args:
        value: a decoded record of any webhook field; times in milliseconds since the Unix epoch.
    """
    raw, origin = str(value["raw"]), str(value["origin"])
    entry = {name: value[key] for name, key in (("id", "entry_id"), ("time", "sent_at")) if value[key] is not None}
    if origin == "changes":
        members = _members(raw)
        if not entry and {"field", "value"} <= members.keys() and "entry" not in members:
            return raw.encode()
        named = as_id(members.get("id")), as_milliseconds(members.get("time"))
        if entry and named == (value["entry_id"], value["sent_at"]):
            origin = "entry"  # a flat change: raw is the entry
    if origin != "entry":
        head = [f"{json.dumps(name)}:{json.dumps(entry[name])}" for name in entry]
        raw = "{" + ",".join([*head, f'"{origin}":[{raw}]']) + "}"
    return f'{{"object":"instagram","entry":[{raw}]}}'.encode()


def _members(raw: str) -> dict[str, Any]:
    value = json.loads(raw)
    return value if isinstance(value, dict) else {}

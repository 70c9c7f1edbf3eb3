"""What must be in Kafka after a delivery was answered 200, worked out without one line of the bridge's own code.

An independent reading of the contract ("Items", "Record"): the standard library's `json` and `hashlib`, and nothing
of `bridge` outside this module. It is there to catch the bridge out, so it must never share code with it. It reads the
bodies the stand-in for Meta makes; it is no second parser for anything that may arrive. Only `Ledger.write` does IO.
"""

import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

# The key an item carries → its webhook field; the first of them that is there decides.
_FIELD_OF_KEY = {
    "message": "messages",
    "message_edit": "message_edit",
    "reaction": "message_reactions",
    "postback": "messaging_postbacks",
    "read": "messaging_seen",
    "optin": "messaging_optins",
    "pass_thread_control": "messaging_handover",
    "take_thread_control": "messaging_handover",
    "request_thread_control": "messaging_handover",
    "app_roles": "messaging_handover",
    "referral": "messaging_referral",
}
_MESSAGING_FIELDS = frozenset(_FIELD_OF_KEY.values())
_CHANGE_FIELDS = frozenset({"comments", "live_comments", "mentions", "story_insights"})
# For these the account is the party that equals entry.id: either side can be the sender.
_KEYS_OF_EITHER_SIDE = frozenset({"message", "message_edit", "reaction", "read"})
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")

DEAD_LETTER = "dead_letter"
"""The webhook field, so to speak, of what is not readable."""


class Event(NamedTuple):
    """One record that a delivery must become. `event_id` is None for a dead letter alone."""

    event_id: str | None
    webhook_field: str
    key: str | None
    kind: str | None
    occurred_at: int | None


_DEAD = Event(None, DEAD_LETTER, None, None, None)
_DEPTH_MAX = 64  # the contract's "Items"


class _Number(str):
    """A number exactly as written, so that ids stay whole and canonical form can repeat it."""

    __slots__ = ()


def read(body: bytes) -> tuple[Event, ...]:
    """The records of a delivery in the order of its items, duplicates among them."""
    try:
        notification = json.loads(body.decode(), parse_int=_Number, parse_float=_Number, parse_constant=_refuse)
    except ValueError:
        return (_DEAD,)
    if _depth(notification) > _DEPTH_MAX:
        return (_DEAD,)
    if isinstance(notification, list):
        return tuple(event for element in notification for event in _of_notification(element))
    return tuple(_of_notification(notification))


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is no JSON")


def _depth(value: object) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


def _of_notification(notification: Any) -> Iterator[Event]:  # noqa: ANN401 - any JSON may stand there
    if not isinstance(notification, dict):
        yield _DEAD
    elif "object" not in notification and {"field", "value"} <= notification.keys():
        yield _change(notification, None)
    elif notification.get("object") != "instagram" or not isinstance(notification.get("entry"), list):
        yield _DEAD
    else:
        for entry in notification["entry"]:
            yield from _of_entry(entry)


def _of_entry(entry: dict[str, Any]) -> Iterator[Event]:
    entry_id = _id(entry.get("id"))
    events = [_item(item, entry_id, standby=False) for item in entry.get("messaging", ())]
    events += [_item(item, entry_id, standby=True) for item in entry.get("standby", ())]
    events += [_change(change, entry_id) for change in entry.get("changes", ())]
    if "field" in entry:
        events.append(_change({"field": entry["field"], "value": entry.get("value")}, entry_id))
    yield from events or [_event("other", entry_id, None, None, [_digest(entry)])]


def _item(item: Any, entry_id: str | None, *, standby: bool) -> Event:  # noqa: ANN401 - any JSON may stand there
    if not isinstance(item, dict):
        return _event("other", entry_id, None, None, [_digest(item)])
    kind = next((key for key in _FIELD_OF_KEY if key in item), None)
    webhook_field = "standby" if standby else _FIELD_OF_KEY[kind] if kind else "other"
    account_id, customer_id = _parties(item, kind, entry_id)
    occurred_at = _milliseconds(item.get("timestamp"))
    identity = _identity(item, kind, occurred_at)
    return _event(webhook_field, account_id, customer_id, kind, identity, occurred_at=occurred_at)


def _change(change: dict[str, Any], entry_id: str | None) -> Event:
    named, value = change["field"], change["value"]
    if named in _MESSAGING_FIELDS:
        return _item(value, entry_id, standby=False)
    customer_id = _id((value.get("from") or {}).get("id")) if isinstance(value, dict) else None
    identity: list[Any] = [_digest(change)]
    if named in {"comments", "live_comments"}:
        comment_id = _id(value.get("id")) or _id(value.get("comment_id"))
        identity = [comment_id] if comment_id else identity
    webhook_field = named if named in _CHANGE_FIELDS else "other"
    return _event(webhook_field, entry_id, customer_id, named, identity)


def _parties(item: dict[str, Any], kind: str | None, entry_id: str | None) -> tuple[str | None, str | None]:
    sender = _id((item.get("sender") or {}).get("id"))
    recipient = _id((item.get("recipient") or {}).get("id"))
    account_id = recipient
    if kind in _KEYS_OF_EITHER_SIDE:
        if entry_id is not None and entry_id in {sender, recipient}:
            account_id = entry_id
        elif kind == "message" and item["message"].get("is_echo") is True:
            account_id = sender
    account_id = account_id or entry_id
    others = (party for party in (sender, recipient) if party not in {None, account_id})
    return account_id, next(others, None)


def _identity(item: dict[str, Any], kind: str | None, occurred_at: int | None) -> list[Any]:
    """What the contract lists after the kind; the canonical form's digest where it lists nothing or an id is missing."""
    value: dict[str, Any] = item[kind] if kind else {}
    mid = _id(value.get("mid"))
    if kind == "referral":
        return [occurred_at, value.get("ref"), value.get("source")]
    if kind == "postback" and mid is None:
        return [None, occurred_at, value.get("payload")]
    num_edit = value.get("num_edit")
    by_mid: dict[str | None, list[Any]] = {
        "message": [mid, value.get("is_deleted")],
        "message_edit": [mid, None if num_edit is None else int(num_edit)],
        "reaction": [mid, value.get("action"), value.get("reaction"), value.get("emoji"), occurred_at],
        "postback": [mid],
        "read": [mid, occurred_at],
    }
    return by_mid[kind] if mid is not None and kind in by_mid else [_digest(item)]


def _event(
    webhook_field: str,
    account_id: str | None,
    customer_id: str | None,
    kind: str | None,
    identity: list[Any],
    *,
    occurred_at: int | None = None,
) -> Event:
    named = ["1", webhook_field, account_id, customer_id, kind, *identity]
    event_id = _sha256(json.dumps(named, ensure_ascii=False, separators=(",", ":")))[:32]
    key = account_id if customer_id is None else f"{account_id}:{customer_id}"
    return Event(event_id, webhook_field, key, kind, occurred_at)


def _id(value: object) -> str | None:
    return str(value) if isinstance(value, str) else None


def _milliseconds(value: object) -> int | None:
    if not isinstance(value, str) or not value.isdecimal():
        return None
    number = int(value)
    if number < 10**11:
        return number * 1000
    if number < 10**14:
        return number
    return number // 1000 if number < 10**17 else None


def _digest(value: object) -> str:
    return _sha256(_canonical(value))


def _canonical(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_canonical(key)}:{_canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_canonical, value)) + "]"
    return str(value) if isinstance(value, _Number) else json.dumps(value, ensure_ascii=False)


def _sha256(text: str) -> str:
    # json.loads has joined every pair: a surrogate that is still here is a lone one.
    return hashlib.sha256(_LONE_SURROGATE.sub("\ufffd", text).encode()).hexdigest()


@dataclass
class _Line:
    event: Event
    times_sent: int = 0
    statuses: list[int | None] = field(default_factory=list)


class Ledger:
    """Every distinct event in the order it was first sent, how often, and how it was answered.

    Kept in memory until `write`: about 0.5 KiB for each distinct event.
    """

    def __init__(self, topic_prefix: str = "instagram") -> None:
        self._topic_prefix = topic_prefix
        self._lines: dict[str, _Line] = {}
        self._deliveries = 0
        self._posts = 0
        self._records: Counter[str] = Counter()

    def posting(self, events: tuple[Event, ...], *, is_first: bool) -> None:
        """Counts a post before its first byte leaves: from here on the receiver may have it.

        `is_first` is False for a retry of the same delivery.
        """
        self._deliveries += is_first
        self._posts += 1
        for event in events:
            if event.event_id is not None:
                self._lines.setdefault(event.event_id, _Line(event)).times_sent += 1

    def answered(self, events: tuple[Event, ...], status: int | None) -> None:
        """Counts a post's answer; None when there was none."""
        for event in events:
            if event.event_id is not None:
                self._lines[event.event_id].statuses.append(status)
            if status == 200:  # noqa: PLR2004 - HTTP's own number, and the only one that means safe
                self._records[self._topic(event)] += 1

    def lines(self) -> Iterator[dict[str, Any]]:
        """What `write` writes, one JSON object a line, the totals last."""
        for line in self._lines.values():
            event = line.event
            yield {
                "event_id": event.event_id,
                "topic": self._topic(event),
                "key": event.key,
                "kind": event.kind,
                "occurred_at": event.occurred_at,
                "times_sent": line.times_sent,
                "statuses": line.statuses,
            }
        events = [line.event for line in self._lines.values()]
        yield {
            "totals": {
                "by_topic": dict(sorted(Counter(map(self._topic, events)).items())),
                "by_kind": dict(sorted(Counter(event.kind or "none" for event in events).items())),
                "records_by_topic": dict(sorted(self._records.items())),
                "deliveries": self._deliveries,
                "posts": self._posts,
                "events_sent": sum(line.times_sent for line in self._lines.values()),
                "distinct": len(events),
            },
        }

    def write(self, path: Path) -> None:
        """Writes the file whole or not at all: a reader never sees a half."""
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
        with unfinished.open("w", encoding="utf-8") as file:
            for line in self.lines():
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)

    def _topic(self, event: Event) -> str:
        return f"{self._topic_prefix}.{event.webhook_field}"

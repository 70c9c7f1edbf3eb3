"""An event: what happened, to which account, with which customer, and the name it keeps across redeliveries.

An item of messaging[] does not name its webhook field: the key it carries does. Only a change names it. Identity is per
event, never per body or per message: an unsend, an edit or another reaction to one message is an event of its own, and a
redelivery in another batch is not. Does no IO, reads no clock.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from bridge.coercion import as_flag, as_id, as_long, as_milliseconds
from bridge.jsontext import canonical
from bridge.notification import Item, Note, Origin

WEBHOOK_FIELD_OF_KEY = {
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
"""The webhook field of a messaging item by the first of these keys that it carries, in this order."""

_KEY_ORDER = list(WEBHOOK_FIELD_OF_KEY)

STANDBY = "standby"
OTHER = "other"
CHANGE_FIELDS = frozenset({"comments", "live_comments", "mentions", "story_insights"})
MESSAGING_FIELDS = frozenset({*WEBHOOK_FIELD_OF_KEY.values(), STANDBY})
WEBHOOK_FIELDS = (*dict.fromkeys(WEBHOOK_FIELD_OF_KEY.values()), STANDBY, *sorted(CHANGE_FIELDS), OTHER)
"""Every webhook field that has a topic of events."""

ATTACHMENT_TYPES = frozenset(
    {
        *(
            "audio",
            "file",
            "image",
            "video",
            "share",
            "media",
            "template",
            "like_heart",
            "ephemeral",
            "unsupported_type",
        ),
        *("story", "story_mention", "ig_story", "ig_reel", "reel", "ig_post"),
    }
)
"""What an attachment has been seen to be (Meta, "Instagram Messaging webhooks", and captures; 2026-11). An open set: another
type is published like these, and noted."""

_IDENTITY_VERSION = "1"
EVENT_ID_DIGITS = 32
_PARTY_BY_ENTRY = frozenset({"message", "message_edit", "reaction", "read"})
"""Kinds that travel both ways: the account is the party that the entry names. All others come from the customer."""

Object = dict[str, Any]
"""A parsed JSON object; what its values are is for coercion to find out."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """What happened, as we publish it.

    Attributes:
        event_id: 32 hex digits, equal for every delivery of the same event.
        webhook_field: the topic's field; ``other`` where no schema fits.
        kind: the item's key, or the field that a change names; null where there is none.
        origin: where the item stood.
        entry_id, account_id, customer_id, sender_id, recipient_id: ids as strings; see contract "Items".
        occurred_at: the item's timestamp, milliseconds since the Unix epoch.
        sent_at: the entry's time, the same unit.
        named_field: what a change named, where webhook_field is ``other``.
        typed: the object that holds the typed part under Meta's own key; empty for ``other``.
        raw: the item's JSON text as it arrived.
    """

    event_id: str
    webhook_field: str
    kind: str | None
    origin: Origin
    entry_id: str | None
    account_id: str | None
    customer_id: str | None
    sender_id: str | None
    recipient_id: str | None
    occurred_at: int | None
    sent_at: int | None
    named_field: str | None
    typed: Object
    raw: bytes


def describe(item: Item, notes: list[Note]) -> Event:
    """Tell what an item says; what is odd about it goes to ``notes``."""
    value = item.value
    if type(value) is not dict or item.origin == "entry":
        return _unmessaged(item, OTHER, None)
    if item.origin != "changes":
        return _messaging(item, value, notes, standby=item.origin == STANDBY)
    named = value["field"] if type(value.get("field")) is str else None
    inner = value.get("value")
    if type(inner) is dict and named in MESSAGING_FIELDS:
        return _messaging(item, inner, notes, standby=named == STANDBY, named_field=named)
    return _change(item, value, inner, named, notes)


def _messaging(item: Item, value: Object, notes: list[Note], *, standby: bool, named_field: str | None = None) -> Event:
    """Read a messaging item, which a change of the dashboard's Test button carries as its value."""
    kind = None
    for key in value:
        if key in WEBHOOK_FIELD_OF_KEY and value[key] is not None:
            if kind is not None:
                kind = _first_key(value, notes)
                break
            kind = key
    part = value[kind] if kind else {}
    if type(part) is not dict:
        notes.append(Note("wrong_type", str(kind)))
        webhook_field = OTHER
    elif standby:
        webhook_field = STANDBY
    else:
        webhook_field = WEBHOOK_FIELD_OF_KEY[kind] if kind else OTHER
    try:
        sender_id, recipient_id = value["sender"]["id"], value["recipient"]["id"]
        usual = sender_id.__class__ is str and recipient_id.__class__ is str
    except (KeyError, TypeError):
        usual = False
    if not usual:
        sender_id, recipient_id = _party(value, "sender", notes), _party(value, "recipient", notes)
    account_id = _account(kind, part, item.entry_id, sender_id, recipient_id)
    occurred_at = _occurred_at(value, notes)
    identity = _identity(kind, part, occurred_at) if type(part) is dict else None
    if identity is None:
        identity = _canonical(item, None if named_field is None else "value")
    customer_id = recipient_id if sender_id is None or sender_id == account_id else sender_id
    if customer_id == account_id:
        customer_id = None
    other = webhook_field == OTHER
    return Event(
        _event_id(webhook_field, account_id, customer_id, kind, identity),
        webhook_field,
        kind,
        item.origin,
        item.entry_id,
        account_id,
        customer_id,
        sender_id,
        recipient_id,
        occurred_at,
        item.sent_at,
        named_field if other else None,
        {} if other else value,
        item.raw,
    )


def _first_key(value: Object, notes: list[Note]) -> str:
    """The kind of an item that carries several keys."""
    keys = [key for key in value if key in WEBHOOK_FIELD_OF_KEY and value[key] is not None]
    kind = min(keys, key=_KEY_ORDER.index)
    # A referral beside a message is typed in the message's record; any other second key is not.
    typed_beside = {kind, "referral"} if kind == "message" else {kind}
    others = sorted(set(keys) - typed_beside, key=_KEY_ORDER.index)
    notes.extend(Note("second_key", f"{kind}+{second}") for second in others)
    return kind


def _change(item: Item, change: Object, value: object, named: str | None, notes: list[Note]) -> Event:
    """Read a change by the webhook field that it names."""
    fits = type(value) is dict and named in CHANGE_FIELDS
    if named in CHANGE_FIELDS and not fits:
        notes.append(Note("wrong_type", f"{named}.value"))
    who = value.get("from") if type(value) is dict else None
    return _unmessaged(
        item,
        named if fits and named else OTHER,
        named,
        customer_id=as_id(who.get("id")) if type(who) is dict else None,
        occurred_at=_occurred_at(change, notes),
        named_field=None if fits else named,
        typed=change if fits else {},
        identity=_identity(named, value, None) if type(value) is dict and named in CHANGE_FIELDS else None,
    )


def _unmessaged(
    item: Item,
    webhook_field: str,
    kind: str | None,
    *,
    customer_id: str | None = None,
    occurred_at: int | None = None,
    named_field: str | None = None,
    typed: Object | None = None,
    identity: list[object] | None = None,
) -> Event:
    """An event that nobody sent to anybody, as far as its item tells."""
    account_id = item.entry_id
    if customer_id == account_id:
        customer_id = None
    return Event(
        _event_id(webhook_field, account_id, customer_id, kind, identity or _canonical(item, None)),
        webhook_field,
        kind,
        item.origin,
        item.entry_id,
        account_id,
        customer_id,
        None,
        None,
        occurred_at,
        item.sent_at,
        named_field,
        typed or {},
        item.raw,
    )


def _event_id(
    webhook_field: str, account_id: str | None, customer_id: str | None, kind: str | None, identity: list[object]
) -> str:
    named = [_IDENTITY_VERSION, webhook_field, account_id, customer_id, kind, *identity]
    return hashlib.sha256(_json(named)).hexdigest()[:EVENT_ID_DIGITS]


def _canonical(item: Item, under: str | None) -> list[object]:
    """What names an event that has no name of its own: its canonical form."""
    only = ("field", "value") if item.flat and under is None else ()
    return [hashlib.sha256(canonical(item.raw, only=only, under=under)).hexdigest()]


def _account(
    kind: str | None, part: object, entry_id: str | None, sender_id: str | None, recipient_id: str | None
) -> str | None:
    if kind in _PARTY_BY_ENTRY:
        if entry_id is not None and entry_id in (sender_id, recipient_id):
            return entry_id
        if kind == "message" and type(part) is dict and as_flag(part.get("is_echo")):
            return sender_id if sender_id is not None else entry_id
    return recipient_id if recipient_id is not None else entry_id


def _identity(kind: str | None, part: Object, occurred_at: int | None) -> list[object] | None:
    """What names an event of this kind; None where only its canonical form does."""
    mid = part.get("mid")
    if mid.__class__ is not str:
        mid = as_id(mid)
    identity: list[object] | None = None
    if kind == "message":
        deleted = part.get("is_deleted")
        identity = None if mid is None else [mid, deleted if deleted is None else as_flag(deleted)]
    elif kind == "postback":
        identity = [mid] if mid is not None else [None, occurred_at, _text(part, "payload")]
    elif kind == "referral":
        identity = [occurred_at, _text(part, "ref"), _text(part, "source")]
    elif kind in {"comments", "live_comments"}:
        own_id, comment_id = as_id(part.get("id")), as_id(part.get("comment_id"))
        identity = [own_id or comment_id] if own_id or comment_id else None
    elif mid is None:
        identity = None
    elif kind == "read":
        identity = [mid, occurred_at]
    elif kind == "reaction":
        identity = [mid, _text(part, "action"), _text(part, "reaction"), _text(part, "emoji"), occurred_at]
    elif kind == "message_edit":
        identity = [mid, as_long(part.get("num_edit"))]
    return identity


def _occurred_at(value: Object, notes: list[Note]) -> int | None:
    timestamp = value.get("timestamp")
    if timestamp is None:
        return None
    occurred_at = as_milliseconds(timestamp)
    if occurred_at is None:
        notes.append(Note("wrong_type", "timestamp"))
    return occurred_at


def _party(value: Object, role: str, notes: list[Note]) -> str | None:
    party = value.get(role)
    if party is None:
        return None
    party_id = party.get("id") if type(party) is dict else None
    if type(party_id) is not str:
        party_id = as_id(party_id)
    if party_id is None:
        notes.append(Note("wrong_type", f"{role}.id"))
    return party_id


def _text(part: Object, key: str) -> str | None:
    value = part.get(key)
    return value if type(value) is str else None


_json = msgspec.json.Encoder().encode
"""Byte-equal to json.dumps(…, ensure_ascii=False, separators=(",", ":")) for strings, whole numbers, flags and null."""

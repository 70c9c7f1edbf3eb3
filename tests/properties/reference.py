"""contract.md "Items", said a second time: slow, plain, and sharing no line with bridge/.

`read` gives what each body must become; `tests.properties.typed` what fastavro must write for it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from tests.properties.jsontree import (
    Node,
    canonical,
    compact,
    depth,
    elements,
    flag,
    identifier,
    is_object,
    member,
    milliseconds,
    parse,
    string,
    whole,
)

KEYS = {
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
CHANGES = ("comments", "live_comments", "mentions", "story_insights")
DEPTH_MAX = 64


@dataclass(frozen=True)
class Expected:
    """One record of an event topic."""

    event_id: str
    webhook_field: str
    kind: str | None
    origin: str
    entry_id: str | None
    account_id: str | None
    customer_id: str | None
    sender_id: str | None
    recipient_id: str | None
    occurred_at: int | None
    sent_at: int | None
    named_field: str | None
    raw: str
    holder: Node


@dataclass(frozen=True)
class Dead:
    """One dead letter."""

    reason: str
    body: bytes


def read(body: bytes) -> list[Expected | Dead]:
    """Everything a body becomes, in the order of its items."""
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return [Dead("not_utf8", body)]
    if depth(text) > DEPTH_MAX:
        return [Dead("nested_too_deep", body)]
    try:
        root = parse(text)
    except ValueError:
        return [Dead("not_json", body)]
    if isinstance(root.value, list):
        return [one for part in root.value for one in _notification(part)]
    return list(_notification(root, body))


def _notification(node: Node, body: bytes | None = None) -> Iterator[Expected | Dead]:
    dead_body = node.text.encode() if body is None else body
    if not isinstance(node.value, dict):
        yield Dead("wrong_shape", dead_body)
    elif _is_flat(node) and "entry" not in node.value:
        yield _change(node, raw=node.text, entry=None)
    elif string(member(node, "object")) != "instagram":
        yield Dead("unsupported_object", dead_body)
    elif (entries := elements(member(node, "entry"))) is None:
        yield Dead("wrong_shape", dead_body)
    else:
        for entry in entries:
            yield from _entry(entry)


def _entry(entry: Node) -> Iterator[Expected]:
    messaging, standby, changes = (elements(member(entry, key)) or [] for key in ("messaging", "standby", "changes"))
    items = [_messaging(item, raw=item.text, entry=entry, origin="messaging") for item in messaging]
    items += [_messaging(item, raw=item.text, entry=entry, origin="standby") for item in standby]
    items += [_change(change, raw=change.text, entry=entry) for change in changes]
    if _is_flat(entry):
        alone = {key: node for key in ("field", "value") if (node := member(entry, key))}
        items.append(_change(Node("", alone), raw=entry.text, entry=entry))
    yield from items or [_expected(entry, raw=entry.text, entry=entry, origin="entry", webhook_field="other")]


def _is_flat(node: Node) -> bool:
    return member(node, "field") is not None and member(node, "value") is not None


def _messaging(item: Node, *, raw: str, entry: Node | None, origin: str, named: str | None = None) -> Expected:
    """An item of messaging[] or standby[], or the value of a change that names a messaging field."""
    carried = [key for key in KEYS if (part := member(item, key)) and part.value is not None]
    kind = carried[0] if carried else None
    part = member(item, kind) if kind else None
    if not is_object(item) or (part and not is_object(part)):
        webhook_field = "other"
    elif "standby" in (origin, named):
        webhook_field = "standby"
    else:
        webhook_field = KEYS[kind] if kind else "other"
    sender, recipient = identifier(member(item, "sender", "id")), identifier(member(item, "recipient", "id"))
    entry_id = identifier(member(entry, "id"))
    account_id = recipient
    if kind in ("message", "message_edit", "reaction", "read"):
        if entry_id is not None and entry_id in (sender, recipient):
            account_id = entry_id
        elif flag(member(item, "message", "is_echo")) and kind == "message":
            account_id = sender
    account_id = account_id if account_id is not None else entry_id
    others = [party for party in (sender, recipient) if party is not None and party != account_id]
    occurred_at = milliseconds(member(item, "timestamp"))
    return _expected(
        item,
        raw=raw,
        entry=entry,
        origin=origin,
        webhook_field=webhook_field,
        kind=kind,
        account_id=account_id,
        customer_id=others[0] if others else None,
        sender_id=sender,
        recipient_id=recipient,
        occurred_at=occurred_at,
        named_field=named if webhook_field == "other" else None,
        identity=_identity(kind, part, occurred_at),
    )


def _change(change: Node, *, raw: str, entry: Node | None) -> Expected:
    named, value = string(member(change, "field")), member(change, "value")
    if named in {*KEYS.values(), "standby"} and value and is_object(value):
        return _messaging(value, raw=raw, entry=entry, origin="changes", named=named)
    fits = named in CHANGES and is_object(value)
    comment_id = identifier(member(value, "id")) or identifier(member(value, "comment_id"))
    account_id, customer_id = identifier(member(entry, "id")), identifier(member(value, "from", "id"))
    return _expected(
        change,
        raw=raw,
        entry=entry,
        origin="changes",
        webhook_field=str(named) if fits else "other",
        kind=named,
        account_id=account_id,
        customer_id=None if customer_id == account_id else customer_id,
        occurred_at=milliseconds(member(change, "timestamp")),
        named_field=None if fits else named,
        identity=[comment_id] if fits and comment_id and named in ("comments", "live_comments") else None,
    )


def _identity(kind: str | None, part: Node | None, occurred_at: int | None) -> list[object] | None:
    """What names a messaging item; None where only its canonical form does."""
    if kind is None or not is_object(part):
        return None
    mid = identifier(member(part, "mid"))
    identities: dict[str, list[object]] = {
        "message": [mid, flag(member(part, "is_deleted"))],
        "message_edit": [mid, whole(member(part, "num_edit"))],
        "reaction": [mid, *(string(member(part, key)) for key in ("action", "reaction", "emoji")), occurred_at],
        "read": [mid, occurred_at],
        "postback": [mid] if mid is not None else [None, occurred_at, string(member(part, "payload"))],
        "referral": [occurred_at, string(member(part, "ref")), string(member(part, "source"))],
    }
    return identities.get(kind) if mid is not None or kind in ("postback", "referral") else None


def _expected(
    item: Node,
    *,
    raw: str,
    entry: Node | None,
    origin: str,
    webhook_field: str,
    kind: str | None = None,
    account_id: str | None = None,
    customer_id: str | None = None,
    sender_id: str | None = None,
    recipient_id: str | None = None,
    occurred_at: int | None = None,
    named_field: str | None = None,
    identity: list[object] | None = None,
) -> Expected:
    entry_id = identifier(member(entry, "id"))
    account_id = account_id if account_id is not None else entry_id
    identity = identity if identity is not None else [_sha256(canonical(item))]
    named = ["1", webhook_field, account_id, customer_id, kind, *identity]
    return Expected(
        event_id=_sha256(compact(named))[:32],
        webhook_field=webhook_field,
        kind=kind,
        origin=origin,
        entry_id=entry_id,
        account_id=account_id,
        customer_id=customer_id,
        sender_id=sender_id,
        recipient_id=recipient_id,
        occurred_at=occurred_at,
        sent_at=milliseconds(member(entry, "time")),
        named_field=named_field,
        raw=raw,
        holder=item,
    )


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

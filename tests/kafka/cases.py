"""An item of every kind, in every place, and what contract.md makes of it, written out by hand."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

A, C = "17841400000000001", "1254459154682919"
OCCURRED, SENT = 1763800000123, 1763800000500
MID = "aWdfZAG1faXRlbToxOklHTWVzc2FnZAUlEOjE3ODQxNDAw-KMi_4=="
IN = {"sender": {"id": C}, "recipient": {"id": A}, "timestamp": OCCURRED}
OUT = {"sender": {"id": A}, "recipient": {"id": C}, "timestamp": OCCURRED}


def canonical(item: object) -> str:
    """contract.md "Items": of what has no identity of its own."""
    text = json.dumps(item, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class Case(NamedTuple):
    """An item and what must become of it.

    Attributes:
        place: the array of the entry that it stands in; ``flat``: in the entry itself; ``bare``: it is the body;
            ``entry``: it is the entry.
        kind_and_identity: the end of the array that event_id is the digest of.
        typed: the typed part, without its nulls; None: as the item has it.
    """

    webhook_field: str
    place: str
    item: dict[str, Any]
    kind_and_identity: list[Any]
    typed: dict[str, Any] | None = None
    account_id: str | None = A
    customer_id: str | None = C
    occurred_at: int | None = OCCURRED


COMMENT = {"id": "17865799348089039", "text": "schön", "from": {"id": C, "username": "some.one"}, "media": {"id": "1"}}
TEST_BUTTON = {
    "sender": {"id": "12334"},
    "recipient": {"id": "23245"},
    "timestamp": "1527459824",
    "message": {"mid": "random_mid", "text": "random_text"},
}
UNKNOWN = {**IN, "something_new": {"a": 1}}
NO_ITEM = {"id": A, "time": SENT, "hello": "there"}
CASES = {
    "text": Case("messages", "messaging", {**IN, "message": {"mid": MID, "text": "Grüße 👋"}}, ["message", MID, None]),
    "echo": Case(
        "messages", "messaging", {**OUT, "message": {"mid": MID, "text": "x", "is_echo": True}}, ["message", MID, None]
    ),
    "unsend": Case(
        "messages", "messaging", {**IN, "message": {"mid": MID, "is_deleted": True}}, ["message", MID, True]
    ),
    "attachments": Case(
        "messages",
        "messaging",
        {
            **IN,
            "message": {
                "mid": MID,
                "attachments": [
                    {"type": "ig_reel", "payload": {"reel_video_id": 17918000000000001, "url": "https://cdn.test/1"}},
                    {"type": "like_heart"},
                    {"type": "template", "payload": {"generic": {"elements": [{"title": "t"}]}}},
                ],
                "reply_to": {"story": {"id": "1", "url": "https://cdn.test/2"}, "is_self_reply": False},
            },
        },
        ["message", MID, None],
        {
            "message": {
                "mid": MID,
                "attachments": [
                    {"type": "ig_reel", "payload": {"reel_video_id": "17918000000000001", "url": "https://cdn.test/1"}},
                    {"type": "like_heart"},
                    {"type": "template", "payload": {"generic_json": '{"elements":[{"title":"t"}]}'}},
                ],
                "reply_to": {"story": {"id": "1", "url": "https://cdn.test/2"}, "is_self_reply": False},
            },
        },
    ),
    "react": Case(
        "message_reactions",
        "messaging",
        {**IN, "reaction": {"mid": MID, "action": "react", "reaction": "love", "emoji": "❤️"}},
        ["reaction", MID, "react", "love", "❤️", OCCURRED],
    ),
    "unreact": Case(
        "message_reactions",
        "messaging",
        {**IN, "reaction": {"mid": MID, "action": "unreact"}},
        ["reaction", MID, "unreact", None, None, OCCURRED],
    ),
    "postback": Case(
        "messaging_postbacks",
        "messaging",
        {**IN, "postback": {"mid": MID, "title": "Yes", "payload": "YES"}},
        ["postback", MID],
    ),
    "postback-without-mid": Case(
        "messaging_postbacks",
        "messaging",
        {**IN, "postback": {"title": "Yes", "payload": "YES"}},
        ["postback", None, OCCURRED, "YES"],
    ),
    "read": Case("messaging_seen", "messaging", {**IN, "read": {"mid": MID}}, ["read", MID, OCCURRED]),
    "referral": Case(
        "messaging_referral",
        "messaging",
        {**IN, "referral": {"ref": "r", "source": "IGME", "type": "OPEN_THREAD"}},
        ["referral", OCCURRED, "r", "IGME"],
    ),
    "edit": Case(
        "message_edit",
        "messaging",
        {**IN, "message_edit": {"mid": MID, "text": "new", "num_edit": "1"}},
        ["message_edit", MID, 1],
        {"message_edit": {"mid": MID, "text": "new", "num_edit": 1}},
    ),
    "edit-0": Case(
        "message_edit",
        "messaging",
        {"timestamp": OCCURRED, "message_edit": {"mid": MID, "num_edit": 0}},
        ["message_edit", MID, 0],
        customer_id=None,
    ),
    "handover": Case(
        "messaging_handover",
        "messaging",
        part := {**IN, "pass_thread_control": {"new_owner_app_id": 123, "metadata": "m"}},
        ["pass_thread_control", canonical(part)],
        {"pass_thread_control": {"new_owner_app_id": "123", "metadata": "m"}},
    ),
    "optin": Case(
        "messaging_optins",
        "messaging",
        part := {**IN, "optin": {"type": "notification_messages", "payload": "p"}},
        ["optin", canonical(part)],
    ),
    "standby": Case(
        "standby", "standby", {**IN, "message": {"mid": MID, "text": "other app's"}}, ["message", MID, None]
    ),
    "comments": Case(
        "comments",
        "changes",
        {"field": "comments", "value": COMMENT},
        ["comments", COMMENT["id"]],
        {"value": COMMENT},
        occurred_at=None,
    ),
    "live_comments": Case(
        "live_comments",
        "changes",
        {"field": "live_comments", "value": {"comment_id": 17865799348089040, "text": "live"}},
        ["live_comments", "17865799348089040"],
        {"value": {"comment_id": "17865799348089040", "text": "live"}},
        customer_id=None,
        occurred_at=None,
    ),
    "mentions": Case(
        "mentions",
        "changes",
        part := {"field": "mentions", "value": {"media_id": "17", "comment_id": "18"}},
        ["mentions", canonical(part)],
        {"value": {"media_id": "17", "comment_id": "18"}},
        customer_id=None,
        occurred_at=None,
    ),
    "story_insights-flat": Case(
        "story_insights",
        "flat",
        part := {"field": "story_insights", "value": {"media_id": "17", "impressions": -1}},
        ["story_insights", canonical(part)],
        {"value": {"media_id": "17", "impressions": -1}},
        customer_id=None,
        occurred_at=None,
    ),
    "comments-bare": Case(
        "comments",
        "bare",
        {"field": "comments", "value": COMMENT},
        ["comments", COMMENT["id"]],
        {"value": COMMENT},
        account_id=None,
        occurred_at=None,
    ),
    "test-button": Case(
        "messages",
        "changes",
        {"field": "messages", "value": TEST_BUTTON},
        ["message", "random_mid", None],
        {"message": TEST_BUTTON["message"]},
        account_id="23245",
        customer_id="12334",
        occurred_at=1527459824000,
    ),
    "unknown-key": Case("other", "messaging", UNKNOWN, [None, canonical(UNKNOWN)], {}),
    "unknown-field": Case(
        "other",
        "changes",
        part := {"field": "brand_new", "value": [1, 2.50, None]},
        ["brand_new", canonical(part)],
        {"named_field": "brand_new"},
        customer_id=None,
        occurred_at=None,
    ),
    "no-item": Case("other", "entry", NO_ITEM, [None, canonical(NO_ITEM)], {}, customer_id=None, occurred_at=None),
}


def body_and_raw(case: Case) -> tuple[bytes, str]:
    """The notification as Meta writes it, non-ASCII escaped, and the text of the item in it."""
    entry: dict[str, Any] = {"id": A, "time": SENT}
    raw: object = case.item
    if case.place == "flat":
        raw = entry = {**entry, **case.item}
    elif case.place == "entry":
        entry = case.item
    else:
        entry[case.place] = [case.item]
    notification = case.item if case.place == "bare" else {"object": "instagram", "entry": [entry]}
    return json.dumps(notification).encode(), json.dumps(raw)

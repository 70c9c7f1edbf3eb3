"""Every kind of item from its POST to its record, in both encodings: topic, key, headers, timestamp, value.

What is expected is written here by hand, from contract.md; the event_id is hashlib's digest of an identity written out.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.kafka.reading import Record, avsc, without_nulls
from tests.kafka.serving import Street
from tests.properties.reference import Expected, read
from tests.properties.typed import typed_record

SEED = {path.stem: path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("vectors/seed/*.json"))}
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


@pytest.mark.parametrize("name", CASES)
async def test_item_of_each_kind_becomes_the_one_record_of_the_contract(street: Street, name: str) -> None:
    """An item becomes one record, in its field's topic, and all of it is as contract.md says."""
    case = CASES[name]
    body, raw = body_and_raw(case)
    before = time.time_ns() // 1_000_000

    answer = await street.serving.deliver(body)

    after = time.time_ns() // 1_000_000
    assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
    delivery_id = answer.headers["x-delivery-id"]
    (record,) = await street.reader.of(delivery_id)
    identity = ["1", case.webhook_field, case.account_id, case.customer_id, *case.kind_and_identity]
    text = json.dumps(identity, ensure_ascii=False, separators=(",", ":"))
    event_id = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert record.topic_field == case.webhook_field
    assert record.key == (None if case.account_id is None else "".join(key_parts(case)).encode())
    assert before <= record.timestamp <= after
    assert record.headers == headers(case, event_id=event_id, delivery_id=delivery_id)
    bare = case.place == "bare"
    parties = case.item.get("value", case.item) if case.place in ("changes", "flat", "bare") else case.item
    expected = {
        "event_id": event_id,
        "webhook_field": case.webhook_field,
        "origin": {"flat": "changes", "bare": "changes"}.get(case.place, case.place),
        "entry_id": None if bare else A,
        "account_id": case.account_id,
        "customer_id": case.customer_id,
        "sender_id": party(parties, "sender"),
        "recipient_id": party(parties, "recipient"),
        "occurred_at": case.occurred_at,
        "sent_at": None if bare else SENT,
        "received_at": record.timestamp,
        "delivery_id": delivery_id,
        "raw": raw,
    }
    typed = case.typed
    if typed is None:
        typed = {key: part for key, part in case.item.items() if key not in IN}
    assert without_nulls(street.decode(record)) == without_nulls(expected | typed)


def key_parts(case: Case) -> list[str]:
    """`<account_id>:<customer_id>`, or the account alone."""
    return [f"{case.account_id}"] if case.customer_id is None else [f"{case.account_id}", ":", case.customer_id]


def headers(case: Case, *, event_id: str, delivery_id: str) -> dict[str, str]:
    """CloudEvents' Kafka binding, binary mode, as contract.md lists it."""
    made = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/instagram" if case.account_id is None else f"/instagram/{case.account_id}",
        "ce_type": f"instagram_bridge.{case.webhook_field}.v1",
        "content-type": "application/avro",
        "ig_delivery_id": delivery_id,
    }
    if case.occurred_at is not None:
        occurred = datetime.fromtimestamp(case.occurred_at // 1000, UTC)
        made["ce_time"] = f"{occurred:%Y-%m-%dT%H:%M:%S}.{case.occurred_at % 1000:03}Z"
    return made


def party(parties: object, role: str) -> str | None:
    """The id of the sender or recipient."""
    found: str | None = parties[role]["id"] if isinstance(parties, dict) and role in parties else None
    return found


@pytest.mark.parametrize("name", SEED)
async def test_seed_example_becomes_one_record_in_its_topic(street: Street, name: str) -> None:
    """The source document's own examples, byte by byte as they stand, arrive typed in the topic they are named after."""
    (expected,) = read(SEED[name])
    assert isinstance(expected, Expected)

    delivery_id = await street.serving.accepted(SEED[name])

    (record,) = await street.reader.of(delivery_id)
    assert name.startswith(record.topic_field)
    assert record.key == b"IGID:IGSID"
    assert record.headers["ce_id"] == expected.event_id
    schema = avsc(record.topic_field)
    assert street.decode(record) == typed_record(
        schema, expected, received_at=record.timestamp, delivery_id=delivery_id
    )


async def test_redelivery_in_another_batch_keeps_every_event_id(plain: Street) -> None:
    """The same events in another order, spacing and batch, with other key orders, keep their event_ids."""
    items = [case.item for case in CASES.values() if case.place == "messaging"]
    together = {"object": "instagram", "entry": [{"id": A, "time": SENT, "messaging": items}]}
    alone = [
        {"entry": [{"messaging": [dict(reversed(item.items()))], "time": SENT + 9, "id": A}], "object": "instagram"}
        for item in items
    ]
    first = await plain.serving.accepted(json.dumps(together, ensure_ascii=False, indent=3).encode())
    again = [await plain.serving.accepted(json.dumps(body, separators=(",", ":")).encode()) for body in alone]

    records = await plain.reader.new()

    assert ids(records, {first}) == ids(records, set(again))
    assert len(ids(records, {first})) == len(items)


def ids(records: list[Record], delivery_ids: set[str]) -> list[str]:
    """The event_ids that came with these deliveries, sorted."""
    return sorted(record.headers["ce_id"] for record in records if record.delivery_id in delivery_ids)

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import islice
from typing import Any, TypedDict, Unpack

import pytest

from bridge.local.meta.deliveries import Delivery, Plan, deliveries
from tests.unit.street import decoded, walk

START_MS = 1_795_338_000_000

WEBHOOK_FIELDS = {
    "messages",
    "message_reactions",
    "messaging_postbacks",
    "messaging_seen",
    "messaging_referral",
    "standby",
    "message_edit",
    "messaging_handover",
    "messaging_optins",
    "comments",
    "live_comments",
    "mentions",
    "story_insights",
}
HANDOVERS = {"pass_thread_control", "take_thread_control", "request_thread_control", "app_roles"}
ATTACHMENT_TYPES = {
    "audio",
    "file",
    "image",
    "video",
    "share",
    "story_mention",
    "ig_reel",
    "reel",
    "ig_post",
    "ig_story",
    "story",
    "media",
    "template",
    "like_heart",
    "ephemeral",
    "unsupported_type",
}


class Options(TypedDict, total=False):
    """What a test asks of a plan."""

    seed: int
    start_ms: int
    customers: int
    batch: int
    speed: float
    redeliver: float
    reorder: float
    quirks: float


def plan(**options: Unpack[Options]) -> Plan:
    return replace(Plan(seed=7, start_ms=START_MS), **options)


def until_events(count: int, **options: Unpack[Options]) -> list[Delivery]:
    taken: list[Delivery] = []
    events = 0
    for delivery in deliveries(plan(**options)):
        if events >= count:
            break
        taken.append(delivery)
        events += len(delivery.events)
    return taken


def items(taken: list[Delivery]) -> list[dict[str, Any]]:
    """The items of messaging[] and standby[] of plain deliveries, in the order of arrival."""
    entries = (entry for delivery in taken for entry in json.loads(delivery.body)["entry"])
    return [item for entry in entries for item in entry.get("messaging", []) + entry.get("standby", [])]


def test_bodies_of_an_equal_plan_are_equal_byte_for_byte() -> None:
    """Seed, start and options are all that the bytes depend on."""
    options: Options = {"quirks": 0.2, "redeliver": 0.2, "reorder": 0.2}
    first, second = (islice(deliveries(plan(**options)), 500) for _ in range(2))
    assert [one.body for one in first] == [other.body for other in second]


@pytest.mark.parametrize("other", [{"seed": 8}, {"start_ms": START_MS + 1}, {"batch": 9}])
def test_bodies_of_another_plan_are_others(other: Options) -> None:
    """Another seed, start or option gives other bytes."""
    first, second = (islice(deliveries(one), 20) for one in (plan(), plan(**other)))
    assert [one.body for one in first] != [another.body for another in second]


def test_5000_events_show_every_webhook_field_and_attachment_type() -> None:
    """Nobody has to wait for a kind of event to be seen."""
    taken = until_events(5_000, quirks=0)
    assert {event.webhook_field for delivery in taken for event in delivery.events} == WEBHOOK_FIELDS
    assert {event.kind for delivery in taken for event in delivery.events} >= HANDOVERS
    messages = [item["message"] for item in items(taken) if "message" in item]
    attachments = [attachment for message in messages for attachment in message.get("attachments", [])]
    assert {attachment["type"] for attachment in attachments} == ATTACHMENT_TYPES
    keys = {key for message in messages for key in message}
    assert keys >= {"is_echo", "app_id", "is_deleted", "is_unsupported", "quick_reply", "reply_to", "referral"}
    edits = {item["message_edit"]["num_edit"] for item in items(taken) if "message_edit" in item}
    assert edits >= {0, "0", 1}
    assert {item["reaction"]["action"] for item in items(taken) if "reaction" in item} == {"react", "unreact"}


def test_quirky_deliveries_reach_other_and_dead_letter() -> None:
    """Quirks lead to the two topics that ordinary traffic never sees."""
    seen = {event.webhook_field for delivery in until_events(2_000, quirks=1) for event in delivery.events}
    assert {"other", "dead_letter"} <= seen


def test_quirky_deliveries_hold_all_that_is_told_of_the_wild() -> None:
    """Every reason that a delivery can be unreadable for, and every oddity that the street has a note for."""
    reasons: set[str] = set()
    noted: set[str] = set()
    for delivery in until_events(6_000, quirks=1):
        made, notes = walk(delivery.body)
        noted |= {note.kind for note in notes}
        reasons |= {decoded(one)["reason"] for one in made if one.topic.endswith("dead_letter")}
    assert reasons == {"not_utf8", "not_json", "nested_too_deep", "wrong_shape", "unsupported_object"}
    assert noted == {"unknown_key", "unknown_value", "wrong_type", "second_key", "empty", "unreadable"}


def test_one_body_can_hold_the_same_event_twice() -> None:
    """Whoever deduplicates by body, or by place in it, counts one too many."""
    per_body = [[event.event_id for event in delivery.events] for delivery in until_events(3_000, quirks=1)]
    assert any(len(set(event_ids)) < len(event_ids) for event_ids in per_body)


@pytest.mark.parametrize("batch", [1, 3, 1000])
def test_bodies_are_ascii_json_of_at_most_a_batch(batch: int) -> None:
    """Non-ASCII and slashes are escaped, and no body holds more than asked for, copies among them."""
    sizes = Counter[int]()
    for delivery in until_events(5_000, batch=batch, redeliver=0.2, quirks=0.2):
        if [event.webhook_field for event in delivery.events] == ["dead_letter"]:
            continue  # what is not to be read may be anything
        assert delivery.body.isascii()
        assert b"/" not in delivery.body.replace(b"\\/", b"")
        json.loads(delivery.body)
        sizes[len(delivery.events)] += 1
    assert max(sizes) <= batch
    assert max(sizes) > batch // 2


def test_texts_with_umlauts_and_emoji_are_escaped_in_lower_case() -> None:
    r"""Meta writes `\u00f6`: a receiver that hashes a re-serialised body must fail on it."""
    bodies = b"".join(delivery.body for delivery in until_events(500))
    assert b"\\u00f6" in bodies
    assert b"\\ud83d\\ude0d" in bodies


def test_events_of_a_conversation_without_reordering_arrive_in_the_order_they_occurred() -> None:
    """Only --reorder lets something overtake."""
    latest: dict[str, int] = {}
    for item in items(until_events(5_000, redeliver=0, reorder=0, quirks=0, customers=5)):
        if "sender" in item:
            conversation = "-".join(sorted((item["sender"]["id"], item["recipient"]["id"])))
            assert item["timestamp"] >= latest.get(conversation, 0)
            latest[conversation] = item["timestamp"]


def test_reordering_lets_a_reaction_arrive_before_its_message() -> None:
    """What Meta warns of does happen when it is asked for, and no event is lost by it."""
    written: set[str] = set()
    early = 0
    for item in items(until_events(5_000, redeliver=0, reorder=0.3, quirks=0)):
        if "message" in item and not item["message"].get("is_deleted"):
            written.add(item["message"]["mid"])
        elif "reaction" in item:
            early += item["reaction"]["mid"] not in written
    assert early


def test_nothing_is_sent_before_it_occurred() -> None:
    """entry.time, in seconds for changes, is after every item's own time; reads come after their message."""
    written: dict[str, int] = {}
    for delivery in until_events(5_000, redeliver=0, reorder=0, quirks=0):
        for entry in json.loads(delivery.body)["entry"]:
            if "messaging" not in entry and "standby" not in entry:
                assert START_MS // 1000 <= entry["time"] < 10**11
                continue
            for item in entry.get("messaging", []) + entry.get("standby", []):
                assert item["timestamp"] <= entry["time"]
                if "message" in item:
                    written.setdefault(item["message"]["mid"], item["timestamp"])
                if "read" in item:
                    assert item["timestamp"] > written[item["read"]["mid"]]


def test_redeliveries_repeat_bytes_and_repeat_events_in_other_batches() -> None:
    """Both forms of repetition occur, and without the share none does."""
    taken = until_events(3_000, redeliver=0.2, quirks=0)
    assert max(Counter(delivery.body for delivery in taken).values()) > 1
    bodies_of_event: dict[str | None, set[bytes]] = {}
    for delivery in taken:
        for event in delivery.events:
            bodies_of_event.setdefault(event.event_id, set()).add(delivery.body)
    assert max(map(len, bodies_of_event.values())) > 1
    once = until_events(3_000, redeliver=0, quirks=0)
    assert max(Counter(event.event_id for delivery in once for event in delivery.events).values()) == 1


def test_speed_squeezes_event_time() -> None:
    """An hour of event time passes in 300 deliveries at 5 a second when it runs 60 times as fast."""
    *_, last = islice(deliveries(plan(speed=60, quirks=0, redeliver=0)), 301)
    times = [entry["time"] for entry in json.loads(last.body)["entry"] if "messaging" in entry]
    assert times == [START_MS + 3_600_000] * len(times)


def test_ids_have_the_lengths_of_real_ones() -> None:
    """Accounts 17 digits, customers 15 to 17, mids 150 to 190 characters."""
    for item in items(until_events(500, quirks=0)):
        if "sender" in item and not item.get("message", {}).get("is_echo") and "postback" in item:
            assert len(item["recipient"]["id"]) == 17
            assert 15 <= len(item["sender"]["id"]) <= 17
            assert 150 <= len(item["postback"]["mid"]) <= 190

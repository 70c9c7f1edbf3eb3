"""Shapes seen in the wild that break strict parsers: one test for each, from body to record."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridge.record import Record
from tests.unit.street import (
    ACCOUNT,
    CUSTOMER,
    change,
    dead_letter,
    decoded,
    event,
    item,
    notes_of,
    record,
    records,
    wrapped,
)

MESSAGE = item('"message":{"mid":"m_1","text":"x"}')


def topics(body: bytes) -> list[str]:
    return [one.topic for one in records(body)]


def message(members: str) -> dict[str, Any]:
    only = record(wrapped(item(f'"message":{{{members}}}')))
    assert only.topic == "instagram.messages"
    typed: dict[str, Any] = decoded(only)["message"]
    return typed


def attachment(text: str) -> dict[str, Any]:
    typed: dict[str, Any] = message(f'"mid":"m_1","attachments":[{text}]')["attachments"][0]
    return typed


TYPES = [
    *("audio", "file", "image", "video", "share", "media", "template", "story", "story_mention", "ig_story"),
    *("ig_reel", "reel", "ig_post", "like_heart", "ephemeral", "unsupported_type", "never_seen"),
]


@pytest.mark.parametrize("kind", TYPES)
def test_attachment_type_is_an_open_string(kind: str) -> None:
    """Never an enum: a type of tomorrow is a message today."""
    assert attachment(f'{{"type":"{kind}","payload":{{"url":"u"}}}}')["type"] == kind


@pytest.mark.parametrize("kind", ["like_heart", "ephemeral"])
def test_attachment_without_any_payload_is_typed(kind: str) -> None:
    """Nothing but its type."""
    assert attachment(f'{{"type":"{kind}"}}') == {"type": kind, "payload": None}


def test_attachment_payload_keys_are_all_typed() -> None:
    """Ids from number or string; generic and product as JSON text."""
    payload = '{"url":"u","title":"t","id":1,"sticker_id":369239263222822,"ig_post_media_id":"2","reel_video_id":18000000000000003,"story_media_id":"4","generic":{"elements":[{"title":"ü"}]},"product":{"elements":[{"id":"5"}]}}'
    typed = attachment(f'{{"type":"template","payload":{payload}}}')["payload"]
    assert json.loads(typed.pop("generic_json")) == {"elements": [{"title": "ü"}]}
    assert json.loads(typed.pop("product_json")) == {"elements": [{"id": "5"}]}
    ids = {
        "sticker_id": "369239263222822",
        "ig_post_media_id": "2",
        "reel_video_id": "18000000000000003",
        "story_media_id": "4",
    }
    assert typed == {"url": "u", "title": "t", "id": "1", **ids}


def test_template_attachment_with_an_empty_payload_is_typed() -> None:
    """Templates are seen empty."""
    assert set(attachment('{"type":"template","payload":{}}')["payload"].values()) == {None}


def test_message_keys_beyond_the_documented_example_are_typed() -> None:
    """is_self, folder, is_self_reply, link_sticker_url."""
    typed = message(
        '"mid":"m_1","is_self":true,"folder":"general","reply_to":{"is_self_reply":"true","story":{"id":1,"link_sticker_url":"l"}}'
    )
    assert (typed["is_self"], typed["folder"]) == (True, "general")
    assert typed["reply_to"] == {
        "mid": None,
        "is_self_reply": True,
        "story": {"id": "1", "url": None, "link_sticker_url": "l"},
    }


def test_new_key_stays_in_raw_and_is_noted_by_path() -> None:
    """New keys will come, anywhere."""
    members = '"message":{"mid":"m_1","new":1,"attachments":[{"type":"image","payload":{"newer":{}}}]},"newest":[]'
    body = wrapped(item(members))
    assert decoded(record(body))["raw"] == item(members)
    assert notes_of(body) == {
        ("unknown_key", path) for path in ("message.new", "message.attachments[].payload.newer", "newest")
    }


@pytest.mark.parametrize(
    ("kind", "told"), [("hologram", "hologram"), ("Look at this!", "(other)"), ("x" * 41, "(other)")]
)
def test_new_attachment_type_is_noted_by_name_unless_it_could_be_content(kind: str, told: str) -> None:
    """Meta's word is told, a customer's never, and in standby the path says so."""
    members = f'"message":{{"mid":"m_1","attachments":[{{"type":"image"}},{{"type":"{kind}"}},{{"type":null}}]}}'
    path = f"message.attachments[].type={told}"
    assert notes_of(wrapped(item(members))) == {("unknown_value", path)}
    assert notes_of(wrapped(item(members), array="standby")) == {("unknown_value", f"standby.{path}")}


@pytest.mark.parametrize("number", ["0", '"0"'])
def test_message_edit_noise_beside_a_new_message_has_no_parties(number: str) -> None:
    """num_edit 0, only a mid: a record of the account's own, told from an edit by its number."""
    only = record(wrapped(f'{{"timestamp":1569262485349,"message_edit":{{"mid":"m_1","num_edit":{number}}}}}'))
    assert (only.topic, only.key) == ("instagram.message_edit", ACCOUNT.encode())
    assert decoded(only)["message_edit"] == {"mid": "m_1", "text": None, "num_edit": 0}


def test_unsend_edit_and_new_reaction_of_one_mid_are_events_of_their_own() -> None:
    """Deduplicating by mid alone would lose them; a redelivery is the same event."""
    told = [
        item('"message":{"mid":"m_1","text":"x"}'),
        item('"message":{"mid":"m_1","is_deleted":true}'),
        item('"message_edit":{"mid":"m_1","text":"y","num_edit":1}'),
        item('"reaction":{"mid":"m_1","action":"react","reaction":"love","emoji":"❤"}'),
        item('"reaction":{"mid":"m_1","action":"react","reaction":"wow","emoji":"😮"}'),
    ]
    ids = [decoded(one)["event_id"] for one in records(wrapped(*told, *told))]
    assert ids[:5] == ids[5:]
    assert len(set(ids)) == 5


def test_missing_entry_time_is_null() -> None:
    """The event is none the worse."""
    only = decoded(record(f'{{"object":"instagram","entry":[{{"id":"{ACCOUNT}","messaging":[{MESSAGE}]}}]}}'.encode()))
    assert (only["sent_at"], only["occurred_at"]) == (None, 1569262485349)


def test_missing_messaging_is_one_other_record_of_the_entry() -> None:
    """Raw is the entry."""
    only = record(f'{{"object":"instagram","entry":[{{"id":"{ACCOUNT}","time":1}}]}}'.encode())
    assert (only.topic, only.key) == ("instagram.other", ACCOUNT.encode())
    assert (decoded(only)["origin"], decoded(only)["raw"]) == ("entry", f'{{"id":"{ACCOUNT}","time":1}}')


def test_empty_entry_list_publishes_nothing_and_is_counted() -> None:
    """There is nothing to lose."""
    assert records(b'{"object":"instagram","entry":[]}') == []
    assert notes_of(b'{"object":"instagram","entry":[]}') == {("empty", "entry")}


def test_item_with_no_known_key_goes_to_other_with_its_conversation() -> None:
    """Its parties are read all the same."""
    only = record(wrapped(item('"typing":{}')))
    assert (only.topic, only.key) == ("instagram.other", f"{ACCOUNT}:{CUSTOMER}".encode())


def test_item_with_message_and_reaction_is_one_messages_record() -> None:
    """The reaction stays in raw and is counted."""
    body = wrapped(item('"reaction":{"mid":"m_2"},"message":{"mid":"m_1"}'))
    assert topics(body) == ["instagram.messages"]
    assert '"reaction":{"mid":"m_2"}' in decoded(record(body))["raw"]
    assert ("second_key", "message+reaction") in notes_of(body)


def test_referral_beside_a_message_is_typed_in_the_message_s_record() -> None:
    """At item level, not inside the message."""
    only = decoded(record(wrapped(item('"message":{"mid":"m_1"},"referral":{"ref":"r","ad_id":6045246247433}'))))
    assert only["message"]["referral"] is None
    assert (only["referral"]["ref"], only["referral"]["ad_id"]) == ("r", "6045246247433")


def test_entry_id_that_is_not_the_recipient_of_a_postback_is_not_the_account() -> None:
    """Meta's own samples carry the customer's id there."""
    body = wrapped(item('"postback":{"mid":"m_1"}'), entry_id=f'"{CUSTOMER}"')
    assert record(body).key == f"{ACCOUNT}:{CUSTOMER}".encode()


def test_ids_that_are_not_numeric_are_ids() -> None:
    """Strings, whatever is in them."""
    assert (
        record(wrapped('{"sender":{"id":"IGSID"},"recipient":{"id":"ig:1"},"message":{"mid":"m_1"}}')).key
        == b"ig:1:IGSID"
    )


def test_ids_as_integers_beyond_2_53_keep_every_digit() -> None:
    """90071992547409931 is no double."""
    body = wrapped(
        '{"sender":{"id":90071992547409931},"recipient":{"id":17841400000000001},"message":{"mid":"m_1"}}',
        entry_id=ACCOUNT,
    )
    assert record(body).key == b"17841400000000001:90071992547409931"


def test_postbacks_without_a_mid_differ_by_time_and_payload() -> None:
    """A mid only came with v11.0."""
    pressed = [("1", "p"), ("2", "p"), ("1", "q")]
    ids = {
        event(wrapped(item(f'"postback":{{"payload":"{payload}"}}', timestamp=time))).event_id
        for time, payload in pressed
    }
    assert len(ids) == 3


@pytest.mark.parametrize("text", ['"page"', '"whatsapp_business_account"', "null"])
def test_object_other_than_instagram_is_a_dead_letter(text: str) -> None:
    """Authentic, but nobody's here."""
    body = wrapped(MESSAGE).replace(b'"instagram"', text.encode())
    found = dead_letter(body)
    assert (found["reason"], found["body"]) == ("unsupported_object", body)


def test_bytes_that_are_no_json_are_a_dead_letter_with_the_exact_bytes() -> None:
    """Under a valid signature, so answered 200."""
    found = dead_letter(b"\x89PNG\r\n")
    assert (found["reason"], found["body"]) == ("not_utf8", b"\x89PNG\r\n")
    assert dead_letter(b"object=instagram")["reason"] == "not_json"


@pytest.mark.parametrize(
    "bad",
    [
        "null",
        "1",
        '"x"',
        "[]",
        '{"message":[]}',
        '{"message":{"attachments":[null,1]}}',
        '{"sender":[]}',
        '{"timestamp":{}}',
    ],
)
def test_bad_item_among_good_ones_harms_no_neighbour(bad: str) -> None:
    """It is a record too, and the others are what they would be alone."""
    alone, among = records(wrapped(MESSAGE)), records(wrapped(MESSAGE, bad, MESSAGE))
    assert len(among) == 3
    assert among[0] == among[2] == alone[0]
    assert decoded(among[1])["raw"] == bad


def test_story_insights_under_five_arrive_as_minus_one() -> None:
    """Meta hides small counts."""
    only = record(wrapped(change("story_insights", '{"media_id":1,"reach":-1,"replies":"-1"}'), array="changes"))
    typed = decoded(only)["value"]
    assert (typed["media_id"], typed["reach"], typed["replies"], typed["exits"]) == ("1", -1, -1, None)


# What section 2 tells of deliveries.


def test_batch_of_many_updates_is_as_many_records() -> None:
    """Up to 1000 updates in one body, in the order they stood."""
    body = wrapped(*(item(f'"message":{{"mid":"m_{number}"}}') for number in range(1000)))
    assert [decoded(one)["message"]["mid"] for one in records(body)] == [f"m_{number}" for number in range(1000)]


def test_same_event_twice_in_one_body_is_two_records_of_one_event() -> None:
    """Duplicates are the consumers' to drop, by event_id."""
    first, second = records(wrapped(MESSAGE, MESSAGE))
    assert first == second


DASHBOARD = {
    "field": "messages",
    "value": {
        "sender": {"id": "12334"},
        "recipient": {"id": "23245"},
        "timestamp": "1527459824",
        "message": {"mid": "random_mid", "text": "random_text"},
    },
}


@pytest.mark.parametrize(
    "body",
    [
        {"object": "instagram", "entry": [{"id": "0", "time": 1527459824, "changes": [DASHBOARD]}]},
        {"object": "instagram", "entry": [{"id": "0", "time": 1527459824, **DASHBOARD}]},
        DASHBOARD,
        [{"object": "instagram", "entry": [{"id": "0", "changes": [DASHBOARD]}]}],
    ],
    ids=["changes", "flat", "bare", "array"],
)
def test_test_button_of_the_dashboard_is_a_messages_record_of_origin_changes(body: object) -> None:
    """The messaging item as a change, its time a string in seconds."""
    only: Record = record(json.dumps(body).encode())
    found = decoded(only)
    assert (only.topic, only.key) == ("instagram.messages", b"23245:12334")
    assert (found["origin"], found["occurred_at"]) == ("changes", 1527459824000)
    assert (found["message"]["mid"], found["message"]["text"]) == ("random_mid", "random_text")


def test_non_ascii_escaped_as_meta_does_is_text_in_the_typed_part_and_escaped_in_raw() -> None:
    """The bytes on the wire stay what they were."""
    escaped = item(r'"message":{"mid":"m_1","text":"\u00e4 \ud83d\ude00"}')
    found = decoded(record(wrapped(escaped)))
    assert (found["message"]["text"], found["raw"]) == ("ä 😀", escaped)


def test_lone_surrogate_is_replaced_in_the_typed_part_and_verbatim_in_raw() -> None:
    """JSON allows it, UTF-8 does not."""
    odd = item(r'"message":{"mid":"m\udc00","text":"\ud800!"}')
    found = decoded(record(wrapped(odd)))
    assert (found["message"]["mid"], found["message"]["text"], found["raw"]) == ("m\ufffd", "\ufffd!", odd)

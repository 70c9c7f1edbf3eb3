"""What an item says: its webhook field, its parties, its time, and the name it keeps."""

from __future__ import annotations

from itertools import pairwise

import pytest

from bridge.event import CHANGE_FIELDS, MESSAGING_FIELDS, WEBHOOK_FIELD_OF_KEY, Event
from tests.unit.street import ACCOUNT, CUSTOMER, change, event, item, notes_of, wrapped

KEYS = list(WEBHOOK_FIELD_OF_KEY)


def changed(webhook_field: str, value: str) -> Event:
    return event(wrapped(change(webhook_field, value), array="changes"))


# The webhook field.


def test_keys_that_decide_are_those_of_the_contract_in_its_order() -> None:
    """contract.md "Items", first sentence."""
    assert [
        *("message", "message_edit", "reaction", "postback", "read", "optin"),
        *("pass_thread_control", "take_thread_control", "request_thread_control", "app_roles", "referral"),
    ] == KEYS


@pytest.mark.parametrize(("first", "second"), list(pairwise(KEYS)))
def test_item_with_two_keys_goes_by_the_first_whatever_their_order(first: str, second: str) -> None:
    """The order of the text does not count; the second key is noted, unless the record types it."""
    for members in (f'"{first}":{{}},"{second}":{{}}', f'"{second}":{{}},"{first}":{{}}'):
        found = event(wrapped(item(members)))
        assert (found.kind, found.webhook_field) == (first, WEBHOOK_FIELD_OF_KEY[first])
        assert ("second_key", f"{first}+{second}") in notes_of(wrapped(item(members)))


def test_message_with_a_referral_beside_it_is_no_second_key() -> None:
    """The message's record types a top-level referral."""
    assert notes_of(wrapped(item('"message":{"mid":"m"},"referral":{"ref":"r"}'))) == set()


@pytest.mark.parametrize("key", KEYS)
def test_item_whose_own_key_is_no_object_goes_to_other(key: str) -> None:
    """Its kind is still the key's, and the wrong type is noted."""
    for value in ("1", '"x"', "[]", "true"):
        found = event(wrapped(item(f'"{key}":{value}')))
        assert (found.webhook_field, found.kind) == ("other", key)
        assert ("wrong_type", key) in notes_of(wrapped(item(f'"{key}":{value}')))


def test_item_whose_key_is_null_does_not_carry_it() -> None:
    """Some serialisers write an absent key as null."""
    assert event(wrapped(item('"message":null,"read":{"mid":"m"}'))).kind == "read"
    assert event(wrapped(item('"message":null'))).webhook_field == "other"


@pytest.mark.parametrize("members", ['"message":{"mid":"m"}', '"new":1', '"read":{}'])
def test_standby_item_goes_to_standby_whatever_it_carries(members: str) -> None:
    """The app does not control the thread: never a messages record."""
    assert event(wrapped(item(members), array="standby")).webhook_field == "standby"


@pytest.mark.parametrize("array", ["messaging", "standby", "changes"])
@pytest.mark.parametrize("element", ["null", "1", '"x"', "[]"])
def test_element_that_is_no_object_goes_to_other(array: str, element: str) -> None:
    """It keeps the entry's account."""
    found = event(wrapped(element, array=array))
    assert (found.webhook_field, found.kind, found.account_id, found.customer_id) == ("other", None, ACCOUNT, None)


# Changes.


@pytest.mark.parametrize("webhook_field", sorted(CHANGE_FIELDS))
def test_change_of_a_known_field_goes_there(webhook_field: str) -> None:
    """The customer is who wrote it."""
    found = changed(webhook_field, f'{{"from":{{"id":"{CUSTOMER}"}}}}')
    assert (found.webhook_field, found.kind, found.named_field) == (webhook_field, webhook_field, None)
    assert (found.account_id, found.customer_id) == (ACCOUNT, CUSTOMER)


@pytest.mark.parametrize("webhook_field", sorted(CHANGE_FIELDS))
def test_change_of_a_known_field_without_an_object_goes_to_other(webhook_field: str) -> None:
    """It still says what it named."""
    found = changed(webhook_field, '"x"')
    assert (found.webhook_field, found.kind, found.named_field) == ("other", webhook_field, webhook_field)


@pytest.mark.parametrize("webhook_field", ["story_mentions", "message", "other", "dead_letter", "", "ü", "messages "])
def test_change_of_an_unknown_field_goes_to_other(webhook_field: str) -> None:
    """A payload never names a topic."""
    found = changed(webhook_field, "{}")
    assert (found.webhook_field, found.kind, found.named_field) == ("other", webhook_field, webhook_field)


@pytest.mark.parametrize("named", ["null", "1", "[]", '["comments"]', "{}", '{"a":1}', "true"])
def test_change_whose_field_is_no_string_goes_to_other(named: str) -> None:
    """Even when its type cannot be looked up in a set."""
    found = event(wrapped(f'{{"field":{named},"value":{{"mid":"m"}}}}', array="changes"))
    assert (found.webhook_field, found.kind, found.named_field) == ("other", None, None)


@pytest.mark.parametrize("named", sorted(MESSAGING_FIELDS - {"standby"}))
def test_change_of_a_messaging_field_is_read_as_its_value(named: str) -> None:
    """The key that the value carries decides, not the field that the change names."""
    found = changed(named, item('"reaction":{"mid":"m"}'))
    assert (found.webhook_field, found.kind, found.named_field) == ("message_reactions", "reaction", None)
    assert (found.origin, found.account_id, found.customer_id) == ("changes", ACCOUNT, CUSTOMER)
    assert found.event_id == event(wrapped(item('"reaction":{"mid":"m"}'))).event_id


def test_change_of_standby_stays_standby() -> None:
    """A change that names standby is not answered as a message."""
    assert changed("standby", item('"message":{"mid":"m"}')).webhook_field == "standby"


def test_change_of_a_messaging_field_without_a_known_key_goes_to_other() -> None:
    """It says which field it named, and has the value's identity: the same as the item's in messaging[]."""
    found = changed("messages", item('"new":1'))
    assert (found.webhook_field, found.kind, found.named_field) == ("other", None, "messages")
    assert found.event_id == event(wrapped(item('"new":1'))).event_id


@pytest.mark.parametrize("named", ["referral", "postback", "message", "read", "story_mentions", "mentions"])
def test_changes_without_an_id_differ_by_their_content(named: str) -> None:
    """A field named like a messaging key is no messaging item: its identity is its canonical form."""
    values = ['{"new":1}', '{"new":2}', '{"mid":"m","new":1}', '{"mid":"m","new":2}']
    assert len({changed(named, value).event_id for value in values}) == 4


# Parties.

ENTRY, OTHER = ACCOUNT, "99"
BY_ENTRY = ["message", "message_edit", "reaction", "read"]


def parties(
    key: str, sender: str | None, recipient: str | None, *, entry_id: str = ENTRY, inside: str = ""
) -> tuple[str | None, str | None]:
    members = [
        f'"{role}":{{"id":"{party}"}}' for role, party in (("sender", sender), ("recipient", recipient)) if party
    ]
    found = event(wrapped("{" + ",".join([*members, f'"{key}":{{{inside}}}']) + "}", entry_id=f'"{entry_id}"'))
    assert (found.sender_id, found.recipient_id) == (sender, recipient)
    return found.account_id, found.customer_id


@pytest.mark.parametrize("key", BY_ENTRY)
def test_account_of_a_two_way_item_is_the_party_that_the_entry_names(key: str) -> None:
    """Whether it sent or received; the customer is the other one."""
    assert parties(key, CUSTOMER, ENTRY) == (ENTRY, CUSTOMER)
    assert parties(key, ENTRY, CUSTOMER) == (ENTRY, CUSTOMER)
    assert parties(key, ENTRY, None) == (ENTRY, None)
    assert parties(key, ENTRY, ENTRY) == (ENTRY, None)


@pytest.mark.parametrize("key", KEYS)
def test_account_of_any_item_that_the_entry_does_not_name_is_the_recipient(key: str) -> None:
    """Meta's own samples have the customer's id in entry.id; without a recipient the entry is all there is."""
    assert parties(key, CUSTOMER, ACCOUNT, entry_id=OTHER) == (ACCOUNT, CUSTOMER)
    assert parties(key, CUSTOMER, None, entry_id=OTHER) == (OTHER, CUSTOMER)
    assert parties(key, None, ACCOUNT, entry_id=OTHER) == (ACCOUNT, None)
    assert parties(key, None, None, entry_id=OTHER) == (OTHER, None)


@pytest.mark.parametrize("key", [key for key in KEYS if key not in BY_ENTRY])
def test_account_of_a_one_way_item_is_the_recipient_whatever_the_entry_says(key: str) -> None:
    """A postback comes from the customer, even when entry.id is the customer's."""
    assert parties(key, CUSTOMER, ACCOUNT, entry_id=CUSTOMER) == (ACCOUNT, CUSTOMER)


@pytest.mark.parametrize("flag", ["true", "1", '"true"'])
def test_account_of_an_echo_that_the_entry_does_not_name_is_its_sender(flag: str) -> None:
    """The account wrote it; of an echo without a sender the entry is the account, never the customer who received it."""
    echo = f'"is_echo":{flag}'
    assert parties("message", ACCOUNT, CUSTOMER, entry_id=OTHER, inside=echo) == (ACCOUNT, CUSTOMER)
    assert parties("message", None, CUSTOMER, entry_id=OTHER, inside=echo) == (OTHER, CUSTOMER)


def test_parties_of_wrong_types_are_null_and_noted() -> None:
    """The item stays in its topic."""
    body = wrapped('{"sender":"1","recipient":{"id":[]},"message":{"mid":"m"}}')
    found = event(body)
    assert (found.webhook_field, found.sender_id, found.recipient_id, found.account_id) == (
        "messages",
        None,
        None,
        ACCOUNT,
    )
    assert {("wrong_type", "sender.id"), ("wrong_type", "recipient.id")} <= notes_of(body)


def test_change_by_the_account_itself_has_no_customer() -> None:
    """A comment of the account's own."""
    assert changed("comments", f'{{"id":"c","from":{{"id":{ACCOUNT}}}}}').customer_id is None


# Identity.


def test_event_id_of_everything_that_reuses_a_mid_is_its_own() -> None:
    """A message, its unsend, its edits, reactions to it and its read receipt: none is another's redelivery."""
    told = [
        '"message":{"mid":"m"}',
        '"message":{"mid":"m","is_deleted":true}',
        '"message_edit":{"mid":"m","num_edit":1}',
        '"message_edit":{"mid":"m","num_edit":2}',
        '"reaction":{"mid":"m","action":"react","reaction":"love","emoji":"❤"}',
        '"reaction":{"mid":"m","action":"react","reaction":"other","emoji":"👍"}',
        '"reaction":{"mid":"m","action":"unreact"}',
        '"read":{"mid":"m"}',
        '"postback":{"mid":"m"}',
    ]
    ids = {event(wrapped(item(members))).event_id for members in told}
    ids.add(event(wrapped(item(told[6], timestamp="1569262485350"))).event_id)  # taken back once more, later
    ids.add(event(wrapped(item(told[0]), array="standby")).event_id)
    assert len(ids) == len(told) + 2


@pytest.mark.parametrize(
    ("members", "redelivered"),
    [
        (
            '"message":{"mid":"m","text":"a","attachments":[{"payload":{"url":"u1"}}]}',
            '"message":{"attachments":[{"payload":{"url":"u2"}}],"mid":"m"}',
        ),
        ('"message":{"mid":"m","is_deleted":true}', '"message":{"mid":"m","is_deleted":"1"}'),
        ('"message_edit":{"mid":"m","num_edit":1,"text":"a"}', '"message_edit":{"mid":"m","num_edit":"1","text":"b"}'),
        ('"message":{"mid":1}', '"message":{"mid":"1"}'),
        ('"postback":{"payload":"p","title":"a"}', '"postback":{"payload":"p","title":"b"}'),
        ('"referral":{"ref":"r","source":"s","type":"a"}', '"referral":{"ref":"r","source":"s","type":"b"}'),
    ],
)
def test_event_id_never_depends_on_urls_text_or_spelling_of_ids(members: str, redelivered: str) -> None:
    """A redelivery with a fresh signed URL, or with numbers as text, is the same event."""
    again = event(wrapped(item(redelivered, timestamp='"1569262485349"')))
    assert event(wrapped(item(members))).event_id == again.event_id


@pytest.mark.parametrize("members", ['"message":{"mid":"m"}', '"optin":{"ref":"r"}', '"new":1'])
def test_event_id_depends_on_no_entry_time_and_no_neighbour(members: str) -> None:
    """What stands around an item is the delivery's, not the event's."""
    alone = wrapped(item(members))
    later = alone.replace(b'"time":1569262486134', b'"time":1569262999999')
    among = wrapped("{}", item(members), "{}")
    assert event(alone).event_id == event(later).event_id
    assert event(alone).raw in among


def test_times_of_an_event_are_the_item_s_and_the_entry_s() -> None:
    """occurred_at by Meta's timestamp, sent_at by entry.time, both in milliseconds; null and noted where unreadable."""
    found = event(wrapped(item('"message":{"mid":"m"}', timestamp='"1569262485"')))
    assert (found.occurred_at, found.sent_at) == (1569262485000, 1569262486134)
    odd = wrapped(item('"message":{"mid":"m"}', timestamp='"soon"'))
    assert event(odd).occurred_at is None
    assert ("wrong_type", "timestamp") in notes_of(odd)


def test_ids_with_lone_surrogates_are_readable_text() -> None:
    """U+FFFD, so that a key and a header can be written."""
    found = event(wrapped(f'{{"sender":{{"id":"\\ud800"}},"recipient":{{"id":"{ACCOUNT}"}},"message":{{"mid":"m"}}}}'))
    assert found.customer_id == "\ufffd"

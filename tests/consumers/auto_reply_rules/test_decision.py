"""What is never answered, which rule answers, and with what: decisions on events at a fixed present."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import REASONS, decide
from consumers.decoding import Event
from tests.consumers.auto_reply_rules.deciding import (
    AGE_MAX,
    NOW,
    POSTBACK,
    REFERRAL,
    SMALLEST,
    came,
    decision_on,
    echo,
    rule,
    rules_of,
    said,
    texts,
)
from tests.consumers.samples import ACCOUNT, CUSTOMER, decoded, event, message

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def answered_by(happened: Event, text: str = SMALLEST, conversation: Conversation | None = None) -> str | None:
    """The rule that answers."""
    decision = decision_on(happened, rules_of(text), conversation)
    return decision.rule if decision.action == "reply" else None


@pytest.mark.parametrize(
    ("text", "expected"),
    [("HELLO!", "hello"), ("oh hi you", "hello"), ("Guten Tag", "rest"), ("", "rest"), (None, "rest")],
)
def test_first_rule_that_matches_answers(text: str | None, expected: str) -> None:
    """Rules are tried in their order; text is compared whatever its case; any_message takes what has no text."""
    assert answered_by(said(text)) == expected


def test_decision_holds_the_body_of_the_request() -> None:
    """What Graph API is asked to send, without the recipient."""
    decision = decision_on(said("hello"), rules_of(SMALLEST))
    assert (decision.action, decision.reason, decision.rule) == ("reply", "rule_matched", "hello")
    assert decision.messages == ({"message": {"text": "Hi!"}},)
    assert decision.decided_at == NOW


NEVER = [
    (echo(), "echo"),
    (said(sender_id=ACCOUNT, recipient_id=CUSTOMER), "echo"),
    (said(part={"is_self": True}), "self"),
    (said(part={"is_deleted": True}), "unsent"),
    (said(origin="standby"), "standby"),
    (said(origin="changes"), "dashboard_test"),
    (said(origin="entry"), "dashboard_test"),
    (said(customer_id=None), "no_customer"),
    (said(account_id=None), "no_customer"),
    (said(received_at=NOW - HOUR - SECOND), "received_too_long_ago"),
    (said(occurred_at=NOW - 24 * HOUR - SECOND), "outside_answer_window"),
    (said(occurred_at=None), "time_unknown"),
    (decoded(message(received_at=NOW, occurred_at=NOW) | {"message": None}), "not_a_message"),
    (came("messaging_seen", read={"mid": "m"}), "not_a_message"),
    (came("message_edit", message_edit={"mid": "m", "text": "hello", "num_edit": 1}), "not_a_message"),
    (came("message_reactions", reaction={"mid": "m", "action": "react", "emoji": "❤"}), "not_a_message"),
    (came("messaging_postbacks", postback=None), "not_a_message"),
    (came("standby", message={"mid": "m", "text": "hello"}), "standby"),
    (decoded(message(received_at=NOW, occurred_at=NOW), replay_id="r1"), "replayed"),
    (said(received_at=NOW + timedelta(minutes=5) + SECOND), "clock_behind"),
    (said(occurred_at=NOW + timedelta(minutes=5) + SECOND), "clock_behind"),
]
"""What an event may be that nothing ever answers."""

NOT_NOW = [
    (Conversation(silenced_until=NOW + SECOND), "", "handed_over"),
    (Conversation(human_at=NOW - 11 * HOUR), "", "human_answered"),
    (Conversation(human_at=NOW), "human_pause_s: 0", "human_answered"),
    (Conversation(answered_at={"b": NOW - SECOND}), "cooldown_s: 2", "cooldown"),
    (Conversation(recent=((NOW - HOUR, "b"),)), "daily_cap: 1", "daily_cap"),
    (Conversation(), f"accounts: {{{ACCOUNT}: {{enabled: false}}}}", "account_disabled"),
]
"""What a conversation, or the file, may hold against an answer to anything."""


@pytest.mark.parametrize(("happened", "reason"), NEVER)
def test_event_that_must_not_be_answered_is_not(happened: Event, reason: str) -> None:
    """Each of the reasons alone keeps an event from being answered, and is said."""
    decision = decision_on(happened, rules_of(SMALLEST))
    assert (decision.action, decision.reason, decision.messages) == ("skip", reason, ())


@pytest.mark.parametrize(("conversation", "top", "reason"), NOT_NOW)
def test_conversation_that_must_be_left_alone_is(conversation: Conversation, top: str, reason: str) -> None:
    """A message, a tap and a link alike; a rule that would ask somebody asks nobody."""
    asking = 'decide: {http: {url: "http://127.0.0.1:1/"}}'
    usual, special = (rule(f"{{account: [{ACCOUNT}]}}", top=part, more=f"  {asking}\n") for part in ("", top))
    tap = came("messaging_postbacks", postback=POSTBACK)
    for happened in (said("hello"), tap, came("messaging_referral", referral=REFERRAL)):
        assert decision_on(happened, usual).action == "ask"
        decision = decision_on(happened, special, conversation)
        assert (decision.action, decision.reason, decision.messages) == ("skip", reason, ())


def test_every_reason_not_to_answer_is_tested() -> None:
    """Whoever adds one adds its case."""
    tested = {reason for *_, reason in [*NEVER, *NOT_NOW]}
    elsewhere = {"no_rule", "hand_over_word", "rule_matched", "decider_answered", "decider_failed", "decider_declined"}
    assert tested == set(REASONS) - elsewhere


@pytest.mark.parametrize(
    "changes",
    [
        {"received_at": NOW - HOUR},
        {"occurred_at": NOW - 24 * HOUR},
        {"received_at": NOW + timedelta(minutes=5)},
        {"sender_id": None},
    ],
)
def test_event_at_the_edge_is_answered(changes: dict[str, Any]) -> None:
    """The last moment of each limit is still inside; a sender that is missing is no echo."""
    assert decision_on(said(**changes), rules_of(SMALLEST)).action == "reply"


def test_dashboards_test_button_is_not_answered() -> None:
    """Meta's sample as it arrives: a change, years old."""
    sample = message(origin="changes", occurred_at=datetime(2018, 5, 28, tzinfo=UTC), received_at=NOW, account_id="0")
    assert decision_on(decoded(sample), rules_of(SMALLEST)).reason == "dashboard_test"


def test_higher_priority_is_tried_first_and_equal_ones_in_the_files_order() -> None:
    """Where a rule stands counts only among its equals."""
    text = """
version: 1
rules:
- {name: low, priority: -1, when: {text_contains: [a]}, reply: {text: low}}
- {name: first, when: {text_contains: [b]}, reply: {text: first}}
- {name: second, when: {text_contains: [a, b]}, reply: {text: second}}
- {name: high, priority: 5, when: {text_contains: [c]}, reply: {text: high}}
"""
    assert [answered_by(said(words), text) for words in ("a", "b", "ab", "abc", "d")] == [
        "second",
        "first",
        "first",
        "high",
        None,
    ]


WIDE = {ord("0") + digit: 0xFF10 + digit for digit in range(10)}  # full-width digits, of Japanese keyboards
ORDER = r"""
version: 1
rules:
- name: order
  when: {regex: "order (?:no |number )?(?P<order>\\d{4,})?(?P<more>!)?"}
  reply: {text: "We look after {order}."%s}
- {name: rest, when: {any_message: true}, reply: {text: rest}}
"""


def test_template_takes_what_the_expression_found() -> None:
    """Named groups are values; digits of any width are digits."""
    assert texts(decision_on(said("My ORDER number 10023 …"), rules_of(ORDER % ""))) == ["We look after 10023."]
    assert texts(decision_on(said("order " + "10023".translate(WIDE)), rules_of(ORDER % ""))) == [
        "We look after 10023."
    ]


def test_missing_value_takes_the_other_text_or_passes_the_rule_over() -> None:
    """No customer ever reads an empty place or a pair of braces."""
    assert texts(decision_on(said("my order please"), rules_of(ORDER % ""))) == ["rest"]
    other = ', fallback_text: "Which order {{number}}?"'
    assert texts(decision_on(said("my order please"), rules_of(ORDER % other))) == ["Which order {number}?"]


def test_value_that_makes_the_text_too_long_takes_the_other_text_or_passes_the_rule_over() -> None:
    """1000 bytes is the limit of what is sent, not of what the file says."""
    text = """
version: 1
rules:
- {name: a, when: {any_message: true}, reply: {text: "You said: {text}"%s}}
"""
    assert texts(decision_on(said(990 * "a"), rules_of(text % ""))) == ["You said: " + 990 * "a"]
    assert decision_on(said(991 * "a"), rules_of(text % "")).reason == "no_rule"
    assert decision_on(said(496 * "ä"), rules_of(text % "")).reason == "no_rule"
    assert texts(decision_on(said(991 * "a"), rules_of(text % ", fallback_text: ok"))) == ["ok"]


def test_values_of_every_webhook_field_are_there_for_templates() -> None:
    """What the customer wrote, tapped, and where the customer came from."""
    template = 'rules:\n- {name: a, when: {account: [%s]}, reply: {text: "%s"}}'
    where = came("messaging_referral", referral=REFERRAL | {"product": {"id": "9"}})
    text = template % (ACCOUNT, "{ref} {ad_id} {product_id}")
    assert texts(decision_on(where, rules_of(f"version: 1\n{text}"))) == ["flyer-7 120 9"]
    tap = came("messaging_postbacks", postback=POSTBACK)
    assert texts(decision_on(tap, rules_of(f"version: 1\n{template % (ACCOUNT, '{title} {payload}')}"))) == [
        "Hours HOURS"
    ]
    ad = said("hi", part={"referral": REFERRAL | {"ads_context_data": {"ad_title": "Spring"}}})
    assert texts(decision_on(ad, rules_of(f"version: 1\n{template % (ACCOUNT, '{ad_title}: {text}')}"))) == [
        "Spring: hi"
    ]


def test_answer_with_everything_is_written_as_meta_wants_it() -> None:
    """Seen, typing, a text with quick replies; a template with cards and both kinds of buttons."""
    text = """
version: 1
rules:
- name: menu
  when: {text_words: [menu]}
  reply:
    mark_seen: true
    typing_on: true
    text: What about?
    quick_replies: [{title: Hours, payload: HOURS}, {title: A person, payload: HUMAN}]
- name: shop
  when: {text_words: [shop]}
  reply:
    generic_template:
    - title: Summer dress
      subtitle: 49.90 €
      image_url: https://shop.example/dress.jpg
      url: https://shop.example/dress
      buttons: [{title: Buy, url: "https://shop.example/buy"}, {title: Ask, payload: ASK}]
"""
    assert decision_on(said("menu"), rules_of(text)).messages == (
        {"sender_action": "mark_seen"},
        {"sender_action": "typing_on"},
        {
            "message": {
                "text": "What about?",
                "quick_replies": [
                    {"content_type": "text", "title": "Hours", "payload": "HOURS"},
                    {"content_type": "text", "title": "A person", "payload": "HUMAN"},
                ],
            }
        },
    )
    card = {
        "title": "Summer dress",
        "subtitle": "49.90 €",
        "image_url": "https://shop.example/dress.jpg",
        "default_action": {"type": "web_url", "url": "https://shop.example/dress"},
        "buttons": [
            {"type": "web_url", "url": "https://shop.example/buy", "title": "Buy"},
            {"type": "postback", "title": "Ask", "payload": "ASK"},
        ],
    }
    attachment = {"type": "template", "payload": {"template_type": "generic", "elements": [card]}}
    assert decision_on(said("shop"), rules_of(text)).messages == ({"message": {"attachment": attachment}},)


def test_account_that_is_switched_off_gets_no_answers() -> None:
    """The kill switch stops one account, and no other."""
    rules = rule("{any_message: true}", top=f"accounts: {{{ACCOUNT}: {{enabled: false}}}}")
    assert decision_on(said("hi"), rules).reason == "account_disabled"
    other = decoded(message("hi", account_id="1", recipient_id="1", occurred_at=NOW, received_at=NOW))
    assert decision_on(other, rules).action == "reply"


def test_clock_that_jumped_back_answers_nothing_old() -> None:
    """With our clock a week behind, last week's events would look fresh; this week's tell that it is wrong."""
    week = timedelta(days=7)
    rules = rules_of(SMALLEST)
    assert decision_on(said("hi", moment=NOW), rules, now=NOW - week).reason == "clock_behind"
    assert decision_on(said("hi", moment=NOW - 6 * week / 7), rules, now=NOW - week).reason == "clock_behind"


def test_clock_that_jumped_ahead_answers_nothing() -> None:
    """Then everything seems old, which is the safe side."""
    assert decision_on(said("hi"), rules_of(SMALLEST), now=NOW + timedelta(days=1)).reason == "received_too_long_ago"


def test_age_of_a_retry_counts_from_the_event_for_the_window_and_from_the_receipt_for_the_limit() -> None:
    """Meta retries for 36 h: a delivery that is fresh here may be too old to be answered."""
    late = decoded(event("messages", message={"mid": "m", "text": "hi"}, occurred_at=NOW - 30 * HOUR, received_at=NOW))
    decision = decide(late, Conversation(), rules_of(SMALLEST), now=NOW, event_age_max=AGE_MAX)
    assert decision.reason == "outside_answer_window"

"""Conversations as they go: people who answer, words that ask for one, cooldowns, caps, and what the customer is told of the bot."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import Decision
from consumers.decoding import Event
from tests.consumers.auto_reply_rules.deciding import (
    NOW,
    Thread,
    came,
    decision_on,
    echo,
    examples,
    rule,
    rule_text,
    rules_of,
    said,
    texts,
)
from tests.consumers.samples import decoded, message

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
ANY = "{any_message: true}"


def nobodys(_: Event) -> bool:
    """No echo is the bot's."""
    return False


def test_bots_own_echo_silences_nothing() -> None:
    """The bot is not taken for a person: its second answer comes."""
    thread = Thread(rule(ANY))
    assert thread.customer(said("one")).action == "reply"
    assert thread.customer(said("two", moment=NOW + MINUTE)).action == "reply"
    assert thread.sent == ["ok", "ok"]


def test_person_who_answers_has_the_conversation_for_as_long_as_the_rules_say() -> None:
    """From the person's last message on, not from the first."""
    thread = Thread(rule(ANY, top="human_pause_s: 3600"))
    thread.customer(said("hello"))
    thread.human("Hi, Anna here. Which size?", moment=NOW + 5 * MINUTE)
    assert thread.customer(said("42 please", moment=NOW + 6 * MINUTE)).reason == "human_answered"
    thread.human("On its way!", moment=NOW + 30 * MINUTE)
    assert thread.customer(said("thanks", moment=NOW + 89 * MINUTE)).reason == "human_answered"
    assert thread.customer(said("another thing", moment=NOW + 90 * MINUTE)).action == "reply"


def test_person_is_left_alone_for_half_a_day_when_the_rules_say_nothing() -> None:
    """The default keeps the bot out of a working day's conversation."""
    thread = Thread(rule(ANY))
    thread.human("Hello from Anna", moment=NOW)
    assert thread.customer(said("hi", moment=NOW + 12 * HOUR - MINUTE)).reason == "human_answered"
    assert thread.customer(said("hi", moment=NOW + 12 * HOUR)).action == "reply"


def test_question_that_a_person_answered_after_it_is_never_answered() -> None:
    """After an outage the answer is in the records already: it is seen ahead, and the old question stays as it is."""
    rules = rule(ANY, top="human_pause_s: 60")
    known = Conversation().seen(echo("Anna here", moment=NOW + MINUTE), is_own_echo=nobodys)
    assert decision_on(said("hi"), rules, known, now=NOW + 30 * MINUTE).reason == "human_answered"
    assert decision_on(said("hi", moment=NOW + 2 * MINUTE), rules, known, now=NOW + 30 * MINUTE).action == "reply"


def test_echo_that_comes_late_or_twice_moves_nothing_back() -> None:
    """The last answer of a person counts, in whatever order the echoes come."""
    late, early = echo("b", moment=NOW), echo("a", moment=NOW - HOUR)
    forwards = Conversation().seen(early, is_own_echo=nobodys).seen(late, is_own_echo=nobodys)
    backwards = Conversation().seen(late, is_own_echo=nobodys).seen(early, is_own_echo=nobodys)
    assert forwards == backwards == backwards.seen(early, is_own_echo=nobodys)
    assert forwards.human_at == NOW


def test_echo_of_a_replay_or_of_the_dashboard_is_no_person() -> None:
    """What was published again or is a test says nothing of the conversation now."""
    replayed = decoded(message(part={"is_echo": True}, occurred_at=NOW, received_at=NOW), replay_id="r1")
    assert Conversation().seen(replayed, is_own_echo=nobodys) == Conversation()
    assert Conversation().seen(echo(origin="changes"), is_own_echo=nobodys) == Conversation()
    assert Conversation().seen(echo(origin="standby"), is_own_echo=nobodys) == Conversation()


HAND_OVER = """
version: 1
cooldown_s: 30
hand_over:
  words: [human, real person]
  payloads: [HUMAN]
  silence_s: 7200
  reply: {text: A person comes.}
rules:
- {name: rest, when: {any_message: true}, reply: {text: ok}}
"""


def test_hand_over_word_silences_the_bot_and_gets_a_last_word() -> None:
    """Until the time is over; nothing but the last word is sent."""
    thread = Thread(rules_of(HAND_OVER))
    asked = thread.customer(said("Can I talk to a HUMAN, please?"))
    assert (asked.action, asked.reason, texts(asked)) == ("silence", "hand_over_word", ["A person comes."])
    assert asked.silenced_until == NOW + 2 * HOUR
    assert thread.customer(said("hello?", moment=NOW + 2 * HOUR - MINUTE)).reason == "handed_over"
    assert thread.customer(said("hello?", moment=NOW + 2 * HOUR)).action == "reply"


def test_hand_over_is_asked_for_by_words_and_by_taps() -> None:
    """Phrases, quick replies and postbacks; not by a part of a word."""
    rules = rules_of(HAND_OVER)
    tap = came("messaging_postbacks", postback={"mid": "m", "title": "Help", "payload": "HUMAN", "referral": None})
    assert decision_on(said("a real person!"), rules).action == "silence"
    assert decision_on(said("x", part={"quick_reply": {"payload": "HUMAN"}}), rules).action == "silence"
    assert decision_on(tap, rules).action == "silence"
    assert decision_on(said("a real nice person"), rules).action == "reply"
    assert decision_on(said("superhuman"), rules).action == "reply"


def test_hand_over_word_counts_even_where_nothing_may_be_sent() -> None:
    """Too late for an answer, in a cooldown, or with a person there: silence is kept, and nothing is said."""
    thread = Thread(rules_of(HAND_OVER))
    thread.customer(said("hello"))
    cooling = thread.customer(said("human", moment=NOW + timedelta(seconds=10)))
    assert (cooling.action, cooling.messages) == ("silence", ())
    late = decision_on(said("human", occurred_at=NOW - 25 * HOUR), rules_of(HAND_OVER))
    assert (late.action, late.messages) == ("silence", ())
    assert decision_on(echo("human"), rules_of(HAND_OVER)).action == "skip"


def test_silence_is_known_to_whoever_reads_the_decisions() -> None:
    """A new owner of the partition rebuilds it from the ledger alone."""
    asked = decision_on(said("human"), rules_of(HAND_OVER))
    again = Conversation().answered(asked)
    assert decision_on(said("hi", moment=NOW + MINUTE), rules_of(HAND_OVER), again).reason == "handed_over"
    assert again.answered(asked) == again


def test_rule_in_its_cooldown_keeps_silent_and_lets_no_other_speak() -> None:
    """The second hello gets no "we answer soon" instead; other words, and other conversations, get theirs."""
    thread = Thread(
        rules_of("""
version: 1
rules:
- {name: hello, cooldown_s: 600, when: {text_words: [hello]}, reply: {text: Hi!}}
- {name: rest, when: {any_message: true}, reply: {text: ok}}
""")
    )
    assert thread.customer(said("hello")).rule == "hello"
    again = thread.customer(said("hello?", moment=NOW + 9 * MINUTE))
    assert (again.action, again.reason, again.rule) == ("skip", "cooldown", "hello")
    assert thread.customer(said("size 42", moment=NOW + 9 * MINUTE)).rule == "rest"
    assert thread.customer(said("hello", moment=NOW + 10 * MINUTE)).rule == "hello"
    assert thread.sent == ["Hi!", "ok", "Hi!"]


def test_cooldown_of_the_conversation_holds_for_all_rules() -> None:
    """Whichever rule answered, no other one does within the time."""
    thread = Thread(rule(ANY, top="cooldown_s: 60"))
    first, second, third = said("a"), said("b", moment=NOW + MINUTE / 2), said("c", moment=NOW + MINUTE)
    assert [thread.customer(one).reason for one in (first, second, third)] == [
        "rule_matched",
        "cooldown",
        "rule_matched",
    ]


def test_daily_cap_counts_any_24_hours() -> None:
    """Of a rule and of the conversation; midnight gives nobody a second portion."""
    thread = Thread(
        rules_of("""
version: 1
daily_cap: 3
rules:
- {name: a, daily_cap: 2, when: {text_words: [a]}, reply: {text: a}}
- {name: b, when: {any_message: true}, reply: {text: b}}
""")
    )
    steps = [("a", 0), ("a", 1), ("a", 2), ("b", 3), ("b", 23), ("a", 24), ("b", 24), ("a", 25)]
    reasons = [thread.customer(said(word, moment=NOW + hours * HOUR)).reason for word, hours in steps]
    assert reasons == [
        "rule_matched",
        "rule_matched",
        "daily_cap",
        "rule_matched",
        "daily_cap",
        "rule_matched",
        "daily_cap",
        "rule_matched",
    ]


DISCLOSURE = """
version: 1
disclosure: {text: "I am a bot.", every_days: 7%s}
rules:
- {name: card, when: {text_words: [shop]}, reply: {generic_template: [{title: Dress, subtitle: green}]}}
- {name: rest, when: {any_message: true}, reply: {text: ok}}
"""


def test_disclosure_stands_before_the_first_answer_and_again_after_its_days() -> None:
    """In the same message, so that one answer stays one message."""
    thread = Thread(rules_of(DISCLOSURE % ""))
    moments = (timedelta(), HOUR, 7 * DAY - MINUTE, 7 * DAY)
    told = [texts(thread.customer(said("hi", moment=NOW + moment))) for moment in moments]
    assert told == [["I am a bot.\n\nok"], ["ok"], ["ok"], ["I am a bot.\n\nok"]]


def test_disclosure_before_a_template_is_a_message_of_its_own() -> None:
    """A template has no room for it; the answer comes last."""
    decision = decision_on(said("shop"), rules_of(DISCLOSURE % ""))
    assert [list(body["message"]) for body in decision.messages] == [["text"], ["attachment"]]
    assert decision.discloses


def test_disclosure_is_for_the_accounts_that_need_it() -> None:
    """Where it is not required nobody is told."""
    assert texts(decision_on(said("hi"), rules_of(DISCLOSURE % ", accounts: [1]"))) == ["ok"]


def test_disclosure_that_was_not_sent_is_owed() -> None:
    """When the answer certainly failed, the next one says it; cooldown and cap count it no more either."""
    rules = rules_of((DISCLOSURE % "") + "cooldown_s: 600\n")
    decision = decision_on(said("hi"), rules)
    failed = Conversation().answered(decision).not_sent(decision)
    assert failed == Conversation()
    assert texts(decision_on(said("hi", moment=NOW + MINUTE), rules, failed)) == ["I am a bot.\n\nok"]


def test_first_message_is_the_first_that_is_known() -> None:
    """A tap and a link count as well; unsending does not."""
    rules = rule("{first_message: true}")
    for earlier, first in (
        (said("hello", part={"is_deleted": True}), True),
        (echo("Did you know?"), True),
        (said("hello"), False),
        (came("messaging_postbacks", postback={"mid": "m", "title": "t", "payload": "P", "referral": None}), False),
    ):
        known = Conversation().seen(earlier, is_own_echo=lambda _: True)
        assert (decision_on(said("hi", moment=NOW + MINUTE), rules, known).rule == "a") == first


def test_first_message_is_one_again_after_30_days() -> None:
    """A process that was started again since has to come to the same answer, so it reads the ledger back that far."""
    known = Conversation().seen(said("hello"), is_own_echo=nobodys)
    rules = rule("{first_message: true}")
    for passed, first in ((30 * DAY - MINUTE, False), (30 * DAY, True)):
        later = NOW + passed
        assert (decision_on(said("hi", moment=later), rules, known, now=later).action == "reply") == first


@pytest.mark.parametrize(
    ("text", "days"),
    [
        (rule_text(ANY), 1),
        (rule_text(ANY, top="human_pause_s: 259200"), 3),
        (rule_text(ANY, top="cooldown_s: 345600"), 4),
        (rule_text(ANY, more="  cooldown_s: 432000"), 5),
        (rule_text(ANY, top="hand_over: {words: [human], silence_s: 518400}"), 6),
        (rule_text(ANY, top="disclosure: {text: Bot., every_days: 7}"), 7),
        (rule_text("{first_message: false}"), 30),
    ],
)
def test_ledger_is_read_back_as_far_as_the_rules_remember(text: str, days: int) -> None:
    """Whatever pause is the longest; a day at least, for what was said in it."""
    assert rules_of(text).looks_back == days * DAY


def test_clock_that_was_wrong_once_holds_nothing_back_for_longer_than_the_pause() -> None:
    """An answer that a wrong clock dated a year ahead silences nobody for a year; one just ahead still counts."""
    rules = rule(ANY, top="cooldown_s: 600\ndaily_cap: 1")
    for ahead, reason in ((timedelta(days=365), "rule_matched"), (MINUTE, "cooldown"), (HOUR, "daily_cap")):
        known = Conversation().answered(
            Decision("reply", "rule_matched", NOW + ahead, "a", ({"message": {"text": "ok"}},))
        )
        assert decision_on(said("hi"), rules, known).reason == reason


@examples
@given(st.lists(st.tuples(st.integers(0, 3 * 24 * 3600), st.sampled_from(["a", "b"])), max_size=30))
def test_conversation_knows_each_rules_last_answer_and_all_of_the_last_day(answers: list[tuple[int, str]]) -> None:
    """Whatever was answered when, and though an entry is read twice."""
    conversation = Conversation()
    moments = [(NOW + timedelta(seconds=seconds), name) for seconds, name in sorted(answers)]
    for moment, name in moments:
        decision = Decision("reply", "rule_matched", moment, name, ({"message": {"text": "ok"}},))
        conversation = conversation.answered(decision).answered(decision)
    assert conversation.answered_at == {name: moment for moment, name in moments}
    assert set(conversation.recent) == {(moment, name) for moment, name in moments if moments[-1][0] - moment < DAY}
    assert list(conversation.recent) == sorted(set(conversation.recent))

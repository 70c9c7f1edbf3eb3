"""Whether an event is answered, and with what. Does no IO and reads no clock: the present comes as an argument.

    event ──▶ what it is ──▶ how old it is, whose turn it is ──▶ the rules, first match wins ──▶ Decision

A decision sends nothing: it holds the bodies of the Graph requests that would carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from consumers.auto_reply.conversation import Conversation, is_echo
from consumers.auto_reply.rulebook.facts import Facts
from consumers.auto_reply.rulebook.reply import Reply, Unrenderable
from consumers.auto_reply.rules import Rules
from consumers.decoding import Event

ANSWER_WINDOW = timedelta(hours=24)  # Meta: only within 24 h of the customer's last message (2026-11-22)

# How far the clocks of the bridge, of Meta and of this machine may be apart: Kerberos' measure (RFC 4120, 1.6). An event that
# lies further in the future says that our clock is wrong, and then nobody knows how old any event is.
CLOCK_SKEW_MAX = timedelta(minutes=5)

REASONS: Mapping[str, str] = {
    "rule_matched": "the rule answers",
    "decider_answered": "the rule's decider gave the answer",
    "decider_failed": "the rule's decider was late or gave nothing that can be sent; its `reply` is sent if it has one",
    "hand_over_word": "the customer asked for a person: the bot is silent from now on",
    "replayed": "the record was published again (`ig_replay_id`)",
    "standby": "another app has the conversation",
    "dashboard_test": "the dashboard's Test button, or another change",
    "not_a_message": "no message, postback or referral: an edit, a read receipt, a reaction",
    "unsent": "the customer took the message back",
    "echo": "the account itself sent it",
    "self": "the account wrote to itself",
    "no_customer": "it names no customer or no account",
    "clock_behind": "it lies more than five minutes in the future: this machine's clock is wrong",
    "received_too_long_ago": "the bridge received it longer than AUTO_REPLY_EVENT_AGE_MAX_S ago",
    "time_unknown": "without Meta's time nobody can say that the window is still open",
    "outside_answer_window": "the customer wrote it more than 24 hours ago",
    "account_disabled": "`accounts` switches the bot off for the account",
    "handed_over": "the customer asked for a person lately",
    "human_answered": "a person, or another app, answered after it or lately",
    "cooldown": "the bot, or the rule, answered in this conversation just now",
    "daily_cap": "the bot, or the rule, answered in this conversation often enough for 24 hours",
    "decider_declined": "the rule's decider wants no answer",
    "no_rule": "no rule matches, or the one that does lacks a value for its text",
}
"""Why a decision is what it is, as slugs for metrics and the decisions' topic."""

Action = Literal["reply", "silence", "ask", "skip"]
"""`reply` sends; `silence` keeps the bot out of the conversation from now on, and may send a last word; `ask` leaves it to
the rule's own decider (`deciders.py`); `skip` sends nothing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one event.

    Attributes:
        action: See `Action`.
        reason: One of REASONS.
        decided_at: The present that was decided in, aware.
        rule: The rule that answers, or whose cooldown or cap keeps it from answering.
        messages: Bodies for `POST …/messages` without their recipient, to be sent in this order, each only after the one
            before it succeeded: `{"sender_action": …}` (worth no second try) and then `{"message": …}`, the answer. One
            answer is one message, but for a template that needs the disclosure before it.
        silenced_until: With `silence`: until when.
        discloses: Whether the messages tell the customer that a bot answers.
        cut_off: Rules whose regular expression ran out of time and was taken for one that does not match.
        values: With `ask`: what the rule's conditions found, and what templates may use.
    """

    action: Action
    reason: str
    decided_at: datetime
    rule: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    silenced_until: datetime | None = None
    discloses: bool = False
    cut_off: tuple[str, ...] = ()
    values: Mapping[str, str | None] = field(default_factory=dict)


def decide(
    event: Event, conversation: Conversation, rules: Rules, *, now: datetime, event_age_max: timedelta
) -> Decision:
    """The decision on an event of `messages`, `messaging_postbacks` or `messaging_referral`.

    Args:
        event: One that was not decided on before: that is the ledger's to know.
        conversation: What is known of it without this event; echoes that came after it may be in it.
        rules: What to answer.
        now: The present, aware.
        event_age_max: How long ago the bridge may have received an event that is answered.
    """
    now = now.replace(
        microsecond=now.microsecond // 1000 * 1000
    )  # as precise as the ledger's times, so that they compare
    reason = _what_it_is(event)
    if reason is not None:
        return Decision("skip", reason, now)
    facts = Facts(event, conversation, now=now)
    reason = (
        _how_old_it_is(event, now=now, age_max=event_age_max)
        or (None if rules.is_enabled(facts.account_id) else "account_disabled")
        or _whose_turn_it_is(event, conversation, now=now, human_pause=rules.human_pause)
        or _held_back(conversation, now=now, rule=None, cooldown_s=rules.cooldown_s, daily_cap=rules.daily_cap)
    )
    # Asked for a person is asked for a person, however late we hear of it.
    if rules.hand_over is not None and rules.asks_for_a_person(facts):
        last_word = None if reason else rules.hand_over.reply
        # Counted from the event, so that it ends when it should even if our clock is wrong.
        said_at: datetime = event.value["occurred_at"] or event.value["received_at"]
        until = said_at + timedelta(seconds=rules.hand_over.silence_s)
        return _silence(facts, conversation, rules, last_word, until=until)
    if reason is not None:
        return Decision("skip", reason, now)
    return _by_the_rules(facts, conversation, rules)


def disclosure_due(conversation: Conversation, rules: Rules, *, account_id: str | None, now: datetime) -> str | None:
    """What has to be said of the bot before the next answer; None when it was said lately, or need not be."""
    disclosure = rules.disclosure_for(account_id)
    if disclosure is None or _within(conversation.disclosed_at, now, timedelta(days=disclosure.every_days)):
        return None
    return disclosure.text


def _by_the_rules(facts: Facts, conversation: Conversation, rules: Rules) -> Decision:
    cut_off: list[str] = []
    disclosure = disclosure_due(conversation, rules, account_id=facts.account_id, now=facts.now)
    for candidate in rules.candidates:
        rule = candidate.rule
        found = candidate.match(facts)
        if found.cut_off:
            cut_off.append(rule.name)
        if not found.held:
            continue
        reason = _held_back(
            conversation, now=facts.now, rule=rule.name, cooldown_s=rule.cooldown_s, daily_cap=rule.daily_cap
        )
        if reason is not None:
            return Decision("skip", reason, facts.now, rule.name, cut_off=tuple(cut_off))
        values = {**facts.values, **found.values}
        try:
            messages = rule.reply.bodies(values, disclosure=disclosure) if rule.reply else ()
        except Unrenderable:
            if rule.decide is None:
                continue
            messages = ()
        return Decision(
            action="ask" if rule.decide else "reply",
            reason="rule_matched",
            decided_at=facts.now,
            rule=rule.name,
            messages=messages,
            discloses=disclosure is not None and bool(messages),
            cut_off=tuple(cut_off),
            values=values if rule.decide else {},
        )
    return Decision("skip", "no_rule", facts.now, cut_off=tuple(cut_off))


def _silence(
    facts: Facts, conversation: Conversation, rules: Rules, last_word: Reply | None, *, until: datetime
) -> Decision:
    disclosure = disclosure_due(conversation, rules, account_id=facts.account_id, now=facts.now)
    messages: tuple[Mapping[str, Any], ...] = ()
    if last_word is not None:
        try:
            messages = last_word.bodies(facts.values, disclosure=disclosure)
        except Unrenderable:
            messages = ()
    return Decision(
        action="silence",
        reason="hand_over_word",
        decided_at=facts.now,
        messages=messages,
        silenced_until=until,
        discloses=disclosure is not None and bool(messages),
    )


def _what_it_is(event: Event) -> str | None:
    """Why an event is of a kind that is never answered."""
    value = event.value
    message: Mapping[str, Any] = value.get("message") or {}
    part = {"messages": "message", "messaging_postbacks": "postback", "messaging_referral": "referral"}
    checks = (
        ("replayed", event.replay_id is not None),
        ("standby", value["origin"] == "standby" or event.webhook_field == "standby"),
        ("dashboard_test", value["origin"] != "messaging"),
        ("not_a_message", value.get(part.get(event.webhook_field, "")) is None),
        ("unsent", bool(message.get("is_deleted"))),
        ("echo", is_echo(event)),
        ("self", bool(message.get("is_self"))),
        ("no_customer", value["account_id"] is None or value["customer_id"] is None),
    )
    return next((reason for reason, applies in checks if applies), None)


def _how_old_it_is(event: Event, *, now: datetime, age_max: timedelta) -> str | None:
    occurred_at: datetime | None = event.value["occurred_at"]
    received_at: datetime = event.value["received_at"]
    if max(received_at, occurred_at or received_at) - now > CLOCK_SKEW_MAX:
        return "clock_behind"
    if now - received_at > age_max:
        return "received_too_long_ago"
    if occurred_at is None:
        return "time_unknown"
    return "outside_answer_window" if now - occurred_at > ANSWER_WINDOW else None


def _whose_turn_it_is(event: Event, conversation: Conversation, *, now: datetime, human_pause: timedelta) -> str | None:
    human_at, silenced_until = conversation.human_at, conversation.silenced_until
    if silenced_until is not None and now < silenced_until:
        return "handed_over"
    if human_at is None:
        return None
    answered_after = human_at >= (event.value["occurred_at"] or event.value["received_at"])
    return "human_answered" if answered_after or _within(human_at, now, human_pause) else None


def _held_back(
    conversation: Conversation, *, now: datetime, rule: str | None, cooldown_s: int, daily_cap: int | None
) -> str | None:
    """Why the bot, or one rule, has said enough in a conversation."""
    last = conversation.answered_at.get(rule) if rule else max(conversation.answered_at.values(), default=None)
    if cooldown_s and _within(last, now, timedelta(seconds=cooldown_s)):
        return "cooldown"
    if daily_cap is not None and conversation.answers(now, rule=rule) >= daily_cap:
        return "daily_cap"
    return None


def _within(moment: datetime | None, now: datetime, span: timedelta) -> bool:
    # A moment in the future comes from a clock that was wrong. It counts like one in the past, and for no longer: a clock that
    # once was a year ahead must not silence the bot for a year.
    return moment is not None and abs(now - moment) < span

"""Whether an event is answered, and with what. Reads no clock and does no IO: the time comes as an argument.

    event ──▶ what it is ──▶ when, and in which conversation ──▶ the rules, first match wins ──▶ Decision

A decision sends nothing: it holds the bodies of the Graph requests that would carry it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from consumers.auto_reply.conversation import Conversation, is_echo
from consumers.auto_reply.rules import Rules
from consumers.decoding import Event

ANSWER_WINDOW = timedelta(hours=24)  # Meta: only within 24 h of the customer's last message (2026-11-22)

Action = Literal["reply", "silence", "ask", "skip"]
"""`reply` sends; `silence` keeps the bot out of the conversation from now on, and may send a last word; `ask` leaves it to
a decider of the rule's own (`deciders.py`); `skip` sends nothing."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of one event.

    Attributes:
        action: See `Action`.
        reason: A slug, one of REASONS.
        decided_at: The present that was decided in, aware.
        rule: The rule that answers, or whose cooldown or cap keeps it from answering.
        messages: Bodies for `POST …/messages` without their recipient, to be sent in this order, each only after the one
            before it succeeded: `{"sender_action": …}` (worth no second try) and then `{"message": …}`, the answer. One
            answer is one message, but for a template that needs the disclosure before it.
        silenced_until: With `silence`: until when.
        discloses: Whether the messages tell the customer that a bot answers.
        cut_off: Rules whose regular expression ran out of time and was taken for one that does not match.
    """

    action: Action
    reason: str
    decided_at: datetime
    rule: str | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    silenced_until: datetime | None = None
    discloses: bool = False
    cut_off: tuple[str, ...] = ()


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
    del conversation
    reason = reason_not_to_answer(event, now=now, age_max=event_age_max)
    if reason is not None:
        return Decision("skip", reason, now)
    rule = rules.first_match((event.value.get("message") or {}).get("text"))
    if rule is None:
        return Decision("skip", "no_rule", now)
    return Decision("reply", "rule_matched", now, rule.name, ({"message": {"text": rule.reply.text}},))


def reason_not_to_answer(event: Event, *, now: datetime, age_max: timedelta) -> str | None:
    """Why an event of the `messages` topic gets no answer, as a slug; None when it may get one.

    Args:
        event: A decoded event.
        now: The present, aware.
        age_max: How long ago the bridge may have received it.
    """
    value = event.value
    message = value.get("message")
    occurred_at: datetime | None = value["occurred_at"]
    account_id, customer_id = value["account_id"], value["customer_id"]
    # From what the event is to when it was: the first that applies is the one that is said.
    checks = (
        ("replayed", event.replay_id is not None),
        ("standby", value["origin"] == "standby" or event.webhook_field == "standby"),
        ("dashboard_test", value["origin"] != "messaging"),
        ("not_a_message", event.webhook_field != "messages" or message is None),
        ("unsent", bool(message and message["is_deleted"])),
        # Our own message, with or without Meta's flag: answering it would be answering ourselves.
        ("echo", is_echo(event)),
        ("self", bool(message and message["is_self"])),
        ("no_customer", account_id is None or customer_id is None),
        ("received_too_long_ago", now - value["received_at"] > age_max),
        # Without Meta's time nobody can say that the window is still open.
        ("time_unknown", occurred_at is None),
        ("outside_answer_window", occurred_at is not None and now - occurred_at > ANSWER_WINDOW),
    )
    return next((reason for reason, applies in checks if applies), None)

"""What the tests of the rules work with: rules from text, events at a fixed present, and a conversation that is played."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from hypothesis import settings

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import Decision, decide
from consumers.auto_reply.rules import Rules, load_rules
from consumers.decoding import Event
from tests.consumers.samples import ACCOUNT, CUSTOMER, decoded, event, message

examples = settings(max_examples=100, deadline=None, derandomize=True)  # the same on a busy machine, and in every run

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)  # a Sunday
AGE_MAX = timedelta(hours=1)
SMALLEST = """
{version: 1, rules: [
  {name: hello, when: {text_contains: [hello, hi]}, reply: {text: "Hi!"}},
  {name: rest, when: {any_message: true}, reply: {text: "…"}}]}
"""
"""The contract's."""

POSTBACK = {"mid": "m", "title": "Hours", "payload": "HOURS", "referral": None}
REFERRAL = {"ref": "flyer-7", "ad_id": "120", "source": "IGME-SOURCE-LINK", "type": "OPEN_THREAD"}

RECORD_NAMES = {
    "messages": "Messages",
    "messaging_postbacks": "MessagingPostbacks",
    "messaging_referral": "MessagingReferral",
    "messaging_seen": "MessagingSeen",
    "message_edit": "MessageEdit",
    "message_reactions": "MessageReactions",
    "standby": "Standby",
}


def rules_of(text: str) -> Rules:
    """The rules in a text."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rules.yaml"
        path.write_text(text, "utf-8")
        return load_rules(path)


def rule_text(when: str, *, more: str = "", top: str = "") -> str:
    """A file with one rule, `a`, that answers `ok`."""
    return f"version: 1\n{top}\nrules:\n- name: a\n  when: {when}\n  reply: {{text: ok}}\n{more}"


def rule(when: str, *, more: str = "", top: str = "") -> Rules:
    """The rules of such a file."""
    return rules_of(rule_text(when, more=more, top=top))


def at(moment: datetime, **changes: object) -> dict[str, Any]:
    """The times of an event that happened then and was received at once."""
    return {"occurred_at": moment, "sent_at": moment, "received_at": moment} | changes


def said(
    text: str | None = "Hello there", *, moment: datetime = NOW, part: dict[str, Any] | None = None, **changes: object
) -> Event:
    """A customer's message, as a consumer gets it."""
    return decoded(message(text, part=part, **at(moment) | changes))


def echo(text: str = "An answer", *, moment: datetime = NOW, **changes: object) -> Event:
    """The account's own message, as a consumer gets it."""
    changes = {"sender_id": ACCOUNT, "recipient_id": CUSTOMER} | changes
    return said(text, moment=moment, part={"is_echo": True}, **changes)


def came(webhook_field: str, *, moment: datetime = NOW, **changes: object) -> Event:
    """Any other event of a customer's."""
    return decoded(event(webhook_field, **at(moment) | changes), record_name=RECORD_NAMES[webhook_field])


def decision_on(
    happened: Event, rules: Rules, conversation: Conversation | None = None, *, now: datetime = NOW
) -> Decision:
    """What is decided on an event at a moment."""
    return decide(happened, conversation or Conversation(), rules, now=now, event_age_max=AGE_MAX)


def texts(decision: Decision) -> list[str]:
    """What the customer would read."""
    return [body["message"]["text"] for body in decision.messages if "text" in body.get("message", {})]


@dataclass
class Thread:
    """A conversation that is played event by event; the bot's answers come back as echoes at once, as Meta sends them."""

    rules: Rules
    conversation: Conversation = field(default_factory=Conversation)
    sent: list[str] = field(default_factory=list)

    def customer(self, happened: Event, *, now: datetime | None = None) -> Decision:
        """The customer does something; `now` is when it happened, unless it is said."""
        decision = decision_on(happened, self.rules, self.conversation, now=now or happened.value["received_at"])
        self.conversation = self.conversation.seen(happened, is_own_echo=self.is_own).answered(decision)
        for text in texts(decision):
            self.sent.append(text)
            self.human(text, moment=decision.decided_at)
        return decision

    def human(self, text: str, *, moment: datetime) -> None:
        """An echo arrives."""
        self.conversation = self.conversation.seen(echo(text, moment=moment), is_own_echo=self.is_own)

    def is_own(self, happened: Event) -> bool:
        """Whether the bot said that."""
        return happened.value["message"]["text"] in self.sent

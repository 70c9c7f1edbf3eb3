"""What is known of one conversation, as a small value: built from the events and decisions in Kafka, in any process alike.

Does no IO and reads no clock. Every time in it is one that a record carries, so that whoever reads the same records has the
same conversation. Events and decisions may come late and twice: times only ever move forward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from consumers.decoding import Event

if TYPE_CHECKING:
    from consumers.auto_reply.decision import Decision

DAY = timedelta(hours=24)  # of a daily cap: any 24 hours, so that neither time zones nor midnight matter

# After so long a customer's message is a first one again: the ledger is not read further back for it.
FIRST_MESSAGE_AFTER = timedelta(days=30)

# The newest answers of a day that are remembered, and so the highest daily cap: nobody wants a bot that says more.
RECENT_ANSWERS_MAX = 100

IsOwnEcho = Callable[[Event], bool]
"""Whether an echo is of a message that this bot sent: the ledger has its mid, or an intent with its text."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One customer and one account. The empty one is a conversation of which nothing is known.

    Attributes:
        customer_at: When the customer last wrote, tapped or came by a link.
        human_at: When somebody other than this bot last answered: a person, or another app.
        silenced_until: Until when the customer's hand-over word keeps the bot silent.
        disclosed_at: When the customer was last told that a bot answers.
        answered_at: When each rule last answered, by its name.
        recent: The answers of the 24 hours before the last one, oldest first: when, and by which rule. See `answers`.
    """

    customer_at: datetime | None = None
    human_at: datetime | None = None
    silenced_until: datetime | None = None
    disclosed_at: datetime | None = None
    answered_at: Mapping[str, datetime] = field(default_factory=dict)
    recent: tuple[tuple[datetime, str], ...] = ()

    def is_first(self, now: datetime) -> bool:
        """Whether what the customer does now comes after nothing that is known."""
        return self.customer_at is None or now - self.customer_at >= FIRST_MESSAGE_AFTER

    def answers(self, now: datetime, *, rule: str | None = None) -> int:
        """How often the bot, or one of its rules, answered in the 24 hours before."""
        return sum(abs(now - at) < DAY and rule in (None, name) for at, name in self.recent)

    def seen(self, event: Event, *, is_own_echo: IsOwnEcho) -> Conversation:
        """The conversation after an event of the customer's, or after an echo; of anything else, the same one.

        Decide on an event before it is seen: whether it is the first one is asked of what came before. Echoes may be seen
        ahead of earlier events, and should be when both are at hand: then an answer that a person gave long ago is known
        before the question is decided on.

        Args:
            event: Of `messages`, `messaging_postbacks` or `messaging_referral`.
            is_own_echo: Asked for echoes alone.
        """
        if event.replay_id is not None or event.value["origin"] != "messaging":
            return self
        at: datetime = event.value["occurred_at"] or event.value["received_at"]
        if is_echo(event):
            return self if is_own_echo(event) else replace(self, human_at=_later(self.human_at, at))
        message = event.value.get("message") or {}
        if message.get("is_deleted") or message.get("is_self"):
            return self
        return replace(self, customer_at=_later(self.customer_at, at))

    def answered(self, decision: Decision) -> Conversation:
        """The conversation after a decision is in the ledger, whether it was made here or by an earlier owner."""
        at = decision.decided_at
        known = replace(
            self,
            silenced_until=_later(self.silenced_until, decision.silenced_until),
            disclosed_at=_later(self.disclosed_at, at if decision.messages and decision.discloses else None),
        )
        if not decision.messages or decision.rule is None or (at, decision.rule) in self.recent:
            return known
        recent = sorted([(when, rule) for when, rule in self.recent if abs(at - when) < DAY] + [(at, decision.rule)])
        rule_at = _later(self.answered_at.get(decision.rule), at)
        return replace(
            known,
            answered_at={**self.answered_at, decision.rule: rule_at or at},
            recent=tuple(recent[-RECENT_ANSWERS_MAX:]),
        )

    def not_sent(self, decision: Decision) -> Conversation:
        """The conversation when what was decided certainly did not reach the customer: nobody was told of the bot then."""
        at = decision.decided_at
        return replace(
            self,
            disclosed_at=None if self.disclosed_at == at else self.disclosed_at,
            answered_at={rule: when for rule, when in self.answered_at.items() if (when, rule) != (at, decision.rule)},
            recent=tuple(answer for answer in self.recent if answer != (at, decision.rule)),
        )


def is_echo(event: Event) -> bool:
    """Whether the account itself sent it, with or without Meta's flag: answering that would be answering ourselves."""
    message = event.value.get("message") or {}
    account_id = event.value["account_id"]
    return bool(message.get("is_echo")) or (account_id is not None and event.value["sender_id"] == account_id)


def _later(known: datetime | None, new: datetime | None) -> datetime | None:
    if known is None or new is None:
        return known or new
    return max(known, new)

"""What the partitions of a process work with, and how an answer is carried out with it. Knows nothing of Kafka."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from consumers.auto_reply.accounts import Account, Accounts
from consumers.auto_reply.deciders import Deciders
from consumers.auto_reply.figures import Figures
from consumers.auto_reply.graph import Answer, Graph
from consumers.auto_reply.rules import Rules


@dataclass(frozen=True, slots=True)
class Tools:
    """What all partitions of a process share.

    Attributes:
        event_age_max: How long ago the bridge may have received an event that is answered.
        unknown_after: How long an echo is waited for.
        dry_run: Whether nothing is sent.
        now: The present, aware, in whole milliseconds.
    """

    rules: Rules
    deciders: Deciders
    accounts: Accounts
    graph: Graph
    figures: Figures
    event_age_max: timedelta
    unknown_after: timedelta
    dry_run: bool
    now: Callable[[], datetime]


def present() -> datetime:
    """The present as the ledger holds it: in milliseconds."""
    now = datetime.now(UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)


async def carry_out(
    graph: Graph, account: Account, customer_id: str, messages: Sequence[Mapping[str, Any]]
) -> tuple[Answer, tuple[str, ...]]:
    """Posts the bodies of one answer in their order until one fails, and tells the account what Graph API says of it.

    Returns:
        The answer that decides what became of it, and the ids of the messages that were sent.
    """
    mids: list[str] = []
    for body in messages:
        answer = await graph.post(account.account_id, customer_id, body)
        if answer.kind in ("limited", "unreachable"):
            account.back_off(answer.pause_s, reason=answer.reason)
        elif answer.kind == "stop":
            account.stop(answer.reason)
        elif answer.pause_s is not None:
            account.back_off(answer.pause_s, reason="usage")
        else:
            account.worked()
        if answer.message_id is not None:
            mids.append(answer.message_id)
        # Whether somebody is shown as typing is worth no answer that is not given.
        is_worth_nothing = "sender_action" in body and answer.kind in ("refused", "lost")
        if answer.kind != "sent" and not is_worth_nothing:
            return answer, tuple(mids)
    return Answer("sent", "answered"), tuple(mids)

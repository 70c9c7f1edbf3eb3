"""`python -m consumers.auto_reply`: reads `<prefix>.messages` and logs the reply that each message would get."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import ClassVar, Self

import structlog
from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import decide
from consumers.auto_reply.rules import Rules, load_rules
from consumers.decoding import Event
from consumers.process import command
from consumers.recent import RecentIds
from consumers.settings import ConsumerSettings
from consumers.worker import Worker

log: structlog.stdlib.BoundLogger = structlog.get_logger("consumers.auto_reply")


class Settings(ConsumerSettings):
    """Every `AUTO_REPLY_…` variable that has an effect."""

    model_config = SettingsConfigDict(env_prefix="AUTO_REPLY_")
    not_used_yet: ClassVar[frozenset[str]] = frozenset(
        {"AUTO_REPLY_GRAPH_URL", "AUTO_REPLY_TOKENS", "AUTO_REPLY_TOKENS_FILE"}
    )

    group_id: str = Field(default="instagram-auto-reply", min_length=1)
    rules: Path
    event_age_max_s: int = Field(default=3600, gt=0)
    dry_run: bool = True

    @model_validator(mode="after")
    def _never_sends(self) -> Self:
        if not self.dry_run:
            raise ValueError("AUTO_REPLY_DRY_RUN: sending comes with a later version; leave it unset, or true")
        return self


class AutoReply:
    """Decides on events, each event_id once, and logs the decisions.

    Args:
        rules: The rules, in their order.
        age_max: How long ago the bridge may have received an event that is answered.
    """

    def __init__(self, rules: Rules, *, age_max: timedelta) -> None:
        self._rules = rules
        self._age_max = age_max
        self._decided = RecentIds()

    async def handle(self, events: list[Event]) -> None:
        """Logs one `would_reply` per event that a rule answers, and one `not_answered` with counts for the others.

        Nothing that a customer wrote is logged.
        """
        skipped: Counter[str] = Counter()
        for event in events:
            if not self._decided.add(event.event_id):
                skipped["redelivered"] += 1
                continue
            decision = decide(event, Conversation(), self._rules, now=datetime.now(UTC), event_age_max=self._age_max)
            if not decision.messages:
                skipped[decision.reason] += 1
                continue
            log.info(
                "would_reply",
                rule=decision.rule,
                reply_text=decision.messages[-1]["message"].get("text"),
                account_id=event.value["account_id"],
                customer_id=event.value["customer_id"],
                event_id=event.event_id,
            )
        if skipped:
            log.info("not_answered", **skipped)


async def main(settings: Settings, stop: asyncio.Event) -> None:
    """Loads the rules and reads until the event is set."""
    rules = load_rules(settings.rules)
    log.info("rules_loaded", rules=[rule.name for rule in rules.rules], dry_run=settings.dry_run)
    auto_reply = AutoReply(rules, age_max=timedelta(seconds=settings.event_age_max_s))
    await Worker(settings, webhook_fields=["messages"], handle=auto_reply.handle).run(stop)


if __name__ == "__main__":
    command(
        "consumers.auto_reply",
        "Logs the reply that each Instagram message would get by the rules in AUTO_REPLY_RULES; sends nothing. "
        "Settings are AUTO_REPLY_… environment variables.",
        Settings,
        main,
    )()

"""The numbers: distinct events per account and webhook field, in memory, from this process's start. Does no IO."""

from collections import deque
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumers.analytics.description import describe
from consumers.decoding import Event
from consumers.recent import RECENT_MAX, RecentIds

ACCOUNTS_MAX = 1000  # rows that one answer of /api/counts holds; further accounts are counted together
OTHER_ACCOUNTS = "other accounts"
NO_ACCOUNT = "no account"
FEED_EVENTS_MAX = 100  # the newest events; a reader that falls further behind misses some of the feed, no number


@dataclass(slots=True)
class Tally:
    """How many distinct events, and when the bridge received the last of them."""

    events: int = 0
    last_received_at: datetime | None = None

    def add(self, received_at: datetime) -> None:
        """Counts one event."""
        self.events += 1
        self.last_received_at = max(received_at, self.last_received_at or received_at)

    def as_json(self) -> dict[str, Any]:
        """`events`, and `last_received_at` in ISO 8601 or null."""
        last = self.last_received_at
        return {"events": self.events, "last_received_at": last.isoformat() if last else None}


@dataclass(slots=True)
class Counts:
    """Counts every event_id once, as long as it is among the newest 250,000.

    Attributes:
        started_at: Since when is counted.
        redeliveries: Records whose event_id was counted before.
        version: Grows with every record, so that a reader knows that there is something new.
        feed: The newest events as (number, event), oldest first; the numbers grow without a gap.
    """

    started_at: datetime
    redeliveries: int = 0
    version: int = 0
    total: Tally = field(default_factory=Tally)
    by_webhook_field: dict[str, Tally] = field(default_factory=dict)
    by_account: dict[str, dict[str, Tally]] = field(default_factory=dict)
    feed: deque[tuple[int, Event]] = field(default_factory=lambda: deque(maxlen=FEED_EVENTS_MAX))
    _recent: RecentIds = field(default_factory=RecentIds)

    async def handle(self, events: list[Event]) -> None:
        """Takes events in; those of a known event_id only as redeliveries."""
        for event in events:
            self.version += 1
            if not self._recent.add(event.event_id):
                self.redeliveries += 1
                continue
            self._count(event)
            self.feed.append((self.total.events, event))

    def _count(self, event: Event) -> None:
        account = event.value["account_id"] or NO_ACCOUNT
        if account not in self.by_account and len(self.by_account) >= ACCOUNTS_MAX:
            account = OTHER_ACCOUNTS
        received_at = event.value["received_at"]
        name = event.webhook_field
        self.total.add(received_at)
        self.by_webhook_field.setdefault(name, Tally()).add(received_at)
        self.by_account.setdefault(account, {}).setdefault(name, Tally()).add(received_at)

    def as_json(self) -> dict[str, Any]:
        """What `/api/counts` gives, apart from what only the worker knows."""
        return {
            "started_at": self.started_at.isoformat(),
            **self.total.as_json(),
            "redeliveries": self.redeliveries,
            "distinct_event_ids_max": RECENT_MAX,
            "webhook_fields": {name: tally.as_json() for name, tally in sorted(self.by_webhook_field.items())},
            "accounts": {
                account: {name: tally.as_json() for name, tally in sorted(fields.items())}
                for account, fields in sorted(self.by_account.items())
            },
        }

    def feed_after(self, number: int, *, with_text: bool) -> list[dict[str, Any]]:
        """The feed's events with a greater number, oldest first; what people wrote is in them only when asked for."""
        return [
            {
                "number": own_number,
                "received_at": event.value["received_at"].isoformat(),
                "account_id": event.value["account_id"],
                "webhook_field": event.webhook_field,
                **describe(event, with_text=with_text),
            }
            for own_number, event in self.feed
            if own_number > number
        ]

"""A period that figures are asked for: its queries' parameters, its hours or days, all of it read of one moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import duckdb

from consumers.analytics.kept import Kept

IN_PERIOD = "event_time >= $since AND event_time < $until AND ($account IS NULL OR account_id = $account)"
BUCKET = "date_trunc($unit, event_time)"


@dataclass(frozen=True, slots=True)
class Period:
    """What a query may name: times are naive UTC, as the tables have them."""

    connection: duckdb.DuckDBPyConnection
    account_id: str | None
    since: datetime
    until: datetime
    now: datetime
    unit: str
    unanswered_minutes: int

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        """The rows of a query, which gets those of the parameters that it names."""
        every = {
            "account": self.account_id,
            "since": self.since,
            "until": self.until,
            "now": self.now,
            "unit": self.unit,
            "unanswered_before": self.now - timedelta(minutes=self.unanswered_minutes),
        }
        named = {name: value for name, value in every.items() if f"${name}" in query}
        return self.connection.execute(query, named).fetchall()

    def buckets(self) -> list[datetime]:
        """The first moments of the hours or days that the period touches, also of those without any event."""
        step = timedelta(hours=1) if self.unit == "hour" else timedelta(days=1)
        at = self.since.replace(minute=0, second=0, microsecond=0)
        at = at if self.unit == "hour" else at.replace(hour=0)
        found = []
        while at < self.until:
            found.append(at)
            at += step
        return found


@contextmanager
def one_moment(connection: duckdb.DuckDBPyConnection, kept: Kept) -> Iterator[None]:
    """All that is read within the block is of one state of the database; what is kept for later is of that state, too."""
    connection.execute("BEGIN TRANSACTION READ ONLY")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        kept.forget()
        connection.execute("ROLLBACK")
        raise


def naive(moment: datetime) -> datetime:
    """An aware time as the tables have it: UTC, without a zone."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def iso(moment: datetime) -> str:
    """A time of the tables as ISO 8601."""
    return moment.replace(tzinfo=UTC).isoformat()

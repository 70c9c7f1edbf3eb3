"""The numbers that the page shows, read from the database while ingest writes to it: each reading sees whole commits alone."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import duckdb

from consumers.analytics import measures
from consumers.analytics.kept import Accounts, Kept

ACCOUNTS_MAX = 1000  # rows that one answer of /api/counts holds; further accounts are counted together
OTHER_ACCOUNTS = "other accounts"
NO_ACCOUNT = "no account"


class StoreReadings:
    """Reads from one thread at a time.

    Args:
        cursor: A connection of its own to the database that ingest writes.
        unanswered_minutes: How long a question may wait before it counts as unanswered.
        status: Gives what only the running process knows, see `stream.Readings`.
    """

    def __init__(
        self, cursor: duckdb.DuckDBPyConnection, *, unanswered_minutes: int, status: Callable[[], dict[str, Any]]
    ) -> None:
        self._cursor = cursor
        self._unanswered_minutes = unanswered_minutes
        self._status = status
        self._started_at = datetime.now(UTC)
        self._kept = Kept(cursor)
        self._accounts = Accounts(cursor)

    def accounts(self) -> list[str]:
        """The accounts that have events, sorted."""
        return self._accounts.known()

    def figures(self, account_id: str | None, since: datetime, until: datetime, now: datetime) -> dict[str, Any]:
        """The figures of an account, or of all with None, from `since` on and before `until`."""
        return measures.figures(
            self._cursor,
            account_id=account_id,
            since=since,
            until=until,
            now=now,
            unanswered_minutes=self._unanswered_minutes,
            kept=self._kept,
        )

    def counts(self) -> dict[str, Any]:
        """Distinct events of all times, by webhook field and by account, and when the bridge received the last of each."""
        rows = self._cursor.execute(
            "SELECT account_id, webhook_field, count(*), max(received_at) FROM events GROUP BY ALL ORDER BY ALL"
        ).fetchall()
        total: dict[str, Any] = {"events": 0, "last_received_at": None}
        fields: dict[str, Any] = {}
        accounts: dict[str, dict[str, Any]] = {}
        for account_id, webhook_field, events, received_at in rows:
            account = account_id or NO_ACCOUNT
            if account not in accounts and len(accounts) >= ACCOUNTS_MAX:
                account = OTHER_ACCOUNTS
            last = received_at.replace(tzinfo=UTC).isoformat()
            for tally in (
                total,
                fields.setdefault(webhook_field, {"events": 0, "last_received_at": last}),
                accounts.setdefault(account, {}).setdefault(webhook_field, {"events": 0, "last_received_at": last}),
            ):
                tally["events"] += events
                tally["last_received_at"] = max(last, tally["last_received_at"] or last, key=datetime.fromisoformat)
        return {
            "started_at": self._started_at.isoformat(),
            **total,
            "webhook_fields": dict(sorted(fields.items())),
            "accounts": dict(sorted(accounts.items())),
        }

    def stop(self) -> None:
        """Ends the reading that is under way, if any, with an error; may be called from any thread."""
        self._cursor.interrupt()

    def status(self) -> dict[str, Any]:
        """What only the running process knows."""
        return self._status()

"""What a connection keeps from one question to the next, in temporary tables: computed once, then brought up to date by new rows.

Whether a customer is new, and whether a message is a question, depends on all that was before; so does which accounts there are.
And a day is a small part of the row groups that it lies in. A file only grows, so what is told of its rows so far stays true, and
the rows since are few: without this every update of the page would read most of the file.

New rows are those behind the number of rows that there were. That holds until `settled.removed` changes (known.py), and where row
numbers have no gaps.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

import duckdb

RECENT_ROWS_MAX = 200_000  # 40 MB; in more of them the rest of the row groups hardly matters

# last: the time in milliseconds, doubled, and one more when it was an echo. That sorts, and tells who wrote it.
_BEFORE = """
SELECT conversation, max(epoch_ms(event_time) * 2 + is_echo::BIGINT) AS last, bool_or(NOT is_echo) AS wrote_before
FROM events
WHERE webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted AND conversation IS NOT NULL
  AND event_time < $since AND rowid >= $rows
GROUP BY 1
"""
_RECENT = """
SELECT webhook_field, origin, account_id, conversation, event_time, occurred_at, received_at, is_echo, is_deleted, num_edit,
  action, reaction, attachments, is_story_reply, payload, ad_id, ref
FROM events WHERE event_time >= $since AND rowid >= $rows
"""


@dataclass(frozen=True, slots=True)
class _State:
    """How far a table tells of the file: of so many rows, after so many were removed from it."""

    name: str
    rows: int
    removed: int


class _Tables:
    """A table for each of the last beginnings of a period that were asked for. Belongs into the transaction that reads it."""

    PREFIX: ClassVar[str]
    TABLES_MAX: ClassVar[int]
    QUERY: ClassVar[str]

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._states: dict[datetime, _State] = {}

    def table(self, since: datetime) -> str:
        """The name of the table for a beginning, naive UTC."""
        state = self._states.pop(since, None)
        [(rows, removed)] = self._connection.execute(
            "SELECT (SELECT count(*) FROM events), removed FROM settled"
        ).fetchall()
        has_gaps = self._connection.execute("SELECT 1 FROM events WHERE rowid >= ? LIMIT 1", [rows]).fetchall()
        name = state.name if state else self._free_name()
        if state is None or state.removed != removed or has_gaps:
            self._connection.execute(
                f"CREATE OR REPLACE TEMP TABLE {name} AS {self.QUERY}", {"since": since, "rows": 0}
            )
        elif state.rows != rows:
            self.add(name, {"since": since, "rows": state.rows})
        self._states[since] = _State(name, rows, -1 if has_gaps else removed)
        return name

    def add(self, name: str, new: dict[str, object]) -> None:
        """Brings a table up to date by the rows that are `new`."""
        raise NotImplementedError

    def forget(self) -> None:
        """After a transaction that failed: what it changed is as it was, and we no longer know what that is."""
        self._states.clear()

    def _free_name(self) -> str:
        while len(self._states) >= self.TABLES_MAX:
            del self._states[next(iter(self._states))]  # the one that was not asked for the longest
        taken = {state.name for state in self._states.values()}
        return next(name for number in range(self.TABLES_MAX) if (name := f"{self.PREFIX}_{number}") not in taken)


class _Before(_Tables):
    """What each conversation had come to before a time: `conversation`, `last` (see above), `wrote_before` (the customer)."""

    PREFIX = "before"
    TABLES_MAX = 8  # the page's five periods, and some days between; 25 bytes a conversation each
    QUERY = _BEFORE

    def add(self, name: str, new: dict[str, object]) -> None:
        late = "SELECT 1 FROM events WHERE rowid >= $rows AND event_time < $since LIMIT 1"
        if self._connection.execute(late, new).fetchall():
            self._connection.execute(
                f"""CREATE OR REPLACE TEMP TABLE {name} AS
                SELECT conversation, max(last) AS last, bool_or(wrote_before) AS wrote_before
                FROM (FROM {name} UNION ALL ({self.QUERY})) GROUP BY 1""",  # noqa: S608 - of constants
                new,
            )


class _Recent(_Tables):
    """The events from a time on, without what no figure needs."""

    PREFIX = "recent"
    TABLES_MAX = 2  # today and the last 24 hours
    QUERY = _RECENT

    def add(self, name: str, new: dict[str, object]) -> None:
        self._connection.execute(f"INSERT INTO {name} {self.QUERY}", new)


class Kept:
    """What a connection keeps. All of it belongs into the transaction that reads it.

    Args:
        connection: Whose temporary tables and views they are.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._before, self._recent = _Before(connection), _Recent(connection)
        self._views: tuple[str, str] | None = None  # over which tables they are

    def look_at(self, since: datetime, *, is_short: bool) -> None:
        """Makes the views that a period's queries read.

        `period_events` has at least all events since its beginning, `period_messages` the direct messages of them, and
        `before` a row for each conversation that had a message before.

        Args:
            since: The period's beginning, naive UTC.
            is_short: Whether the period may be kept.
        """
        source = "events"
        if is_short:
            [(rows,)] = self._connection.execute(
                "SELECT count(*) FROM events WHERE event_time >= ?", [since]
            ).fetchall()
            if rows <= RECENT_ROWS_MAX:
                source = self._recent.table(since)
        views = source, self._before.table(since)
        if views != self._views:
            messages = "webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted"
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW before AS FROM {views[1]}")
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW period_events AS FROM {source}")
            self._connection.execute(f"CREATE OR REPLACE TEMP VIEW period_messages AS FROM {source} WHERE {messages}")
            self._views = views

    def forget(self) -> None:
        """After a transaction that failed."""
        self._before.forget()
        self._recent.forget()
        self._views = None


class Accounts:
    """The accounts that have an event.

    Args:
        connection: Where they are read.
    """

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._known: set[str] = set()
        self._rows = self._removed = 0

    def known(self) -> list[str]:
        """Their ids, sorted."""
        if self._look(self._rows) != self._removed:
            self._removed = self._look(0)
        return sorted(self._known)

    def _look(self, first: int) -> int:
        """Adds those of the rows from the first on; gives how many rows had been removed by then."""
        [(self._rows, removed, found)] = self._connection.execute(
            """SELECT (SELECT count(*) FROM events), removed,
                (SELECT list(DISTINCT account_id) FROM events WHERE rowid >= ? AND account_id IS NOT NULL)
            FROM settled""",
            [first],
        ).fetchall()
        self._known.update(found or ())
        return int(removed)

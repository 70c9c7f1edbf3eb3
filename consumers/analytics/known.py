"""Which events of a batch are known, and whose text has to go: looked for nearby at once, in the whole file now and then.

Copies of an event lie near each other by the time at which the bridge received them: Meta repeats a delivery for 36 hours (docs/
explanation.md), and a record that is read again still says when it was received. So a batch is compared with what was received
around it, and DuckDB leaves out the row groups of other times: it costs the same however large the file has become. What could
be further away (an id that was used again, the unsend of an old message) is found by `settle`, before anybody can copy the file.

Somebody who catches up reads some partitions faster than others, so times are mixed in all row groups. Then a batch is compared
with the rows that were added last, and `settle` finds the rest, for a million events at once, before the numbers are called whole.
"""

import duckdb

LOOK_BACK_DAYS = 2  # beyond the 36 hours for which Meta repeats
LAST_ROWS = 200_000  # that a batch is compared with while catching up: Meta repeats most deliveries at once
SETTLE_EVENTS_MAX = (
    1_000_000  # that wait for `settle`: some 50 MB while it looks, and a hundredth of what reading them took
)

# Around a batch, within the years that every clock and every library knows: a time that is out of them costs a look at less.
_AROUND = f"""
SELECT greatest(min(received_at), TIMESTAMP '1970-01-03') - INTERVAL {LOOK_BACK_DAYS} DAY,
  least(max(received_at), TIMESTAMP '9999-12-29') + INTERVAL {LOOK_BACK_DAYS} DAY
FROM (SELECT coalesce(TRY_CAST(received_at AS TIMESTAMP), TIMESTAMP 'epoch') AS received_at FROM batch)
"""  # noqa: S608 - of constants

# An event_id that is no UUID, which the bridge never makes, is taken by its hash rather than refused with its whole batch; a
# time beyond DuckDB's counts as none.
_FRESH = """
CREATE OR REPLACE TEMP TABLE fresh AS
WITH given AS (
  SELECT * REPLACE (
    coalesce(TRY_CAST(event_id AS UUID), md5(event_id)::UUID) AS event_id,
    TRY_CAST(occurred_at AS TIMESTAMP) AS occurred_at,
    coalesce(TRY_CAST(received_at AS TIMESTAMP), TIMESTAMP 'epoch') AS received_at
  ) FROM batch
), near AS (
  SELECT event_id FROM events WHERE {near}
)
SELECT event_id, webhook_field, origin, kind, account_id, customer_id,
  md5_number_lower(account_id || ':' || customer_id) AS conversation, md5(mid)::UUID AS mid_md5,
  coalesce(occurred_at, received_at) AS event_time, occurred_at, received_at,
  coalesce(is_echo, false) AS is_echo, coalesce(is_deleted, false) AS is_deleted, text, num_edit, action, reaction,
  attachments, coalesce(story, false) AS is_story_reply, payload, ad_id, ref, kafka_partition, kafka_offset
FROM given ANTI JOIN near USING (event_id)
"""

_BLANK_NEAR = """
UPDATE events SET text = NULL WHERE text IS NOT NULL AND {near}
  AND mid_md5 IN (SELECT mid_md5 FROM fresh WHERE is_deleted AND mid_md5 IS NOT NULL)
"""

_REMOVE_COPIES = """
DELETE FROM events WHERE rowid IN (
  SELECT later.place FROM (SELECT rowid AS place, event_id FROM events WHERE rowid >= $settled) AS later
  JOIN events AS earlier ON earlier.event_id = later.event_id AND earlier.rowid < later.place
)
"""

_BLANK = """
UPDATE events SET text = NULL WHERE text IS NOT NULL
  AND mid_md5 IN (SELECT mid_md5 FROM events WHERE rowid >= $settled AND is_deleted AND mid_md5 IS NOT NULL)
"""


def take_fresh(database: duckdb.DuckDBPyConnection, *, is_behind: bool) -> int:
    """Makes the temporary table `fresh` of those rows of `batch` that are not known, and says how many there are.

    The texts of unsent messages are gone then, in it and near it. Belongs into the transaction that adds `fresh` to `events`.
    """
    if is_behind:
        [(rows,)] = database.execute("SELECT count(*) FROM events").fetchall()
        near, bounds = "rowid >= $first", {"first": max(0, rows - LAST_ROWS)}
    else:
        [(since, until)] = database.execute(_AROUND).fetchall()
        near, bounds = "received_at BETWEEN $since AND $until", {"since": since, "until": until}
    database.execute(_FRESH.format(near=near), bounds)
    [(events, unsends)] = database.execute("SELECT count(*), count(mid_md5) FILTER (is_deleted) FROM fresh").fetchall()
    # Text and unsend may come in either order, in one batch or in two.
    if unsends:
        database.execute(
            "INSERT INTO unsent SELECT DISTINCT mid_md5 FROM fresh WHERE is_deleted AND mid_md5 IS NOT NULL"
        )
        database.execute(_BLANK_NEAR.format(near=near), bounds)
    database.execute("UPDATE fresh SET text = NULL WHERE text IS NOT NULL AND mid_md5 IN (FROM unsent)")
    return int(events)


def unsettled(database: duckdb.DuckDBPyConnection) -> int:
    """How many events were added since `settle` looked at the whole file; 0 in a file that has no table `settled` yet."""
    database.execute(
        "CREATE TABLE IF NOT EXISTS settled AS SELECT count(*) AS events, 0::BIGINT AS removed FROM events"
    )
    [(waiting,)] = database.execute("SELECT (SELECT count(*) FROM events) - events FROM settled").fetchall()
    return int(waiting)


def settle(database: duckdb.DuckDBPyConnection) -> int:
    """Compares what was added since the last time with the whole file: later copies go, and so do texts of unsent messages.

    Gives how many copies there were.

    Rows are numbered as they were added, and those behind a removed one may move up: what is left of them is a safe place to
    go on from.
    """
    [(settled,)] = database.execute("SELECT events FROM settled").fetchall()
    [(removed,)] = database.execute(_REMOVE_COPIES, {"settled": settled}).fetchall()
    database.execute(_BLANK, {"settled": settled})
    database.execute("UPDATE settled SET events = (SELECT count(*) FROM events), removed = removed + ?", [removed])
    return int(removed)

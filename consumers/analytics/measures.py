"""The figures, each defined once: what is counted, over which events, by which time. Does no IO but on its connection.

All times are event time: Meta's, and the bridge's receipt where Meta gave none. A figure is of a period [since, until) and of
one account or of all. Every event_id counts once. Messages are direct messages: no unsends, edits, standby or dashboard tests.
An event that claims to be from the future is in no period that ends now; `future` counts it.
"""

from datetime import datetime, timedelta
from typing import Any

import duckdb

from consumers.analytics.queries import BUCKET, IN_PERIOD, Period, iso, naive, one_moment

HOURLY_PERIOD_DAYS_MAX = 3  # 72 points on a chart; longer periods are shown by day
TOP_MAX = 20  # rows of a ranking
RESPONSE_UPPER_S = (60, 300, 900, 3600, 14400, 86400, None)  # 86,400: Meta's window for an answer without a human's tag


def accounts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The ids of all accounts that have an event, sorted."""
    found = connection.execute("SELECT DISTINCT account_id FROM events WHERE account_id IS NOT NULL ORDER BY 1")
    return [account_id for (account_id,) in found.fetchall()]


def figures(
    connection: duckdb.DuckDBPyConnection,
    *,
    account_id: str | None,
    since: datetime,
    until: datetime,
    now: datetime,
    unanswered_minutes: int,
) -> dict[str, Any]:
    """Every figure of a period, JSON-ready and all of the same moment. Times are ISO 8601 in UTC; unknown is None.

    Args:
        connection: A connection or cursor of its own; one transaction of it is used.
        account_id: None is all accounts.
        since: Aware; the period's first moment.
        until: Aware; the first moment after it.
        now: Aware; what lies after it is in the future.
        unanswered_minutes: How long a question may wait before it counts as unanswered.

    Raises:
        duckdb.Error: The database cannot be read.
    """
    unit = "hour" if until - since <= timedelta(days=HOURLY_PERIOD_DAYS_MAX) else "day"
    period = Period(connection, account_id, naive(since), naive(until), naive(now), unit, unanswered_minutes)
    with one_moment(connection):
        series = _series(period)
        answers = _answers(period)
        series["first_response_median_s"] = [answers["by_bucket"].get(at) for at in series["at"]]
        return {
            "account_id": account_id,
            "since": iso(period.since),
            "until": iso(period.until),
            "unit": unit,
            "totals": {
                **_totals(period),
                **answers["totals"],
                **_seen(period),
                "new_customers": sum(series["new_customers"]),
                "unanswered_minutes": unanswered_minutes,
            },
            "series": series | {"at": [iso(at) for at in series["at"]]},
            "events_by_field": dict(period.rows(_EVENTS_BY_FIELD)),
            "lag": _lag(period),
            "reactions": dict(period.rows(_REACTIONS)),
            "attachments": dict(period.rows(_ATTACHMENTS)),
            "postbacks": [list(row) for row in period.rows(_POSTBACKS)],
            "ads": [list(row) for row in period.rows(_CONVERSATIONS_BY.format(column="ad_id"))],
            "refs": [list(row) for row in period.rows(_CONVERSATIONS_BY.format(column="ref"))],
            "response_histogram": {"upper_s": list(RESPONSE_UPPER_S), "count": answers["histogram"]},
            "heat": _heat(period),
        }


# Events of each webhook field, as they were published: standby and dashboard tests among them.
_EVENTS_BY_FIELD = f"SELECT webhook_field, count(*) FROM events WHERE {IN_PERIOD} GROUP BY 1 ORDER BY 2 DESC, 1"  # noqa: S608 - of constants

# Reactions that were given, by name, by emoji where there is no name; one that was taken back or changed still was given.
_REACTIONS = f"""
    SELECT coalesce(reaction, 'unknown'), count(*) FROM events
    WHERE webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react' AND {IN_PERIOD}
    GROUP BY 1 ORDER BY 2 DESC, 1"""  # noqa: S608 - of constants

# Attachments of messages in and out, by Meta's type; a message with three images counts three.
_ATTACHMENTS = f"""
    SELECT type, count(*) FROM (SELECT unnest(attachments) AS type FROM direct_messages WHERE {IN_PERIOD})
    GROUP BY 1 ORDER BY 2 DESC, 1"""  # noqa: S608 - of constants

# Taps on buttons and ice breakers, by the payload that the business gave them.
_POSTBACKS = f"""
    SELECT payload, count(*) FROM events
    WHERE webhook_field = 'messaging_postbacks' AND origin = 'messaging' AND payload IS NOT NULL AND {IN_PERIOD}
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP_MAX}"""  # noqa: S608 - of constants

# Questions of the period: event_time (when it was asked), answered_at and seconds, both null without an answer. The window begins
# with the period. Of what was before it only each conversation's last message matters: times are whole milliseconds, so that one
# number sorts by time and then, question before answer, tells who wrote it.
_QUESTIONS = """
    WITH recent AS (
        SELECT conversation, event_time, is_echo FROM direct_messages
        WHERE conversation IS NOT NULL AND event_time >= $since AND event_time <= $now
            AND ($account IS NULL OR account_id = $account)
    ), last_before AS (
        SELECT conversation, (max(epoch_ms(event_time) * 2 + is_echo::BIGINT) & 1) = 1 AS is_echo
        FROM direct_messages SEMI JOIN recent USING (conversation)
        WHERE event_time < $since AND ($account IS NULL OR account_id = $account) GROUP BY 1
    ), turns AS (
        SELECT conversation, event_time, recent.is_echo,
            lag(recent.is_echo, 1, coalesce(last_before.is_echo, true)) OVER in_order AS after_echo
        FROM recent LEFT JOIN last_before USING (conversation)
        WINDOW in_order AS (PARTITION BY conversation ORDER BY event_time, recent.is_echo)
    ), changes AS (
        SELECT event_time, is_echo,
            lead(event_time) OVER (PARTITION BY conversation ORDER BY event_time, is_echo) AS answered_at
        FROM turns WHERE is_echo <> after_echo
    )
    SELECT event_time, answered_at, epoch(answered_at - event_time) AS seconds FROM changes
    WHERE NOT is_echo AND event_time < $until"""

# Conversations in which a message, a tap or a link named an ad (or a ref), each conversation once for each of them.
_CONVERSATIONS_BY = f"""
    SELECT {{column}}, count(DISTINCT conversation) FROM events
    WHERE {{column}} IS NOT NULL AND origin = 'messaging' AND {IN_PERIOD}
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP_MAX}"""  # noqa: S608 - of constants


def _totals(period: Period) -> dict[str, int]:
    """Plain counts of the period.

    events: of every webhook field. inbound, outbound: messages of customers; echoes. unsent: unsends. edited: edits, without
    Meta's noise of num_edit 0. active_customers: customers that wrote a message. reactions: given, as in `_REACTIONS`.
    story_mentions, story_replies: messages in with such an attachment; that answer a story. undated: events of the period by our
    receipt, because Meta gave no time. future: events, of any period, that claim to happen after now.
    """
    names = (
        "events", "inbound", "outbound", "unsent", "edited", "active_customers", "reactions", "story_mentions",
        "story_replies", "undated",
    )  # fmt: skip
    messages = "webhook_field = 'messages' AND origin = 'messaging' AND NOT is_deleted"
    [row] = period.rows(
        f"""SELECT count(*),
            count(*) FILTER ({messages} AND NOT is_echo),
            count(*) FILTER ({messages} AND is_echo),
            count(*) FILTER (webhook_field = 'messages' AND origin = 'messaging' AND is_deleted),
            count(*) FILTER (webhook_field = 'message_edit' AND origin = 'messaging' AND num_edit >= 1),
            count(DISTINCT conversation) FILTER ({messages} AND NOT is_echo AND conversation IS NOT NULL),
            count(*) FILTER (webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react'),
            count(*) FILTER ({messages} AND NOT is_echo AND list_contains(attachments, 'story_mention')),
            count(*) FILTER ({messages} AND NOT is_echo AND is_story_reply),
            count(*) FILTER (occurred_at IS NULL)
        FROM events WHERE {IN_PERIOD}"""  # noqa: S608 - of constants
    )
    [[future]] = period.rows(
        "SELECT count(*) FROM events WHERE event_time > $now AND ($account IS NULL OR account_id = $account)"
    )
    return dict(zip(names, row, strict=True)) | {"future": future}


def _series(period: Period) -> dict[str, list[Any]]:
    """Per hour or day: messages in and out, customers that wrote, and those of them that wrote for the first time ever."""
    counted = {
        at: numbers
        for at, *numbers in period.rows(
            f"""SELECT {BUCKET}, count(*) FILTER (NOT is_echo), count(*) FILTER (is_echo),
                count(DISTINCT conversation) FILTER (NOT is_echo AND conversation IS NOT NULL)
            FROM direct_messages WHERE {IN_PERIOD} GROUP BY 1"""  # noqa: S608 - of constants
        )
    }
    new = dict(
        period.rows(
            f"""WITH firsts AS (
                SELECT conversation, min(event_time) AS event_time FROM direct_messages
                WHERE NOT is_echo AND conversation IS NOT NULL AND {IN_PERIOD} GROUP BY ALL
            ), known AS (
                SELECT conversation FROM direct_messages
                WHERE NOT is_echo AND event_time < $since AND ($account IS NULL OR account_id = $account)
            )
            SELECT {BUCKET}, count(*) FROM firsts ANTI JOIN known USING (conversation) GROUP BY 1"""  # noqa: S608 - of constants
        )
    )
    buckets = period.buckets()
    inbound, outbound, active = ([counted.get(at, (0, 0, 0))[place] for at in buckets] for place in range(3))
    return {
        "at": buckets,
        "inbound": inbound,
        "outbound": outbound,
        "active_customers": active,
        "new_customers": [new.get(at, 0) for at in buckets],
    }


def _answers(period: Period) -> dict[str, Any]:
    """First response times, by when the question was asked.

    A question is a customer's first message since the last echo, the next echo answers it. answered: questions of the period
    that have their answer, whenever it came. first_response_median_s, …_p90_s: of those, interpolated. unanswered:
    questions of the period that have none and wait for longer than unanswered_minutes.
    """
    buckets = ", ".join(
        f"count(*) FILTER (seconds > {lower}" + (")" if upper is None else f" AND seconds <= {upper})")
        for lower, upper in zip((-1, *RESPONSE_UPPER_S[:-1]), RESPONSE_UPPER_S, strict=True)
    )
    rows = period.rows(
        f"""SELECT {BUCKET} AS bucket, count(seconds), median(seconds), quantile_cont(seconds, 0.9),
            count(*) FILTER (answered_at IS NULL AND event_time < $unanswered_before), {buckets}
        FROM ({_QUESTIONS}) GROUP BY GROUPING SETS ((), (bucket))"""  # noqa: S608 - of constants
    )
    by_bucket = {at: middle for at, _, middle, *_ in rows if at is not None}
    answered, middle, p90, unanswered, *histogram = next(row[1:] for row in rows if row[0] is None)
    return {
        "totals": {
            "answered": answered,
            "first_response_median_s": middle,
            "first_response_p90_s": p90,
            "unanswered": unanswered,
        },
        "by_bucket": by_bucket,
        "histogram": histogram,
    }


def _seen(period: Period) -> dict[str, float | None]:
    """Messages out that the customer saw, and how long that took.

    A message is seen by its conversation's first receipt at or after it: a receipt names the newest message that was seen, and
    those before it were seen with it.
    """
    [[share, middle]] = period.rows(
        f"""WITH sent AS (
            SELECT conversation, event_time FROM direct_messages
            WHERE is_echo AND conversation IS NOT NULL AND {IN_PERIOD}
        ), receipts AS (
            SELECT conversation, event_time FROM events
            WHERE webhook_field = 'messaging_seen' AND origin = 'messaging' AND event_time >= $since AND event_time <= $now
        )
        SELECT count(receipts.event_time) / nullif(count(*), 0), median(epoch(receipts.event_time - sent.event_time))
        FROM sent ASOF LEFT JOIN receipts ON sent.conversation = receipts.conversation
            AND sent.event_time <= receipts.event_time"""  # noqa: S608 - of constants
    )
    return {"seen_share": share, "time_to_seen_median_s": middle}


def _lag(period: Period) -> dict[str, dict[str, float | None]]:
    """Per webhook field: seconds from Meta's time to the bridge's receipt, and from there until it could be read in Kafka.

    The second one is of what this consumer read in the period as it came, over all accounts; while it catches up it says nothing.
    """
    to_bridge = period.rows(
        f"""SELECT webhook_field, median(epoch(received_at - occurred_at)),
            quantile_cont(epoch(received_at - occurred_at), 0.9)
        FROM events WHERE {IN_PERIOD} GROUP BY 1 ORDER BY 1"""  # noqa: S608 - of constants
    )
    to_kafka = dict(
        period.rows(
            "SELECT webhook_field, median(lag_median_s) FROM arrivals WHERE read_at >= $since AND read_at < $until GROUP BY 1"
        )
    )
    return {
        webhook_field: {
            "meta_to_bridge_median_s": middle,
            "meta_to_bridge_p90_s": p90,
            "bridge_to_kafka_median_s": to_kafka.get(webhook_field),
        }
        for webhook_field, middle, p90 in to_bridge
    }


def _heat(period: Period) -> list[list[int]]:
    """Messages in by weekday (Monday first) and hour of the day, UTC."""
    heat = [[0] * 24 for _ in range(7)]
    for weekday, hour, inbound in period.rows(
        f"""SELECT isodow(event_time) - 1, hour(event_time), count(*) FROM direct_messages
        WHERE NOT is_echo AND {IN_PERIOD} GROUP BY ALL"""  # noqa: S608 - of constants
    ):
        heat[weekday][hour] = inbound
    return heat

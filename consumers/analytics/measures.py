"""The figures, each defined once: what is counted, over which events, by which time. Does no IO but on its connection.

All times are event time: Meta's, and the bridge's receipt where Meta gave none. A figure is of a period [since, until) and of
one account or of all. Every event_id counts once. Messages are direct messages: no unsends, edits, standby or dashboard tests.
An event that claims to be from the future is in no period that ends now; `future` counts it. What is told of customers and of
answers is in conversations.py.
"""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import duckdb

from consumers.analytics import conversations
from consumers.analytics.kept import Kept
from consumers.analytics.queries import BUCKET, IN_PERIOD, Period, iso, naive, one_moment

HOURLY_PERIOD_DAYS_MAX = 3  # 72 points on a chart; longer periods are shown by day
TOP_MAX = 20  # rows of a ranking
DAY_HOURS, WEEK_DAYS = 24, 7


def figures(
    connection: duckdb.DuckDBPyConnection,
    *,
    account_id: str | None,
    since: datetime,
    until: datetime,
    now: datetime,
    unanswered_minutes: int,
    kept: Kept | None = None,
) -> dict[str, Any]:
    """Every figure of a period, JSON-ready and all of the same moment. Times are ISO 8601 in UTC; unknown is None.

    Args:
        connection: A connection or cursor of its own; one transaction of it is used.
        account_id: None is all accounts.
        since: Aware; the period's first moment.
        until: Aware; the first moment after it.
        now: Aware; what lies after it is in the future.
        unanswered_minutes: How long a question may wait before it counts as unanswered.
        kept: What this connection keeps from one question to the next; None: nothing.

    Raises:
        duckdb.Error: The database cannot be read.
    """
    unit = "hour" if until - since <= timedelta(days=HOURLY_PERIOD_DAYS_MAX) else "day"
    kept = kept or Kept(connection)
    period = Period(connection, account_id, naive(since), naive(until), naive(now), unit, unanswered_minutes)
    with one_moment(connection, kept):
        kept.look_at(period.since, is_short=unit == "hour")
        counted = _Counted(period)
        customers = conversations.customers(period)
        answers = conversations.answers(period)
        attached = _attached(period)
        buckets = period.buckets()
        return {
            "account_id": account_id,
            "since": iso(period.since),
            "until": iso(period.until),
            "unit": unit,
            "totals": {
                **counted.totals,
                **attached["totals"],
                **answers["totals"],
                **conversations.seen(period),
                "active_customers": customers["active"],
                "new_customers": customers["new"],
                "future": _future(period),
                "unanswered_minutes": unanswered_minutes,
            },
            "series": {
                "at": [iso(at) for at in buckets],
                "inbound": [counted.inbound[at] for at in buckets],
                "outbound": [counted.outbound[at] for at in buckets],
                "active_customers": [customers["active_at"].get(at, 0) for at in buckets],
                "new_customers": [customers["new_at"].get(at, 0) for at in buckets],
                "first_response_median_s": [answers["median_at"].get(at) for at in buckets],
            },
            "events_by_field": _most(counted.by_field.items()),
            "lag": _lag(period),
            "reactions": _most(period.rows(_REACTIONS)),
            "attachments": _most(attached["by_type"].items()),
            "postbacks": [list(row) for row in period.rows(_POSTBACKS)],
            "ads": [list(row) for row in period.rows(_CONVERSATIONS_BY.format(column="ad_id"))],
            "refs": [list(row) for row in period.rows(_CONVERSATIONS_BY.format(column="ref"))],
            "response_histogram": {"upper_s": list(conversations.RESPONSE_UPPER_S), "count": answers["histogram"]},
            "heat": _heat(period, counted.inbound),
        }


class _Counted:
    """Plain counts, all from one look at the period's events.

    Attributes:
        totals: events: of every webhook field, standby and dashboard tests among them. inbound, outbound: messages of customers;
            echoes. unsent: unsends. edited: edits, without Meta's noise of num_edit 0. reactions: that were given; one that was
            taken back or changed still was given. undated: events of the period by our receipt, because Meta gave no time.
        by_field: Events of each webhook field, as they were published.
        inbound: Messages in by hour or day.
        outbound: Messages out by hour or day.
    """

    def __init__(self, period: Period) -> None:
        self.totals = dict.fromkeys(("events", "inbound", "outbound", "unsent", "edited", "reactions", "undated"), 0)
        self.by_field: Counter[str] = Counter()
        self.inbound: Counter[datetime] = Counter()
        self.outbound: Counter[datetime] = Counter()
        for at, webhook_field, is_item, is_echo, is_deleted, is_act, events, undated in period.rows(_COUNTED):
            self.by_field[webhook_field] += events
            self.totals["events"] += events
            self.totals["undated"] += undated
            if not is_item:
                continue
            if webhook_field == "messages":
                if is_deleted:
                    self.totals["unsent"] += events
                else:
                    (self.outbound if is_echo else self.inbound)[at] += events
            elif is_act and webhook_field in _ACTS:
                self.totals[_ACTS[webhook_field]] += events
        self.totals |= {"inbound": self.inbound.total(), "outbound": self.outbound.total()}


_ACTS = {"message_edit": "edited", "message_reactions": "reactions"}
_COUNTED = f"""
    SELECT {BUCKET}, webhook_field, origin = 'messaging', is_echo, is_deleted,
        CASE webhook_field WHEN 'message_edit' THEN num_edit >= 1 WHEN 'message_reactions' THEN action = 'react' END,
        count(*), count(*) FILTER (occurred_at IS NULL)
    FROM period_events WHERE {IN_PERIOD} GROUP BY ALL"""  # noqa: S608 - of constants

# Reactions that were given, by name, by emoji where there is no name.
_REACTIONS = f"""
    SELECT coalesce(reaction, 'unknown'), count(*) FROM period_events
    WHERE webhook_field = 'message_reactions' AND origin = 'messaging' AND action = 'react' AND {IN_PERIOD}
    GROUP BY 1"""  # noqa: S608 - of constants

# Taps on buttons and ice breakers, by the payload that the business gave them.
_POSTBACKS = f"""
    SELECT payload, count(*) FROM period_events
    WHERE webhook_field = 'messaging_postbacks' AND origin = 'messaging' AND payload IS NOT NULL AND {IN_PERIOD}
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP_MAX}"""  # noqa: S608 - of constants

# Conversations in which a message, a tap or a link named an ad (or a ref), each conversation once for each of them.
_CONVERSATIONS_BY = f"""
    SELECT {{column}}, count(DISTINCT conversation) FROM period_events
    WHERE {{column}} IS NOT NULL AND origin = 'messaging' AND {IN_PERIOD}
    GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {TOP_MAX}"""  # noqa: S608 - of constants


def _attached(period: Period) -> dict[str, Any]:
    """What messages carry.

    by_type: attachments of messages in and out, by Meta's type; a message with three images counts three. story_mentions,
    story_replies: messages in with such an attachment; that answer a story.
    """
    by_type: Counter[str | None] = Counter()
    mentions = replies = 0
    for types, is_echo, is_story_reply, messages in period.rows(
        f"""SELECT attachments, is_echo, is_story_reply, count(*) FROM period_messages
        WHERE (attachments IS NOT NULL OR is_story_reply) AND {IN_PERIOD} GROUP BY ALL"""  # noqa: S608 - of constants
    ):
        for name in types or ():
            by_type[name] += messages
        if not is_echo:
            mentions += messages * ("story_mention" in (types or ()))
            replies += messages * is_story_reply
    return {"by_type": by_type, "totals": {"story_mentions": mentions, "story_replies": replies}}


def _future(period: Period) -> int:
    """Events, of any period, that claim to happen after now."""
    [[events]] = period.rows(
        "SELECT count(*) FROM events WHERE event_time > $now AND ($account IS NULL OR account_id = $account)"
    )
    return int(events)


def _lag(period: Period) -> dict[str, dict[str, float | None]]:
    """Per webhook field: seconds from Meta's time to the bridge's receipt, and from there until it could be read in Kafka.

    The second one is of what this consumer read in the period as it came, over all accounts; while it catches up it says nothing.
    """
    to_bridge = period.rows(
        f"""SELECT webhook_field, quantile_cont(epoch(received_at - occurred_at), [0.5, 0.9])
        FROM period_events WHERE {IN_PERIOD} GROUP BY 1 ORDER BY 1"""  # noqa: S608 - of constants
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
        for webhook_field, quantiles in to_bridge
        for middle, p90 in [quantiles or (None, None)]
    }


def _heat(period: Period, inbound: Counter[datetime]) -> list[list[int]]:
    """Messages in by weekday (Monday first) and hour of the day, UTC."""
    heat = [[0] * DAY_HOURS for _ in range(WEEK_DAYS)]
    if period.unit == "hour":
        for at, messages in inbound.items():
            heat[at.weekday()][at.hour] += messages
        return heat
    for weekday, hour, messages in period.rows(
        f"""SELECT isodow(event_time) - 1, hour(event_time), count(*) FROM period_messages
        WHERE NOT is_echo AND {IN_PERIOD} GROUP BY ALL"""  # noqa: S608 - of constants
    ):
        heat[weekday][hour] = messages
    return heat


def _most(counts: Iterable[tuple[Any, ...]]) -> dict[Any, int]:
    """The most frequent first, then by name."""
    return dict(sorted(counts, key=lambda row: (-row[1], row[0] is None, row[0])))

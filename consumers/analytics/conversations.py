"""The figures of customers and of answers, each defined once, like those of measures.py. Does no IO but on its connection."""

from typing import Any

from consumers.analytics.queries import BUCKET, IN_PERIOD, Period

RESPONSE_UPPER_S = (60, 300, 900, 3600, 14400, 86400, None)  # 86,400: Meta's window for an answer without a human's tag


def customers(period: Period) -> dict[str, Any]:
    """active: customers that wrote a message, and active_at: in each hour or day. new, new_at: for the first time ever."""
    rows = period.rows(
        f"""WITH wrote AS MATERIALIZED (
            SELECT DISTINCT conversation, {BUCKET} AS bucket FROM period_messages
            WHERE NOT is_echo AND conversation IS NOT NULL AND {IN_PERIOD}
        ), firsts AS (
            SELECT conversation, min(bucket) AS bucket FROM wrote GROUP BY 1
        )
        SELECT bucket, count(*), 0, 0 FROM wrote GROUP BY 1
        UNION ALL
        SELECT bucket, 0, count(*), count(*) FILTER (NOT coalesce(wrote_before, false))
        FROM firsts LEFT JOIN before USING (conversation) GROUP BY 1"""  # noqa: S608 - of constants
    )
    return {
        "active": sum(firsts for _, _, firsts, _ in rows),
        "new": sum(new for *_, new in rows),
        "active_at": {at: active for at, active, *_ in rows if active},
        "new_at": {at: new for at, *_, new in rows if new},
    }


def answers(period: Period) -> dict[str, Any]:
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
        f"""SELECT {BUCKET} AS bucket, count(seconds), quantile_cont(seconds, [0.5, 0.9]),
            count(*) FILTER (seconds IS NULL AND event_time < $unanswered_before), {buckets}
        FROM ({_QUESTIONS}) GROUP BY GROUPING SETS ((), (bucket))"""  # noqa: S608 - of constants
    )
    median_at = {at: quantiles[0] for at, _, quantiles, *_ in rows if at is not None and quantiles}
    answered, quantiles, unanswered, *histogram = next(row[1:] for row in rows if row[0] is None)
    middle, p90 = quantiles or (None, None)
    return {
        "totals": {
            "answered": answered,
            "first_response_median_s": middle,
            "first_response_p90_s": p90,
            "unanswered": unanswered,
        },
        "median_at": median_at,
        "histogram": histogram,
    }


def seen(period: Period) -> dict[str, float | None]:
    """Messages out that the customer saw, and how long that took.

    A message is seen by its conversation's first receipt at or after it: a receipt names the newest message that was seen, and
    those before it were seen with it.
    """
    [[share, middle]] = period.rows(
        f"""WITH sent AS (
            SELECT conversation, event_time FROM period_messages
            WHERE is_echo AND conversation IS NOT NULL AND {IN_PERIOD}
        ), receipts AS (
            SELECT conversation, event_time FROM period_events
            WHERE webhook_field = 'messaging_seen' AND origin = 'messaging' AND event_time >= $since AND event_time <= $now
        )
        SELECT count(receipts.event_time) / nullif(count(*), 0), median(epoch(receipts.event_time - sent.event_time))
        FROM sent ASOF LEFT JOIN receipts ON sent.conversation = receipts.conversation
            AND sent.event_time <= receipts.event_time"""  # noqa: S608 - of constants
    )
    return {"seen_share": share, "time_to_seen_median_s": middle}


# Questions of the period: event_time (when it was asked), answered_at and seconds, both null without an answer. The window begins
# with the period. Of what was before it only each conversation's last message matters. Times are whole milliseconds, so that one
# number, `code`, sorts by time and then, question before answer, tells who wrote it.
_QUESTIONS = """
    WITH recent AS (
        SELECT conversation, epoch_ms(event_time) * 2 + is_echo::BIGINT AS code FROM period_messages
        WHERE conversation IS NOT NULL AND event_time >= $since AND event_time <= $now
            AND ($account IS NULL OR account_id = $account)
    ), turns AS (
        SELECT conversation, code, lag(code) OVER (PARTITION BY conversation ORDER BY code) AS code_before FROM recent
    ), changes AS (
        SELECT code, lead(code) OVER (PARTITION BY conversation ORDER BY code) AS code_after
        FROM turns LEFT JOIN before USING (conversation)
        WHERE (code & 1) <> (coalesce(code_before, last, 1) & 1)
    )
    SELECT make_timestamp_ms(code >> 1) AS event_time, ((code_after >> 1) - (code >> 1)) / 1000 AS seconds
    FROM changes WHERE code & 1 = 0 AND make_timestamp_ms(code >> 1) < $until"""

"""Periods: which stretch of time a name stands for, at any moment of the day."""

from datetime import UTC, datetime

import pytest

from consumers.analytics.periods import BadPeriodError, Period

NOON = datetime(2026, 3, 1, 12, 34, 56, 789, tzinfo=UTC)


@pytest.mark.parametrize(
    ("query", "since", "until"),
    [
        ({}, "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ({"period": "today"}, "2026-03-01T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ({"period": "24h"}, "2026-02-28T13:00:00+00:00", "2026-03-01T13:00:00+00:00"),
        ({"period": "7d"}, "2026-02-23T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        ({"period": "90d"}, "2025-12-02T00:00:00+00:00", "2026-03-02T00:00:00+00:00"),
        (
            {"since": "2026-02-27", "until": "2026-02-28T10:30:00+02:00"},
            "2026-02-27T00:00:00+00:00",
            "2026-02-28T08:30:00+00:00",
        ),
    ],
)
def test_period_of_a_query_has_these_bounds(query: dict[str, str], since: str, until: str) -> None:
    """Days are whole days of UTC, today the last of them; 24 hours end with the hour that has begun."""
    assert Period.asked(query).bounds(NOON) == (datetime.fromisoformat(since), datetime.fromisoformat(until))


def test_period_today_moves_on_at_midnight() -> None:
    """A page that stays open shows the new day."""
    period = Period.asked({})
    last, first = datetime(2026, 2, 28, 23, 59, 59, 999_999, UTC), datetime(2026, 3, 1, tzinfo=UTC)
    assert period.bounds(last)[1] == first == period.bounds(first)[0]


@pytest.mark.parametrize(
    "query",
    [
        {"period": "week"},
        {"period": ""},
        {"since": "2026-02-27"},
        {"until": "2026-02-27"},
        {"since": "2026-02-27", "until": "2026-02-27"},
        {"since": "2026-02-28", "until": "2026-02-27"},
        {"since": "2026-02-27", "until": "2026-02-28", "period": "7d"},
        {"since": "2026-02-27T10:00:00", "until": "2026-02-28"},
        {"since": "yesterday", "until": "2026-02-28"},
        {"since": "2000-01-01", "until": "2026-02-28"},
        {"since": "0001-01-01T00:00:00+23:59", "until": "2026-02-28"},
    ],
)
def test_period_that_is_none_is_refused_with_what_would_be_taken(query: dict[str, str]) -> None:
    """An unknown name, one moment alone, a time without its zone, an end before its beginning, more than ten years."""
    with pytest.raises(BadPeriodError, match=r"period must be one of|belong together|must come after|must be a day"):
        Period.asked(query)

"""Every figure equals a second computation from Meta's JSON, and the ledger of the stand-in for Meta."""

import math
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.analytics import measures
from consumers.analytics.kept import Accounts
from consumers.analytics.store import Store
from tests.consumers.analytics import expected
from tests.consumers.analytics.conftest import START
from tests.consumers.analytics.expected import Fact
from tests.consumers.analytics.stream import Stream

MIDNIGHT = START.replace(hour=0, minute=0)
PERIODS = {
    "a day": (timedelta(days=1), timedelta(days=2)),
    "three days": (timedelta(days=0), timedelta(days=3)),
    "the week": (timedelta(days=-1), timedelta(days=6)),
    "from within an hour": (timedelta(days=1, hours=7, minutes=20), timedelta(days=1, hours=19, minutes=1)),
    "nothing": (timedelta(days=-30), timedelta(days=-29)),
}


def same(found: Any, wanted: Any) -> bool:  # noqa: ANN401 - JSON
    """Equal, numbers but for rounding."""
    if isinstance(wanted, float) and isinstance(found, int | float):
        return math.isclose(found, wanted, rel_tol=1e-9, abs_tol=1e-6)
    if isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    return bool(found == wanted)


@pytest.mark.parametrize("whose", ["all", "one"])
@pytest.mark.parametrize("period", PERIODS)
def test_figures_equal_a_second_computation(store: Store, known: list[Fact], period: str, whose: str) -> None:
    """Of one account and of all, by hour and by day, within the stream, over its ends and beside it."""
    account_id = None if whose == "all" else Accounts(store.cursor()).known()[1]
    since, until = (MIDNIGHT + delta for delta in PERIODS[period])
    asked: dict[str, Any] = {
        "account_id": account_id,
        "since": since,
        "until": until,
        "now": until,
        "unanswered_minutes": 45,
    }
    found = measures.figures(store.cursor(), **asked)
    wanted = expected.figures(known, **asked)
    assert found.keys() == wanted.keys()
    assert {name: found[name] for name in found if not same(found[name], wanted[name])} == {
        name: wanted[name] for name in found if not same(found[name], wanted[name])
    }


def test_period_in_the_tests_has_every_kind_of_event(store: Store) -> None:
    """No figure is only right because it is zero."""
    asked: dict[str, Any] = {
        "account_id": None,
        "since": MIDNIGHT,
        "until": MIDNIGHT + timedelta(days=5),
        "unanswered_minutes": 45,
    }
    found = measures.figures(store.cursor(), now=MIDNIGHT + timedelta(days=5), **asked)
    assert [name for name, total in found["totals"].items() if not total] == []
    assert all(found[name] for name in ("reactions", "attachments", "postbacks", "ads", "refs"))
    assert all(found["response_histogram"]["count"][:5])


def test_events_by_field_equals_the_ledger(store: Store, conversations: Stream, known: list[Fact]) -> None:
    """The view's account, webhook field and hour are those of `bridge simulate --truth`."""
    *lines, _ = conversations.ledger.lines()
    by_id = {fact.event_id: fact for fact in known}
    wanted: Counter[tuple[str | None, str, datetime]] = Counter()
    for line in lines:
        fact = by_id[line["event_id"]]
        assert line["key"] == (fact.account if fact.customer is None else f"{fact.account}:{fact.customer}")
        at = expected.moment(line["occurred_at"] or fact.received_at)
        hour = at.replace(minute=0, second=0, microsecond=0)
        wanted[fact.account, line["topic"].removeprefix("instagram."), hour] += 1
    found = store.cursor().execute("SELECT account_id, webhook_field, hour, events FROM events_by_field").fetchall()
    assert {(account, name, aware(hour)): events for account, name, hour, events in found} == wanted


def test_messages_by_hour_equals_a_second_computation(store: Store, known: list[Fact]) -> None:
    """In and out, without unsends, edits, standby or dashboard tests."""
    wanted = Counter((event.account, event.hour, event.is_echo) for event in known if event.is_message)
    found = store.cursor().execute("SELECT account_id, hour, inbound, outbound FROM messages_by_hour").fetchall()
    counted = {(account, aware(hour), False): inbound for account, hour, inbound, _ in found}
    counted |= {(account, aware(hour), True): outbound for account, hour, _, outbound in found}
    assert {key: count for key, count in counted.items() if count} == wanted


def test_first_responses_equal_a_second_computation(store: Store, known: list[Fact]) -> None:
    """Each question that was answered, once, with its seconds."""
    wanted = sorted(row for row in expected.questions(known) if row[3] is not None)
    found = store.cursor().execute("SELECT * FROM first_responses").fetchall()
    assert (
        sorted((account, customer, aware(asked), aware(answered)) for account, customer, asked, answered, _ in found)
        == wanted
    )
    assert all(seconds == (answered - asked).total_seconds() for _, _, asked, answered, seconds in found)


def aware(moment: datetime) -> datetime:
    """The tables' times are UTC."""
    return moment.replace(tzinfo=UTC)

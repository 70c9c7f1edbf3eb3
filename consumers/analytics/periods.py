"""Which stretch of time is meant: a named period that ends with today, or two moments. UTC; does no IO, reads no clock."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

# The page's choices: how many days, today among them. `24h` is apart: it ends with the current hour, not with the day.
DAYS = {"today": 1, "7d": 7, "30d": 30, "90d": 90}
LAST_DAY = "24h"
DEFAULT = "today"
SPAN_DAYS_MAX = 3660  # ten years, a row for each day of them: what one answer holds stays bounded


class BadPeriodError(ValueError):
    """No period can be made of what was asked for; its text says what would be taken."""


@dataclass(frozen=True, slots=True)
class Period:
    """What was asked for, so that `today` is another stretch of time after midnight.

    Attributes:
        name: One of `DAYS`, `24h`, or None with two moments.
        given: The two moments, the second not included.
    """

    name: str | None
    given: tuple[datetime, datetime] | None = None

    @classmethod
    def asked(cls, query: Mapping[str, str]) -> "Period":
        """From `period`, or `since` and `until`: ISO 8601, a day or a time with its zone; a day is its first moment.

        Raises:
            BadPeriodError: It is none of these, ends before it begins, or is longer than ten years.
        """
        since, until, name = query.get("since"), query.get("until"), query.get("period")
        if since is None and until is None:
            if name is not None and name not in {*DAYS, LAST_DAY}:
                raise BadPeriodError(f"period must be one of {', '.join([*DAYS, LAST_DAY])}")
            return cls(name or DEFAULT)
        if since is None or until is None or name is not None:
            raise BadPeriodError("since and until belong together, without period")
        begin, end = _moment("since", since), _moment("until", until)
        if not begin < end <= begin + timedelta(days=SPAN_DAYS_MAX):
            raise BadPeriodError(f"until must come after since, by {SPAN_DAYS_MAX} days at most")
        return cls(None, (begin, end))

    def bounds(self, now: datetime) -> tuple[datetime, datetime]:
        """Its first moment and the first one after it, in UTC."""
        if self.given is not None:
            return self.given
        if self.name == LAST_DAY:
            end = now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
            return end - timedelta(days=1), end
        end = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
        return end - timedelta(days=DAYS[self.name or DEFAULT]), end


def _moment(name: str, text: str) -> datetime:
    try:
        # Before Python's own reading of a time, because that would take a day for a time without a zone.
        moment = datetime.combine(date.fromisoformat(text), time(), UTC) if len(text) <= len("2026-11-22") else None
        moment = moment or datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise BadPeriodError(f"{name} must be a day (2026-11-22) or a time with its zone (2026-11-22T09:00:00Z)")

"""What a check of `bridge doctor` found."""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

Outcome = Literal["ok", "warn", "fail"]

_CLOCK_WARN_S, _CLOCK_FAIL_S = 5, 300
"""`received_at` is ours: seconds off blur figures; minutes off break tokens, certificates and retention."""


class Finding(NamedTuple):
    """One line.

    Attributes:
        check: what was looked at.
        outcome: ``fail`` where deliveries would be lost or refused, ``warn`` where a person should know.
        found: what there is.
        remedy: what to do; empty where there is nothing to do.
    """

    check: str
    outcome: Outcome
    found: str
    remedy: str = ""


def failure(check: str, error: str) -> Finding:
    """A line that an error wrote: what is wrong, a colon, and how to mend it."""
    what, colon, remedy = error.rpartition(": ")
    return Finding(check, "fail", what, remedy) if colon else Finding(check, "fail", error)


def clock(date: str | None, whose: str) -> Finding | None:
    """Our clock against the Date header of an answer that just came (whole seconds); None where it tells no time."""
    try:
        theirs = parsedate_to_datetime(date or "").timestamp()
    except ValueError:
        return None
    off_s = round(time.time() - theirs)
    found = f"{abs(off_s)} s {'ahead of' if off_s >= 0 else 'behind'} {whose}"
    if abs(off_s) < _CLOCK_WARN_S:
        return Finding("clock", "ok", found)
    return Finding("clock", "warn" if abs(off_s) < _CLOCK_FAIL_S else "fail", found, "let NTP set this machine's clock")

"""The conditions that `when:` may name: each is made once, at load, and then checked against `Facts`. Does no IO."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from consumers.auto_reply.rulebook.facts import Facts
from consumers.auto_reply.rulebook.text import Pattern, folded, in_words

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")  # as datetime.weekday counts
MINUTES_OF_DAY = 24 * 60
_SHOWN_MAX = 5  # of a list's elements: enough to recognise it by


class Finding(NamedTuple):
    """What a condition says of one event.

    Attributes:
        held: Whether it is met.
        why: For a person; with the words of the rules file, never with the customer's.
        values: What it found in the text, by name.
        cut_off: Whether it ran out of time.
    """

    held: bool
    why: str
    values: Mapping[str, str | None] = {}
    cut_off: bool = False


Check = Callable[[Facts], Finding]
Condition = Callable[[Any, str | None], Check]
"""Makes the check for a value of the rules file, in a language or in none."""


def _met(why: str, values: Mapping[str, str | None] | None = None) -> Finding:
    return Finding(held=True, why=why, values=values or {})


def _missed(why: str) -> Finding:
    return Finding(held=False, why=why)


def words_in_text(phrases: tuple[str, ...], language: str | None) -> Check:
    """Whether the words of one of the phrases stand in the text, in its order and without others between."""
    sought = [(in_words(folded(phrase, language)), _met(f"has {_quoted([phrase])}")) for phrase in phrases]
    return _first_part(sought, _missed(f"has none of {_quoted(phrases)}"), lambda facts: facts.words(language))


def _part_of_text(parts: tuple[str, ...], language: str | None) -> Check:
    sought = [(folded(part, language), _met(f"contains {_quoted([part])}")) for part in parts]
    return _first_part(sought, _missed(f"contains none of {_quoted(parts)}"), lambda facts: facts.folded(language))


def _first_part(sought: list[tuple[str, Finding]], missed: Finding, read: Callable[[Facts], str]) -> Check:
    def check(facts: Facts) -> Finding:
        text = read(facts)
        for part, met in sought:
            if part in text:
                return met
        return missed

    return check


def _match(expression: str, _: str | None) -> Check:
    pattern = Pattern(expression)
    missed = _missed("does not match")
    cut_off = Finding(held=False, why="ran out of time", cut_off=True)

    def check(facts: Facts) -> Finding:
        try:
            groups = facts.search(pattern)
        except TimeoutError:
            return cut_off
        return missed if groups is None else _met("matches", groups)

    return check


def _one_of(read: Callable[[Facts], str | None], *, there: Callable[[Facts], bool] | None = None) -> Condition:
    """A condition on one value: it is one of the choices, or, without choices, it is there."""

    def made(choices: tuple[str, ...], _: str | None) -> Check:
        sought = frozenset(choices)
        met = {choice: _met(f"is {_quoted([choice])}") for choice in choices}
        missed = _missed(f"is none of {_quoted(choices)}" if choices else "is not there")
        is_there = _met("is there")

        def check(facts: Facts) -> Finding:
            value = read(facts)
            if sought:
                return met[value] if value in sought else missed
            return is_there if (value is not None if there is None else there(facts)) else missed

        return check

    return made


def _some_of(read: Callable[[Facts], frozenset[str]]) -> Condition:
    """A condition on a set: it has one of the choices, or, without choices, anything."""

    def made(choices: tuple[str, ...], _: str | None) -> Check:
        sought = frozenset(choices)
        missed = _missed(f"has none of {_quoted(choices)}" if choices else "has none")

        def check(facts: Facts) -> Finding:
            found = read(facts) & sought if sought else read(facts)
            return _met(f"has {_quoted(sorted(found))}") if found else missed

        return check

    return made


def _whether(read: Callable[[Facts], bool], yes: str, no: str) -> Condition:
    """A condition on something that is so or is not."""

    def made(wanted: bool, _: str | None) -> Check:  # noqa: FBT001 - it is the value that stands in the file
        met, missed = (_met(yes), _missed(no)) if wanted else (_met(no), _missed(yes))
        return lambda facts: met if read(facts) == wanted else missed

    return made


class TimeSpan(NamedTuple):
    """A part of the day by the clocks of a place, daylight saving time included.

    Attributes:
        begin: Minute of the day.
        end: Minute of the day that is no longer in it; when it is before `begin`, on the next day.
        zone: IANA's name.
        days: Of the beginning: the night from Friday to Saturday is Friday's.
    """

    begin: int
    end: int
    zone: str
    days: frozenset[str]

    def check(self, facts: Facts) -> Finding:
        """Whether it is that time now."""
        local = facts.now.astimezone(ZoneInfo(self.zone))
        minute = local.hour * 60 + local.minute
        begun_yesterday = self.end < self.begin and minute < self.end
        day = DAYS[(local - timedelta(days=1) if begun_yesterday else local).weekday()]
        within = begun_yesterday or self.begin <= minute < (self.end if self.begin < self.end else MINUTES_OF_DAY)
        why = f"it is {DAYS[local.weekday()]} {local:%H:%M} in {self.zone}"
        return _met(why) if within and day in self.days else _missed(why)


CONDITIONS: Mapping[str, Condition] = {
    # Cheap ones first: they are checked in this order, and the first that fails ends it.
    "any_message": _whether(lambda facts: facts.webhook_field == "messages", "it is a message", "it is no message"),
    "account": _one_of(lambda facts: facts.account_id),
    "first_message": _whether(lambda facts: facts.is_first, "it is the first", "it is not the first"),
    "quick_reply": _one_of(lambda facts: facts.quick_reply),
    "postback": _one_of(lambda facts: facts.postback, there=lambda facts: facts.is_postback),
    "story": _some_of(lambda facts: facts.story),
    "referral_ref": _one_of(lambda facts: facts.values["ref"]),
    "ad_id": _one_of(lambda facts: facts.values["ad_id"]),
    "attachment_type": _some_of(lambda facts: facts.attachment_types),
    "time": lambda span, _: TimeSpan(span.begin, span.end, span.zone, frozenset(span.days or DAYS)).check,
    "text_contains": _part_of_text,
    "text_words": words_in_text,
    "regex": _match,
}


def _quoted(choices: list[str] | tuple[str, ...]) -> str:
    shown = ", ".join(f"'{choice}'" for choice in choices[:_SHOWN_MAX])
    return f"{shown}, …" if len(choices) > _SHOWN_MAX else shown

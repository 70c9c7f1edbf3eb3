"""`when:` in the rules file: what an event has to be. Every condition that is given has to hold. Does no IO."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from consumers.auto_reply.rulebook.conditions import CONDITIONS, MINUTES_OF_DAY, Check
from consumers.auto_reply.rulebook.facts import MESSAGES, POSTBACKS, VALUES, WEBHOOK_FIELDS
from consumers.auto_reply.rulebook.parts import CHOICES_MAX, LISTED, LISTED_OR_ANY, Id, Strict, Word
from consumers.auto_reply.rulebook.text import Pattern, folded, in_words

_MESSAGES = frozenset({MESSAGES})
_ALL = frozenset(WEBHOOK_FIELDS)

_HOURS_AND_MINUTES = 2
_MINUTES_OF_HOUR = 60


def _minutes(value: object) -> object:
    parts = value.split(":") if isinstance(value, str) else []
    if len(parts) == _HOURS_AND_MINUTES and all(len(part) == 2 and part.isdecimal() for part in parts):  # noqa: PLR2004 - digits
        hours, minutes = (int(part) for part in parts)
        if minutes < _MINUTES_OF_HOUR and hours * _MINUTES_OF_HOUR + minutes <= MINUTES_OF_DAY:
            return hours * _MINUTES_OF_HOUR + minutes
    raise ValueError("should be a time of day, HH:MM from 00:00 to 24:00")


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ValueError, KeyError, OSError):  # malformed, unknown, the name of a folder
        raise ValueError("this machine knows no such time zone; one is for example Europe/Berlin") from None
    return name


def _has_words(phrase: str) -> str:
    if not in_words(folded(phrase, None)).strip():
        raise ValueError("has no word in it; text_contains seeks what is none")
    return phrase


def _seen_when_folded(part: str) -> str:
    if not folded(part, None):
        raise ValueError("has only invisible characters, which are in every text")
    return part


def _compiles(expression: str) -> str:
    Pattern(expression)
    return expression


_Length = Field(default=None, max_length=CHOICES_MAX)
Words = Annotated[tuple[Annotated[Word, AfterValidator(_has_words)], ...], LISTED]
Choices = Annotated[tuple[Word, ...], LISTED_OR_ANY]


class Time(Strict):
    """A part of the day in a place, see `TimeSpan`; `from` and `to` are written "HH:MM", without `days` it is every day."""

    begin: Annotated[int, BeforeValidator(_minutes)] = Field(alias="from")
    end: Annotated[int, BeforeValidator(_minutes)] = Field(alias="to")
    zone: Annotated[str, AfterValidator(_known_zone)]
    days: Annotated[tuple[Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"], ...], LISTED] | None = None

    @model_validator(mode="after")
    def _is_some_time(self) -> Self:
        if self.begin == self.end:
            raise ValueError("begins when it ends; 00:00 to 24:00 is the whole day")
        return self


class When(Strict):
    """The conditions of a rule, of which it has at least one.

    A list asks for any of its elements; where `true` may stand for it, for anything at all.

    Attributes:
        any_message: Every message, one without text among them; no postback, no referral.
        account: The account that the customer writes to.
        first_message: Whether nothing of this customer is known from the last 30 days.
        quick_reply: The payload of a quick reply that was tapped.
        postback: The payload of a button or an ice breaker that was tapped.
        story: The message mentions the account in a story (`mention`), or answers a story of it (`reply`).
        referral_ref: The `ref` of the link, ad or product that the customer comes from.
        ad_id: The ad that the customer comes from.
        attachment_type: A type of attachment, by Meta's name.
        time: It is this time of day now.
        text_contains: This stands somewhere in the text.
        text_words: These words stand in the text, in this order, as whole words.
        regex: This matches somewhere in the text; its named groups are values for the answer.
    """

    any_message: Literal[True] | None = None
    account: Annotated[tuple[Id, ...], LISTED] | None = _Length
    first_message: bool | None = None
    quick_reply: Choices | None = _Length
    postback: Choices | None = _Length
    story: Annotated[tuple[Literal["mention", "reply"], ...], LISTED] | None = None
    referral_ref: Choices | None = _Length
    ad_id: Annotated[tuple[Id, ...], LISTED_OR_ANY] | None = _Length
    attachment_type: Choices | None = _Length
    time: Time | None = None
    text_contains: Annotated[tuple[Annotated[Word, AfterValidator(_seen_when_folded)], ...], LISTED] | None = _Length
    text_words: Words | None = _Length
    regex: Annotated[Word, AfterValidator(_compiles)] | None = None

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if not self._given:
            raise ValueError("needs a condition; any_message: true takes every message")
        if not self.webhook_fields:
            raise ValueError("no event meets all of this: a tap on a button (postback) is no message")
        return self

    @cached_property
    def _given(self) -> dict[str, object]:
        return {name: value for name in CONDITIONS if (value := getattr(self, name)) is not None}

    @property
    def values(self) -> frozenset[str]:
        """The placeholders that what meets the conditions may have a value for."""
        groups = Pattern(self.regex).names if self.regex else frozenset()
        return groups | {name for name, fields in VALUES.items() if fields & self.webhook_fields}

    @cached_property
    def _choices(self) -> dict[str, frozenset[object]]:
        return {name: frozenset(value) for name, value in self._given.items() if isinstance(value, tuple)}

    @cached_property
    def webhook_fields(self) -> frozenset[str]:
        """The webhook fields whose events can meet all conditions."""
        possible = _ALL
        for name in self._given:
            possible &= _WEBHOOK_FIELDS.get(name, _ALL)
        return possible

    def covers(self, other: When) -> bool:
        """Whether what meets the other's conditions certainly meets these, texts in the same language."""
        for name, ours in self._given.items():
            if name == "any_message":
                if not other.webhook_fields <= _MESSAGES:
                    return False
            elif name not in other._given:
                return False
            elif isinstance(ours, tuple):
                asked = other._choices[name]
                if ours and not (asked and asked <= self._choices[name]):
                    return False
            elif other._given[name] != ours:
                return False
        return True

    def checks(self, language: str | None) -> tuple[tuple[str, Check], ...]:
        """The checks with the conditions' names, cheap ones first."""
        return tuple((name, CONDITIONS[name](value, language)) for name, value in self._given.items())


_WEBHOOK_FIELDS = dict.fromkeys(
    ("any_message", "text_contains", "text_words", "regex", "quick_reply", "story", "attachment_type"), _MESSAGES
) | {"postback": frozenset({POSTBACKS})}

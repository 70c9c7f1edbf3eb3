"""What the parts of the rules file have in common: strictness, and lists as people write them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

CHOICES_MAX = 1000  # in one list: each may be sought in every message

DAY_S = 24 * 3600
PAUSE_MAX_S = 30 * DAY_S  # of every pause and cooldown: what is remembered for them has to be kept that long


class Strict(BaseModel):
    """A part of the rules file: no unknown keys, no guessing of types, no change after loading."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


def _listed(value: object) -> object:
    if not isinstance(value, list):
        raise ValueError("should be a list: [one, other]")  # noqa: TRY004 - pydantic takes a ValueError for a problem
    if not value:
        raise ValueError("the list is empty")
    return tuple(value)


def _listed_or_any(value: object) -> object:
    if value is True:
        return ()
    if not isinstance(value, list):
        raise ValueError("should be a list, [one, other], or true for any")  # noqa: TRY004 - as above
    return _listed(value)


def _id(value: object) -> object:
    # YAML takes an id without quotes for a number.
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Word = Annotated[str, Field(min_length=1)]
Id = Annotated[Word, BeforeValidator(_id)]

LISTED = BeforeValidator(_listed)
LISTED_OR_ANY = BeforeValidator(_listed_or_any)
"""A list, or `true` for anything at all, which becomes an empty tuple."""

Seconds = Annotated[int, Field(ge=0, le=PAUSE_MAX_S)]

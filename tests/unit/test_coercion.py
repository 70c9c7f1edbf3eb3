"""Meta's scalars: what each coercion takes, and that everything else is None, never an error."""

from __future__ import annotations

import pytest

from bridge.coercion import as_flag, as_id, as_long, as_milliseconds

NEITHER = [None, [], {}, [1], {"id": "1"}, float("inf")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("17841400000000001", "17841400000000001"),
        (90071992547409931, "90071992547409931"),  # > 2^53
        (2**64 + 1, "18446744073709551617"),
        (-1, "-1"),
        (0, "0"),
        ("", ""),
        ("IGSID", "IGSID"),
        ("007", "007"),
    ],
)
def test_id_from_string_or_whole_number_is_its_text(value: object, text: str) -> None:
    """An id keeps every digit, whichever way Meta sends it."""
    assert as_id(value) == text


@pytest.mark.parametrize("value", [*NEITHER, True, False, 1.0, 1e20])
def test_id_from_anything_else_is_none(value: object) -> None:
    """A flag is no number, and a float may already have lost digits."""
    assert as_id(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (0, 0),
        (-1, -1),
        ("2", 2),
        ("-1", -1),
        (2.0, 2),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
    ],
)
def test_long_from_whole_number_or_its_text_is_the_number(value: object, number: int) -> None:
    """Everything that Avro's long holds comes through."""
    assert as_long(value) == number


@pytest.mark.parametrize(
    "value",
    [
        *NEITHER,
        True,
        False,
        2.5,
        1e300,
        "",
        "two",
        "1.0",
        " 1",
        "+1",
        "0x1",
        "1_000",
        "\u0661",  # a digit to int(), not to us
        2**63,
        -(2**63) - 1,
        "9223372036854775808",
        "9" * 5000,
    ],
)
def test_long_from_anything_else_is_none(value: object) -> None:
    """Out of Avro's range is a wrong type, and so is a fraction, a flag, or text that only int() would take."""
    assert as_long(value) is None


@pytest.mark.parametrize(
    ("value", "flag"),
    [(True, True), (1, True), ("true", True), ("1", True), (False, False), (0, False), ("false", False), ("0", False)],
)
def test_flag_from_its_forms_is_the_flag(value: object, flag: bool) -> None:  # noqa: FBT001 - the expectation itself
    """A flag comes as true and false, 1 and 0, and their text."""
    assert as_flag(value) is flag


@pytest.mark.parametrize("value", [*NEITHER, 2, -1, 1.0, 0.0, "", "True", "yes", " 1", "2"])
def test_flag_from_anything_else_is_none(value: object) -> None:
    """No guess: what is not one of the forms is no flag."""
    assert as_flag(value) is None


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (0, 0),
        (1569262485, 1569262485_000),
        ("1527459824", 1527459824_000),
        (1569262485.25, 1569262485_250),
        ("1569262485.349", 1569262485_349),
        (10**11 - 1, (10**11 - 1) * 1000),  # the last second
        (10**11, 10**11),  # the first millisecond
        ("99999999999", 99999999999_000),
        ("100000000000", 100000000000),
        (1569262485349, 1569262485349),
        ("1569262485349", 1569262485349),
        (1569262485349.9, 1569262485349),
        (10**14 - 1, 10**14 - 1),  # the last millisecond
        (10**14, 10**11),  # the first microsecond
        (1569262485349_999, 1569262485349),
        (10**17 - 1, 10**14 - 1),  # the last microsecond
        ("99999999999999999", 10**14 - 1),
    ],
)
def test_time_told_by_its_magnitude_is_whole_milliseconds(value: object, milliseconds: int) -> None:
    """Seconds below 10^11, milliseconds below 10^14, microseconds below 10^17; fractions are cut off."""
    assert as_milliseconds(value) == milliseconds


@pytest.mark.parametrize(
    "value",
    [
        *NEITHER,
        True,
        False,
        -1,
        -0.5,
        10**17,
        1e17,
        1e300,
        2**63,
        "-1",
        "",
        "soon",
        "1e9",
        " 1569262485",
        "1569262485Z",
        "2019-09-23",
        "100000000000000000",
        "9" * 5000,
    ],
)
def test_time_from_anything_else_is_none(value: object) -> None:
    """Before 1970, beyond microseconds, a flag or other text is no time."""
    assert as_milliseconds(value) is None

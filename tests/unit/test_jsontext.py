"""JSON text as it was written: depth, validity, slices, canonical form."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from bridge.errors import NestedTooDeep, NotJson
from bridge.jsontext import CAREFUL, FAST, Scanner, canonical, check, openings

CHECK_BYTES_PER_BYTE_MAX = 12
"""The text decoded and its value, each at four bytes a character where a single one lies beyond U+FFFF, and room to grow."""

each_scanner = pytest.mark.parametrize("scan", [FAST, CAREFUL], ids=["fast", "careful"])


@pytest.mark.parametrize(
    "text",
    [
        b"null",
        b'"[[[["',
        b'"\\"[[\\\\"',
        b"-0.1e+5",
        b"1e999",
        b"9" * 5000,
        b'{"a":[{}],"a":1}',
        b'"\\ud800"',
        '"ä😀\u2028"'.encode(),
        b"[" * 64 + b"]" * 64,
        b'{"a":' * 64 + b'"' + b"[" * 100 + b'"' + b"}" * 64,
        b"[" + b"[]," * 100 + b"[]]",
    ],
)
def test_check_of_json_passes(text: bytes) -> None:
    """Whatever RFC 8259 allows and that nests no deeper than 64 is JSON, brackets in strings aside."""
    check(text)


@pytest.mark.parametrize(
    "text", [b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[[]," * 33 + b"[" * 33, b"[" * 1_000_000]
)
def test_check_of_deep_nesting_raises_nested_too_deep(text: bytes) -> None:
    """The 65th level is too deep, before any parser recurses into it."""
    with pytest.raises(NestedTooDeep):
        check(text)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nul",
        b"NaN",
        b"[Infinity]",
        b"-Infinity",
        b"01",
        b"1.",
        b".5",
        b"+1",
        b"{'a':1}",
        b'{"a":1,}',
        b"[1,]",
        b'"\t"',
        b'"\\x"',
        b'"\\u12"',
        b'"',
        b"{} {}",
        b"{}x",
        b"\xef\xbb\xbf{}",
        b"// {}",
        b"\x00",
    ],
)
def test_check_of_anything_else_raises_not_json(text: bytes) -> None:
    """No extension of JSON is JSON: NaN, comments, single quotes, trailing commas, a BOM, something after the value."""
    with pytest.raises(NotJson):
        check(text)


def test_check_of_a_body_of_brackets_stops_at_the_limit() -> None:
    """16 MiB of them must not hold up the process: counting them all would take it ten seconds."""
    begun = time.monotonic()
    with pytest.raises(NestedTooDeep):
        check(b"[" * (16 << 20))
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    "text",
    [b"{" * 1_000_000, rb"\\" * 500_000, rb"a\"" * 400_000, "😀".encode() + b"[" * 1_000_000],
    ids=["plain", "escapes", "escaped_quotes", "wide"],
)
def test_check_of_a_long_string_takes_memory_in_proportion(text: bytes) -> None:
    """A string's brackets are skipped without remembering a state for each of its characters."""
    body = b'{"text":"' + text + b'"}'
    tracemalloc.start()
    try:
        check(body)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < CHECK_BYTES_PER_BYTE_MAX * len(body)


def test_error_of_check_tells_a_place_and_no_content() -> None:
    """What is logged of a body is where it breaks, never what it says."""
    with pytest.raises(NotJson) as caught:
        check(b'{"text":"private" oops}')
    assert "private" not in str(caught.value)
    assert "oops" not in str(caught.value)


def test_openings_counts_every_bracket_that_opens() -> None:
    """Those inside strings too: never fewer than the depth."""
    assert openings(b'{"[":[{}]}') == 4


@each_scanner
def test_members_of_an_object_are_its_exact_slices(scan: Scanner) -> None:
    """Whitespace around a value is not its own, whitespace within is; the last of equal keys counts, however escaped."""
    members = scan.members(b'{"a" : [ 1 , 2.0 ] ,\n"b":{"c":"\\u00e4"},"\\u0061":1E2,"d" : "\xc3\xa4" }')
    assert members is not None
    slices = {key: bytes(piece) for key, piece in members.items()}
    assert slices == {"a": b"1E2", "b": b'{"c":"\\u00e4"}', "d": '"ä"'.encode()}


@each_scanner
def test_elements_of_an_array_are_its_exact_slices(scan: Scanner) -> None:
    """In their order."""
    elements = scan.elements(b'[ 1.50 ,{"a" : 1}, [ ] ,"]", null]')
    assert elements is not None
    assert [bytes(piece) for piece in elements] == [b"1.50", b'{"a" : 1}', b"[ ]", b'"]"', b"null"]


@each_scanner
@pytest.mark.parametrize("text", [b"{}", b"[]", b'"{"', b"1", b"null"])
def test_members_and_elements_of_another_type_are_none(scan: Scanner, text: bytes) -> None:
    """Only an object has members, only an array elements."""
    assert (scan.members(text) is not None) == (text == b"{}")
    assert (scan.elements(text) is not None) == (text == b"[]")


def test_value_with_lone_surrogates_has_replacement_characters() -> None:
    """U+FFFD for each lone half, in keys too; a pair is its character."""
    assert CAREFUL.value(rb'{"\ud800a":["\udc00\ud83d","\ud83d\ude00"]}') == {"\ufffda": ["\ufffd\ufffd", "😀"]}


@each_scanner
def test_value_of_a_large_whole_number_keeps_its_digits(scan: Scanner) -> None:
    """An id larger than any machine word is read exactly."""
    assert scan.value(b"123456789012345678901234567890") == 123456789012345678901234567890


@pytest.mark.parametrize(
    ("text", "form"),
    [
        (rb'{ "b" : 1.0 , "a" : [ 1e2 , -0 , 1E+2 ] }', b'{"a":[1e2,-0,1E+2],"b":1.0}'),
        (rb'"\u00e4\/\u0001\n\"\u2028\u007f"', '"ä/\\u0001\\n\\"\u2028\x7f"'.encode()),
        (rb'"\ud800"', '"\ufffd"'.encode()),
        (rb'{"a":1,"\u0061":2}', b'{"a":2}'),
        ('{"😀":1,"\uffff":2,"z":3,"":4}'.encode(), '{"":4,"z":3,"\uffff":2,"😀":1}'.encode()),
        (b"1e999", b"1e999"),
        (b"9" * 5000, b"9" * 5000),
        (b"[true,false,null,[],{}]", b"[true,false,null,[],{}]"),
    ],
)
def test_canonical_form_of_text_is_the_contract_s(text: bytes, form: bytes) -> None:
    """Sorted by code point, not by UTF-16; no whitespace; strings unescaped, numbers as they were written."""
    assert canonical(text) == form


def test_canonical_form_of_a_part_is_that_part_s() -> None:
    """A flat entry's own two keys, or what stands under one."""
    entry = b'{"id":"1","value":{"b":1,"a":2},"field":"mentions"}'
    assert canonical(entry, only=("field", "value")) == b'{"field":"mentions","value":{"a":2,"b":1}}'
    assert canonical(entry, under="value") == b'{"a":2,"b":1}'

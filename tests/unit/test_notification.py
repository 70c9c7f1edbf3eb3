"""The parsed body: which items it holds, with which bytes, and why it may be a dead letter."""

from __future__ import annotations

import pytest

from bridge.errors import NestedTooDeep, NotJson, NotUtf8, Unreadable, UnsupportedObject, WrongShape
from bridge.notification import Item, Note, parse
from tests.unit.street import ACCOUNT, change, item, wrapped

MESSAGE = item('"message":{"mid":"m_1"}')


def items(body: bytes) -> list[Item]:
    return parse(body).items


def origins(body: bytes) -> list[str]:
    return [one.origin for one in items(body)]


def raws(body: bytes) -> list[str]:
    return [one.raw.decode() for one in items(body)]


def entry(members: str) -> bytes:
    return f'{{"object":"instagram","entry":[{{{members}}}]}}'.encode()


# Where items stand.


@pytest.mark.parametrize("array", ["messaging", "standby", "changes"])
def test_items_of_each_array_keep_their_bytes_and_order(array: str) -> None:
    """An item is its array element, sliced: spacing, escapes and unknown keys included."""
    elements = ['{ "a" : 1.0 }', '{"b":"\\u00e4\\/ä"}', "null", '"x"', "[ ]"]
    body = f'{{"object":"instagram","entry":[{{"id":"1","{array}":[ {" , ".join(elements)} ]}}]}}'.encode()
    assert raws(body) == elements
    assert origins(body) == [array] * 5


def test_items_of_every_entry_and_array_are_all_read() -> None:
    """Not only messaging[0]: every element of every array of every entry, and the entry's own flat change."""
    full = f'{{"id":"1","messaging":[{MESSAGE},{MESSAGE}],"standby":[{MESSAGE}],"changes":[{{}}],"field":"mentions","value":1}}'
    body = f'{{"object":"instagram","entry":[{full},{full}]}}'.encode()
    assert origins(body) == ["messaging", "messaging", "standby", "changes", "changes"] * 2


def test_item_of_an_entry_has_its_id_and_time() -> None:
    """entry.id as text, entry.time in milliseconds, whether Meta sends it in seconds or not."""
    body = b'{"object":"instagram","entry":[{"id":17841400000000001,"time":1520622968,"messaging":[{}]},{"messaging":[{}]}]}'
    assert [(one.entry_id, one.sent_at) for one in items(body)] == [("17841400000000001", 1520622968000), (None, None)]


def test_flat_change_is_its_entry_s_field_and_value() -> None:
    """Raw is the whole entry, the change its two keys."""
    (one,) = items(entry('"id":"1","field":"mentions","value":{"media_id":"2"}'))
    assert (one.origin, one.flat, one.entry_id) == ("changes", True, "1")
    assert one.value == {"field": "mentions", "value": {"media_id": "2"}}
    assert one.raw == b'{"id":"1","field":"mentions","value":{"media_id":"2"}}'


def test_bare_change_is_the_body() -> None:
    """Raw is the body without the whitespace around it, and no entry is known."""
    (one,) = items(b' {"field":"comments","value":{"id":"1"}}\n')
    assert (one.origin, one.entry_id, one.sent_at) == ("changes", None, None)
    assert one.raw == b'{"field":"comments","value":{"id":"1"}}'


def test_body_with_entries_is_no_bare_change_whatever_stands_beside_them() -> None:
    """The entries are read; a field and a value at their side are unknown keys."""
    body = wrapped(MESSAGE)[:-1] + b',"field":"comments","value":{}}'
    assert origins(body) == ["messaging"]
    assert set(parse(body).notes) == {("unknown_key", "field"), ("unknown_key", "value")}


def test_array_of_notifications_holds_the_items_of_each() -> None:
    """Meta's documents wrap bodies in an array; bare forms may stand in it too."""
    body = b"[" + wrapped(MESSAGE) + b' , {"field":"comments","value":{}} ,' + wrapped("{}", array="standby") + b"]"
    assert origins(body) == ["messaging", "changes", "standby"]


@pytest.mark.parametrize("element", [b"1", b'{"object":"page","entry":[]}', b'{"object":"instagram"}', b"[]"])
def test_array_of_notifications_with_a_bad_one_keeps_its_neighbours(element: bytes) -> None:
    """What is no notification is set aside alone, with its exact bytes."""
    notification = parse(b"[" + wrapped(MESSAGE) + b", " + element + b" ," + wrapped(MESSAGE) + b"]")
    assert len(notification.items) == 2
    assert [part.raw for part in notification.unreadable] == [element]


@pytest.mark.parametrize(
    "members",
    [
        '"id":"1"',
        "",
        '"id":"1","messaging":[]',
        '"messaging":{}',
        '"changes":null',
        '"field":"comments"',
        '"value":{}',
        '"new":[1]',
    ],
)
def test_entry_without_items_is_one_item_itself(members: str) -> None:
    """Nothing is dropped: raw is the entry, and it is counted."""
    (one,) = items(entry(members))
    assert (one.origin, one.raw.decode()) == ("entry", f"{{{members}}}")
    assert Note("empty", "entry[]") in parse(entry(members)).notes


@pytest.mark.parametrize("text", ["null", "1", '"x"', "[]", "[{}]"])
def test_entry_that_is_no_object_is_one_item_itself(text: str) -> None:
    """Its neighbours are read."""
    body = f'{{"object":"instagram","entry":[{text},{{"messaging":[{MESSAGE}]}}]}}'.encode()
    assert [(one.origin, one.raw.decode()) for one in items(body)] == [("entry", text), ("messaging", MESSAGE)]


@pytest.mark.parametrize(("body", "path"), [(b"[]", "[]"), (b'{"object":"instagram","entry":[]}', "entry")])
def test_empty_list_of_entries_or_notifications_is_counted_and_holds_nothing(body: bytes, path: str) -> None:
    """An explicit empty result."""
    notification = parse(body)
    assert (notification.items, notification.unreadable, notification.notes) == ([], [], [Note("empty", path)])


def test_unknown_and_wrongly_typed_keys_of_the_envelope_are_noted_by_path() -> None:
    """Paths are made of Meta's keys, with [] for any element."""
    body = b'{"object":"instagram","new":1,"entry":[{"id":true,"time":"soon","standby":{},"messaging":[{}],"other":2}]}'
    assert set(parse(body).notes) == {
        *(("unknown_key", "new"), ("unknown_key", "entry[].other")),
        *(("wrong_type", "entry[].id"), ("wrong_type", "entry[].time"), ("wrong_type", "entry[].standby")),
    }


def test_duplicate_keys_of_the_envelope_count_once_the_last() -> None:
    """As JSON parsers commonly read them, and as the item's bytes then are."""
    body = b'{"object":"page","object":"instagram","entry":1,"entry":[{"messaging":[1],"id":"1","messaging":[{}],"id":"2"}]}'
    assert [(one.raw, one.entry_id) for one in items(body)] == [(b"{}", "2")]


def test_body_with_whitespace_around_it_is_read() -> None:
    """RFC 8259 allows it."""
    assert raws(b" \r\n\t" + wrapped(MESSAGE) + b"\n") == [MESSAGE]


def test_item_with_a_lone_surrogate_keeps_it_in_raw() -> None:
    """Verbatim in raw, U+FFFD in the value, and its neighbours are as ever."""
    odd = '{"message":{"text":"a\\ud800b"}}'
    body = wrapped(MESSAGE, odd)
    assert raws(body) == [MESSAGE, odd]
    assert items(body)[1].value == {"message": {"text": "a\ufffdb"}}


def test_items_with_numbers_no_machine_holds_are_read() -> None:
    """1e999 and 5000 digits are JSON: no reason to lose a delivery."""
    odd = f'{{"a":1e999,"b":{"9" * 5000}}}'
    assert raws(wrapped(MESSAGE, odd)) == [MESSAGE, odd]


# Dead letters.


@pytest.mark.parametrize(
    ("reason", "body"),
    [
        (NotUtf8, b'{"object":"instagram","entry":[],"a":"\xff"}'),
        (NotUtf8, b'{"object":"instagram","entry":[],"a":"\xed\xa0\x80"}'),  # a surrogate in UTF-8's clothes
        (NotUtf8, '{"object":"instagram","entry":[]}'.encode("utf-16")),
        (NotUtf8, wrapped(MESSAGE) + b"\x80"),
        (NotJson, b""),
        (NotJson, b"  "),
        (NotJson, b"hello"),
        (NotJson, b"null!"),
        (NotJson, b'"x'),
        (NotJson, b"object=instagram&entry="),
        (NotJson, b"\xef\xbb\xbf" + wrapped(MESSAGE)),
        (NotJson, wrapped(MESSAGE)[:-1]),
        (NotJson, wrapped(MESSAGE) + b"}"),
        (NotJson, wrapped(MESSAGE) * 2),
        (NotJson, wrapped(MESSAGE) + b"\0"),
        (NotJson, wrapped('{"a":NaN}')),
        (NotJson, wrapped('{"a":-Infinity}')),
        (NotJson, wrapped('{"a":"\t"}')),
        (NotJson, wrapped("{'a':1}")),
        (NotJson, wrapped(MESSAGE, "")),
        (NotJson, b'{"object":"instagram","entry":[],"new":NaN}'),
        (NotJson, b'{"object":"instagram","entry":[],"new":"\\x"}'),
        (NotJson, wrapped('{"message":{"text":"\\ud800"}}', '{"a":NaN}')),
        (WrongShape, b"null"),
        (WrongShape, b"1"),
        (WrongShape, b'"instagram"'),
        (WrongShape, b'{"object":"instagram"}'),
        (WrongShape, b'{"object":"instagram","entry":null}'),
        (WrongShape, b'{"object":"instagram","entry":{}}'),
        (WrongShape, b'{"object":"instagram","entry":"x"}'),
        (UnsupportedObject, b"{}"),
        (UnsupportedObject, b'{"entry":[]}'),
        (UnsupportedObject, b'{"object":"page","entry":[]}'),
        (UnsupportedObject, b'{"object":"Instagram","entry":[]}'),
        (UnsupportedObject, b'{"object":["instagram"],"entry":[]}'),
        (UnsupportedObject, b'{"object":null,"entry":[]}'),
        (UnsupportedObject, b'{"object":"instagram","object":"page","entry":[]}'),
        (UnsupportedObject, b'{"field":"comments"}'),
    ],
)
def test_body_that_cannot_be_read_raises_its_reason(reason: type[Unreadable], body: bytes) -> None:
    """Each cause has its own name, whichever scanner finds it."""
    with pytest.raises(Unreadable) as caught:
        parse(body)
    assert type(caught.value) is reason


# Nesting: the places where depth may hide, each with the levels above it.

IN_ITEM = wrapped('{"new":DEEP}').decode()
PLACES = {
    "item": (5, IN_ITEM),
    "second item": (5, wrapped(MESSAGE, '{"new":DEEP}').decode()),
    "item of an array of notifications": (6, f"[{IN_ITEM}]"),
    "value of a change": (5, wrapped(change("comments", "DEEP"), array="changes").decode()),
    "element that is no object": (4, wrapped("DEEP").decode()),
    "unknown key of the envelope": (1, '{"object":"instagram","entry":[],"new":DEEP}'),
    "object": (1, '{"object":DEEP,"object":"instagram","entry":[]}'),
    "unknown key of an entry": (3, entry(f'"new":DEEP,"messaging":[{MESSAGE}]').decode()),
    "id of an entry": (3, entry(f'"id":DEEP,"messaging":[{MESSAGE}]').decode()),
    "entry without items": (3, entry('"new":DEEP').decode()),
    "entry that is no object": (2, '{"object":"instagram","entry":[DEEP]}'),
    "array of a wrong type": (4, entry(f'"standby":{{"new":DEEP}},"messaging":[{MESSAGE}]').decode()),
    "flat change": (3, entry('"field":"x","value":DEEP').decode()),
    "bare change": (1, change("x", "DEEP")),
    "bare change in an array": (2, f"[{change('x', 'DEEP')}]"),
    "element of an array of notifications": (1, "[DEEP]"),
    "entries shadowed by a duplicate key": (1, '{"entry":DEEP,"object":"instagram","entry":[{"messaging":[{}]}]}'),
    "items shadowed by a duplicate key": (3, entry('"messaging":DEEP,"messaging":[{}]').decode()),
}
"""Where depth may hide, with the levels above it."""

each_place = pytest.mark.parametrize(("above", "place"), PLACES.values(), ids=PLACES)
each_bracket = pytest.mark.parametrize(
    ("opening", "closing"), [("[", "]"), ('{"a":[', "]}")], ids=["arrays", "objects"]
)


def nested(levels: int, opening: str = "[", closing: str = "]", innermost: str = "") -> str:
    """JSON text so many levels deep."""
    times, rest = divmod(levels, sum(opening.count(bracket) for bracket in "[{"))
    return "[" * rest + opening * times + innermost + closing * times + "]" * rest


@each_place
@each_bracket
def test_nesting_of_64_levels_anywhere_is_read(above: int, place: str, opening: str, closing: str) -> None:
    """The limit itself is still fine."""
    found = parse(place.replace("DEEP", nested(64 - above, opening, closing)).encode())
    assert found.items or found.unreadable or found.notes


@each_place
@each_bracket
def test_nesting_of_65_levels_anywhere_is_too_deep(above: int, place: str, opening: str, closing: str) -> None:
    """One more and the delivery is a dead letter, wherever it stands: even where nobody would have looked."""
    with pytest.raises(NestedTooDeep):
        parse(place.replace("DEEP", nested(65 - above, opening, closing)).encode())


@each_place
def test_nesting_of_a_hundred_thousand_levels_is_too_deep(above: int, place: str) -> None:
    """No parser of ours is led into recursion."""
    with pytest.raises(NestedTooDeep):
        parse(place.replace("DEEP", nested(100_000 - above)).encode())


@each_place
def test_brackets_in_strings_are_no_nesting(above: int, place: str) -> None:
    """A customer may write as many as they like, escaped quotes between them."""
    text = '"' + '[{\\"' * 1000 + '"'
    found = parse(place.replace("DEEP", nested(64 - above, innermost=text)).encode())
    assert found.items or found.unreadable or found.notes


def test_nesting_of_many_shallow_items_is_read() -> None:
    """What counts is depth, not how many brackets a batch has."""
    assert len(items(wrapped(*[MESSAGE] * 1000))) == 1000
    assert items(wrapped(MESSAGE, entry_id=f'"{ACCOUNT}"'))[0].entry_id == ACCOUNT

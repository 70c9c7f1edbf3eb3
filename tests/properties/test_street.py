"""The street against the reference, on any notification and on any bytes at all."""

from __future__ import annotations

import json
import math
import re
from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import Unreadable
from bridge.event import Event, describe
from bridge.jsontext import CAREFUL, FAST
from bridge.notification import parse
from bridge.pipeline import UNPROCESSABLE
from tests.properties import reference
from tests.properties.grammar import IDS, NOTIFICATIONS, SPELLINGS, Document, changes, items, write
from tests.properties.reference import Dead, Expected
from tests.properties.typed import typed_record
from tests.unit.street import DELIVERY_ID, RECEIVED_AT, SCHEMAS, avro, decoded, rewritten, topic_field_of, walk

examples = settings(max_examples=200, deadline=None, derandomize=True)


def told(body: bytes) -> list[Any]:
    """What parse and describe say: each event's part that the reference knows too, then what is unreadable."""
    try:
        notification = parse(body)
    except Unreadable as error:
        return [Dead(error.reason, body)]
    events = [essence(describe(item, [])) for item in notification.items]
    return [*events, *(Dead(part.error.reason, part.raw) for part in notification.unreadable)]


def essence(event: Event | Expected) -> dict[str, object]:
    raw = event.raw.decode() if isinstance(event.raw, bytes) else event.raw
    names = [name for name in Expected.__dataclass_fields__ if name not in ("raw", "holder")]
    return {**{name: getattr(event, name) for name in names}, "raw": raw}


def expected_of(body: bytes) -> list[Any]:
    expected = reference.read(body)
    events = [essence(one) for one in expected if isinstance(one, Expected)]
    return [*events, *(one for one in expected if isinstance(one, Dead))]


@examples
@given(NOTIFICATIONS, SPELLINGS)
def test_events_of_any_notification_equal_the_reference(document: Document, spelling: Random | None) -> None:
    """Whatever Meta may send, however it is written, becomes what contract.md says, item by item and in order."""
    body = write(document, spelling).encode()
    assert told(body) == expected_of(body)


@examples
@given(NOTIFICATIONS, SPELLINGS)
def test_records_of_any_notification_are_one_per_item_and_equal_fastavro(
    document: Document, spelling: Random | None
) -> None:
    """Every item is one record in its topic, typed as the schema says, byte by byte what fastavro writes."""
    body = write(document, spelling).encode()
    records, notes = walk(body)
    expected = sorted(reference.read(body), key=lambda one: isinstance(one, Dead))
    assert len(records) == len(expected)
    assert records or any(note.kind == "empty" for note in notes)
    for record, one in zip(records, expected, strict=True):
        found = decoded(record)
        assert avro(record) == rewritten(record)
        if isinstance(one, Dead):
            assert (topic_field_of(record), found["reason"], found["body"]) == ("dead_letter", one.reason, one.body)
        else:
            assert topic_field_of(record) == one.webhook_field
            schema = SCHEMAS[one.webhook_field]
            typed = typed_record(schema, one, received_at=RECEIVED_AT, delivery_id=DELIVERY_ID)
            assert free_form_read(found) == free_form_read(typed)


def free_form_read(value: Any, key: str = "") -> Any:  # noqa: ANN401 - any Avro value
    """A record whose JSON texts are compared by what they say; a float that no float holds is null there."""
    if isinstance(value, dict):
        return {key: free_form_read(member, key) for key, member in value.items()}
    if isinstance(value, list):
        return [free_form_read(element) for element in value]
    if not key.endswith("_json") or value is None:
        return value
    read = json.loads(value, parse_float=lambda text: None if math.isinf(float(text)) else float(text))
    return re.sub("[\ud800-\udfff]", "\ufffd", json.dumps(read, ensure_ascii=False, sort_keys=True))


@examples
@given(
    st.lists(items(), max_size=4),
    st.lists(changes(), max_size=2),
    st.sampled_from(IDS),
    st.tuples(SPELLINGS, SPELLINGS),
)
def test_event_id_in_another_batch_order_and_spelling_is_kept(
    messaging: list[Document], changed: list[Document], entry_id: str, spellings: tuple[Random | None, Random | None]
) -> None:
    """A redelivery in other company, with other spacing, key order and escapes, is the same events."""
    together = {"object": "instagram", "entry": [{"id": entry_id, "messaging": messaging, "changes": changed}]}
    alone: Document = [
        {"entry": [{"time": 1, "id": entry_id, key: [item]}], "object": "instagram"}
        for key, item in [
            *(("changes", change) for change in reversed(changed)),
            *(("messaging", item) for item in reversed(messaging)),
        ]
    ]
    if not messaging and not changed:
        return
    first = [one["event_id"] for one in told(write(together, spellings[0]).encode())]
    again = [one["event_id"] for one in told(write(alone, spellings[1]).encode())]
    assert first == again[::-1]


@examples
@given(NOTIFICATIONS, SPELLINGS)
def test_scanners_on_any_text_that_both_read_agree(document: Document, spelling: Random | None) -> None:
    """The fast and the careful scanner give the same slices and values, at every depth."""
    text = write(document, spelling).encode()
    try:
        FAST.value(text)
    except msgspec.DecodeError:
        return  # a lone surrogate or 1e999: the careful scanner's own
    assert_scanned_alike(text)


def assert_scanned_alike(text: bytes) -> None:
    assert FAST.value(text) == CAREFUL.value(text)
    fast, careful = FAST.members(text), CAREFUL.members(text)
    assert (fast is None) == (careful is None)
    if fast is not None and careful is not None:
        assert {key: bytes(piece) for key, piece in fast.items()} == careful
    several, several_carefully = FAST.elements(text), CAREFUL.elements(text)
    assert (several is None) == (several_carefully is None)
    if several is not None and several_carefully is not None:
        assert [bytes(piece) for piece in several] == several_carefully
    for piece in (*(fast or {}).values(), *(several or ())):
        assert_scanned_alike(bytes(piece))


@examples
@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\ud8e1-.0NaN \n\ufeff', max_size=60).map(str.encode))
def test_records_of_any_bytes_raise_nothing(body: bytes) -> None:
    """Any bytes at all are records, dead letters, or said to be empty."""
    assert_walked(body)


def assert_walked(body: bytes) -> None:
    records, notes = walk(body)
    assert records or any(note.kind == "empty" for note in notes)
    assert UNPROCESSABLE not in {note.path for note in notes}


@examples
@given(NOTIFICATIONS, SPELLINGS, st.integers(0, 2**32))
def test_records_of_a_damaged_notification_are_those_of_the_reference(
    document: Document, spelling: Random | None, damage: int
) -> None:
    """A body with pieces cut out, doubled or overwritten is read as JSON reads it, or is one dead letter with its bytes."""
    body = bytearray(write(document, spelling).encode())
    random = Random(damage)  # noqa: S311 - damage is no secret
    for _ in range(random.randint(1, 2)):
        start = random.randint(0, len(body))
        piece = body[start : start + random.randint(0, 12)]
        body[start : start + random.choice([0, len(piece)])] = random.choice(
            [b"", bytes(piece), random.randbytes(1), b'"', b"\\", b"}"]
        )
    expected = expected_of(bytes(body))
    found = told(bytes(body))
    if expected == [Dead("not_json", bytes(body))]:  # how deep text nests that is no JSON is a matter of taste
        assert found in (expected, [Dead("nested_too_deep", bytes(body))])
    else:
        assert found == expected
    assert_walked(bytes(body))

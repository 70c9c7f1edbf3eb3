"""Typed values as Avro: prefixes, what each schema rule takes, what is noted, and the bytes at their boundaries."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import avro.schema
import pytest

from bridge.encoding import Encoder, confluent_prefix, pascal_case, single_object_prefix
from bridge.event import CHANGE_FIELDS, WEBHOOK_FIELDS
from bridge.routing import TOPIC_FIELDS
from bridge.schemas import load
from tests.unit.street import SCHEMAS, change, decoded, item, notes_of, record, rewritten, wrapped
from tests.unit.street import avro as avro_bytes

each_topic = pytest.mark.parametrize("topic_field", TOPIC_FIELDS)


def crc_64_avro(data: bytes) -> int:
    """The fingerprint as the Avro specification defines it, bit by bit ("Schema Fingerprints")."""
    empty = fingerprint = 0xC15D213AA4D7A795
    for byte in data:
        fingerprint ^= byte
        for _ in range(8):
            fingerprint = (fingerprint >> 1) ^ (empty & -(fingerprint & 1))
    return fingerprint


@each_topic
def test_single_object_prefix_of_every_schema_is_the_specification_s(topic_field: str) -> None:
    """C3 01, then the fingerprint of the canonical form that another library gives, little-endian.

    avro 1.12 keeps an object where a logical type stood; the specification's rule [PRIMITIVES], and Java's code, do not.
    """
    canonical = avro.schema.parse(json.dumps(SCHEMAS[topic_field])).canonical_form.replace('{"type":"long"}', '"long"')
    assert single_object_prefix(SCHEMAS[topic_field]) == b"\xc3\x01" + crc_64_avro(canonical.encode()).to_bytes(
        8, "little"
    )


@pytest.mark.parametrize(
    ("schema_id", "prefix"), [(1, "0000000001"), (0x01020304, "0001020304"), (2**31 - 1, "007fffffff")]
)
def test_confluent_prefix_is_zero_and_the_id_in_big_endian(schema_id: int, prefix: str) -> None:
    """Five bytes (Confluent's wire format)."""
    assert confluent_prefix(schema_id).hex() == prefix


@each_topic
def test_schema_of_every_topic_has_its_pascal_case_name(topic_field: str) -> None:
    """message_edit → instagram_bridge.MessageEdit."""
    schema = load(topic_field)
    assert f"{schema['namespace']}.{schema['name']}" == f"instagram_bridge.{pascal_case(topic_field)}"
    assert pascal_case("message_edit") == "MessageEdit"


def test_encoder_shows_the_source_it_runs() -> None:
    """A generated function can be read."""
    source = Encoder("messages", SCHEMAS["messages"], b"").source
    compile(source, "encode", "exec")
    assert "is_echo" in source


# Longs and strings at the boundaries of their encodings.


@pytest.mark.parametrize("exponent", [0, 6, 7, 13, 14, 20, 31, 32, 34, 48, 62])
@pytest.mark.parametrize("sign", [1, -1])
def test_long_around_every_varint_length_equals_fastavro(exponent: int, sign: int) -> None:
    """Zigzag and seven bits a byte."""
    for number in (sign * 2**exponent - 1, sign * 2**exponent, sign * 2**exponent + 1, sign * (2**63 - 1), -(2**63)):
        only = record(wrapped(item(f'"message_edit":{{"mid":"m","num_edit":{number}}}')))
        assert decoded(only)["message_edit"]["num_edit"] == number
        assert avro_bytes(only) == rewritten(only)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 4095, 4096, 4097, 8191, 8192, 100_000])
@pytest.mark.parametrize("letter", ["a", "ü", "😀"])
def test_string_around_every_length_prefix_equals_fastavro(size: int, letter: str) -> None:
    """Lengths are counted in bytes, whichever way they are written."""
    text = letter * (size // len(letter.encode()))
    only = record(wrapped(item(f'"message":{{"mid":"{text}","text":"{text}"}}')))
    assert decoded(only)["message"]["text"] == text
    assert avro_bytes(only) == rewritten(only)


# Known keys of wrong types: null, noted by path, and the record stays. Read from the schemas, so none is forgotten.

TYPED = [field for field in WEBHOOK_FIELDS if field != "other"]


def typed_paths(webhook_field: str) -> Iterator[tuple[list[str], Any]]:
    """Every place of a webhook field's typed part, as keys below the record ("[]" for elements), with its Avro type."""
    named: dict[str, Any] = {}

    def within(kind: Any, path: list[str]) -> Iterator[tuple[list[str], Any]]:  # noqa: ANN401 - an Avro type: name or object
        kind = named.get(kind, kind) if isinstance(kind, str) else kind
        if isinstance(kind, dict) and kind["type"] == "record":
            named[f"{kind['namespace']}.{kind['name']}"] = kind
            for field in kind["fields"]:
                yield from places(field, path)
        elif isinstance(kind, dict) and kind["type"] == "array":
            yield from within(kind["items"], [*path, "[]"])

    def places(field: dict[str, Any], path: list[str]) -> Iterator[tuple[list[str], Any]]:
        kind = field["type"][1]
        yield [*path, field["name"]], named.get(kind, kind) if isinstance(kind, str) else kind
        yield from within(kind, [*path, field["name"]])

    common = {field["name"] for field in SCHEMAS["other"]["fields"]}
    for field in SCHEMAS[webhook_field]["fields"]:
        if field["name"] not in common:
            yield from places(field, [])


class Place(NamedTuple):
    """A known key: the record's webhook field, the path to the key, its Avro type."""

    webhook_field: str
    path: str
    kind: Any

    @property
    def is_below_own_key(self) -> bool:
        """Not an item's own key, whose wrong type is the routing's business."""
        return "." in self.path or (self.webhook_field, self.path) == ("messages", "referral")


PLACES = [Place(field, ".".join(path), kind) for field in TYPED for path, kind in typed_paths(field)]


def each_place(select: Callable[[Place], bool]) -> pytest.MarkDecorator:
    chosen = [place for place in PLACES if select(place)]
    return pytest.mark.parametrize("place", chosen, ids=[f"{place.webhook_field}-{place.path}" for place in chosen])


def body_with(webhook_field: str, path: str, text: str) -> bytes:
    """A body of the webhook field in which this JSON text stands at a path, and nothing else."""
    *above, last = path.split(".")
    text = f'{{"{last.removesuffix("_json")}":{text}}}'
    for key in reversed(above):
        text = f"[{text}]" if key == "[]" else f'{{"{key}":{text}}}'
    if webhook_field in CHANGE_FIELDS:
        return wrapped(f'{{"field":"{webhook_field}",{text[1:]}', array="changes")
    own = {"messages": '"message":{},'}.get(webhook_field, "") if path.startswith("referral") else ""
    return wrapped(item(own + text[1:-1]), array="standby" if webhook_field == "standby" else "messaging")


def at(value: Any, path: str) -> Any:  # noqa: ANN401 - any Avro value
    for key in path.split("."):
        value = value[0] if key == "[]" else value[key]
    return value


def noted_path(webhook_field: str, path: str) -> str:
    """As notes tell it: fields whose records hold several kinds say which field it was."""
    prefix = f"{webhook_field}." if webhook_field in {"standby", *CHANGE_FIELDS} else ""
    return prefix + path.replace(".[]", "[]")


def wrong_values(path: str, kind: Any) -> list[str]:  # noqa: ANN401 - an Avro type: name or object
    last = path.rsplit(".", 1)[-1]
    if kind == "string":
        return (
            ["true", "1.5", "[]", "{}"] if last in ("id", "mid") or last.endswith("_id") else ["true", "1", "[]", "{}"]
        )
    if kind == "boolean":
        return ["2", '"yes"', "[]", "{}"]
    if kind == "long" or kind.get("logicalType"):
        return ["true", '"x"', "[]", "{}", "1e300"]
    return ["true", "1", '"x"', "[]" if kind["type"] == "record" else "{}"]


@each_place(lambda place: place.is_below_own_key and not place.path.endswith("_json"))
def test_known_key_of_a_wrong_type_is_null_and_noted_by_path(place: Place) -> None:
    """The record stays in its topic; only an item whose own key is no object leaves it."""
    for text in wrong_values(place.path, place.kind):
        body = body_with(place.webhook_field, place.path, text)
        only = record(body)
        assert only.topic == f"instagram.{place.webhook_field}"
        assert at(decoded(only), place.path) is None, text
        assert ("wrong_type", noted_path(place.webhook_field, place.path)) in notes_of(body), text
        assert avro_bytes(only) == rewritten(only)


@each_place(lambda place: place.is_below_own_key)
def test_known_key_that_is_null_or_absent_is_null_and_not_noted(place: Place) -> None:
    """Some serialisers write an absent key as null."""
    body = body_with(place.webhook_field, place.path, "null")
    assert at(decoded(record(body)), place.path) is None
    assert notes_of(body) == set()


@each_place(lambda place: isinstance(place.kind, dict) and place.kind["type"] == "record")
def test_unknown_key_beside_every_known_one_is_noted_by_path(place: Place) -> None:
    """In every object of every record: none is a blind spot."""
    body = body_with(place.webhook_field, place.path, '{"new":1}')
    assert ("unknown_key", f"{noted_path(place.webhook_field, place.path)}.new") in notes_of(body)


def test_unknown_key_of_an_item_a_party_or_a_change_is_noted() -> None:
    """The item's own keys, the parties' and a change's have no schema, and are watched all the same."""
    odd = '{"new":1,"sender":{"id":"1","new":2},"recipient":{"id":"2","new":3},"message":{"mid":"m"}}'
    assert notes_of(wrapped(odd)) == {("unknown_key", path) for path in ("new", "sender.new", "recipient.new")}
    assert notes_of(wrapped(odd, array="standby")) == {
        ("unknown_key", f"standby.{path}") for path in ("new", "sender.new", "recipient.new")
    }
    assert notes_of(wrapped('{"new":1,"field":"mentions","value":{}}', array="changes")) == {
        ("unknown_key", "mentions.new")
    }


@pytest.mark.parametrize("element", ["null", "1", '"x"', "[]"])
def test_array_element_of_a_wrong_type_keeps_its_place(element: str) -> None:
    """A record of nulls, so that positions stay Meta's."""
    body = wrapped(item(f'"message":{{"mid":"m","attachments":[{element},{{"type":"image"}}]}}'))
    found = decoded(record(body))["message"]["attachments"]
    assert [one["type"] for one in found] == [None, "image"]
    assert ("wrong_type", "message.attachments[]") in notes_of(body)


@pytest.mark.parametrize("text", ['{"a":[1,{"b":"ü"}]}', "[]", '"x"', "1", "false", "12345678901234567890123"])
def test_free_form_object_is_its_json_text(text: str) -> None:
    """Whatever stands under a key of no documented form."""
    found = decoded(
        record(wrapped(item(f'"message":{{"mid":"m","attachments":[{{"payload":{{"generic":{text}}}}}]}}')))
    )
    assert json.loads(found["message"]["attachments"][0]["payload"]["generic_json"]) == json.loads(text)


def test_app_roles_of_a_handover_are_their_json_text() -> None:
    """A map by app id, which Avro's record cannot name."""
    found = decoded(record(wrapped(item('"app_roles":{"123":["primary_receiver"]}'))))
    assert json.loads(found["app_roles_json"]) == {"123": ["primary_receiver"]}


def test_other_record_says_what_a_change_named() -> None:
    """And holds the change in raw alone."""
    found = decoded(record(wrapped(change("story_mentions", '{"id":"1"}'), array="changes")))
    assert (found["webhook_field"], found["named_field"], found["raw"]) == (
        "other",
        "story_mentions",
        change("story_mentions", '{"id":"1"}'),
    )

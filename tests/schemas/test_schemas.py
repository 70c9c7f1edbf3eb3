"""The Avro schemas as a set: their form, the rules the encoder reads from them, and that two Avro libraries agree on them."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import avro.io
import avro.schema
import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.commands.schemas import incompatibilities
from bridge.schemas import released

if TYPE_CHECKING:
    from collections.abc import Iterator

Schema = dict[str, Any]

PATHS = {path.stem: path for path in sorted((Path(__file__).parents[2] / "schemas" / "avro").glob("*.avsc"))}
SCHEMAS: dict[str, Schema] = {name: json.loads(path.read_text("utf-8")) for name, path in PATHS.items()}

HANDOVER = ["pass_thread_control", "take_thread_control", "request_thread_control", "app_roles_json"]
ONE_ITEM = ["message", "message_edit", "reaction", "postback", "read", "optin", *HANDOVER, "referral"]
TYPED_PARTS = {
    "messages": ["message", "referral"],
    "message_reactions": ["reaction"],
    "messaging_postbacks": ["postback"],
    "messaging_seen": ["read"],
    "messaging_referral": ["referral"],
    "standby": ONE_ITEM,
    "message_edit": ["message_edit"],
    "messaging_handover": HANDOVER,
    "messaging_optins": ["optin"],
    "comments": ["value"],
    "live_comments": ["value"],
    "mentions": ["value"],
    "story_insights": ["value"],
    "other": ["named_field"],
}
"""What stands between the common fields and ``raw``, by webhook field: Meta's keys, in the order they decide."""

MILLIS = {"type": "long", "logicalType": "timestamp-millis"}
IDENTITIES = ["entry_id", "account_id", "customer_id", "sender_id", "recipient_id"]
COMMON = ["event_id", "webhook_field", "origin", *IDENTITIES, "occurred_at", "sent_at", "received_at", "delivery_id"]
NEVER_NULL = {"event_id", "webhook_field", "origin", "received_at", "delivery_id", "raw"}

each_schema = pytest.mark.parametrize("name", SCHEMAS)
each_event = pytest.mark.parametrize("webhook_field", TYPED_PARTS)


def full_name(definition: Schema) -> str:
    return f"{definition['namespace']}.{definition['name']}"


def record_of(webhook_field: str) -> str:
    return "instagram_bridge." + "".join(word.capitalize() for word in webhook_field.split("_"))


def nodes(node: object) -> Iterator[Schema]:
    """Every JSON object of a schema: types and fields."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from nodes(child)


def definitions(schema: Schema) -> list[Schema]:
    """The named types of a schema, itself the first."""
    return [node for node in nodes(schema) if node.get("type") in ("record", "enum")]


def fields(schema: Schema) -> list[Schema]:
    """Every field of a schema, however deep."""
    return [field for definition in definitions(schema) for field in definition.get("fields", ())]


def is_nullable(field: Schema) -> bool:
    return isinstance(field["type"], list)


def plain_type(field: Schema) -> object:
    """A field's type without the null."""
    return field["type"][1] if is_nullable(field) else field["type"]


def by_name(node: object) -> object:
    """A part of a schema with the types that it defines replaced by their full names."""
    if isinstance(node, list):
        return [by_name(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.get("type") in ("record", "enum"):
        return full_name(node)
    return {key: by_name(value) for key, value in node.items()}


@cache
def shared_types() -> dict[str, list[object]]:
    """Every definition of each nested type, one level deep, from all files."""
    found: dict[str, list[object]] = {}
    for schema in SCHEMAS.values():
        for definition in definitions(schema)[1:]:
            found.setdefault(full_name(definition), []).append({key: by_name(part) for key, part in definition.items()})
    return found


@each_schema
def test_file_as_committed_is_two_space_json(name: str) -> None:
    """A file is its own pretty-printed form, so that a change shows as the lines it changes."""
    assert PATHS[name].read_text("utf-8") == json.dumps(SCHEMAS[name], indent=2, ensure_ascii=False) + "\n"


@each_schema
def test_file_named_by_its_record_stands_alone(name: str) -> None:
    """A file has its record's full name, defines every type it uses, and keeps all but the record in one namespace."""
    assert full_name(SCHEMAS[name]) == name
    nested = definitions(SCHEMAS[name])[1:]
    assert {definition["namespace"] for definition in nested} <= {"instagram_bridge.types"}
    assert isinstance(avro.schema.parse(PATHS[name].read_text("utf-8")), avro.schema.RecordSchema)
    assert fastavro.parse_schema(SCHEMAS[name])


def test_webhook_fields_each_have_one_schema() -> None:
    """Every topic has a record and every file a topic: the webhook fields, other, dead letters, and the auto-reply's ledger."""
    assert set(SCHEMAS) == {record_of(topic_field) for topic_field in [*TYPED_PARTS, "dead_letter", "auto_replies"]}


@each_schema
def test_doc_of_every_type_and_field_is_one_sentence(name: str) -> None:
    """Every named type and every field says in one sentence what it is."""
    for node in [*definitions(SCHEMAS[name]), *fields(SCHEMAS[name])]:
        doc = node["doc"]
        assert doc[0].isupper(), node["name"]
        assert doc.endswith("."), node["name"]
        assert ". " not in doc, node["name"]
        assert "TODO" not in doc, f"{node['name']}: `bridge schemas propose` leaves the doc to a person"


@each_schema
def test_doc_of_a_number_names_its_unit(name: str) -> None:
    """A time says milliseconds since the epoch, any other long says what it counts."""
    for field in fields(SCHEMAS[name]):
        if plain_type(field) == MILLIS:
            assert "in milliseconds since 1970-01-01 UTC" in field["doc"], field["name"]
        elif plain_type(field) == "long":
            assert field["doc"].startswith("Count of ") or "in milliseconds" in field["doc"], field["name"]


@each_schema
def test_field_that_may_be_absent_is_null_first_with_default_null(name: str) -> None:
    """A nullable field is ["null", X] with default null and says when it is null; any other field has no default."""
    for field in fields(SCHEMAS[name]):
        if is_nullable(field):
            assert list(field) == ["name", "doc", "type", "default"], field["name"]
            assert field["type"][0] == "null"
            assert len(field["type"]) == 2, field["name"]
            assert field["default"] is None, field["name"]
            assert "null" in field["doc"], field["name"]
        else:
            assert list(field) == ["name", "doc", "type"], field["name"]


@each_schema
def test_logical_type_is_a_time_inside_the_type_object(name: str) -> None:
    """The only logical type is timestamp-millis, inside the type: beside it, in the field, Avro ignores it silently."""
    for node in nodes(SCHEMAS[name]):
        assert "logicalType" not in node or node == MILLIS


@each_schema
def test_types_are_those_the_encoder_knows(name: str) -> None:
    """Only null, boolean, long, string, record and array occur, and bytes as a dead letter's body: all engines read them."""
    known: list[object] = ["boolean", "long", "string", MILLIS, *shared_types()]
    for field in fields(SCHEMAS[name]):
        kind = by_name(plain_type(field))
        if isinstance(kind, dict) and kind["type"] == "array":
            assert set(kind) == {"type", "items"}
            kind = kind["items"]
        is_body = (name, field["name"]) == ("instagram_bridge.DeadLetter", "body")
        assert kind == "bytes" if is_body else kind in known, field["name"]


@pytest.mark.parametrize("name", shared_types())
def test_nested_type_of_one_name_is_the_same_in_every_file(name: str) -> None:
    """A consumer's generated class for a nested type fits every topic."""
    first, *others = shared_types()[name]
    assert all(json.dumps(other) == json.dumps(first) for other in others)


@each_event
def test_event_record_has_common_fields_then_typed_part_then_raw(webhook_field: str) -> None:
    """Every event record begins with the same fields and ends with raw; Meta's keys stand between."""
    record = SCHEMAS[record_of(webhook_field)]
    assert [field["name"] for field in record["fields"]] == [*COMMON, *TYPED_PARTS[webhook_field], "raw"]
    reference = SCHEMAS["instagram_bridge.Other"]["fields"]
    assert record["fields"][: len(COMMON)] == reference[: len(COMMON)]
    assert record["fields"][-1] == reference[-1]


@each_event
def test_typed_part_of_anything_meta_may_omit_is_nullable(webhook_field: str) -> None:
    """Only what the bridge itself knows of every event is never null."""
    never_null = {field["name"] for field in fields(SCHEMAS[record_of(webhook_field)]) if not is_nullable(field)}
    assert never_null == NEVER_NULL


def test_standby_key_has_the_type_it_has_in_its_own_topic() -> None:
    """A consumer of standby reads the same nested types as a consumer of the key's own topic."""
    own = {"message": "messages", "reaction": "message_reactions", "postback": "messaging_postbacks"}
    own |= {"read": "messaging_seen", "referral": "messaging_referral", "optin": "messaging_optins"}
    own |= {"message_edit": "message_edit"} | dict.fromkeys(HANDOVER, "messaging_handover")
    standby = {field["name"]: field for field in SCHEMAS["instagram_bridge.Standby"]["fields"]}
    for key in ONE_ITEM:
        record = SCHEMAS[record_of(own[key])]
        assert by_name(standby[key]) == by_name(next(field for field in record["fields"] if field["name"] == key)), key


@each_schema
def test_name_whose_form_is_a_rule_has_the_type_the_rule_needs(name: str) -> None:
    """Ids and JSON texts are strings, flags booleans, times timestamps: the encoder coerces by these names and types."""
    for field in fields(SCHEMAS[name]):
        key, kind = field["name"], plain_type(field)
        if key in ("id", "mid") or key.endswith(("_id", "_json")):
            assert kind == "string", key
        assert (kind == "boolean") == key.startswith("is_"), key
        assert (kind == MILLIS) == key.endswith(("_at", "_timestamp")), key


@each_schema
def test_json_text_of_a_key_never_stands_beside_its_typed_form(name: str) -> None:
    """A free-form object is a nullable _json string, and a record never holds one key in both forms."""
    for definition in definitions(SCHEMAS[name]):
        names = {field["name"] for field in definition.get("fields", ())}
        texts = [field for field in definition.get("fields", ()) if field["name"].endswith("_json")]
        assert all(is_nullable(field) for field in texts)
        assert not names & {field["name"].removesuffix("_json") for field in texts}


@each_schema
def test_schema_is_compatible_with_every_version_that_was_released(name: str) -> None:
    """Whoever has an old schema reads what is written today, and the other way round: FULL_TRANSITIVE, without a registry."""
    versions = [schema for path, schema in released() if Path(path).stem == name]
    assert [line for old in versions for line in incompatibilities(old, SCHEMAS[name])] == []


def test_released_schemas_all_have_a_successor_and_every_release_has_its_schemas() -> None:
    """A record is never taken back, and a version of the changelog has its folder."""
    assert {Path(path).stem for path, _ in released()} <= set(SCHEMAS)
    changelog = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8")
    versions = {Path(path).parts[0] for path, _ in released()}
    assert versions >= set(re.findall(r"^## \[(\d+\.\d+\.\d+)\]", changelog, flags=re.MULTILINE))
    assert versions


def values(node: Any, named: dict[str, Schema]) -> st.SearchStrategy[Any]:  # noqa: ANN401 — a schema is any JSON
    """Any value of a schema's type, as both libraries give it back."""
    if isinstance(node, list):
        return st.none() | values(node[1], named)
    if isinstance(node, str):
        primitives: dict[str, st.SearchStrategy[Any]] = {
            "boolean": st.booleans(),
            "long": st.integers(-(2**63), 2**63 - 1),
            "string": st.text(max_size=20),
            "bytes": st.binary(max_size=20),
        }
        return primitives[node] if node in primitives else values(named[node], named)
    if node == MILLIS:
        whole = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 — bounds are naive by st.datetimes' rule
        return whole.map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
    if node["type"] == "array":
        return st.lists(values(node["items"], named), max_size=3)
    if node["type"] == "enum":
        return st.sampled_from(node["symbols"])
    return st.fixed_dictionaries({field["name"]: values(field["type"], named) for field in node["fields"]})


@each_schema
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data())
def test_record_written_by_fastavro_is_read_equal_by_avro(name: str, data: st.DataObject) -> None:
    """Whatever a schema can hold, a second Avro library reads from the first one's bytes, to the last byte."""
    named = {full_name(definition): definition for definition in definitions(SCHEMAS[name])}
    record = data.draw(values(SCHEMAS[name], named))
    written = io.BytesIO()
    fastavro.schemaless_writer(written, fastavro.parse_schema(SCHEMAS[name]), record)
    written.seek(0)
    reader = avro.io.DatumReader(avro.schema.parse(PATHS[name].read_text("utf-8")))
    assert reader.read(avro.io.BinaryDecoder(written)) == record
    assert not written.read()

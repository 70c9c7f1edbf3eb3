"""The generated readers: the same rows as fastavro's whole records, of any writer, and no row from bytes that are broken."""

import io
from collections.abc import Callable
from datetime import UTC, datetime
from random import Random
from typing import Any

import fastavro
import pytest

from consumers.analytics.projection import COLUMNS, reader_of, row_of
from consumers.decoding import reader_schemas
from tests.consumers.samples import body, message, schema, wider

READERS = reader_schemas()
ROUNDS = 150
TEXTS = ("", "a", "äöü ✨", "x" * 63, "x" * 64, "x" * 9000)  # lengths of one, two and three bytes


def some(declared: Any, rng: Random) -> Any:  # noqa: ANN401 - a schema, a value of it
    """A random value of a schema."""
    if isinstance(declared, list):
        return some(rng.choice(declared), rng)
    if isinstance(declared, str):
        declared = {"type": declared}
    if declared.get("logicalType") == "timestamp-millis":
        return datetime.fromtimestamp(rng.randrange(4_000_000_000_000) / 1000, UTC)
    kind = declared["type"]
    if kind == "record":
        return {field["name"]: some(field["type"], rng) for field in declared["fields"]}
    if kind == "array":
        return [some(declared["items"], rng) for _ in range(rng.randrange(4))]
    plain: dict[str, Callable[[], Any]] = {
        "null": lambda: None,
        "boolean": lambda: rng.random() < 0.5,
        "long": lambda: rng.choice((0, -1, 63, 64, -(2**63), 2**63 - 1, rng.randrange(2**40))),
        "string": lambda: rng.choice(TEXTS),
    }
    return plain[kind]()


def whole(writer: dict[str, Any], value: bytes, webhook_field: str) -> dict[str, Any]:
    """What fastavro reads, resolved to the packaged schema."""
    found = fastavro.schemaless_reader(io.BytesIO(value), fastavro.parse_schema(writer), READERS[webhook_field])
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize("webhook_field", READERS)
def test_reader_of_every_schema_gives_the_row_of_the_whole_record(webhook_field: str) -> None:
    """Random records, each as it is and by a newer writer with one more field in the middle."""
    rng = Random(webhook_field)  # noqa: S311 - repeatable
    name = READERS[webhook_field]["name"].rpartition(".")[2]
    for writer in (schema(name), wider(schema(name))):
        parsed = fastavro.parse_schema(writer)
        assert isinstance(parsed, dict)
        read = reader_of(parsed, READERS[webhook_field])
        assert read is not None, "this schema is left to fastavro, which is slow"
        for _ in range(ROUNDS):
            value = body(writer, some(inlined(writer), rng))
            assert read(b"prefix" + value, 6) == row_of(whole(writer, value, webhook_field))


def inlined(document: Any, known: dict[str, Any] | None = None, space: str = "") -> Any:  # noqa: ANN401 - a schema
    """A schema with every name replaced by what it names."""
    known = {} if known is None else known
    if isinstance(document, list):
        return [inlined(branch, known, space) for branch in document]
    if isinstance(document, str):
        return known.get(document) or known.get(f"{space}.{document}") or document
    if document["type"] == "record":
        space = document.get("namespace", space)
        fields = [field | {"type": inlined(field["type"], known, space)} for field in document["fields"]]
        found = document | {"fields": fields}
        known[f"{space}.{document['name']}"] = found
        return found
    if document["type"] == "array":
        return document | {"items": inlined(document["items"], known, space)}
    return document


def test_reader_of_broken_bytes_gives_no_row_that_fastavro_would_not_give() -> None:
    """Cut short, longer, or with a changed byte: an error, or the row that is really there."""
    writer = fastavro.parse_schema(schema("Messages"))
    assert isinstance(writer, dict)
    read = reader_of(writer, READERS["messages"])
    assert read is not None
    attachments = [{"type": "image", "payload": None}, {"type": None, "payload": None}]
    value = body(schema("Messages"), message("words", part={"attachments": attachments}))
    broken = [value[:end] for end in range(len(value))] + [value + b"\0"]
    broken += [
        value[:at] + bytes([value[at] ^ bit]) + value[at + 1 :] for at in range(len(value)) for bit in (1, 2, 128)
    ]
    accepted = 0
    for changed in broken:
        try:
            row = read(changed, 0)
        except (ValueError, IndexError):
            continue
        stream = io.BytesIO(changed)
        if (found := _or_none(stream, writer)) is not None and stream.tell() == len(changed):
            assert row == row_of(found)
        accepted += 1
    assert accepted < len(broken) / 2, "most of them are no Avro"


def _or_none(stream: io.BytesIO, writer: Any) -> dict[str, Any] | None:  # noqa: ANN401 - a schema
    try:
        found = fastavro.schemaless_reader(stream, writer, None)
    except Exception:  # noqa: BLE001 - fastavro fails in many ways
        return None
    return found if isinstance(found, dict) else None


@pytest.mark.parametrize(
    "change",
    [
        {"name": "event_id", "type": "bytes"},
        {"name": "received_at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "text", "type": {"type": "map", "values": "string"}},
        {"name": "again", "type": ["null", "Messages"], "default": None},
    ],
)
def test_writer_that_is_not_understood_is_left_to_fastavro(change: dict[str, Any]) -> None:
    """Other types in places that are read, maps, and records that hold themselves."""
    document = schema("Messages")
    document["fields"] = [field for field in document["fields"] if field["name"] != change["name"]] + [change]
    parsed = fastavro.parse_schema(document)
    assert isinstance(parsed, dict)
    assert reader_of(parsed, READERS["messages"]) is None


def test_writer_of_another_topics_record_is_left_to_fastavro() -> None:
    """Which refuses it: nothing of it would be where we look."""
    parsed = fastavro.parse_schema(schema("Comments"))
    assert isinstance(parsed, dict)
    assert reader_of(parsed, READERS["messages"]) is None


def test_columns_are_what_the_row_has() -> None:
    """One value for each."""
    assert len(row_of(whole(schema("Messages"), body(schema("Messages"), message()), "messages"))) == len(COLUMNS)

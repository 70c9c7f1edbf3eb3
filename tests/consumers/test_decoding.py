"""Both value encodings, the writer's schema resolved to ours, and every way in which a record can be unreadable."""

import json
from collections.abc import AsyncIterator

import avro.schema
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from consumers.decoding import Decoder, reader_schemas
from consumers.errors import RegistryUnavailableError, UndecodableError
from consumers.registry import SchemaRegistry
from tests.consumers.samples import body, confluent, event, message, record, schema, single_object, wider


class StandInRegistry:
    """A registry's answers as a test wants them; the real one is in test_processes.py."""

    def __init__(self) -> None:
        self.schemas: dict[int, str] = {}
        self.asked = 0
        self.failure: web.Response | None = None

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /schemas/ids/{id}`."""
        self.asked += 1
        if self.failure is not None:
            return self.failure
        text = self.schemas.get(int(request.match_info["id"]))
        if text is None:
            return web.json_response({"error_code": 40403, "message": "Schema not found"}, status=404)
        return web.json_response({"schema": text})


@pytest.fixture
async def stand_in() -> AsyncIterator[tuple[StandInRegistry, Decoder]]:
    """A stand-in registry and a decoder that asks it."""
    answers = StandInRegistry()
    app = web.Application()
    app.router.add_get("/schemas/ids/{id}", answers.answer)
    async with TestServer(app) as server, SchemaRegistry(str(server.make_url("/"))) as registry:
        yield answers, Decoder(topic_prefix="instagram", registry=registry)


@pytest.fixture
def decoder() -> Decoder:
    """A decoder without a registry."""
    return Decoder(topic_prefix="instagram", registry=None)


def test_reader_schemas_of_the_package_are_those_of_the_event_topics() -> None:
    """Every packaged record but dead letters and replies has a topic, named in snake case."""
    assert {"messages", "message_reactions", "messaging_seen", "live_comments", "other"} <= reader_schemas().keys()
    assert not {"dead_letter", "auto_replies"} & reader_schemas().keys()


def crc_64_avro(data: bytes) -> int:
    """CRC-64-AVRO as the specification (1.12, "Schema Fingerprints") gives it in Java, bit by bit."""
    empty = 0xC15D213AA4D7A795
    value = empty
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = (value >> 1) ^ (empty if value & 1 else 0)
    return value


def test_crc_64_avro_of_the_tests_gives_the_published_value() -> None:
    """Apache Avro's own test data (share/test/data/schema-tests.txt) has this one for `"int"`."""
    assert crc_64_avro(b'"int"') == 0x7275D51A3F395C8F


@pytest.mark.parametrize("webhook_field", sorted(reader_schemas()))
async def test_single_object_of_every_event_schema_is_decoded(webhook_field: str, decoder: Decoder) -> None:
    """The fingerprint of another Avro implementation's canonical form finds the schema that reads the record."""
    record_name = "".join(word.title() for word in webhook_field.split("_"))
    # avro 1.12 leaves {"type":"long"} where a logical type stood; the specification's PRIMITIVES rule says "long".
    canonical = str(avro.schema.parse(json.dumps(schema(record_name))).canonical_form).replace(
        '{"type":"long"}', '"long"'
    )
    value = event(webhook_field)
    encoded = b"\xc3\x01" + crc_64_avro(canonical.encode()).to_bytes(8, "little") + body(schema(record_name), value)
    decoded = await decoder.decode(record(encoded, topic=f"instagram.{webhook_field}"))
    assert (decoded.webhook_field, decoded.event_id) == (webhook_field, value["event_id"])
    assert decoded.value["account_id"] == value["account_id"]


async def test_event_keeps_its_place_and_its_replay_id(decoder: Decoder) -> None:
    """An event knows where it lies and whether it was published again."""
    decoded = await decoder.decode(
        record(single_object("Messages", message()), headers=(("ig_delivery_id", b"d"), ("ig_replay_id", b"again")))
    )
    assert (decoded.topic, decoded.partition, decoded.offset) == ("instagram.messages", 2, 7)
    assert decoded.replay_id == "again"


async def test_confluent_record_of_a_newer_writer_is_read(stand_in: tuple[StandInRegistry, Decoder]) -> None:
    """A field that we do not know is passed over, those after it are read right."""
    answers, decoder = stand_in
    newer = wider(schema("Messages"))
    answers.schemas[5] = json.dumps(newer)
    value = message("How much is it?") | {"from_the_future": "unknown here"}
    decoded = await decoder.decode(record(confluent(5, newer, value)))
    assert decoded.value["message"]["text"] == "How much is it?"
    assert "from_the_future" not in decoded.value


async def test_confluent_records_of_one_schema_ask_the_registry_once(stand_in: tuple[StandInRegistry, Decoder]) -> None:
    """A schema id is looked up for the first record that names it."""
    answers, decoder = stand_in
    answers.schemas[1] = json.dumps(schema("Messages"))
    for _ in range(3):
        await decoder.decode(record(confluent(1, schema("Messages"), message())))
    assert answers.asked == 1


@pytest.mark.parametrize(
    "failure",
    [
        web.Response(status=503),
        web.Response(status=200, text="<html>"),
        web.Response(status=401, text="{}"),
        web.Response(status=404, text='{"message": "no such page"}'),
    ],
    ids=["away", "not a registry", "refused", "wrong path"],
)
async def test_confluent_record_without_a_usable_answer_is_tried_again(
    failure: web.Response, stand_in: tuple[StandInRegistry, Decoder]
) -> None:
    """What the registry does not answer says nothing against the record: it is read when the registry is back."""
    answers, decoder = stand_in
    answers.schemas[1] = json.dumps(schema("Messages"))
    answers.failure = failure
    encoded = record(confluent(1, schema("Messages"), message()))
    with pytest.raises(RegistryUnavailableError):
        await decoder.decode(encoded)
    answers.failure = None
    assert (await decoder.decode(encoded)).webhook_field == "messages"


async def test_registry_that_does_not_listen_is_unavailable_and_its_password_unsaid() -> None:
    """A refused connection is a reason to try again, told without the URL's credentials."""
    async with SchemaRegistry("http://someone:hunter2@127.0.0.1:1/") as registry:
        with pytest.raises(RegistryUnavailableError) as caught:
            await registry.schema(1)
    assert "hunter2" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "no_value"),
        (b"", "no_value"),
        (b"\xc3", "unknown_encoding"),
        (b"\x00\x00\x00", "unknown_encoding"),
        (b'{"text": "private words"}', "unknown_encoding"),
        (b"\xc3\x01" + bytes(8) + b"private words", "unknown_fingerprint"),
        (b"\x00\x00\x00\x00\x09private words", "unknown_schema_id"),
        (b"\x00\x00\x00\x00\x01private words", "broken_value"),
        (confluent(1, schema("Messages"), message("private words")) + b"\x00", "broken_value"),
        (confluent(1, schema("Messages"), message("private words"))[:-4], "broken_value"),
        (confluent(2, schema("Comments"), event("comments", raw="private words")), "schema_mismatch"),
        (b"\x00\x00\x00\x00\x03private words", "unusable_schema"),
        (b"\x00\x00\x00\x00\x04private words", "unusable_schema"),
    ],
)
async def test_undecodable_record_names_its_place_and_reason_without_content(
    value: bytes | None, reason: str, stand_in: tuple[StandInRegistry, Decoder]
) -> None:
    """The error says where the record lies and why it is unreadable, and nothing of what is in it."""
    answers, decoder = stand_in
    answers.schemas |= {
        1: json.dumps(schema("Messages")),
        2: json.dumps(schema("Comments")),
        3: "{",
        4: '{"type": "no such type"}',
    }
    with pytest.raises(UndecodableError) as caught:
        await decoder.decode(record(value))
    assert caught.value.reason == reason
    assert str(caught.value).startswith(f"instagram.messages partition 2 offset 7: {reason}: ")
    assert "private" not in str(caught.value)


async def test_confluent_record_without_a_registry_set_names_the_setting(decoder: Decoder) -> None:
    """Whoever forgot the registry's URL reads its name."""
    with pytest.raises(UndecodableError, match="SCHEMA_REGISTRY_URL"):
        await decoder.decode(record(confluent(1, schema("Messages"), message())))

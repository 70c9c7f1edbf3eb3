"""Drift and what is proposed from it: records that the street made, and the schemas that would know them."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.commands.schemas import incompatibilities
from bridge.drift import FINDINGS_MAX, MORE, Drift
from bridge.encoding import Encoder, Schema, encode_arrival
from bridge.event import ATTACHMENT_TYPES, describe
from bridge.notification import Note, parse
from bridge.proposal import Proposal, propose
from bridge.routing import TOPIC_FIELDS
from tests.unit.street import PARTIES, SCHEMAS, change, decoded, item, records, wrapped


def drift_of(*bodies: bytes) -> Drift:
    """What is found in the records of bodies."""
    drift = Drift()
    for offset, body in enumerate(bodies):
        for one in records(body):
            drift.look(decoded(one), (one.topic, 0, offset))
    return drift


def found(*bodies: bytes) -> set[tuple[str, str, str]]:
    return {(each.webhook_field, each.kind, each.path) for each in drift_of(*bodies).findings}


@pytest.mark.parametrize(
    ("body", "finding"),
    [
        (wrapped(item('"message":{"mid":"m","new":1}')), ("messages", "unknown_key", "message.new")),
        (
            wrapped(item('"message":{"mid":"m","new":1}'), array="standby"),
            ("standby", "unknown_key", "standby.message.new"),
        ),
        (
            wrapped(change("comments", '{"id":"1","new":1}'), array="changes"),
            ("comments", "unknown_key", "comments.value.new"),
        ),
        (wrapped(item('"reaction":{"mid":[]}')), ("message_reactions", "wrong_type", "reaction.mid")),
        (
            wrapped(item('"message":{"mid":"m","attachments":[{"type":"hologram"}]}')),
            ("messages", "unknown_value", "message.attachments[].type=hologram"),
        ),
        (wrapped(item('"message":{"mid":"m"},"read":{"mid":"m"}')), ("messages", "second_key", "message+read")),
        (wrapped(item('"delivery":{"watermark":1}')), ("other", "unknown_item", "delivery")),
        (wrapped(change("creator_news", "{}"), array="changes"), ("other", "unknown_field", "creator_news")),
        (
            wrapped(change("messages", f'{{{PARTIES},"ping":{{}}}}'), array="changes"),
            ("other", "unknown_item", "ping"),
        ),
        (wrapped(change("mentions", "[]"), array="changes"), ("other", "wrong_type", "mentions.value")),
    ],
)
def test_drift_of_each_kind_is_found_under_its_webhook_field(body: bytes, finding: tuple[str, str, str]) -> None:
    """Keys, types, attachments, second keys, items and webhook fields that nobody knew."""
    assert found(body) == {finding}


def test_drift_of_what_the_schemas_know_is_nothing() -> None:
    """Every known type of attachment, an entry without items, an empty notification."""
    attachments = ",".join(f'{{"type":"{kind}"}}' for kind in ATTACHMENT_TYPES)
    known = wrapped(item(f'"message":{{"mid":"m","attachments":[{attachments}]}}'))
    assert found(known, b'{"object":"instagram","entry":[{"id":"1"}]}', b'{"object":"instagram","entry":[]}') == set()


def test_finding_tells_first_record_last_record_count_and_types() -> None:
    """However records are ordered, the example is the one that was received first."""
    drift = Drift()
    for offset, (received_at, value) in enumerate([(20, "1"), (10, '"x"'), (30, "null")]):
        (one,) = records(wrapped(item(f'"message":{{"mid":"m","attachments":[{{"new":{value}}},{{"new":{value}}}]}}')))
        drift.look(decoded(one) | {"received_at": received_at}, ("t", 0, offset))
    (finding,) = drift.findings
    assert (finding.count, finding.first_ms, finding.last_ms, finding.place) == (3, 10, 30, ("t", 0, 1))
    assert finding.types == {"integer", "string", "null"}


def test_findings_beyond_the_bound_are_counted_together() -> None:
    """A million different keys take the memory of some hundred."""
    keys = ",".join(f'"k{number}":1' for number in range(FINDINGS_MAX + 100))
    findings = drift_of(wrapped(item(f'"message":{{"mid":"m",{keys}}}'))).findings
    assert len(findings) == FINDINGS_MAX + 1
    assert [finding.count for finding in findings if finding.path == MORE] == [100]


def proposal(webhook_field: str, *bodies: bytes) -> Proposal:
    return propose(webhook_field, drift_of(*bodies).findings, SCHEMAS)


def member(schema: Schema, path: str) -> dict[str, Any]:
    """A field of a schema by its path."""
    for name in path.split("."):
        (schema,) = [each for each in schema["fields"] if each["name"] == name]
        found = schema
        kind = schema["type"][-1]
        schema = kind["items"] if isinstance(kind, dict) and kind["type"] == "array" else kind
    return found


MILLIS = {"type": "long", "logicalType": "timestamp-millis"}


@pytest.mark.parametrize(
    ("key", "value", "name", "kind"),
    [
        ("new", '"x"', "new", "string"),
        ("new", "1", "new", "long"),
        ("new", "true", "new", "boolean"),
        ("new", "0.5", "new_json", "string"),
        ("new", '{"a":1}', "new_json", "string"),
        ("new", "[1]", "new_json", "string"),
        ("new_id", "1", "new_id", "string"),
        ("new_id", "{}", "new_id_json", "string"),
        ("is_new", '"true"', "is_new", "boolean"),
        ("seen_at", "1569262485349", "seen_at", MILLIS),
        ("seen_at", '"1569262485349"', "seen_at", "string"),
    ],
)
def test_proposal_of_a_key_takes_the_type_that_was_seen(key: str, value: str, name: str, kind: object) -> None:
    """By the encoder's rules: ids as strings, times by their name, what is no single simple type as JSON text."""
    made = proposal("messages", wrapped(item(f'"message":{{"mid":"m","{key}":{value}}}')))
    assert made.added == [(f"message.{key}", name)]
    added = member(made.schemas["messages"], f"message.{name}")
    assert (added["type"], added["default"], added["doc"][:5]) == (["null", kind], None, "TODO:")


def test_proposal_with_several_types_is_json_text() -> None:
    """Once a number and once a text: neither is the type."""
    bodies = [wrapped(item(f'"message":{{"mid":"m","new":{value}}}')) for value in ("1", '"x"', "null")]
    assert proposal("messages", *bodies).added == [("message.new", "new_json")]


def test_proposal_changes_a_shared_type_wherever_it_is_and_goes_with_every_version() -> None:
    """Attachments stand in two files; a key of the item stands before raw; all of it is fully compatible and encodes."""
    members = (
        '"message":{"mid":"m","attachments":[{"payload":{"depth_url":"u"}}],"reply_to":{"story":{"new":1}}},"shown":{}'
    )
    body = wrapped(item(members))
    made = proposal("messages", body)
    assert set(made.schemas) == {"messages", "standby"}
    assert not made.left
    for name, schema in made.schemas.items():
        assert list(incompatibilities(SCHEMAS[name], schema)) == []
        assert member(schema, "message.attachments.payload.depth_url")["type"] == ["null", "string"]
    assert [each["name"] for each in made.schemas["messages"]["fields"]][-2:] == ["shown_json", "raw"]
    assert [each["name"] for each in made.schemas["standby"]["fields"]] == [
        each["name"] for each in SCHEMAS["standby"]["fields"]
    ]
    notes: list[Note] = []
    encode = Encoder("messages", made.schemas["messages"], b"").encode
    encode(describe(parse(body).items[0], notes), encode_arrival(0, ""), notes)
    assert notes == []


def test_proposal_leaves_out_what_no_field_can_be_made_of() -> None:
    """A wrong type, a party's key, a name that Avro does not have, null alone: each says why."""
    odd = (
        '{"sender":{"id":"1","new":1},"recipient":{"id":"2"},"timestamp":[],'
        '"message":{"mid":"m","über":1,"new":null,"attachments":[{"type":"hologram"}]}}'
    )
    made = proposal("messages", wrapped(odd))
    assert made.schemas == {}
    why = {finding.path: text for finding, text in made.left}
    assert why.keys() == {
        *("timestamp", "sender.new", "message.über", "message.new", "message.attachments[].type=hologram"),
    }
    assert "ATTACHMENT_TYPES" in why["message.attachments[].type=hologram"]


def test_proposal_of_nothing_changes_nothing() -> None:
    """Every packaged schema is left alone."""
    assert [propose(name, [], SCHEMAS).schemas for name in TOPIC_FIELDS] == [{}] * len(TOPIC_FIELDS)

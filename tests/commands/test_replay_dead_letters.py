"""`bridge replay dead-letters` on a real Kafka: set aside by the street, mended, put back once."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from bridge.encoding import DeadLetterEncoder
from bridge.local.service import Broker, Registry
from bridge.record import Record
from tests.commands.conftest import Run
from tests.commands.past import (
    ACCOUNT,
    BEGIN_MS,
    CUSTOMER,
    RETENTION_MS,
    committed,
    headers,
    message,
    notification,
    produce,
    value,
    walked,
)
from tests.docs.markdown import ROOT, rows
from tests.unit.street import PREFIXES, SCHEMAS

SMALL_BYTES = 2048
PARTIES = {"sender": {"id": CUSTOMER}, "recipient": {"id": ACCOUNT}}
LONG = "x" * SMALL_BYTES
ITEMS = {
    "messaging": {**PARTIES, "timestamp": BEGIN_MS, "message": {"mid": "m", "text": LONG, "odd": "\ud800"}},
    "standby": {**PARTIES, "timestamp": BEGIN_MS, "message": {"mid": "s", "text": LONG}},
    "changes": {"field": "comments", "value": {"id": "c", "text": LONG, "from": {"id": CUSTOMER}}},
}
FLAT = {"id": ACCOUNT, "time": BEGIN_MS, "field": "mentions", "value": {"comment_id": "1", "note": LONG}}
BARE = {"field": "messages", "value": ITEMS["standby"]}
HOLLOW = {"id": ACCOUNT, "time": BEGIN_MS, "hollow": LONG}


def holding(*entries: dict[str, Any]) -> bytes:
    """A body with these entries."""
    return json.dumps({"object": "instagram", "entry": entries}).encode()


BODIES = [
    holding({"id": ACCOUNT, "time": BEGIN_MS, **{place: [item] for place, item in ITEMS.items()}}),
    holding({"time": BEGIN_MS, "messaging": [7 * [LONG]]}),
    holding(FLAT),
    holding(HOLLOW),
    json.dumps(BARE).encode(),
]
"""One item of each form that an item can have, all too large for a bridge with small records."""


def events(made: list[Record]) -> dict[str, tuple[str, bytes | None]]:
    """Topic and key by event_id."""
    return {dict(record.headers)["ce_id"].decode(): (record.topic, record.key) for record in made}


@pytest.fixture
async def prefix(call: Run, topic_prefix: str) -> str:
    """A prefix whose topics exist."""
    assert (await call("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    return topic_prefix


async def test_items_that_were_too_large_become_the_same_events_and_once_only(
    call: Run, kafka: Broker, prefix: str
) -> None:
    """Whatever an item's form: with larger records allowed it gets the event_id, topic and key that it would have had."""
    for body in BODIES:
        made = walked(prefix, body, record_bytes_max=SMALL_BYTES)
        assert {record.topic for record in made} == {f"{prefix}.dead_letter"}
        await produce(kafka, made)
    small = await call("replay", "dead-letters", "--output", "json", RECORD_BYTES_MAX=f"{SMALL_BYTES}")
    [reason] = small.said["reasons"]
    assert (reason["letters"], reason["failed"], reason["put_back"]) == (7, 7, 0)
    assert {failure["reason"] for failure in small.said["failures"]} == {"record_too_large"}

    planned = await call("replay", "dead-letters")
    assert planned.stdout.splitlines()[-1] == "nothing was published; add --execute to put them back"
    done = [await call("replay", "dead-letters", "--execute", "--id", f"try-{number}") for number in range(2)]
    assert [line.stdout.splitlines()[-1] for line in done] == [
        "put back with ig_replay_id try-0",
        "there was nothing to put back",
    ]
    assert done[1].stdout.splitlines()[1].split() == ["record_too_large", "7", "7", "0", "0", "0"]

    wanted = events([record for body in BODIES for record in walked(prefix, body)])
    found = [record for topic in {topic for topic, _ in wanted.values()} for record in committed(kafka, topic)]
    assert {headers(record)["ce_id"]: (record.topic(), record.key()) for record in found} == wanted
    assert len(found) == len(wanted) == 7
    for record in found:
        told = headers(record)
        assert told["ig_replay_id"] == "try-0"
        assert told["ig_replayed_from"].startswith("dead_letter:")
        event = value(record)
        assert event["received_at"] == BEGIN_MS < record.timestamp()[1] - 1000
        assert event["event_id"] == told["ce_id"]
        assert LONG in event["raw"]


async def test_letters_that_fail_again_stay_and_are_told_of(call: Run, kafka: Broker, prefix: str) -> None:
    """What was set aside by a fault that is mended comes back; what still cannot be read stays, for a later mend."""
    for body in (b"\xffno", b'{"object":"page","entry":[]}', b"\xff"):
        await produce(kafka, walked(prefix, body))
    await produce(kafka, [set_aside(prefix, notification(message("back again")))])
    text = await call("replay", "dead-letters", "--execute")
    lines = text.stdout.splitlines()
    assert lines[0].split("  ")[0] == "reason"
    assert sum(line.startswith("fails again: partition ") and "not_utf8" in line for line in lines) == 2
    assert sum("unsupported_object" in line for line in lines if line.startswith("fails again")) == 1
    assert "no" not in "".join(line.partition("not_utf8")[2] for line in lines).replace("not", "")
    again = await call("replay", "dead-letters", "--execute", "--output", "json")
    assert {
        row["reason"]: (row["put_back_before"], row["put_back"], row["failed"]) for row in again.said["reasons"]
    } == {
        "not_utf8": (0, 0, 2),
        "unprocessable": (1, 0, 0),
        "unsupported_object": (0, 0, 1),
    }
    assert len(committed(kafka, f"{prefix}.messages")) == 1
    assert len(committed(kafka, f"{prefix}.dead_letter")) == 4
    chosen = await call("replay", "dead-letters", "--reason", "not_json")
    assert chosen.stdout == "there is no such dead letter\n"


async def test_dead_letters_by_a_reason_that_there_is_not_is_wrong_usage(call_without_kafka: Run) -> None:
    """Exit code 2 before Kafka is asked, and the reasons that there are; a letter that cannot be decoded has one too."""
    wrong = await call_without_kafka("replay", "dead-letters", "--reason", "foo")
    assert wrong.exit_code == 2
    documented = {reason for reason, _, _ in rows(ROOT / "docs/errors.md", "| reason | what is in `body` | why |")}
    assert set(re.findall(r"'(\w+)'", wrong.stderr)) - {"foo"} == documented | {"undecodable"}


async def test_dead_letters_over_topics_that_are_not_there_says_what_to_do(call: Run) -> None:
    """The same check as at the bridge's start."""
    assert "bridge topics apply" in (await call("replay", "dead-letters")).complaint


async def test_letters_of_a_bridge_with_a_registry_come_back_in_its_encoding(
    call: Run, kafka: Broker, registry: Registry, prefix: str
) -> None:
    """Letter and events carry the ids of the registry; a range of them becomes a file with the registry's schema."""
    url = {"SCHEMA_REGISTRY_URL": registry.url}
    registered = await call("schemas", "register", "--output", "json", **url)
    ids = {row["subject"]: row["id"] for row in registered.said["subjects"]}
    letter_prefix, event_prefix = (
        b"\0" + ids[f"{prefix}.{topic_field}-value"].to_bytes(4, "big") for topic_field in ("dead_letter", "messages")
    )
    await produce(kafka, [set_aside(prefix, notification(message("registered")), letter_prefix)])
    done = await call("replay", "dead-letters", "--execute", **url)
    assert done.stdout.splitlines()[-1].startswith("put back with ig_replay_id ")
    [event] = committed(kafka, f"{prefix}.messages")
    assert (event.value() or b"").startswith(event_prefix)
    written = await call("replay", "range", "messages", "--to-file", "all.avro", "--execute", **url)
    assert written.stdout.splitlines()[-1] == f"1 records of {prefix}.messages were written to all.avro"
    blind = await call("replay", "range", "messages", "--to-file", "none.avro", "--execute")
    assert "1 records cannot be decoded" in blind.stderr
    assert blind.stdout.splitlines()[-1] == f"0 records of {prefix}.messages were written to no file"


def set_aside(topic_prefix: str, body: bytes, value_prefix: bytes = PREFIXES["dead_letter"]) -> Record:
    """A delivery that a fault of ours once stumbled over."""
    letter = {"received_at": BEGIN_MS, "delivery_id": "0" * 32, "reason": "unprocessable", "detail": "KeyError"}
    encoder = DeadLetterEncoder(SCHEMAS["dead_letter"], value_prefix)
    return Record.of(
        f"{topic_prefix}.dead_letter", None, encoder.encode({**letter, "body": body, "app_secret_label": None}), []
    )

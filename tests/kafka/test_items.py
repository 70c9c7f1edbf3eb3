"""Every kind of item from its POST to its record, in both encodings: topic, key, headers, timestamp, value.

What is expected stands in cases.py, written by hand; the event_id is hashlib's digest of an identity written out there.
"""

from __future__ import annotations

import hashlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.kafka.cases import CASES, IN, SENT, A, Case, body_and_raw
from tests.kafka.reading import Record, avsc, without_nulls
from tests.kafka.serving import Street
from tests.properties.reference import Expected, read
from tests.properties.typed import typed_record

SEED = {path.stem: path.read_bytes() for path in sorted(Path(__file__).parents[1].glob("vectors/seed/*.json"))}


@pytest.mark.parametrize("name", CASES)
async def test_item_of_each_kind_becomes_the_one_record_of_the_contract(street: Street, name: str) -> None:
    """An item becomes one record, in its field's topic, and all of it is as contract.md says."""
    case = CASES[name]
    body, raw = body_and_raw(case)
    before = time.time_ns() // 1_000_000

    answer = await street.serving.deliver(body)

    after = time.time_ns() // 1_000_000
    assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
    delivery_id = answer.headers["x-delivery-id"]
    (record,) = await street.reader.of(delivery_id)
    identity = ["1", case.webhook_field, case.account_id, case.customer_id, *case.kind_and_identity]
    text = json.dumps(identity, ensure_ascii=False, separators=(",", ":"))
    event_id = hashlib.sha256(text.encode()).hexdigest()[:32]
    assert record.topic_field == case.webhook_field
    assert record.key == (None if case.account_id is None else "".join(key_parts(case)).encode())
    assert before <= record.timestamp <= after
    assert record.headers == headers(case, event_id=event_id, delivery_id=delivery_id)
    bare = case.place == "bare"
    parties = case.item.get("value", case.item) if case.place in ("changes", "flat", "bare") else case.item
    expected = {
        "event_id": event_id,
        "webhook_field": case.webhook_field,
        "origin": {"flat": "changes", "bare": "changes"}.get(case.place, case.place),
        "entry_id": None if bare else A,
        "account_id": case.account_id,
        "customer_id": case.customer_id,
        "sender_id": party(parties, "sender"),
        "recipient_id": party(parties, "recipient"),
        "occurred_at": case.occurred_at,
        "sent_at": None if bare else SENT,
        "received_at": record.timestamp,
        "delivery_id": delivery_id,
        "raw": raw,
    }
    typed = case.typed
    if typed is None:
        typed = {key: part for key, part in case.item.items() if key not in IN}
    assert without_nulls(street.decode(record)) == without_nulls(expected | typed)


def key_parts(case: Case) -> list[str]:
    """`<account_id>:<customer_id>`, or the account alone."""
    return [f"{case.account_id}"] if case.customer_id is None else [f"{case.account_id}", ":", case.customer_id]


def headers(case: Case, *, event_id: str, delivery_id: str) -> dict[str, str]:
    """CloudEvents' Kafka binding, binary mode, as contract.md lists it."""
    made = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": "/instagram" if case.account_id is None else f"/instagram/{case.account_id}",
        "ce_type": f"instagram_bridge.{case.webhook_field}.v1",
        "content-type": "application/avro",
        "ig_delivery_id": delivery_id,
    }
    if case.occurred_at is not None:
        occurred = datetime.fromtimestamp(case.occurred_at // 1000, UTC)
        made["ce_time"] = f"{occurred:%Y-%m-%dT%H:%M:%S}.{case.occurred_at % 1000:03}Z"
    return made


def party(parties: object, role: str) -> str | None:
    """The id of the sender or recipient."""
    found: str | None = parties[role]["id"] if isinstance(parties, dict) and role in parties else None
    return found


@pytest.mark.parametrize("name", SEED)
async def test_seed_example_becomes_one_record_in_its_topic(street: Street, name: str) -> None:
    """The source document's own examples, as they stand, arrive typed in the topic they are named after."""
    (expected,) = read(SEED[name])
    assert isinstance(expected, Expected)

    delivery_id = await street.serving.accepted(SEED[name])

    (record,) = await street.reader.of(delivery_id)
    assert name.startswith(record.topic_field)
    assert record.key == b"IGID:IGSID"
    assert record.headers["ce_id"] == expected.event_id
    schema = avsc(record.topic_field)
    assert street.decode(record) == typed_record(
        schema, expected, received_at=record.timestamp, delivery_id=delivery_id
    )


async def test_redelivery_in_another_batch_keeps_every_event_id(plain: Street) -> None:
    """The same events in another order, spacing and batch, with other key orders, keep their event_ids."""
    items = [case.item for case in CASES.values() if case.place == "messaging"]
    together = {"object": "instagram", "entry": [{"id": A, "time": SENT, "messaging": items}]}
    alone = [
        {"entry": [{"messaging": [dict(reversed(item.items()))], "time": SENT + 9, "id": A}], "object": "instagram"}
        for item in items
    ]
    first = await plain.serving.accepted(json.dumps(together, ensure_ascii=False, indent=3).encode())
    again = [await plain.serving.accepted(json.dumps(body, separators=(",", ":")).encode()) for body in alone]

    records = await plain.reader.new()

    assert ids(records, {first}) == ids(records, set(again))
    assert len(ids(records, {first})) == len(items)


def ids(records: list[Record], delivery_ids: set[str]) -> list[str]:
    """The event_ids that came with these deliveries, sorted."""
    return sorted(record.headers["ce_id"] for record in records if record.delivery_id in delivery_ids)

"""Many items at once: every one becomes one record, whatever its neighbours are."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter
from itertools import cycle, islice
from typing import Any

from tests.http.wire import Connection, post
from tests.kafka.serving import ACCOUNT, Street, message, notification

ITEMS = 20_000
BODY_SIZES = (1, 999, 10, 3, 400, 1000, 77)
CONNECTIONS = 8


async def test_bad_items_among_good_ones_harm_nobody(street: Street) -> None:
    """What is no object, or has a wrong type inside, goes where the contract says; all others as ever."""
    parties = {"sender": {"id": "9"}, "recipient": {"id": ACCOUNT}}
    items: list[Any] = [
        message("first"),
        5,
        None,
        "x",
        [],
        {},
        {**parties, "message": "no object"},
        {**parties, "message": None, "read": {"mid": "m"}},
        {**parties, "message": {"mid": 12, "text": ["x"], "is_echo": "no", "attachments": [1, {"type": {}}]}},
        {"sender": 5, "recipient": None, "timestamp": "soon", "message": {"mid": "odd"}},
        {**parties, "reaction": {"mid": "m"}, "message": {"mid": "both"}},
        message("last"),
    ]

    delivery_id = await street.serving.accepted(notification(*items))

    records = await street.reader.of(delivery_id)
    assert Counter(record.topic_field for record in records) == {"messages": 5, "other": 6, "messaging_seen": 1}
    mids = [street.decode(record)["message"]["mid"] for record in records if record.topic_field == "messages"]
    assert sorted(mids) == ["12", "both", "first", "last", "odd"]
    raws = sorted(street.decode(record)["raw"] for record in records)
    assert raws == sorted(json.dumps(item) for item in items)


async def test_batch_of_a_thousand_is_a_thousand_records_in_its_order(street: Street) -> None:
    """As many updates as Meta puts into one delivery: none missing, none twice, every conversation in order."""
    items = [message(f"{number:04}", customer_id=f"{number % 7}") for number in range(1000)]

    delivery_id = await street.serving.accepted(notification(*items))

    records = await street.reader.of(delivery_id)
    by_key: dict[bytes | None, list[str]] = {}
    for record in sorted(records, key=lambda record: (record.partition, record.offset)):
        by_key.setdefault(record.key, []).append(street.decode(record)["message"]["mid"])
    assert by_key == {
        f"{ACCOUNT}:{customer}".encode(): [f"{number:04}" for number in range(customer, 1000, 7)]
        for customer in range(7)
    }


async def test_batch_of_large_items_is_published_in_order(plain: Street) -> None:
    """One conversation that fills several of Kafka's batches in one delivery keeps its order across them."""
    items = [message(f"{number:03}", text="x" * 50_000) for number in range(200)]

    delivery_id = await plain.serving.accepted(notification(*items))

    records = sorted(await plain.reader.of(delivery_id), key=lambda record: record.offset)
    assert len({record.partition for record in records}) == 1
    assert [plain.decode(record)["message"]["mid"] for record in records] == [f"{number:03}" for number in range(200)]


def mixed(number: int) -> tuple[str, dict[str, Any], str, tuple[str, str]]:
    """Of seven kinds in turn: an item's place, the item, its event_id, and its topic's field and key."""
    customer, mid, when = f"{1_000_000 + number % 501}", f"mid-ö-{number}", 1_763_800_000_000 + number
    parties = {"sender": {"id": customer}, "recipient": {"id": ACCOUNT}, "timestamp": when}
    kinds: list[tuple[str, str, dict[str, Any], list[Any]]] = [
        ("messaging", "messages", {"message": {"mid": mid, "text": "hé 👋" * (number % 50)}}, ["message", mid, None]),
        (
            *("messaging", "message_reactions", {"reaction": {"mid": mid, "action": "unreact"}}),
            ["reaction", mid, "unreact", None, None, when],
        ),
        ("messaging", "messaging_seen", {"read": {"mid": mid}}, ["read", mid, when]),
        ("messaging", "messaging_postbacks", {"postback": {"mid": mid, "title": "t"}}, ["postback", mid]),
        ("messaging", "messaging_referral", {"referral": {"ref": mid}}, ["referral", when, mid, None]),
        ("standby", "standby", {"message": {"mid": mid, "is_deleted": True}}, ["message", mid, True]),
        ("changes", "comments", {"value": {"id": mid, "from": {"id": customer}}}, ["comments", mid]),
    ]
    place, webhook_field, part, identity = kinds[number % len(kinds)]
    item = {"field": webhook_field, **part} if place == "changes" else {**parties, **part}
    text = json.dumps(["1", webhook_field, ACCOUNT, customer, *identity], ensure_ascii=False, separators=(",", ":"))
    return place, item, hashlib.sha256(text.encode()).hexdigest()[:32], (webhook_field, f"{ACCOUNT}:{customer}")


async def test_twenty_thousand_mixed_items_all_arrive_once(plain: Street) -> None:
    """Over deliveries of all sizes, on several connections at once, the counts add up, in the metrics too."""
    await plain.reader.new()
    before = await plain.serving.counted("instagram_bridge_records_total")
    expected: dict[str, tuple[str, str]] = {}
    bodies: list[bytes] = []
    numbers = iter(range(ITEMS))
    for size in cycle(BODY_SIZES):
        entry: dict[str, Any] = {"id": ACCOUNT, "time": 1_763_800_000_000}
        for number in islice(numbers, size):
            place, item, event_id, expected[event_id] = mixed(number)
            entry.setdefault(place, []).append(item)
        if len(entry) == 2:
            break
        bodies.append(json.dumps({"object": "instagram", "entry": [entry]}).encode())
    waiting = iter(list(zip(bodies, plain.serving.signatures(bodies), strict=True)))

    async def deliver() -> None:
        async with Connection.open(plain.serving.port) as connection:
            for body, signature in waiting:
                await connection.send(post(body, signature))
                assert (await connection.answer()).status == 200

    await asyncio.gather(*(deliver() for _ in range(CONNECTIONS)))

    records = await plain.reader.new()
    assert len(expected) == ITEMS
    assert len(records) == ITEMS
    assert {
        record.headers["ce_id"]: (record.topic_field, (record.key or b"").decode()) for record in records
    } == expected
    assert await plain.serving.counted("instagram_bridge_records_total") - before == ITEMS

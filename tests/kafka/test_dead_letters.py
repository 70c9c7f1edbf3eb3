"""What is authentic but cannot be read, or not be published as it is: set aside with its exact bytes, answered 200."""

from __future__ import annotations

import json

import pytest

from tests.http.wire import MARKER
from tests.kafka.reading import Record
from tests.kafka.serving import ACCOUNT, Street, message, notification

GOOD = message("good")
UNREADABLE = {
    "not_utf8": [
        notification(GOOD).replace(MARKER.encode(), b"\xff"),
        b"\xff\xfe{\x00}\x00",
        notification(GOOD).replace(MARKER.encode(), b"\xed\xa0\x80"),
        notification(GOOD)[:-1] + b"\xc3",
    ],
    "not_json": [
        b"",
        b" ",
        b"\x00",
        MARKER.encode(),
        notification(GOOD)[:-1],
        notification(GOOD) + b"}",
        notification(GOOD) * 2,
        notification(GOOD).replace(b"1763800000123", b"NaN"),
        notification(GOOD).replace(b"1763800000123", b"-Infinity"),
        notification(GOOD).replace(b'"text"', b"'text'"),
        notification(GOOD).replace(b"}]", b"},]"),
        notification(GOOD).replace(MARKER.encode(), b"line\nbreak"),
        b"payload=%7B%22object%22%3A%22instagram%22%7D",
    ],
    "nested_too_deep": [
        notification({**GOOD, "message": json.loads("[" * 61 + "]" * 61)}),
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    ],
    "wrong_shape": [
        b"1",
        b"null",
        b"true",
        f'"{MARKER}"'.encode(),
        b'{"object":"instagram","entry":{}}',
        b'{"object":"instagram","entry":null}',
        b'{"object":"instagram"}',
    ],
    "unsupported_object": [
        b"{}",
        notification(GOOD).replace(b'"instagram"', b'"page"'),
        notification(GOOD).replace(b'"instagram"', b'"Instagram"'),
        notification(GOOD).replace(b'"object": "instagram", ', b""),
        b'{"object":["instagram"],"entry":[]}',
    ],
}


def assert_dead_letter(
    street: Street, record: Record, *, delivery_id: str, reason: str, body: bytes, source: str = "/instagram"
) -> None:
    """A record is the dead letter of the contract."""
    assert record.topic_field == "dead_letter"
    assert record.key is None
    assert record.headers == {
        "ce_specversion": "1.0",
        "ce_source": source,
        "ce_type": "instagram_bridge.dead_letter.v1",
        "content-type": "application/avro",
        "ig_delivery_id": delivery_id,
    }
    value = street.decode(record)
    detail = value.pop("detail")
    assert value == {
        "received_at": record.timestamp,
        "delivery_id": delivery_id,
        "reason": reason,
        "body": body,
        "app_secret_label": "new",
    }
    assert detail is None or MARKER not in detail


@pytest.mark.parametrize("reason", UNREADABLE)
async def test_body_that_is_unreadable_is_200_and_one_dead_letter_with_its_exact_bytes(
    street: Street, reason: str
) -> None:
    """A retry would bring the same bytes, so it is acknowledged, and nothing of it is half-published."""
    delivery_ids = []
    for body in UNREADABLE[reason]:
        answer = await street.serving.deliver(body)
        assert (answer.status, answer.headers["x-acknowledged-by"]) == (200, "kafka")
        delivery_ids.append(answer.headers["x-delivery-id"])

    found = {record.delivery_id: record for record in await street.reader.new()}

    assert sorted(found) == sorted(delivery_ids)
    for body, delivery_id in zip(UNREADABLE[reason], delivery_ids, strict=True):
        assert_dead_letter(street, found[delivery_id], delivery_id=delivery_id, reason=reason, body=body)


async def test_element_of_an_array_body_that_is_unreadable_is_a_dead_letter_alone(street: Street) -> None:
    """Notifications beside it are read, and its own bytes are kept as they stood."""
    page = b'{ "object" : "page", "entry" : [] }'
    parts = [notification(message("one")), b"5", page, notification(message("two"), message("three"))]

    delivery_id = await street.serving.accepted(b"[" + b" ,\n".join(parts) + b"]")

    records = await street.reader.of(delivery_id)
    dead = [street.decode(record) for record in records if record.topic_field == "dead_letter"]
    read = [street.decode(record) for record in records if record.topic_field == "messages"]
    assert sorted((value["reason"], value["body"]) for value in dead) == [
        ("unsupported_object", page),
        ("wrong_shape", b"5"),
    ]
    assert [value["message"]["mid"] for value in read] == ["one", "two", "three"]
    assert len(records) == 5


async def test_body_of_the_largest_size_is_a_dead_letter_with_all_of_it(plain: Street) -> None:
    """Sixteen MiB that cannot be read still fit into the topic: sizes agree from the port to the broker."""
    body = b"[" * 16 * 1024 * 1024

    delivery_id = await plain.serving.accepted(body)

    (record,) = await plain.reader.of(delivery_id)
    assert_dead_letter(plain, record, delivery_id=delivery_id, reason="nested_too_deep", body=body)


async def test_record_that_is_too_large_is_a_dead_letter_and_its_neighbours_are_published(plain: Street) -> None:
    """One item over BRIDGE_RECORD_BYTES_MAX is set aside with its text; the producer is none the worse for it."""
    large = {**message("large"), "unknown": "x" * 1024 * 1024}
    rebuilds = (await plain.serving.status())["kafka"]["producer_rebuilds"]

    delivery_id = await plain.serving.accepted(notification(message("before"), large, message("after")))

    records = await plain.reader.of(delivery_id)
    (dead,) = [record for record in records if record.topic_field == "dead_letter"]
    raw = json.dumps(large).encode()
    source = f"/instagram/{ACCOUNT}"
    assert_dead_letter(plain, dead, delivery_id=delivery_id, reason="record_too_large", body=raw, source=source)
    mids = [plain.decode(record)["message"]["mid"] for record in records if record is not dead]
    assert mids == ["before", "after"]
    assert (await plain.serving.status())["kafka"]["producer_rebuilds"] == rebuilds


async def test_records_around_the_largest_size_are_all_taken_by_kafka(plain: Street) -> None:
    """Our measure of a record is never smaller than Kafka's: at every size it is published or set aside."""
    limit = 1024 * 1024
    smallest, largest = message("s"), message("l")
    sizes = [*range(limit - 1600, limit - 400, 100)]
    for size in sizes:
        item = {**message(f"size-{size}", customer_id=f"{size}"), "unknown": ""}
        item["unknown"] = "x" * (size - len(json.dumps(item)))
        delivery_id = await plain.serving.accepted(notification(smallest, item, largest))
        topics = sorted(record.topic_field for record in await plain.reader.of(delivery_id))
        assert topics in (["messages"] * 3, ["dead_letter", "messages", "messages"]), size
        if size == sizes[0]:
            assert topics == ["messages"] * 3
    assert topics == ["dead_letter", "messages", "messages"]


async def test_item_with_odd_but_valid_json_is_published_with_its_exact_text(street: Street) -> None:
    """Huge numbers, duplicate keys, lone surrogates and controls are verbatim in raw, and typed where they can be."""
    parties = f'"sender":{{"id":17841400000000099}},"recipient":{{"id":"{ACCOUNT}"}}'
    items = [
        f'{{{parties},"timestamp":1e999,"message":{{"mid":"huge","n":{"9" * 400},"text":"t"}}}}',
        f'{{{parties},"message":{{"mid":"first","mid":"odd","text":"a\\ud800b\\u0000c\\udc00\\ud83d\\ude00"}}}}',
        f'{{ {parties} ,\t"message" : {{"mid":"spaced", "text" : "\\u00e4\\/ä" , "text2":-0.0}} }}',
    ]
    body = f'{{"object":"instagram","entry":[{{"id":"{ACCOUNT}","messaging":[{",".join(items)}]}}]}}'.encode()

    delivery_id = await street.serving.accepted(body)

    values = [street.decode(record) for record in await street.reader.of(delivery_id)]
    assert [value["raw"] for value in values] == items
    assert [value["message"]["mid"] for value in values] == ["huge", "odd", "spaced"]
    assert [value["message"]["text"] for value in values] == ["t", "a\ufffdb\x00c\ufffd😀", "ä/ä"]
    assert [value["occurred_at"] for value in values] == [None] * 3
    assert {value["customer_id"] for value in values} == {"17841400000000099"}

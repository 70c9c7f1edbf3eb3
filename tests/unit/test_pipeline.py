"""A delivery's records as Kafka gets them: headers, order, dead letters, sizes."""

from __future__ import annotations

import msgspec
import pytest

from bridge.encoding import DeadLetterEncoder, Encoder
from bridge.event import WEBHOOK_FIELDS
from bridge.pipeline import RECORD_TOO_LARGE, UNPROCESSABLE, Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER
from tests.unit.street import (
    ACCOUNT,
    CUSTOMER,
    DELIVERY_ID,
    ENCODERS,
    PREFIXES,
    RECEIVED_AT,
    SCHEMAS,
    aiokafkas_batch,
    change,
    decoded,
    delivery_of,
    event,
    item,
    record,
    records,
    walk,
    wrapped,
)

MESSAGE = item('"message":{"mid":"m_1"}')


def headers(one: Record) -> dict[str, bytes]:
    found = dict(one.headers)
    assert len(found) == len(one.headers)
    return found


def test_headers_of_an_event_are_the_cloudevents_binding_s() -> None:
    """Exactly those of contract.md "Record"; times in RFC 3339 with milliseconds, UTC."""
    body = wrapped(MESSAGE)
    assert headers(record(body)) == {
        "ce_specversion": b"1.0",
        "ce_id": event(body).event_id.encode(),
        "ce_source": b"/instagram/17841400000000001",
        "ce_type": b"instagram_bridge.messages.v1",
        "ce_time": b"2019-09-23T18:14:45.349Z",
        "content-type": b"application/avro",
        "ig_delivery_id": DELIVERY_ID.encode(),
    }


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        ("0", b"1970-01-01T00:00:00.000Z"),
        ("951782400", b"2000-02-29T00:00:00.000Z"),
        ("99999999999999", b"5138-11-16T09:46:39.999Z"),
        ("1569262485005", b"2019-09-23T18:14:45.005Z"),
    ],
)
def test_ce_time_is_rfc_3339_to_the_millisecond(timestamp: str, text: bytes) -> None:
    """From the first to the last time that occurred_at can hold."""
    assert headers(record(wrapped(item('"read":{"mid":"m"}', timestamp=timestamp))))["ce_time"] == text


def test_headers_without_time_or_account_leave_them_out() -> None:
    """No ce_time, a source without an account, a null key."""
    one = record(b'{"field":"story_mentions","value":{}}')
    assert one.key is None
    assert headers(one)["ce_source"] == b"/instagram"
    assert "ce_time" not in headers(one)


def test_headers_of_a_dead_letter_have_no_event_id() -> None:
    """It is no event."""
    one = record(b"no json")
    assert headers(one) == {
        "ce_specversion": b"1.0",
        "ce_source": b"/instagram",
        "ce_type": b"instagram_bridge.dead_letter.v1",
        "content-type": b"application/avro",
        "ig_delivery_id": DELIVERY_ID.encode(),
    }


def test_dead_letter_of_a_delivery_holds_its_bytes_reason_and_secret_s_label() -> None:
    """And a detail that says where, never what."""
    found = decoded(record(b'{"private":}'))
    assert (found["reason"], found["body"], found["app_secret_label"]) == ("not_json", b'{"private":}', "main")
    assert (found["received_at"], found["delivery_id"]) == (RECEIVED_AT, DELIVERY_ID)
    assert "private" not in found["detail"]


def test_value_of_an_event_holds_the_common_fields() -> None:
    """The delivery's and the entry's facts beside the typed part."""
    found = decoded(record(wrapped(MESSAGE)))
    common = {
        "webhook_field": "messages",
        "origin": "messaging",
        "entry_id": ACCOUNT,
        "account_id": ACCOUNT,
        "customer_id": CUSTOMER,
    }
    common |= {"sender_id": CUSTOMER, "recipient_id": ACCOUNT, "delivery_id": DELIVERY_ID, "raw": MESSAGE}
    times = {"occurred_at": 1569262485349, "sent_at": 1569262486134, "received_at": RECEIVED_AT}
    assert found.items() >= {**common, **times, "event_id": event(wrapped(MESSAGE)).event_id}.items()


def test_records_stand_in_the_order_of_their_items() -> None:
    """Hundreds of them, over entries and arrays."""
    mids = [f"m_{number}" for number in range(600)]
    body = wrapped(*(item(f'"message":{{"mid":"{mid}"}}') for mid in mids))
    assert [decoded(one)["message"]["mid"] for one in records(body)] == mids


def test_unreadable_notification_in_an_array_is_a_dead_letter_after_the_others() -> None:
    """Its body is the element, not the delivery."""
    walked, notes = walk(b'[{"object":"page"},' + wrapped(MESSAGE) + b"]")
    assert [one.topic for one in walked] == ["instagram.messages", "instagram.dead_letter"]
    assert (decoded(walked[1])["reason"], decoded(walked[1])["body"]) == ("unsupported_object", b'{"object":"page"}')
    assert ("unreadable", "unsupported_object") in notes


# Sizes.


def batch_bytes(one: Record) -> int:
    """What the record takes alone in a record batch, by aiokafka."""
    return len(aiokafkas_batch([(one, RECEIVED_AT)], producer_id=1, epoch=1, sequence=1))


def limit_of(body: bytes) -> int:
    """The smallest record_bytes_max with which a body's record is no dead letter."""
    low, high = 1, 1 << 24
    while low < high:
        middle = (low + high) // 2
        if walk(body, record_bytes_max=middle)[0][0].topic.endswith(DEAD_LETTER):
            low = middle + 1
        else:
            high = middle
    return low


@pytest.mark.parametrize("text_bytes", [10, 3_000, 300_000])
@pytest.mark.parametrize("array", ["messaging", "changes"])
def test_record_too_large_is_told_before_kafka_would_refuse_it(text_bytes: int, array: str) -> None:
    """Never smaller than the batch that aiokafka makes of it, and not much larger."""
    text = "x" * text_bytes
    element = (
        item(f'"message":{{"mid":"{text}"}}')
        if array == "messaging"
        else change("comments", f'{{"id":"{text}","from":{{"id":"{text}"}}}}')
    )
    body = wrapped(element, array=array, entry_id=f'"{text}"')
    ((one,), _) = walk(body, record_bytes_max=1 << 24)
    assert batch_bytes(one) <= limit_of(body) <= batch_bytes(one) + 200


def test_record_too_large_is_a_dead_letter_of_its_raw_in_its_place() -> None:
    """Its neighbours are published, the reason and the size are told."""
    large = item(f'"message":{{"mid":"m_2","text":"{"x" * 5000}"}}')
    walked, notes = walk(wrapped(MESSAGE, large, MESSAGE), record_bytes_max=5000)
    assert [one.topic for one in walked] == ["instagram.messages", "instagram.dead_letter", "instagram.messages"]
    found = decoded(walked[1])
    assert (found["reason"], found["body"]) == (RECORD_TOO_LARGE, large.encode())
    assert "xx" not in found["detail"]
    assert ("unreadable", RECORD_TOO_LARGE) in notes
    assert walked[1].key is None
    assert "ce_id" not in headers(walked[1])


TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"  # the example of W3C's recommendation


@pytest.mark.parametrize("body", [wrapped(MESSAGE, MESSAGE), b"not JSON", b"[1," + wrapped(MESSAGE) + b"]"])
def test_traced_delivery_is_named_by_all_of_its_records(body: bytes) -> None:
    """Events and dead letters alike; without a trace there is no header."""
    made = pipeline().records(msgspec.structs.replace(delivery_of(body), traceparent=TRACEPARENT), [])
    assert {headers(one)["traceparent"] for one in made} == {TRACEPARENT.encode()}
    assert not any("traceparent" in headers(one) for one in records(body))


def test_traced_record_is_too_large_by_its_header() -> None:
    """What fits without the header, and would not with it, is a dead letter."""
    body = wrapped(item(f'"message":{{"mid":"{"x" * 5000}"}}'))
    limit = limit_of(body)
    traced = msgspec.structs.replace(delivery_of(body), traceparent=TRACEPARENT)
    assert [one.topic for one in walk(body, record_bytes_max=limit)[0]] == ["instagram.messages"]
    assert [one.topic for one in pipeline(limit).records(traced, [])] == ["instagram.dead_letter"]


def pipeline(record_bytes_max: int = 1 << 20) -> Pipeline:
    """The street on the packaged schemas."""
    letters = DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER])
    return Pipeline(
        topic_prefix="instagram", encoders=ENCODERS, dead_letters=letters, record_bytes_max=record_bytes_max
    )


def test_fault_of_our_own_is_a_dead_letter_of_the_delivery() -> None:
    """An encoder that cannot work must not make Meta deliver the same bytes until the subscription ends."""
    broken = Encoder("messages", SCHEMAS["messages"], prefix="text")  # type: ignore[arg-type]  # the fault
    pipeline = Pipeline(
        topic_prefix="instagram",
        encoders={field: broken if field == "messages" else ENCODERS[field] for field in WEBHOOK_FIELDS},
        dead_letters=DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER]),
        record_bytes_max=1 << 20,
    )
    body = wrapped(item('"read":{"mid":"m_0"}'), MESSAGE)
    (one,) = pipeline.records(delivery_of(body), [])
    assert (decoded(one)["reason"], decoded(one)["body"]) == (UNPROCESSABLE, body)

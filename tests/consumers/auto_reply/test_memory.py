"""What the ledger is remembered as: decided events, uncertain intents, our own echoes, conversations. No Kafka."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.entries import Encoder, Entry, Status, decoded
from consumers.auto_reply.memory import Memory
from consumers.auto_reply.progress import Progress
from consumers.decoding import Decoder
from tests.consumers import samples
from tests.consumers.samples import ACCOUNT, CUSTOMER

NOW = datetime(2026, 11, 22, 12, 0, 0, 123000, tzinfo=UTC)
HELLO = ({"message": {"text": "Hello ä"}},)


def entry(event_id: str, status: Status, **changes: Any) -> Entry:  # noqa: ANN401 - the fields of an entry
    """An entry of the one conversation here."""
    given: dict[str, Any] = {
        "event_id": event_id,
        "webhook_field": "messages",
        "account_id": ACCOUNT,
        "customer_id": CUSTOMER,
        "status": status,
        "reason": "rule_matched",
        "rule": "hello",
        "occurred_at": NOW,
        "received_at": NOW,
        "decided_at": NOW,
        "source_offset": 7,
        "messages": HELLO if status == "intended" else (),
    }
    return Entry(**given | changes)


def echo(text: str | None = "Hello ä", mid: str = "m1", **part: object) -> Any:  # noqa: ANN401 - an Event
    """The echo of a message of the account's."""
    return samples.decoded(
        samples.message(text, part={"mid": mid, "is_echo": True, **part}, sender_id=ACCOUNT, recipient_id=CUSTOMER)
    )


def memory(*entries: Entry, **options: Any) -> Memory:  # noqa: ANN401 - Memory's
    """One that has learned these."""
    made = Memory(NOW - timedelta(hours=1), **options)
    for one in entries:
        made.learn(one)
    return made


@pytest.mark.parametrize("status", ["intended", "sent", "failed", "unknown", "skipped", "would_reply"])
def test_event_with_any_entry_but_deferred_is_decided(status: Status) -> None:
    """Also an intent of which nothing more is known: it is never sent again."""
    assert memory(entry("a", status)).is_decided("a")
    assert not memory(entry("a", status)).is_decided("b")
    assert not memory(entry("a", "intended"), entry("a", "deferred")).is_decided("a")
    assert memory(entry("a", "deferred"), entry("a", status)).is_decided("a")


def test_intent_is_uncertain_until_an_outcome() -> None:
    """Its outcome, or that it was deferred, ends it; `unknown` ends the waiting, but not what an echo can tell."""
    assert [one.event_id for one in memory(entry("a", "intended")).without_outcome()] == ["a"]
    for status in ("sent", "failed", "deferred", "unknown"):
        assert list(memory(entry("a", "intended"), entry("a", status)).without_outcome()) == []
    unknown = memory(entry("a", "intended"), entry("a", "unknown"))
    answered = unknown.answer_of(echo())
    assert answered is not None
    assert answered.event_id == "a"


def test_echo_of_an_uncertain_intent_is_known_by_its_text_and_from_then_on_by_its_mid() -> None:
    """White space and the Unicode form do not matter, other words do; a second echo with the same mid tells nothing new."""
    known = memory(entry("a", "intended"))
    assert known.answer_of(echo("Hello there")) is None
    assert known.answer_of(echo(" Hello a\u0308\n")) is not None
    assert known.is_own(echo("whatever"))
    assert known.answer_of(echo()) is None
    assert known.mids("a") == ("m1",)


def test_echo_of_a_template_is_known_by_its_attachment() -> None:
    """An echo of a template has no text."""
    template = ({"message": {"attachment": {"type": "template", "payload": {}}}},)
    known = memory(entry("a", "intended", messages=template))
    assert known.answer_of(echo("words")) is None
    assert known.answer_of(echo(None, attachments=[{"type": "template", "payload": None}])) is not None


def test_mid_of_an_outcome_tells_our_own_echo() -> None:
    """A person's message has another one."""
    known = memory(entry("a", "intended"), entry("a", "sent", message_ids=("m1",)))
    assert known.is_own(echo(mid="m1"))
    assert not known.is_own(echo(mid="m2"))


def test_memory_that_is_full_answers_nothing_older_than_what_it_forgot() -> None:
    """The bound costs answers to old events, never a second answer."""
    later = NOW + timedelta(seconds=5)
    known = memory(
        entry("a", "sent", message_ids=("m1",)),
        entry("b", "intended", received_at=later),
        entry("c", "skipped"),
        events_max=1,
    )
    assert not known.is_decided("a")
    assert not known.is_own(echo(mid="m1"))
    assert list(known.without_outcome()) == []
    assert known.known_since == later


async def test_entry_written_and_read_is_the_same() -> None:
    """Through Avro and the consumers' decoder, with all that is remembered of a conversation."""
    conversation = Conversation(
        customer_at=NOW, human_at=NOW, answered_at={"hello": NOW}, recent=((NOW, "hello"),), disclosed_at=NOW
    )
    full = entry(
        "a", "intended", conversation=conversation, graph_error="10/2534022", message_ids=("m1", "m2"), requested_at=NOW
    )
    value = Encoder(None).encode(full)

    record = samples.record(value, topic="instagram.auto_replies")
    read = await Decoder(topic_prefix="instagram", registry=None).decode(record)
    assert decoded(read.value) == full


def test_timestamp_of_an_entry_is_never_before_its_event_was_received() -> None:
    """So a clock that jumps back cannot hide it from whoever reads the ledger by time."""
    jumped = entry("a", "sent", decided_at=NOW - timedelta(days=1))
    assert jumped.timestamp_ms == int(NOW.timestamp() * 1000)


def test_progress_commits_up_to_the_first_that_is_not_decided() -> None:
    """Whatever the order in which they are decided; the same offset is not committed twice."""
    progress = Progress()
    assert progress.to_commit() is None
    for offset in (4, 5, 9):
        progress.taken(offset)
    progress.decided(5)
    assert progress.to_commit() == 4
    progress.committed(4)
    assert progress.to_commit() is None
    progress.decided(4)
    assert progress.to_commit() == 9
    progress.decided(9)
    assert progress.to_commit() == 10

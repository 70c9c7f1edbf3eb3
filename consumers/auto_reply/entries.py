"""An entry of the ledger: what became of one event, as a value, and as the bytes of a record. Does no IO and reads no clock."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import fastavro
from fastavro.schema import fingerprint, to_parsing_canonical_form

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import Decision
from consumers.decoding import CONFLUENT_MARKER, SINGLE_OBJECT_MARKER, Event, packaged_schema

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)

Status = Literal["intended", "deferred", "sent", "failed", "unknown", "skipped", "would_reply"]
"""`intended` is written before the request, `deferred` after one that certainly sent nothing; the others are final, but for
`unknown`, which an echo may still make `sent`."""

Key = tuple[str, str]
"""A conversation: account id and customer id."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; the schema says what each field holds.

    Attributes:
        messages: What carries the answer out, `messages_json` in the record.
        conversation: What is remembered with this entry in it, `conversation_json` in the record.
    """

    event_id: str
    webhook_field: str
    account_id: str | None
    customer_id: str | None
    status: Status
    reason: str
    rule: str | None
    occurred_at: datetime | None
    received_at: datetime
    decided_at: datetime
    source_offset: int
    graph_error: str | None = None
    requested_at: datetime | None = None
    message_ids: tuple[str, ...] = ()
    messages: tuple[Mapping[str, Any], ...] = ()
    conversation: Conversation | None = None

    @classmethod
    def of(cls, event: Event, decision: Decision, status: Status, conversation: Conversation | None) -> Entry:
        """The first entry about an event."""
        value = event.value
        return cls(
            event_id=event.event_id,
            webhook_field=event.webhook_field,
            account_id=value["account_id"],
            customer_id=value["customer_id"],
            status=status,
            reason=decision.reason,
            rule=decision.rule,
            occurred_at=value["occurred_at"],
            received_at=value["received_at"],
            decided_at=decision.decided_at,
            source_offset=event.offset,
            messages=decision.messages if status in ("intended", "would_reply") else (),
            conversation=conversation,
        )

    @property
    def key(self) -> Key | None:
        """Its conversation."""
        return conversation_key(self.account_id, self.customer_id)

    @property
    def record_key(self) -> bytes:
        """The key of its event's record."""
        return ":".join(filter(None, (self.account_id, self.customer_id))).encode()

    @property
    def timestamp_ms(self) -> int:
        """Of its record: never before its event was received, whatever our own clock says."""
        return (max(self.decided_at, self.received_at) - EPOCH) // MILLISECOND

    def becomes(self, status: Status, reason: str, **changes: Any) -> Entry:  # noqa: ANN401 - as of dataclasses.replace
        """The next entry about the same event."""
        return replace(self, status=status, reason=reason, messages=(), **changes)


def conversation_key(account_id: str | None, customer_id: str | None) -> Key | None:
    """The conversation of an event, if it has one."""
    return None if account_id is None or customer_id is None else (account_id, customer_id)


class Encoder:
    """Writes entries as Avro: with the registry's id of our schema in Confluent's wire format, without in single-object encoding.

    Args:
        schema_id: The registry's; None when there is no registry.
    """

    def __init__(self, schema_id: int | None) -> None:
        self._schema = packaged_schema("AutoReplies")
        if schema_id is None:
            canonical = to_parsing_canonical_form(self._schema)
            self._prefix = SINGLE_OBJECT_MARKER + bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
        else:
            self._prefix = CONFLUENT_MARKER + schema_id.to_bytes(4, "big")

    def encode(self, entry: Entry) -> bytes:
        """The value of its record."""
        value: dict[str, Any] = {name: getattr(entry, name) for name in _SAME}
        value["message_ids"] = list(entry.message_ids) or None
        value["messages_json"] = json.dumps(entry.messages, ensure_ascii=False) if entry.messages else None
        value["conversation_json"] = entry.conversation and _conversation_text(entry.conversation)
        stream = io.BytesIO()
        stream.write(self._prefix)
        fastavro.schemaless_writer(stream, self._schema, value)
        return stream.getvalue()


def decoded(value: Mapping[str, Any]) -> Entry:
    """The entry in a record's value, as `consumers.decoding` reads it.

    Raises:
        ValueError, KeyError, TypeError: One of its JSON texts is not what an Encoder writes.
    """
    return Entry(
        **{name: value[name] for name in _SAME},
        message_ids=tuple(value["message_ids"] or ()),
        messages=tuple(json.loads(value["messages_json"] or "[]")),
        conversation=value["conversation_json"] and _conversation(json.loads(value["conversation_json"])),
    )


_SAME = tuple(
    field.name for field in fields(Entry) if field.name not in ("message_ids", "messages", "conversation")
)  # the fields that are the same in the record


def _conversation_text(conversation: Conversation) -> str:
    return json.dumps(
        {name: _milliseconds(moment) for name in _MOMENTS if (moment := getattr(conversation, name)) is not None}
        | {
            "answered_at": {rule: _milliseconds(moment) for rule, moment in conversation.answered_at.items()},
            "recent": [[_milliseconds(moment), rule] for moment, rule in conversation.recent],
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _conversation(known: Mapping[str, Any]) -> Conversation:
    return Conversation(
        **{name: _moment(known[name]) for name in _MOMENTS if name in known},
        answered_at={rule: _moment(ms) for rule, ms in known["answered_at"].items()},
        recent=tuple((_moment(ms), rule) for ms, rule in known["recent"]),
    )


_MOMENTS = ("customer_at", "human_at", "silenced_until", "disclosed_at")


def _milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MILLISECOND


def _moment(milliseconds: int) -> datetime:
    return EPOCH + milliseconds * MILLISECOND

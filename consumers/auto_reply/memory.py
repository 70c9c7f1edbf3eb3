"""What one partition of the ledger says: which events are decided, what may have been sent, what is known of conversations.

Does no IO and reads no clock. It learns every entry in the ledger's order, those that it reads at a start and those that this
process writes alike, so that both ways lead to the same memory.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.entries import Entry, Key, Status, conversation_key
from consumers.decoding import Event

# About 300 bytes each, so 60 MB for a partition. What is forgotten for it is not answered any more: see `known_since`.
EVENTS_MAX = 200_000
CONVERSATIONS_MAX = (
    100_000  # the one that was quiet longest goes first; what is lost is a cooldown or a person's answer
)


@dataclass(slots=True)
class _Known:
    """What is kept of one event; `intent` only while its outcome is not certain."""

    received_at: datetime
    status: Status
    intent: Entry | None = None
    mids: list[str] = field(default_factory=list)


class Memory:
    """The state of one partition.

    Attributes:
        known_since: Of an event that was received before this, nobody here can say whether it was answered.

    Args:
        known_since: How far back the ledger is read.
        events_max: How many events are remembered.
    """

    def __init__(self, known_since: datetime, *, events_max: int = EVENTS_MAX) -> None:
        self.known_since = known_since
        self._events_max = events_max
        self._events: dict[str, _Known] = {}
        self._by_mid: dict[str, str] = {}
        self._uncertain: dict[Key, list[str]] = {}
        self._conversations: dict[Key, Conversation] = {}

    def learn(self, entry: Entry) -> None:
        """Takes the next entry in."""
        known = self._events.setdefault(entry.event_id, _Known(entry.received_at, entry.status))
        known.status = entry.status
        if entry.status == "intended":
            known.intent = entry
            if entry.key and entry.event_id not in self._uncertain.setdefault(entry.key, []):
                self._uncertain[entry.key].append(entry.event_id)
        elif entry.status != "unknown":  # then an echo may still tell
            self._settle(entry)
        for mid in entry.message_ids:
            self._own(known, mid, entry.event_id)
        if entry.key and entry.conversation is not None:
            self._conversations.pop(entry.key, None)
            self._conversations[entry.key] = entry.conversation
            if len(self._conversations) > CONVERSATIONS_MAX:
                del self._conversations[next(iter(self._conversations))]
        if len(self._events) > self._events_max:
            self._forget_oldest()

    def is_decided(self, event_id: str) -> bool:
        """Whether an event has been decided on: everything but what was certainly not sent and may be tried again."""
        known = self._events.get(event_id)
        return known is not None and known.status != "deferred"

    def conversation(self, key: Key) -> Conversation:
        """What is known of a conversation; the empty one when nothing is."""
        return self._conversations.get(key) or Conversation()

    def without_outcome(self) -> Iterator[Entry]:
        """The intents of which nobody knows yet what came of them."""
        for event_ids in self._uncertain.values():
            for event_id in event_ids:
                known = self._events[event_id]
                if known.status == "intended" and known.intent:
                    yield known.intent

    def answer_of(self, echo: Event) -> Entry | None:
        """The intent whose message came back in this echo, when its outcome is still uncertain; learns the echo's mid.

        It has all the mids that its echoes told so far.
        """
        key = conversation_key(echo.value["account_id"], echo.value["customer_id"])
        message = echo.value.get("message") or {}
        mid = message.get("mid")
        if key is None or mid is None or mid in self._by_mid:
            return None
        for event_id in self._uncertain.get(key, ()):
            known = self._events[event_id]
            if known.intent and any(_is_the_same(body, message) for body in known.intent.messages):
                self._own(known, mid, event_id)
                return known.intent
        return None

    def mids(self, event_id: str) -> tuple[str, ...]:
        """The ids of the messages that are known to have been sent for an event."""
        known = self._events.get(event_id)
        return tuple(known.mids) if known else ()

    def is_own(self, echo: Event) -> bool:
        """Whether this bot sent the message that came back."""
        return (echo.value.get("message") or {}).get("mid") in self._by_mid

    def _own(self, known: _Known, mid: str, event_id: str) -> None:
        if mid not in known.mids:
            known.mids.append(mid)
        self._by_mid[mid] = event_id

    def _settle(self, entry: Entry) -> None:
        self._events[entry.event_id].intent = None
        if entry.key and entry.event_id in (event_ids := self._uncertain.get(entry.key, [])):
            event_ids.remove(entry.event_id)
            if not event_ids:
                del self._uncertain[entry.key]

    def _forget_oldest(self) -> None:
        event_id, known = next(iter(self._events.items()))
        if known.intent:
            self._settle(known.intent)
        for mid in known.mids:
            self._by_mid.pop(mid, None)
        del self._events[event_id]
        self.known_since = max(self.known_since, known.received_at)


def _is_the_same(body: Mapping[str, Any], echoed: Mapping[str, Any]) -> bool:
    """Whether an echoed message is what a request sent: the same text, or an attachment without one."""
    message = body.get("message") or {}
    if "text" in message:
        return _plain(message["text"]) == _plain(echoed.get("text") or "")
    return "attachment" in message and bool(echoed.get("attachments")) and not echoed.get("text")


def _plain(text: str) -> str:
    # White space at the ends and the Unicode form are not ours to rely on.
    return unicodedata.normalize("NFC", text.strip())

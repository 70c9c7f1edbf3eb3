"""The newest events in a few words, in memory. What people wrote is kept apart, and forgotten when they unsend it."""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from consumers.decoding import Event

EVENTS_MAX = 100  # what a page shows; a reader that falls further behind misses some of the feed, and no number
UNSENT_MAX = 10_000  # unsends that are remembered, because one can overtake its message
# The keys under which an event carries its typed part, in Meta's words; `message` before a `referral` beside it.
KEYS = (
    "message", "message_edit", "reaction", "postback", "read", "optin",
    "pass_thread_control", "take_thread_control", "request_thread_control", "app_roles_json", "referral", "value",
)  # fmt: skip
SUMMARY_CHARACTERS_MAX = 200  # types and names in it are whatever was sent
TEXT_CHARACTERS_MAX = 2000  # of one event; Instagram's own limit is below


@dataclass(slots=True)
class Entry:
    """An event of the feed.

    Attributes:
        number: Its place, growing by one; an entry that changes keeps it.
        version: The feed's version at which it came or last changed.
        shown: What everybody sees, ready for JSON.
        mid: The message that it is or changes, if any.
        text: What people wrote; None when there is none, or none any more.
    """

    number: int
    version: int
    shown: dict[str, Any]
    mid: str | None
    text: str | None


class Feed:
    """The newest events, oldest first.

    Attributes:
        version: Grows with everything that is added, so that a reader knows that there is something new.
    """

    def __init__(self) -> None:
        self.version = 0
        self._number = 0
        self._entries: deque[Entry] = deque(maxlen=EVENTS_MAX)
        self._unsent: dict[str, None] = {}

    def add(self, events: Iterable[Event]) -> None:
        """Takes in events that were not seen before."""
        self.version += 1
        for event in events:
            self._number += 1
            entry = _entry(event, self._number, self.version)
            if entry.shown["unsent"] and entry.mid is not None:
                self._forget(entry.mid)
            elif entry.mid in self._unsent:
                entry.text = None
            self._entries.append(entry)

    def _forget(self, mid: str) -> None:
        while len(self._unsent) >= UNSENT_MAX:
            del self._unsent[next(iter(self._unsent))]
        self._unsent[mid] = None
        for entry in self._entries:
            if entry.mid == mid and entry.text is not None:
                entry.text, entry.version = None, self.version

    def after(self, version: int, *, account_id: str | None, with_text: bool) -> list[dict[str, Any]]:
        """What came or changed since that version, oldest first; of one account, or of all with None."""
        return [
            {"number": entry.number, **entry.shown, "text": entry.text if with_text else None}
            for entry in self._entries
            if entry.version > version and account_id in {None, entry.shown["account_id"]}
        ]


def _entry(event: Event, number: int, version: int) -> Entry:
    value = event.value
    key = next((key for key in KEYS if value.get(key) is not None), None)
    part = value[key] if key else {}
    if key is None:
        kind = value.get("named_field") or "unknown"
    else:
        kind = "change" if key == "value" else key.removesuffix("_json")
    summary = _SUMMARIES.get(key or "", _nothing)(part)
    fields = part if isinstance(part, dict) else {}
    unsent = key == "message" and bool(fields["is_deleted"])
    text = fields.get("text") or fields.get("title")
    shown = {
        "received_at": value["received_at"].isoformat(),
        "account_id": value["account_id"],
        "webhook_field": event.webhook_field,
        "kind": kind[:SUMMARY_CHARACTERS_MAX],
        "summary": ", ".join(words for words in summary if words)[:SUMMARY_CHARACTERS_MAX],
        "unsent": unsent,
    }
    return Entry(number, version, shown, fields.get("mid"), text[:TEXT_CHARACTERS_MAX] if text and not unsent else None)


def _nothing(_: Any) -> list[str | None]:  # noqa: ANN401 - any typed part
    return []


def _message(message: dict[str, Any]) -> list[str | None]:
    types = [attachment["type"] or "of no type" for attachment in message["attachments"] or []]
    reply_to = message["reply_to"]
    return [
        "echo" if message["is_echo"] else None,
        "unsent" if message["is_deleted"] else None,
        "unsupported" if message["is_unsupported"] else None,
        _length(message["text"]),
        f"attachment {' + '.join(types)}" if types else None,
        "quick reply" if message["quick_reply"] else None,
        ("reply to a story" if reply_to["story"] else "reply to a message") if reply_to else None,
        "from an ad or link" if message["referral"] else None,
    ]


def _length(text: str | None) -> str | None:
    return f"text of {len(text)} characters" if text else None


_SUMMARIES: dict[str, Callable[[Any], list[str | None]]] = {
    "message": _message,
    "message_edit": lambda edit: [f"edit {edit['num_edit']}" if edit["num_edit"] is not None else None],
    "reaction": lambda reaction: [reaction["action"], reaction["reaction"]],
    "postback": lambda postback: ["button", "from an ad or link" if postback["referral"] else None],
    "read": lambda _: ["seen"],
    "value": lambda change: [_length(change.get("text"))],
    "referral": lambda referral: [referral["source"], referral["type"]],
}

"""An event in a few words, for the feed. What people wrote, buttons' titles among it, is kept apart from the rest."""

from collections.abc import Callable
from typing import Any

from consumers.decoding import Event

# The keys under which an event carries its typed part, in Meta's words; `message` before a `referral` beside it.
KEYS = (
    "message", "message_edit", "reaction", "postback", "read", "optin",
    "pass_thread_control", "take_thread_control", "request_thread_control", "app_roles_json", "referral", "value",
)  # fmt: skip
SUMMARY_CHARACTERS_MAX = 200  # types and names in it are whatever was sent
TEXT_CHARACTERS_MAX = 2000  # of one event in the feed; Instagram's own limit is below


def describe(event: Event, *, with_text: bool) -> dict[str, str | None]:
    """`kind` (Meta's key, `change` for a change), `summary` (without what people wrote) and `text` (only on demand)."""
    value = event.value
    key = next((key for key in KEYS if value.get(key) is not None), None)
    part = value[key] if key else {}
    if key is None:
        kind = value.get("named_field") or "unknown"
    else:
        kind = "change" if key == "value" else key.removesuffix("_json")
    summary = _SUMMARIES.get(key or "", _nothing)(part)
    text = part.get("text") or part.get("title") if isinstance(part, dict) else None
    return {
        "kind": kind[:SUMMARY_CHARACTERS_MAX],
        "summary": ", ".join(words for words in summary if words)[:SUMMARY_CHARACTERS_MAX],
        "text": text[:TEXT_CHARACTERS_MAX] if with_text and text else None,
    }


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

"""What conditions and templates may ask of one event. Does no IO; each folded text is made once."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.rulebook.text import Pattern, composed, folded, in_words
from consumers.decoding import Event

# All expressions of all rules together, for one event: 50 ms from the record to the request is the goal, and a search that
# is cut off may take three times its share.
PATTERNS_TIME_MAX_S = 0.02

MESSAGES, POSTBACKS, REFERRALS = WEBHOOK_FIELDS = ("messages", "messaging_postbacks", "messaging_referral")

VALUES: Mapping[str, frozenset[str]] = {
    "text": frozenset({MESSAGES}),
    "title": frozenset({POSTBACKS}),
    "payload": frozenset({MESSAGES, POSTBACKS}),
    **dict.fromkeys(("ref", "ad_id", "ad_title", "product_id"), frozenset(WEBHOOK_FIELDS)),
}
"""The placeholders of templates, and of which webhook fields an event may have a value for them; a regular expression's named
groups come on top."""


class Facts:
    """One event, as the rules see it.

    Attributes:
        webhook_field: `messages`, `messaging_postbacks` or `messaging_referral`.
        text: What the customer wrote, or None.
        quick_reply: Payload of a quick reply that was tapped, or None.
        postback: Payload of a button or an ice breaker that was tapped, or None.
        referral: Where the customer comes from, or None: inside the message, inside the postback, or by itself.
        story: `mention` and `reply`, as far as they apply.
        attachment_types: Of the message's attachments; an open set.
        is_first: See `Conversation.is_first`.
        now: The present, aware.
        values: What a template's placeholders stand for; a missing one is None.

    Args:
        event: Of one of these three webhook fields.
        conversation: What is known of it without this event.
        now: The present, aware.
    """

    def __init__(self, event: Event, conversation: Conversation, *, now: datetime) -> None:
        value = event.value
        message: Mapping[str, Any] = value.get("message") or {}
        postback: Mapping[str, Any] = value.get("postback") or {}
        referral: Mapping[str, Any] | None = (
            message.get("referral") or postback.get("referral") or value.get("referral")
        )
        self.webhook_field = event.webhook_field
        self.account_id: str | None = value["account_id"]
        self.text: str | None = message.get("text")
        self.quick_reply: str | None = (message.get("quick_reply") or {}).get("payload")
        self.is_postback = bool(postback)
        self.postback: str | None = postback.get("payload")
        self.referral = referral
        self.attachment_types = frozenset(part["type"] for part in message.get("attachments") or () if part["type"])
        mention = {"mention"} if "story_mention" in self.attachment_types else set()
        reply = {"reply"} if (message.get("reply_to") or {}).get("story") else set()
        self.story = frozenset(mention | reply)
        self.is_first = conversation.is_first(now)
        self.now = now
        self.values: dict[str, str | None] = {
            "text": self.text,
            "title": postback.get("title"),
            "payload": self.quick_reply or self.postback,
            "ref": (referral or {}).get("ref"),
            "ad_id": (referral or {}).get("ad_id"),
            "ad_title": ((referral or {}).get("ads_context_data") or {}).get("ad_title"),
            "product_id": ((referral or {}).get("product") or {}).get("id"),
        }
        self._folded: dict[str | None, str] = {}
        self._words: dict[str | None, str] = {}
        self._patterns_time_s = PATTERNS_TIME_MAX_S

    def folded(self, language: str | None) -> str:
        """The text for comparing in a language; empty when there is none."""
        if language not in self._folded:
            self._folded[language] = folded(self.text or "", language)
        return self._folded[language]

    def words(self, language: str | None) -> str:
        """The text's words, see `in_words`."""
        if language not in self._words:
            self._words[language] = in_words(self.folded(language))
        return self._words[language]

    def search(self, pattern: Pattern) -> Mapping[str, str | None] | None:
        """The named groups of the first match in the text, or None.

        Raises:
            TimeoutError: It was not done in time, or earlier expressions used up the time of this event.
        """
        if self.text is None:
            return None
        if self._patterns_time_s <= 0:
            raise TimeoutError
        begun = time.monotonic()
        try:
            return pattern.search(composed(self.text), time_s=self._patterns_time_s)
        finally:
            self._patterns_time_s -= time.monotonic() - begun

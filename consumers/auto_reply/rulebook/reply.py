"""`reply:` in the rules file, and what becomes of it: the bodies of Graph requests, without their recipient. Does no IO.

Meta's limits are checked when the rules load, as far as they can be known then, and again on what is sent.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from consumers.auto_reply.rulebook.parts import LISTED, Strict, Word

# Meta's pages "Send messages", "Quick replies" and "Generic template" of Instagram messaging, 2026-11-22.
TEXT_BYTES_MAX = 1000  # UTF-8
QUICK_REPLIES_MAX = 13
BUTTON_TITLE_CHARACTERS_MAX = 20  # of quick replies too; Meta cuts what is longer
CARDS_MAX = 10
CARD_TEXT_CHARACTERS_MAX = 80  # of the title, and of the subtitle
CARD_BUTTONS_MAX = 3
PAYLOAD_CHARACTERS_MAX = 1000  # Messenger's page "Buttons"; Instagram's name none

DISCLOSURE_BYTES_MAX = 300  # it stands before an answer and leaves it two thirds of the room
_DISCLOSURE_END = "\n\n"


class Unrenderable(Exception):
    """An answer that cannot be made for this event; `reason` is `value_missing` or `text_too_long`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Template:
    """A text with placeholders, `{order}`; a brace of the text itself is doubled, `{{`.

    Attributes:
        names: Of its placeholders.
        literal_bytes: The size of all that is no placeholder, in UTF-8.

    Raises:
        ValueError: A brace stands alone, or a placeholder is more than a name.
    """

    def __init__(self, text: str) -> None:
        try:
            parts = list(string.Formatter().parse(text))
        except ValueError:
            raise ValueError("a brace stands alone: a placeholder is {name}, a brace is {{ or }}") from None
        if any(
            name is not None and (not name.isidentifier() or form or conversion) for _, name, form, conversion in parts
        ):
            raise ValueError("a placeholder is a name in braces, {name}, and no more; a brace is {{ or }}")
        self._parts = [(literal, name) for literal, name, _, _ in parts]
        self.names = frozenset(name for _, name in self._parts if name is not None)
        self.literal_bytes = sum(len(literal.encode()) for literal, _ in self._parts)

    def render(self, values: Mapping[str, str | None]) -> str:
        """The text with every placeholder replaced.

        Raises:
            Unrenderable: A value is missing or empty.
        """
        text = ""
        for literal, name in self._parts:
            value = "" if name is None else (values.get(name) or "").strip()
            if name is not None and not value:
                raise Unrenderable("value_missing")
            text += literal + value
        return text


def not_blank(text: str) -> str:
    """The text itself.

    Raises:
        ValueError: There is nothing in it.
    """
    if not text.strip():
        raise ValueError("is blank, and Graph API refuses that")
    return text


def _fitting_text(text: str) -> str:
    size = Template(text).literal_bytes
    if size > TEXT_BYTES_MAX:
        raise ValueError(f"has {size} bytes in UTF-8, Graph API takes {TEXT_BYTES_MAX} at most")
    return text


def _without_placeholder(text: str) -> str:
    if Template(text).names:
        raise ValueError("is for when a value is missing, and so cannot have placeholders itself")
    return text


def _web_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("should be an address that begins with https:// or http://")
    return url


Text = Annotated[Word, AfterValidator(not_blank), AfterValidator(_fitting_text)]
ButtonTitle = Annotated[str, Field(max_length=BUTTON_TITLE_CHARACTERS_MAX), AfterValidator(not_blank)]
CardText = Annotated[str, Field(max_length=CARD_TEXT_CHARACTERS_MAX), AfterValidator(not_blank)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
Payload = Annotated[str, Field(min_length=1, max_length=PAYLOAD_CHARACTERS_MAX)]


class QuickReply(Strict):
    """A text to tap; a rule with `when: {quick_reply: [PAYLOAD]}` hears of it."""

    title: ButtonTitle
    payload: Payload

    def body(self) -> dict[str, Any]:
        """As Meta names it."""
        return {"content_type": "text", "title": self.title, "payload": self.payload}


class Button(Strict):
    """Opens an address (`url`), or comes back as a postback (`payload`)."""

    title: ButtonTitle
    url: WebUrl | None = None
    payload: Payload | None = None

    @model_validator(mode="after")
    def _does_one_thing(self) -> Self:
        if (self.url is None) == (self.payload is None):
            raise ValueError("needs exactly one of url and payload")
        return self

    def body(self) -> dict[str, Any]:
        """As Meta names it."""
        does = {"type": "web_url", "url": self.url} if self.url else {"type": "postback", "payload": self.payload}
        return does | {"title": self.title}


class Card(Strict):
    """An element of a generic template: a title, and at least one thing more."""

    title: CardText
    subtitle: CardText | None = None
    image_url: WebUrl | None = None
    url: WebUrl | None = None
    buttons: Annotated[tuple[Button, ...], LISTED] | None = Field(default=None, max_length=CARD_BUTTONS_MAX)

    @model_validator(mode="after")
    def _has_more_than_a_title(self) -> Self:
        if not (self.subtitle or self.image_url or self.url or self.buttons):
            raise ValueError("needs one more of subtitle, image_url, url and buttons; Graph API refuses a lone title")
        return self

    def body(self) -> dict[str, Any]:
        """As Meta names it."""
        body: dict[str, Any] = {"title": self.title}
        if self.subtitle:
            body["subtitle"] = self.subtitle
        if self.image_url:
            body["image_url"] = self.image_url
        if self.url:
            body["default_action"] = {"type": "web_url", "url": self.url}
        if self.buttons:
            body["buttons"] = [button.body() for button in self.buttons]
        return body


class Reply(Strict):
    """One answer: a text, with quick replies if wanted, or a generic template.

    Attributes:
        text: With placeholders; at most 1000 bytes of UTF-8.
        fallback_text: Instead of a text that lacks a value or has become too long. Without it the rule is passed over then.
        quick_replies: At most 13, under the text.
        generic_template: At most 10 cards side by side.
        mark_seen: Whether the customer is shown that the message was read.
        typing_on: Whether the customer is shown that somebody types.
    """

    text: Text | None = None
    fallback_text: Annotated[Text, AfterValidator(_without_placeholder)] | None = None
    quick_replies: Annotated[tuple[QuickReply, ...], LISTED] | None = Field(default=None, max_length=QUICK_REPLIES_MAX)
    generic_template: Annotated[tuple[Card, ...], LISTED] | None = Field(default=None, max_length=CARDS_MAX)
    mark_seen: bool = False
    typing_on: bool = False

    @model_validator(mode="after")
    def _is_one_message(self) -> Self:
        if (self.text is None) == (self.generic_template is None):
            raise ValueError("needs exactly one of text and generic_template")
        if self.text is None and (self.quick_replies or self.fallback_text):
            raise ValueError("quick_replies and fallback_text belong to a text")
        return self

    @cached_property
    def _templates(self) -> tuple[Template, Template | None]:
        return Template(self.text or ""), None if self.fallback_text is None else Template(self.fallback_text)

    @property
    def may_lack_a_value(self) -> bool:
        """Whether there are events for which this cannot be made."""
        text, fallback = self._templates
        return bool(text.names) and fallback is None

    def problems(self, *, known: frozenset[str], disclosure: str | None) -> list[tuple[str, str]]:
        """What is wrong for the rule that it stands in: the key, and a sentence.

        Args:
            known: The placeholders that the rule has values for.
            disclosure: What may have to stand before the text.
        """
        found = []
        room = TEXT_BYTES_MAX - (len((disclosure + _DISCLOSURE_END).encode()) if disclosure else 0)
        for key, template in zip(("text", "fallback_text"), self._templates, strict=True):
            if template is None:
                continue
            found += [
                (
                    key,
                    f"nothing gives a value to {{{name}}}; there are {', '.join(sorted(known))}, and a regex's groups",
                )
                for name in sorted(template.names - known)
            ]
            if template.literal_bytes > room:
                found.append(
                    (key, f"has {template.literal_bytes} bytes in UTF-8, the disclosure before it leaves {room}")
                )
        return found

    def bodies(self, values: Mapping[str, str | None], *, disclosure: str | None) -> tuple[Mapping[str, Any], ...]:
        """What is sent, in this order.

        Args:
            values: For the placeholders.
            disclosure: What has to be said before, in the same message if that is a text.

        Raises:
            Unrenderable: A value is missing or the text too long, and there is no other text.
        """
        actions = [{"sender_action": name} for name in ("mark_seen", "typing_on") if getattr(self, name)]
        if self.generic_template is not None:
            elements = [card.body() for card in self.generic_template]
            payload = {"template_type": "generic", "elements": elements}
            before = [{"message": {"text": disclosure}}] if disclosure else []
            return (*actions, *before, {"message": {"attachment": {"type": "template", "payload": payload}}})
        message: dict[str, Any] = {"text": self._text(values, f"{disclosure}{_DISCLOSURE_END}" if disclosure else "")}
        if self.quick_replies:
            message["quick_replies"] = [quick_reply.body() for quick_reply in self.quick_replies]
        return (*actions, {"message": message})

    def _text(self, values: Mapping[str, str | None], before: str) -> str:
        template, fallback = self._templates
        problem = Unrenderable("text_too_long")
        try:
            text = before + template.render(values)
            if len(text.encode()) <= TEXT_BYTES_MAX:
                return text
        except Unrenderable as error:
            problem = error
        if fallback is None:
            raise problem
        return before + fallback.render({})

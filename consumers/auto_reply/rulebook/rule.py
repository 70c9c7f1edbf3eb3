"""The parts of a rules file: a rule, and what is said for all of them. Does no IO."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from consumers.auto_reply.conversation import RECENT_ANSWERS_MAX
from consumers.auto_reply.rulebook.parts import LISTED, Id, Seconds, Strict, Word
from consumers.auto_reply.rulebook.reply import DISCLOSURE_BYTES_MAX, Reply, WebUrl, not_blank
from consumers.auto_reply.rulebook.when import When, Words

NAME_CHARACTERS_MAX = 64  # it is a label of metrics

SILENCE_S = 24 * 3600  # after the hand-over word: Meta's window for an answer
DECIDER_TIMEOUT_MS = 2_000  # longer than a healthy model takes for a sentence
DECIDER_TIMEOUT_MAX_MS = 30_000  # Meta's Messenger Platform policy: a bot answers within 30 s


def _language(code: str) -> str:
    if not re.fullmatch("[a-z]{2,3}", code):
        raise ValueError("should be the two or three letters of a language, tr for example")
    return code


Cap = Annotated[int, Field(ge=1, le=RECENT_ANSWERS_MAX)]
Language = Annotated[str, AfterValidator(_language)]


def _function_name(name: str) -> str:
    module, _, function = name.partition(":")
    if not (function.isidentifier() and all(part.isidentifier() for part in module.split("."))):
        raise ValueError("should name a function as package.module:function")
    return name


class Http(Strict):
    """An endpoint that decides, asked with POST."""

    url: WebUrl


class Decide(Strict):
    """Who decides instead of `reply`: an HTTP endpoint, or a Python function named `package.module:function`."""

    http: Http | None = None
    function: Annotated[str, AfterValidator(_function_name)] | None = None
    timeout_ms: int = Field(default=DECIDER_TIMEOUT_MS, ge=1, le=DECIDER_TIMEOUT_MAX_MS)

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.http is None) == (self.function is None):
            raise ValueError("needs exactly one of http and function")
        return self


class Rule(Strict):
    """One rule; its name appears in the log and in every decision.

    Attributes:
        priority: Rules with a higher one are tried first; those with equal ones in the file's order.
        language: Of the texts under `when`, when it is not the file's.
        cooldown_s: How long after its answer the rule keeps silent in that conversation. An event that it matches meanwhile
            gets no answer, from no other rule either.
        daily_cap: How often it answers in a conversation in 24 hours, in the same way.
        reply: The answer; with `decide`, what is sent when no decision comes in time.
        decide: Who decides on the answer.
    """

    name: str = Field(min_length=1, max_length=NAME_CHARACTERS_MAX)
    priority: int = 0
    language: Language | None = None
    when: When
    cooldown_s: Seconds = 0
    daily_cap: Cap | None = None
    reply: Reply | None = None
    decide: Decide | None = None

    @model_validator(mode="after")
    def _has_an_answer(self) -> Self:
        if self.reply is None and self.decide is None:
            raise ValueError("needs a reply, or a decide")
        return self


class Account(Strict):
    """What is different for one account."""

    enabled: bool = True


class HandOver(Strict):
    """How a customer asks for a person; the bot is silent in that conversation from then on.

    Attributes:
        words: Sought as `text_words` are.
        payloads: Of quick replies and postbacks.
        silence_s: For how long.
        reply: A last word.
    """

    words: Words | None = None
    payloads: Annotated[tuple[Word, ...], LISTED] | None = None
    silence_s: Annotated[Seconds, Field(gt=0)] = SILENCE_S
    reply: Reply | None = None

    @model_validator(mode="after")
    def _can_be_asked_for(self) -> Self:
        if not self.words and not self.payloads:
            raise ValueError("needs words or payloads")
        return self


def _room_for_an_answer(text: str) -> str:
    not_blank(text)
    if (size := len(text.encode())) > DISCLOSURE_BYTES_MAX:
        raise ValueError(f"has {size} bytes in UTF-8, {DISCLOSURE_BYTES_MAX} are the most: an answer comes after it")
    return text


class Disclosure(Strict):
    """That a bot answers, said before the first answer in a conversation, and again after some days.

    Attributes:
        accounts: For which this is required; None is all.
    """

    text: Annotated[Word, AfterValidator(_room_for_an_answer)]
    every_days: int = Field(default=30, ge=1, le=30)
    accounts: Annotated[tuple[Id, ...], LISTED] | None = None

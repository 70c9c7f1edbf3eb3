"""The rules file: which reply a message gets. Checked as a whole when it is loaded; does no IO apart from that.

The smallest file that works:

    version: 1
    rules:
      - {name: hello, when: {text_contains: [hello, hi]}, reply: {text: "Hi!"}}
      - {name: rest, when: {any_message: true}, reply: {text: "We answer soon."}}
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from consumers.errors import ConsumerError

REPLY_TEXT_BYTES_MAX = 1000  # UTF-8; Graph API refuses more (Meta, "Send a text message")
RULES_MAX = 1000  # every message may be tried against every rule


def _fits_in_a_reply(text: str) -> str:
    size = len(text.encode())
    if size > REPLY_TEXT_BYTES_MAX:
        raise ValueError(f"has {size} bytes in UTF-8, Graph API takes {REPLY_TEXT_BYTES_MAX} at most")
    return text


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class When(_Strict):
    """What a message has to be. Exactly one of the two.

    Attributes:
        text_contains: Any of these stands somewhere in the text, whatever the case.
        any_message: Every message, one without text among them.
    """

    text_contains: list[Annotated[str, Field(min_length=1)]] | None = Field(default=None, min_length=1)
    any_message: Literal[True] | None = None

    @model_validator(mode="after")
    def _is_one_condition(self) -> Self:
        if (self.text_contains is None) == (self.any_message is None):
            raise ValueError("needs exactly one of text_contains and any_message")
        return self

    def matches(self, text: str | None) -> bool:
        """Whether a message with this text (None: it has none) is meant."""
        if self.text_contains is None:
            return True
        folded = (text or "").casefold()
        return any(words.casefold() in folded for words in self.text_contains)


class Reply(_Strict):
    """What is sent.

    Attributes:
        text: At most 1000 bytes of UTF-8.
    """

    text: Annotated[str, Field(min_length=1), AfterValidator(_fits_in_a_reply)]


class Rule(_Strict):
    """One rule; its name appears in the log and in every decision."""

    name: str = Field(min_length=1, max_length=64)
    when: When
    reply: Reply


class Rules(_Strict):
    """A rules file, in its order."""

    version: Literal[1]
    rules: list[Rule] = Field(min_length=1, max_length=RULES_MAX)

    @model_validator(mode="after")
    def _has_one_rule_per_name(self) -> Self:
        names = [rule.name for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules have the name {name!r}")
        return self

    def first_match(self, text: str | None) -> Rule | None:
        """The first rule that a message with this text matches."""
        return next((rule for rule in self.rules if rule.when.matches(text)), None)


def load_rules(path: Path) -> Rules:
    """Reads a rules file.

    Raises:
        ConsumerError: With one line for every problem, each naming its rule.
    """
    try:
        document = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise ConsumerError(f"{path}: the rules cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConsumerError(f"{path} line {line}: this is not YAML: {error.problem}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ConsumerError(f"{path}: this is not YAML in UTF-8") from None
    try:
        return Rules.model_validate(document)
    except ValidationError as error:
        lines = [f"{path}: {_line(document, problem)}" for problem in error.errors(include_url=False)]
        raise ConsumerError("\n".join(lines)) from None


def _line(document: object, problem: ErrorDetails) -> str:
    place = list(problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        message = "no such key"
    elif problem["type"] == "string_type":
        message += " (YAML takes yes, no and numbers for something else: put it in quotes)"
    if len(place) > 1 and place[0] == "rules" and isinstance(document, dict):
        rule = document["rules"][place[1]]
        name = rule.get("name") if isinstance(rule, dict) else None
        place = [f"rule {name!r}" if isinstance(name, str) else f"rule {int(place[1]) + 1}", *place[2:]]
    where = " ".join([str(place[0]), ".".join(str(step) for step in place[1:])]).strip() if place else ""
    return f"{where}: {message}" if where else message

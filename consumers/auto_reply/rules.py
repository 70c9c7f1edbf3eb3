"""The rules file: which answer an event gets, and which gets none. Checked as a whole when it is loaded.

The smallest file that works:

    version: 1
    rules:
      - {name: hello, when: {text_contains: [hello, hi]}, reply: {text: "Hi!"}}
      - {name: rest, when: {any_message: true}, reply: {text: "We answer soon."}}

README.md has every key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

from pydantic import Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from consumers.auto_reply.conversation import DAY, FIRST_MESSAGE_AFTER
from consumers.auto_reply.rulebook import yaml_lines
from consumers.auto_reply.rulebook.conditions import Check, Finding, words_in_text
from consumers.auto_reply.rulebook.facts import VALUES, Facts
from consumers.auto_reply.rulebook.parts import Seconds, Strict, Word
from consumers.auto_reply.rulebook.reply import Reply
from consumers.auto_reply.rulebook.rule import Account, Cap, Disclosure, HandOver, Language, Rule
from consumers.errors import ConsumerError

RULES_MAX = 1000  # every message may be tried against every rule
FILE_BYTES_MAX = 4 * 1024 * 1024  # a thousand rules with the longest texts
ACCOUNTS_MAX = 10_000  # one file for everybody has to be shorter than one for each

# After a person's answer the bot stays out for as long as a working day lasts: being silent once too often costs less
# than talking into a conversation that somebody leads.
HUMAN_PAUSE_S = 12 * 3600


class Candidate(NamedTuple):
    """A rule that is ready to be tried."""

    rule: Rule
    checks: tuple[tuple[str, Check], ...]

    def match(self, facts: Facts) -> Finding:
        """All conditions in one: the first that does not hold, else what they found in the text."""
        values = _NOTHING
        for _, check in self.checks:
            finding = check(facts)
            if not finding.held:
                return finding
            values = finding.values or values
        return Finding(held=True, why="every condition holds", values=values)


_NOTHING: Mapping[str, str | None] = {}


class Rules(Strict):
    """A rules file.

    Attributes:
        language: Of the texts that are compared, for how upper and lower case belong together; None for none in particular.
        human_pause_s: How long after a person's answer the bot keeps out of the conversation.
        cooldown_s: How long after an answer the bot gives no other one in that conversation.
        daily_cap: How many answers a conversation gets in 24 hours.
        accounts: By account id.
    """

    version: Literal[1]
    language: Language | None = None
    human_pause_s: Seconds = HUMAN_PAUSE_S
    cooldown_s: Seconds = 0
    daily_cap: Cap | None = None
    disclosure: Disclosure | None = None
    hand_over: HandOver | None = None
    accounts: dict[Word, Account] = Field(default={}, max_length=ACCOUNTS_MAX)
    rules: list[Rule] = Field(min_length=1, max_length=RULES_MAX)

    _warnings: tuple[str, ...] = PrivateAttr(default=())

    @cached_property
    def candidates(self) -> tuple[Candidate, ...]:
        """The rules in the order in which they are tried."""
        ordered = sorted(self.rules, key=lambda rule: -rule.priority)
        return tuple(Candidate(rule, rule.when.checks(rule.language or self.language)) for rule in ordered)

    @cached_property
    def _hand_over_words(self) -> Check | None:
        words = self.hand_over.words if self.hand_over else None
        return words_in_text(words, self.language) if words else None

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and hardly meant, a line each."""
        return self._warnings

    @property
    def human_pause(self) -> timedelta:
        """`human_pause_s` as a duration."""
        return timedelta(seconds=self.human_pause_s)

    @property
    def looks_back(self) -> timedelta:
        """How far back something may lie that a decision depends on."""
        cooldowns = [self.cooldown_s, *(rule.cooldown_s for rule in self.rules)]
        spans = [DAY, self.human_pause, timedelta(seconds=max(cooldowns))]
        if self.hand_over is not None:
            spans.append(timedelta(seconds=self.hand_over.silence_s))
        if self.disclosure is not None:
            spans.append(timedelta(days=self.disclosure.every_days))
        if any(rule.when.first_message is not None for rule in self.rules):
            spans.append(FIRST_MESSAGE_AFTER)
        return max(spans)

    def is_enabled(self, account_id: str | None) -> bool:
        """Whether the bot answers for an account at all."""
        account = self.accounts.get(account_id or "")
        return account is None or account.enabled

    def asks_for_a_person(self, facts: Facts) -> bool:
        """Whether the customer said the hand-over word, or tapped what stands for it."""
        if self.hand_over is None:
            return False
        payloads = self.hand_over.payloads or ()
        tapped = facts.quick_reply in payloads or facts.postback in payloads
        return tapped or (self._hand_over_words is not None and self._hand_over_words(facts).held)

    def disclosure_for(self, account_id: str | None) -> Disclosure | None:
        """What has to be said of the bot in conversations of an account."""
        disclosure = self.disclosure
        if disclosure is None or (disclosure.accounts is not None and account_id not in disclosure.accounts):
            return None
        return disclosure


def load_rules(path: Path) -> Rules:
    """Reads a rules file.

    Raises:
        ConsumerError: With one line for every problem, each with its line in the file and the name of its rule.
    """
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConsumerError(f"{path}: the rules cannot be read ({error.strerror})") from None
    if len(text) > FILE_BYTES_MAX:
        raise ConsumerError(f"{path}: the file has more than {FILE_BYTES_MAX} bytes")
    try:
        document = yaml_lines.read(text)
    except yaml_lines.NotYaml as error:
        raise ConsumerError(f"{path}{f' line {error.line}' if error.line else ''}: {error}") from None
    problems = [*document.problems, *_names_given_twice(document.value), *_unfit_answers(document.value)]
    try:
        rules = Rules.model_validate(document.value)
    except ValidationError as error:
        unread = {place for place, _ in problems}
        found = [_problem(details) for details in error.errors(include_url=False)]
        problems += [problem for problem in found if problem[0] not in unread]
    if problems:
        lines = sorted((document.line(place), _place(document.value, place), message) for place, message in problems)
        raise ConsumerError("\n".join(f"{path} line {line}: {place}{message}" for line, place, message in lines))
    warned = ((document.line(place), message) for place, message in _never_reached(rules))
    rules._warnings = tuple(f"{path} line {line}: {message}" for line, message in sorted(warned))  # noqa: SLF001 - ours, set once
    return rules


_Problem = tuple[yaml_lines.Path, str]
_Part = TypeVar("_Part", bound=Strict)


def _names_given_twice(value: Any) -> Iterator[_Problem]:  # noqa: ANN401 - whatever the file holds
    rules = value.get("rules") if isinstance(value, dict) else None
    counted: Counter[str] = Counter()
    for index, rule in enumerate(rules if isinstance(rules, list) else []):
        name = rule.get("name") if isinstance(rule, dict) else None
        if isinstance(name, str):
            counted[name] += 1
            if counted[name] == 2:  # noqa: PLR2004 - the second one is the problem
                yield ("rules", index, "name"), f"two rules have the name {name!r}"


def _unfit_answers(value: Any) -> Iterator[_Problem]:  # noqa: ANN401 - whatever the file holds
    """What is wrong with an answer because of the rule or the disclosure around it, in every part that is right by itself."""
    if not isinstance(value, dict):
        return
    disclosure = _part(Disclosure, value.get("disclosure"))
    said_before = disclosure.text if disclosure else None
    rules = value.get("rules")
    replies: list[tuple[yaml_lines.Path, Reply | None, Iterable[str]]] = [
        (("rules", index, "reply"), rule.reply, rule.when.values)
        for index, written in enumerate(rules if isinstance(rules, list) else [])
        if (rule := _part(Rule, written)) is not None
    ]
    if (hand_over := _part(HandOver, value.get("hand_over"))) is not None:
        replies.append((("hand_over", "reply"), hand_over.reply, VALUES))
    for place, reply, known in replies:
        if reply is not None:
            for key, message in reply.problems(known=frozenset(known), disclosure=said_before):
                yield (*place, key), message


def _part(kind: type[_Part], written: Any) -> _Part | None:  # noqa: ANN401 - whatever the file holds
    """A part of the file by itself, or None when it is absent or wrong."""
    try:
        return kind.model_validate(written)
    except ValidationError:
        return None


def _never_reached(rules: Rules) -> Iterator[_Problem]:
    """The rules that another one always forestalls."""
    tried = [candidate.rule for candidate in rules.candidates]
    index_of = {rule.name: index for index, rule in enumerate(rules.rules)}
    for number, rule in enumerate(tried):
        before = next((earlier for earlier in tried[:number] if _forestalls(earlier, rule)), None)
        if before is not None:
            message = (
                f"rule {rule.name!r} never answers: rule {before.name!r} is tried before it and takes all that it would"
            )
            yield ("rules", index_of[rule.name]), message


def _forestalls(earlier: Rule, later: Rule) -> bool:
    if earlier.language != later.language or not earlier.when.covers(later.when):
        return False
    # A rule that lacks a value for its text is passed over.
    return earlier.decide is not None or earlier.reply is None or not earlier.reply.may_lack_a_value


def _problem(details: ErrorDetails) -> _Problem:
    message = details["msg"].removeprefix("Value error, ")
    if details["type"] == "extra_forbidden":
        message = "no such key"
    elif details["type"] == "literal_error":
        message = f"should be {details['ctx']['expected'].replace('True', 'true')}"
    elif details["type"] == "bool_type":
        message = "should be true or false"
    elif details["type"] == "int_type":
        message = "should be a whole number"
    elif details["type"] == "string_type":
        message += " (YAML takes true, null and numbers for something else: put it in quotes)"
    elif details["type"] in ("model_type", "model_attributes_type", "dict_type"):
        message = "should have keys with values"
    # pydantic's own marks, for a key of a mapping for example, stand in brackets.
    return tuple(step for step in details["loc"] if not (isinstance(step, str) and step.startswith("["))), message


def _place(value: Any, place: yaml_lines.Path) -> str:  # noqa: ANN401 - whatever the file holds
    steps = [str(step) for step in place if step != yaml_lines.AGAIN]
    if len(place) > 1 and place[0] == "rules" and isinstance(place[1], int):
        rule = value["rules"][place[1]]
        name = rule.get("name") if isinstance(rule, dict) else None
        known = f"rule {name!r}" if isinstance(name, str) else f"rule {place[1] + 1}"
        return f"{known} {'.'.join(steps[2:])}".rstrip() + ": "
    return f"{'.'.join(steps)}: " if steps else ""

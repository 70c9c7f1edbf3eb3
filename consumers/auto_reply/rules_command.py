"""`python -m consumers.auto_reply rules`: checks a rules file, and tries it on events. Sends nothing and needs no Kafka."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TextIO

import click
from fastavro import validate

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.deciders import Deciders
from consumers.auto_reply.decision import REASONS, Decision, decide
from consumers.auto_reply.rulebook.facts import Facts
from consumers.auto_reply.rules import Rules, load_rules
from consumers.decoding import Event, reader_schemas
from consumers.errors import ConsumerError

SHOWN_CHARACTERS_MAX = 100  # of a message, to recognise it by

_TIMES = ("occurred_at", "sent_at", "received_at")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.group()
def rules() -> None:
    """Check a rules file, or see which rule would answer and why."""


@rules.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Say everything that is wrong with FILE, each with its line; exit code 1 when something is.

    What is allowed and hardly meant, a rule that never answers for example, is a warning.
    """
    loaded = _loaded(file)
    click.echo(f"{file}: {_counted(len(loaded.rules), 'rule')}, tried in this order:")
    for candidate in loaded.candidates:
        click.echo(f"  {candidate.rule.name}: {', '.join(name for name, _ in candidate.checks)}")


@rules.command("try")
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("events", nargs=-1, type=click.File(encoding="utf-8"))
@click.option("--text", help="A customer's message, instead of EVENTS.")
@click.option("--at", type=click.DateTime(["%Y-%m-%dT%H:%M:%S%z"]), help="When it is written. [default: now]")
def try_rules(file: Path, *, events: tuple[TextIO, ...], text: str | None, at: datetime | None) -> None:
    """Show which rule of FILE would answer EVENTS and why, condition by condition. Nothing is sent, no decider is asked.

    EVENTS are files (- is stdin) with a line of JSON for each event, as `bridge tail messages --output json` prints them. They
    are taken in their order, each as if it were decided on when the bridge received it; so cooldowns, people who answer and the
    hand-over word show too.

    Example: python -m consumers.auto_reply rules try rules.yaml --text "Are you open on Sunday?"
    """
    loaded = _loaded(file)
    if (text is None) == (not events):
        raise click.UsageError("give either files with events or --text")
    if at is not None and text is None:
        raise click.UsageError("--at goes with --text: events have times of their own")
    present = at or datetime.now(UTC)
    said = {"message": {"text": text}, "received_at": present}
    found = _events_in(events) if text is None else iter([_event("messages", said, name="--text")])
    trial = _Trial(loaded)
    try:
        for event in found:
            click.echo("\n".join(trial.lines(event)))
    except ConsumerError as error:
        _fail(error)


class _Trial:
    """The conversations of the events so far, as they would have gone."""

    def __init__(self, loaded: Rules) -> None:
        self._rules = loaded
        self._conversations: dict[tuple[Any, Any], Conversation] = defaultdict(Conversation)
        self._said: dict[tuple[Any, Any], set[str]] = defaultdict(set)

    def lines(self, event: Event) -> Iterator[str]:
        """What becomes of the next event."""
        value = event.value
        key = (value["account_id"], value["customer_id"])
        conversation, said = self._conversations[key], self._said[key]
        now: datetime = value["received_at"]
        decision = decide(event, conversation, self._rules, now=now, event_age_max=timedelta.max)
        words = (value.get("message") or {}).get("text") or ""
        yield f"{now:%Y-%m-%d %H:%M:%S}Z {event.webhook_field} from {_shown(key[1] or '-')}: {_shown(words)}"
        if decision.action in ("reply", "ask") or decision.reason in ("no_rule", "cooldown", "daily_cap"):
            yield from self._tried(Facts(event, conversation, now=now))
        yield from _outcome(decision)
        seen = conversation.seen(event, is_own_echo=lambda echo: (echo.value["message"] or {}).get("text") in said)
        self._conversations[key] = seen.answered(decision)
        said |= {body["message"].get("text") for body in decision.messages if "message" in body}

    def _tried(self, facts: Facts) -> Iterator[str]:
        for candidate in self._rules.candidates:
            findings = [(name, check(facts)) for name, check in candidate.checks]
            yield f"  {'+' if all(finding.held for _, finding in findings) else '-'} rule {candidate.rule.name}"
            for name, finding in findings:
                yield f"      {'holds' if finding.held else 'fails'}  {name}: {_shown(finding.why)}"


def _outcome(decision: Decision) -> Iterator[str]:
    by = f" by rule {decision.rule}" if decision.rule else ""
    yield f"  → {decision.action}{by}: {decision.reason}, {REASONS[decision.reason]}"
    if decision.action == "ask":
        yield "    the decider is not asked here; when it fails, " + (
            "this is sent:" if decision.messages else "nothing is sent"
        )
    for body in decision.messages:
        yield f"    {json.dumps(body, ensure_ascii=False)}"


def _events_in(files: tuple[TextIO, ...]) -> Iterator[Event]:
    for file in files:
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _event_in(line, name=f"{file.name} line {number}")
        except UnicodeDecodeError:
            raise ConsumerError(f"{file.name}: this is not text in UTF-8") from None


def _event_in(line: str, *, name: str) -> Event:
    try:
        document = json.loads(line)
        value = document["value"]
        webhook_field = str(document["topic"]).rpartition(".")[2]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ConsumerError(f"{name}: this is no event as `bridge tail --output json` prints them") from None
    if not isinstance(value, dict) or webhook_field not in _schemas():
        raise ConsumerError(f"{name}: this is no event as `bridge tail --output json` prints them")
    return _event(webhook_field, value, name=name)


def _event(webhook_field: str, value: Mapping[str, Any], *, name: str) -> Event:
    """An event with whatever was given, and everything else as a customer's message has it."""
    given = {key: _moment(content, name) if key in _TIMES else content for key, content in value.items()}
    if given.get("received_at") is None:
        raise ConsumerError(f"{name}: the event has no received_at")
    schema = _schemas()[webhook_field]
    usual = dict.fromkeys(member["name"] for member in schema["fields"])
    usual |= {"event_id": name, "webhook_field": webhook_field, "origin": "messaging", "raw": "{}"}
    usual |= {"account_id": "account", "customer_id": "customer", "sender_id": "customer", "recipient_id": "account"}
    usual |= {"occurred_at": given["received_at"], "delivery_id": name}
    if not validate(usual | given, schema, raise_errors=False):
        raise ConsumerError(f"{name}: the event is not as the schema of {webhook_field} has it")
    return Event(f"-.{webhook_field}", 0, 0, webhook_field, usual | given, None)


@cache
def _schemas() -> Mapping[str, Any]:
    return reader_schemas()  # which reads their files


def _moment(content: object, name: str) -> datetime | None:
    """A time as `bridge tail` prints it, milliseconds since 1970, or one that is a time already."""
    if content is None or isinstance(content, datetime):
        return content
    if not isinstance(content, int):
        raise ConsumerError(f"{name}: a time of the event is no number of milliseconds")
    try:
        return _EPOCH + timedelta(milliseconds=content)
    except OverflowError:
        raise ConsumerError(f"{name}: a time of the event is out of range") from None


def _loaded(file: Path) -> Rules:
    try:
        loaded = load_rules(file)
        Deciders(loaded)  # imports the functions that they name
    except ConsumerError as error:
        _fail(error)
    for warning in loaded.warnings:
        click.echo(f"warning: {warning}", err=True)
    return loaded


def _fail(error: ConsumerError) -> NoReturn:
    for line in str(error).splitlines():
        click.echo(f"error: {line}", err=True)
    raise SystemExit(1)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _shown(text: str) -> str:
    """A text on one line of a terminal, whatever somebody put into it."""
    cut = text if len(text) <= SHOWN_CHARACTERS_MAX else f"{text[: SHOWN_CHARACTERS_MAX - 1]}…"
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in cut
    )

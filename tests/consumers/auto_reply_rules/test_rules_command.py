"""`rules check` and `rules try`: what a person who writes rules is shown."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from consumers.auto_reply.rulebook.facts import WEBHOOK_FIELDS
from consumers.auto_reply.rules_command import rules
from tests.consumers.analytics.stream import stream
from tests.consumers.auto_reply_rules.deciding import NOW, SMALLEST
from tests.consumers.samples import ACCOUNT, CUSTOMER, event, message
from tests.docs.markdown import ROOT
from tests.unit.street import decoded

TEXT = "hello"


def ran(*arguments: str, given: str | None = None) -> Result:
    """The command with these arguments."""
    return CliRunner().invoke(rules, arguments, input=given, catch_exceptions=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The contract's rules file."""
    path = tmp_path / "rules.yaml"
    path.write_text(SMALLEST, "utf-8")
    return path


def line(webhook_field: str, value: dict[str, Any]) -> str:
    """An event as `bridge tail --output json` prints it."""
    milliseconds = {key: int(time.timestamp() * 1000) for key, time in value.items() if isinstance(time, datetime)}
    topic = f"instagram.{webhook_field}"
    return json.dumps(
        {"topic": topic, "partition": 0, "offset": 1, "timestamp": 0, "key": "k", "value": value | milliseconds}
    )


def heard(text: str, minutes: int, *, part: dict[str, Any] | None = None, **changes: object) -> str:
    """A customer's message, so many minutes from the beginning."""
    moment = NOW + timedelta(minutes=minutes)
    times = {"occurred_at": moment, "received_at": moment, "sent_at": moment}
    return line("messages", message(text, part=part, **times, **changes))


def outcomes(result: Result) -> list[str]:
    """What was decided on each event."""
    return [line.strip().removeprefix("→ ").partition(",")[0] for line in result.output.splitlines() if "→" in line]


def test_check_lists_the_rules_in_the_order_in_which_they_are_tried(file: Path) -> None:
    """And ends with 0."""
    result = ran("check", str(file))
    assert result.exit_code == 0
    assert result.output.splitlines()[1:] == ["  hello: text_contains", "  rest: any_message"]


def test_check_says_every_problem_and_ends_with_1(file: Path) -> None:
    """One line for each on stderr, nothing on stdout."""
    file.write_text("version: 2\nrules:\n- {name: a, when: {}, reply: {}}\n", "utf-8")
    result = ran("check", str(file))
    assert (result.exit_code, result.stdout) == (1, "")
    assert [said.partition(" line ")[2].partition(":")[0] for said in result.stderr.splitlines()] == ["1", "3", "3"]
    assert all(said.startswith("error: ") for said in result.stderr.splitlines())


def test_check_warns_of_rules_that_never_answer_and_ends_with_0(file: Path) -> None:
    """What is allowed is no error."""
    file.write_text(
        SMALLEST.replace("hello, hi", "hello").replace("text_contains: [hello]", "any_message: true"), "utf-8"
    )
    result = ran("check", str(file))
    assert result.exit_code == 0
    assert "warning: " in result.stderr
    assert "rule 'rest' never answers" in result.stderr


def test_check_imports_the_functions_that_decide(file: Path) -> None:
    """A function that is not there is found before a customer writes."""
    file.write_text(
        'version: 1\nrules: [{name: a, when: {any_message: true}, decide: {function: "absent:x"}}]', "utf-8"
    )
    result = ran("check", str(file))
    assert result.exit_code == 1
    assert "decide.function absent:x cannot be imported" in result.stderr


def test_try_shows_condition_by_condition_why_a_rule_answers(file: Path) -> None:
    """With what would be sent."""
    result = ran("try", str(file), "--text", "Guten Tag", "--at", "2026-11-22T12:00:00Z")
    assert result.exit_code == 0
    assert result.output.splitlines() == [
        "2026-11-22 12:00:00Z messages from customer: Guten Tag",
        "  - rule hello",
        "      fails  text_contains: contains none of 'hello', 'hi'",
        "  + rule rest",
        "      holds  any_message: it is a message",
        "  → reply by rule rest: rule_matched, the rule answers",
        '    {"message": {"text": "…"}}',
    ]


def test_try_plays_the_events_of_a_file_as_a_conversation(tmp_path: Path) -> None:
    """Own echoes, a person who answers, a cooldown, a dashboard test, another customer: as it would have gone."""
    rules_file = tmp_path / "rules.yaml"
    rules_file.write_text(
        "version: 1\nhuman_pause_s: 3600\nrules:\n"
        "- {name: hello, cooldown_s: 600, when: {text_words: [hello]}, reply: {text: Hi!}}\n",
        "utf-8",
    )
    account = {"sender_id": ACCOUNT, "recipient_id": CUSTOMER}
    postback = {"mid": "m", "title": "Hours", "payload": "HOURS", "referral": None}
    moment = {"occurred_at": NOW, "received_at": NOW, "sent_at": NOW}
    events = [
        heard("hello", 0),
        heard("Hi!", 0, part={"is_echo": True}, **account),
        heard("hello", 1),
        heard("hello", 1, customer_id="2", sender_id="2"),
        heard("Anna here", 20, part={"is_echo": True}, **account),
        heard("hello", 30),
        heard("hello", 81),
        heard("hello", 90, origin="changes"),
        heard("bye", 90),
        line("messaging_postbacks", event("messaging_postbacks", postback=postback, **moment)),
    ]
    result = ran("try", str(rules_file), "-", given="\n".join(events))
    assert result.exit_code == 0
    assert outcomes(result) == [
        "reply by rule hello: rule_matched",
        "skip: echo",
        "skip by rule hello: cooldown",
        "reply by rule hello: rule_matched",
        "skip: echo",
        "skip: human_answered",
        "reply by rule hello: rule_matched",
        "skip: dashboard_test",
        "skip: no_rule",
        "skip: human_answered",
    ]


def test_try_takes_what_the_bridge_publishes() -> None:
    """Made-up conversations through the bridge's own street: every event has its outcome, answers and echoes among them."""
    published = [
        one for one, _ in stream("instagram", count=300, start_ms=int(NOW.timestamp() * 1000), speed=1.0).records
    ]
    lines = [
        json.dumps(
            {"topic": one.topic, "partition": 0, "offset": 0, "timestamp": 0, "key": None, "value": decoded(one)}
        )
        for one in published
        if one.topic.rpartition(".")[2] in WEBHOOK_FIELDS
    ]
    result = ran("try", str(ROOT / "consumers/auto_reply/rules.example.yaml"), "-", given="\n".join(lines))
    assert result.exit_code == 0, result.stderr
    found = outcomes(result)
    assert len(found) == len(lines) > 100
    assert {"skip: echo", "reply by rule rest: rule_matched"} <= set(found)


def test_try_shows_nothing_that_could_steer_a_terminal(file: Path) -> None:
    """What a customer wrote is shown with its control characters written out."""
    result = ran("try", str(file), "-", given=heard("hello \x1b[31m\u202e\nred", 0))
    assert "hello \\x1b[31m\\u202e\\nred" in result.output


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{", "<stdin> line 1: this is no event as `bridge tail --output json` prints them"),
        ("\n[]", "<stdin> line 2: this is no event"),
        ('{"topic": "instagram.nothing", "value": {}}', "line 1: this is no event"),
        ('{"topic": "instagram.messages", "value": null}', "line 1: this is no event"),
        ('{"topic": "instagram.messages", "value": {}}', "line 1: the event has no received_at"),
        (
            '{"topic": "instagram.messages", "value": {"received_at": "now"}}',
            "line 1: a time of the event is no number",
        ),
        ('{"topic": "instagram.messages", "value": {"received_at": 1e30}}', "line 1: a time of the event is no number"),
        (
            f'{{"topic": "instagram.messages", "value": {{"received_at": {10**17}}}}}',
            "line 1: a time of the event is out of",
        ),
        (
            '{"topic": "instagram.messages", "value": {"received_at": 1, "message": "x"}}',
            "not as the schema of messages has it",
        ),
    ],
)
def test_try_names_the_line_that_is_no_event(file: Path, given: str, said: str) -> None:
    """One line on stderr, exit code 1."""
    result = ran("try", str(file), "-", given=given)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_try_without_anything_to_try_is_wrong_usage(file: Path) -> None:
    """So is a time for events that have their own."""
    assert ran("try", str(file)).exit_code == 2
    assert ran("try", str(file), "-", "--text", TEXT).exit_code == 2
    assert ran("try", str(file), "-", "--at", "2026-11-22T12:00:00Z", given="").exit_code == 2

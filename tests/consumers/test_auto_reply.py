"""Which messages may be answered, by which rule, and what a broken rules file is told."""

from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from consumers.auto_reply.decision import reason_not_to_answer
from consumers.auto_reply.rules import load_rules
from consumers.errors import ConsumerError
from tests.consumers.samples import ACCOUNT, CUSTOMER, decoded, message

SMALLEST = """
{version: 1, rules: [
  {name: hello, when: {text_contains: [hello, hi]}, reply: {text: "Hi!"}},
  {name: rest, when: {any_message: true}, reply: {text: "…"}}]}
"""
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
JUST_NOW: dict[str, Any] = {"received_at": NOW, "occurred_at": NOW - timedelta(seconds=2)}


def reason(value: dict[str, Any], *, replay_id: str | None = None) -> str | None:
    """The decision on a message at NOW."""
    return reason_not_to_answer(decoded(value, replay_id=replay_id), now=NOW, age_max=timedelta(hours=1))


def test_message_of_a_customer_is_answered() -> None:
    """A customer's own, recent message may be answered, with or without a text."""
    assert reason(message(**JUST_NOW)) is None
    assert reason(message(None, part={"attachments": [{"type": "image", "payload": None}]}, **JUST_NOW)) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (message(part={"is_echo": True}, **JUST_NOW), "echo"),
        (message(sender_id=ACCOUNT, recipient_id=CUSTOMER, **JUST_NOW), "echo"),
        (message(part={"is_self": True}, **JUST_NOW), "self"),
        (message(part={"is_deleted": True}, **JUST_NOW), "unsent"),
        (message(origin="standby", **JUST_NOW), "standby"),
        (message(origin="changes", **JUST_NOW), "dashboard_test"),
        (message(customer_id=None, **JUST_NOW), "no_customer"),
        (message(**JUST_NOW | {"received_at": NOW - timedelta(hours=1, seconds=1)}), "received_too_long_ago"),
        (message(**JUST_NOW | {"occurred_at": NOW - timedelta(hours=24, seconds=1)}), "outside_answer_window"),
        (message(**JUST_NOW | {"occurred_at": None}), "time_unknown"),
        (message(**JUST_NOW) | {"message": None}, "not_a_message"),
    ],
)
def test_event_that_must_not_be_answered_is_not(value: dict[str, Any], expected: str) -> None:
    """Each of the reasons alone keeps an event from being answered."""
    assert reason(value) == expected


def test_replayed_event_is_not_answered() -> None:
    """A record that was published again carries its header, and that is enough."""
    assert reason(message(**JUST_NOW), replay_id="r1") == "replayed"


@pytest.mark.parametrize(
    ("text", "rule"),
    [("HELLO!", "hello"), ("oh hi you", "hello"), ("Guten Tag", "rest"), ("", "rest"), (None, "rest")],
)
def test_first_rule_that_matches_answers(tmp_path: Path, text: str | None, rule: str) -> None:
    """Rules are tried in their order; text is compared whatever its case; any_message takes what has no text."""
    (tmp_path / "rules.yaml").write_text(SMALLEST, "utf-8")
    found = load_rules(tmp_path / "rules.yaml").first_match(text)
    assert found is not None
    assert found.name == rule


def test_message_that_no_rule_matches_has_no_reply(tmp_path: Path) -> None:
    """Without a catch-all rule silence is a possible answer."""
    rules = "{version: 1, rules: [{name: a, when: {text_contains: [straße]}, reply: {text: ok}}]}"
    (tmp_path / "rules.yaml").write_text(rules, "utf-8")
    loaded = load_rules(tmp_path / "rules.yaml")
    assert loaded.first_match("hello") is None
    assert loaded.first_match(None) is None
    assert loaded.first_match("which STRASSE") is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nrules: [", "line 2: this is not YAML"),
        ("version: 2\nrules: [{name: a, when: {any_message: true}, reply: {text: ok}}]", "version"),
        ("version: 1\nrules: []", "rules"),
        ("rules: [{name: a, when: {any_message: true}, reply: {text: ok}}]", "version: Field required"),
        ("version: 1\nrules: [{name: a, when: {any_message: true}, reply: {text: ok}, mood: bad}]", "rule 'a' mood"),
        ("version: 1\nrules: [{name: a, when: {text_contains: [yes]}, reply: {text: ok}}]", "put it in quotes"),
        ("version: 1\nrules: [{name: a, when: {text_contains: []}, reply: {text: ok}}]", "rule 'a' when.text_contains"),
        ("version: 1\nrules: [{name: a, when: {any_message: false}, reply: {text: ok}}]", "rule 'a' when.any_message"),
        ("version: 1\nrules: [{name: a, when: {}, reply: {text: ok}}]", "rule 'a' when: needs exactly one"),
        ("version: 1\nrules: [{when: {any_message: true}, reply: {text: ok}}]", "rule 1 name"),
        (f"version: 1\nrules: [{{name: a, when: {{any_message: true}}, reply: {{text: {'ä' * 501}}}}}]", "1002 bytes"),
        (
            f"version: 1\nrules: [{2 * '{name: a, when: {any_message: true}, reply: {text: ok}}, '}]",
            "two rules have the name 'a'",
        ),
        ("[]", "rules.yaml: "),
        ("", "rules.yaml: "),
        ("text: \x00", "this is not YAML"),
    ],
)
def test_broken_rules_file_is_refused_in_one_line_that_names_the_rule(tmp_path: Path, text: str, said: str) -> None:
    """One problem is one line, which says where it is."""
    (tmp_path / "rules.yaml").write_text(text, "utf-8")
    with pytest.raises(ConsumerError) as caught:
        load_rules(tmp_path / "rules.yaml")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_reply_of_exactly_1000_bytes_is_taken(tmp_path: Path) -> None:
    """The limit counts bytes of UTF-8, and its last byte is still inside."""
    text = f"version: 1\nrules: [{{name: a, when: {{any_message: true}}, reply: {{text: {'ä' * 500}}}}}]"
    (tmp_path / "rules.yaml").write_text(text, "utf-8")
    assert load_rules(tmp_path / "rules.yaml").rules[0].reply.text == "ä" * 500


def test_example_rules_of_the_package_load() -> None:
    """The file that `bridge dev` and copiers begin with is a valid one."""
    example = resources.files("consumers.auto_reply") / "rules.example.yaml"
    with resources.as_file(example) as path:
        assert [rule.name for rule in load_rules(path).rules] == ["hello", "rest"]


def test_missing_rules_file_is_named(tmp_path: Path) -> None:
    """The error says which file and why."""
    with pytest.raises(ConsumerError, match=r"absent\.yaml: the rules cannot be read \(No such file or directory\)"):
        load_rules(tmp_path / "absent.yaml")

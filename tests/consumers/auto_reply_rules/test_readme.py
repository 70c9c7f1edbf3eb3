"""README.md of auto_reply: its rules load, its tables are the code's, its decider decides."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.deciders import Deciders
from consumers.auto_reply.decision import REASONS
from consumers.auto_reply.rulebook.conditions import CONDITIONS
from consumers.auto_reply.rulebook.facts import VALUES
from consumers.auto_reply.rulebook.reply import Reply
from consumers.auto_reply.rulebook.rule import Rule
from consumers.auto_reply.rules import Rules
from tests.consumers.auto_reply_rules.deciding import decision_on, rules_of, said, texts
from tests.docs.markdown import ROOT, fences, rows, spans

README = ROOT / "consumers/auto_reply/README.md"


def keys(heading: str) -> set[str]:
    """The first column of a table, where some cells name two."""
    return {key for cells in rows(README, heading) for key in cells[0].split(", ")}


def test_tables_of_the_readme_are_those_of_the_code() -> None:
    """Every key, condition, value and reason, no more and no less."""
    assert keys("| key of a rule | is |") == set(Rule.model_fields)
    assert keys("| condition | holds when |") == set(CONDITIONS)
    assert keys("| key of a reply | is |") == set(Reply.model_fields)
    assert keys("| key of the file | is |") == set(Rules.model_fields) - {"version", "rules"}
    assert {reason: says.replace("`", "") for reason, says in REASONS.items()} == dict(
        rows(README, "| reason | says |")
    )
    assert set(VALUES) <= set(spans(README))


def test_rules_of_the_readme_load() -> None:
    """Every block of YAML is a whole file without a warning."""
    blocks = fences(README, "yaml")
    assert len(blocks) == 2
    assert [rules_of(block).warnings for block in blocks] == [(), ()]


async def test_function_of_the_readme_answers_the_question_of_the_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it stands there, named as it is there; the question has the keys that are shown."""
    (function,) = fences(README, "python")
    (question,) = fences(README, "json")
    shown = json.loads(question)
    (tmp_path / "shop_bot.py").write_text(
        f"{function}\n\nasked = []\n\n\ndef ask(question):\n    asked.append(question)\n", "utf-8"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    text = fences(README, "yaml")[1].replace("timeout_ms: 500", "timeout_ms: 5000")
    try:
        for rules, expected in (
            (rules_of(text), "10023 is on its way"),
            (rules_of(text.replace(":answer", ":ask")), "We look"),
        ):
            happened = said(shown["event"]["message"]["text"])
            async with Deciders(rules) as deciders:
                decision = await deciders.settled(decision_on(happened, rules), happened, Conversation())
            assert expected in texts(decision)[0]
        (asked,) = sys.modules["shop_bot"].asked
    finally:
        sys.modules.pop("shop_bot", None)
    assert asked.keys() == shown.keys()
    assert asked["conversation"].keys() == shown["conversation"].keys()
    for part in ("event", "values"):
        assert shown[part].keys() <= asked[part].keys()
    assert asked["values"]["order"] == shown["values"]["order"]

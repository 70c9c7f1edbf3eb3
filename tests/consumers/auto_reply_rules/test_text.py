"""Text compared as people mean it, and regular expressions whose time is bounded."""

from __future__ import annotations

import time
import unicodedata
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.auto_reply.rulebook.text import Pattern, folded, in_words
from tests.consumers.auto_reply_rules.deciding import decision_on, examples, rule, rules_of, said

# The letters by their code points, because the eye does not tell them apart.
DOTTED_CAPITAL, DOTLESS = "\u0130", "\u0131"

# Meta allows 1000 bytes; of these expressions each took more than a minute for it.
CATASTROPHES = {r"(a+)+$": 999 * "a" + "!", r"(?:(?:a|aa)+)+b": 1000 * "a", r"(x+x+)+y": 1000 * "x"}
CUT_OFF_WITHIN_S = 1.0  # 30 ms on a quiet machine
COMPILED_WITHIN_S = 10.0  # half a second on a quiet machine


@pytest.mark.parametrize(
    ("condition", "text", "held"),
    [
        ("{text_contains: [Straße]}", "welche STRASSE?", True),
        ("{text_contains: [strasse]}", "welche Straße?", True),
        ("{text_contains: [größe]}", "Gro\u0308ße 42", True),
        ("{text_contains: [ΟΔΟΣ]}", "ποια οδος;", True),
        ("{text_contains: [hello]}", "h\u200bel\u00adlo", True),
        ("{text_contains: [❤]}", "❤\ufe0f!", True),
        ("{text_contains: [配送]}", "海外配送はできますか", True),
        ("{text_contains: [hi]}", "this", True),
        ("{text_words: [hi]}", "this", False),
        ("{text_words: [hi]}", "Hi!", True),
        ("{text_words: [real person]}", "a real\n person?", True),
        ("{text_words: [real person]}", "real, person", True),
        ("{text_words: [real person]}", "a person, real", False),
        ("{text_words: [it's]}", "It's me", True),
        ("{text_words: [नमस्ते]}", "नमस्ते दुनिया", True),
        ("{text_words: [नमस]}", "नमस्ते दुनिया", False),
        ("{text_words: [hi, hey]}", "hey you", True),
        ("{regex: '^order \\d+$'}", "ORDER 17", True),
        ("{regex: '(?-i:ORDER)'}", "order", False),
        ("{regex: straße}", "STRASSE", True),
        ("{regex: 'gro\u0308ße'}", "größe", True),
        ("{regex: istanbul}", f"{DOTTED_CAPITAL}STANBUL", True),
        ("{regex: ok}", None, False),
        ("{text_contains: [ok]}", None, False),
    ],
)
def test_text_is_compared_as_people_read_it(condition: str, text: str | None, held: bool) -> None:  # noqa: FBT001 - a case
    """Case, composition, invisible characters and the writing of emojis make no difference; the borders of words do."""
    assert (decision_on(said(text), rule(condition)).rule == "a") == held


@pytest.mark.parametrize(
    ("word", "text", "turkish", "other"),
    [
        ("istanbul", f"{DOTTED_CAPITAL}STANBUL", True, False),
        (f"{DOTTED_CAPITAL}stanbul", "istanbul", True, False),
        (f"{DOTLESS}{DOTLESS}", "II", True, False),
        ("hi", "HI", False, True),
        ("kargo", "KARGO", True, True),
    ],
)
def test_turkish_i_keeps_its_dot_in_turkish_alone(word: str, text: str, turkish: bool, other: bool) -> None:  # noqa: FBT001 - a case
    """A language of the file, or of one rule, says which letters belong together."""
    condition = f"{{text_words: [{word}]}}"
    assert (decision_on(said(text), rule(condition, top="language: tr")).rule == "a") == turkish
    assert (decision_on(said(text), rule(condition, more="  language: az\n")).rule == "a") == turkish
    assert (decision_on(said(text), rule(condition)).rule == "a") == other
    assert (decision_on(said(text), rule(condition, top="language: tr", more="  language: en\n")).rule == "a") == other


@examples
@given(st.text())
def test_folding_again_changes_nothing(text: str) -> None:
    """A folded text is folded, and in every composition the same."""
    once = folded(text, None)
    assert folded(once, None) == once
    assert folded(unicodedata.normalize("NFD", text), None) == once


@examples
@given(st.lists(st.sampled_from(["a", "bc", "größe", "42", "नमस्ते"]), min_size=1), st.data())
def test_words_that_stand_in_a_text_are_found(words: list[str], data: st.DataObject) -> None:
    """Any run of its words is found in a text, with whatever stands between them."""
    begin = data.draw(st.integers(0, len(words) - 1))
    end = data.draw(st.integers(begin + 1, len(words)))
    text = data.draw(st.sampled_from([" ", ", ", "… ", "\n"])).join(words)
    assert in_words(folded(" ".join(words[begin:end]), None)) in in_words(folded(text, None))


@pytest.mark.parametrize("expression", CATASTROPHES)
def test_catastrophic_expression_is_cut_off_and_the_other_rules_answer(expression: str) -> None:
    """It is taken for one that does not match, its rule is named, and the event is decided in time."""
    rules = rules_of(f"""
version: 1
rules:
- {{name: bad, when: {{regex: '{expression}'}}, reply: {{text: bad}}}}
- {{name: rest, when: {{any_message: true}}, reply: {{text: ok}}}}
""")
    begun = time.monotonic()
    decision = decision_on(said(CATASTROPHES[expression]), rules)
    assert time.monotonic() - begun < CUT_OFF_WITHIN_S
    assert (decision.rule, decision.cut_off) == ("rest", ("bad",))


def test_many_catastrophic_expressions_share_one_events_time() -> None:
    """A hundred bad rules take no hundred times as long: when the time is used up, none is begun."""
    bad = "".join(f"- {{name: bad{number}, when: {{regex: '(a+)+$'}}, reply: {{text: x}}}}\n" for number in range(100))
    rules = rules_of(f"version: 1\nrules:\n{bad}- {{name: rest, when: {{any_message: true}}, reply: {{text: ok}}}}\n")
    begun = time.monotonic()
    decision = decision_on(said(CATASTROPHES[r"(a+)+$"]), rules)
    assert time.monotonic() - begun < CUT_OFF_WITHIN_S
    assert decision.rule == "rest"
    assert len(decision.cut_off) == 100


# Each of these is compiled by writing the repeated part out; the first two as well as they can be within the limits.
COSTLY = {
    f"(?:{80 * '[a-z]?'}){{1000}}": True,
    "(?:(?:a|b){25}c){40}": True,
    "(a{1000}){1000}b": False,
    "(?:(?:a|b) {10}){10} {11}": False,
    "((((a{,10}) {3,10}){5,10}) {10}){2,}": False,
}


@pytest.mark.parametrize(("expression", "allowed"), COSTLY.items())
def test_expression_that_repeats_is_compiled_in_time_or_refused(expression: str, allowed: bool) -> None:  # noqa: FBT001 - a case
    """Its size in memory has a limit too: one of twenty characters could take all there is."""
    begun = time.monotonic()
    with nullcontext() if allowed else pytest.raises(ValueError, match="may repeat a part"):
        Pattern(expression)
    assert time.monotonic() - begun < COMPILED_WITHIN_S

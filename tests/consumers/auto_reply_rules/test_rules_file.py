"""What the rules file may say, and what a broken one is told: every problem with its line."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from consumers.auto_reply.rules import load_rules
from consumers.errors import ConsumerError
from tests.consumers.auto_reply_rules.deciding import SMALLEST, rules_of


def problems(text: str) -> list[str]:
    """What a file is told, without its name."""
    with pytest.raises(ConsumerError) as caught:
        rules_of(text)
    return [line.partition("rules.yaml")[2].lstrip(" :") for line in str(caught.value).splitlines()]


def one_rule(part: str, *, top: str = "") -> str:
    """A file whose rule `a` says this besides its name; its line is 4."""
    return f"version: 1\n{top}\nrules:\n- {{name: a, {part}}}\n"


REST = "when: {any_message: true}, reply: {text: ok}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("version: 1\nrules: [", "line 2: this is not YAML"),
        ("text: \x00", "this is not YAML"),
        ("[]", "line 1: should have keys with values"),
        ("", "line 1: should have keys with values"),
        ("version: 2\nrules: [{name: a, when: {any_message: true}, reply: {text: ok}}]", "line 1: version: "),
        ("version: 1\nrules: []", "line 2: rules: "),
        ("rules: [{name: a, when: {any_message: true}, reply: {text: ok}}]", "line 1: version: Field required"),
        ("version: 1\nrules: 5", "line 2: rules: "),
        (one_rule(f"{REST}, mood: bad"), "line 4: rule 'a' mood: no such key"),
        (one_rule(f"{REST}, name: b"), "line 4: rule 'a' name: stands here twice"),
        (one_rule(f"{REST}, <<: 5"), "line 4: rule 'a' <<: no such key"),
        (one_rule("when: {any_message: !!bool yes}, reply: {text: ok}"), "when.any_message: "),
        (one_rule(f"{REST}, cooldown_s: !!int soon"), "line 4: rule 'a' cooldown_s: this number cannot be read"),
        (one_rule(f"{REST}, cooldown_s: {5000 * '9'}"), "line 4: rule 'a' cooldown_s: this number cannot be read"),
        (one_rule("when: {text_contains: !python/tuple [a]}, reply: {text: ok}"), "tags are not taken"),
        ("version: 1\nrules: [{when: {any_message: true}, reply: {text: ok}}]", "line 2: rule 1 name: Field required"),
        (one_rule("when: {any_message: true}"), "line 4: rule 'a': needs a reply, or a decide"),
        (one_rule("when: {any_message: yes}, reply: {text: ok}"), "line 4: rule 'a' when.any_message: should be true"),
        (one_rule("when: {first_message: 1}, reply: {text: ok}"), "when.first_message: should be true or false"),
        (one_rule(f"{REST}, priority: high"), "line 4: rule 'a' priority: should be a whole number"),
        (one_rule(f"{REST}, language: Turkish"), "language: should be the two or three letters of a language, tr"),
        (one_rule(REST, top='disclosure: {text: " "}'), "line 2: disclosure.text: is blank"),
        (one_rule("when: {postback: [A], text_contains: [hi]}, reply: {text: ok}"), "when: no event meets all of this"),
        (
            one_rule('when: {regex: "(?:a|b){1000000000}"}, reply: {text: ok}'),
            "when.regex: may repeat a part 1000000000 times, 1000 are the most",
        ),
        (one_rule("when: {}, reply: {text: ok}"), "line 4: rule 'a' when: needs a condition"),
        (one_rule("when: {text_contains: []}, reply: {text: ok}"), "rule 'a' when.text_contains: the list is empty"),
        (one_rule("when: {text_contains: hi}, reply: {text: ok}"), "when.text_contains: should be a list"),
        (
            one_rule("when: {text_contains: [42]}, reply: {text: ok}"),
            "when.text_contains.0: Input should be a valid string",
        ),
        (one_rule('when: {text_contains: ["\\u200b"]}, reply: {text: ok}'), "only invisible characters"),
        (one_rule('when: {text_words: ["🙏"]}, reply: {text: ok}'), "when.text_words.0: has no word in it"),
        (
            one_rule("when: {quick_reply: false}, reply: {text: ok}"),
            "when.quick_reply: should be a list, [one, other], or",
        ),
        (one_rule("when: {story: [like]}, reply: {text: ok}"), "when.story.0: should be 'mention' or 'reply'"),
        (one_rule('when: {regex: "("}, reply: {text: ok}'), "when.regex: is no regular expression: "),
        (
            one_rule(f'when: {{regex: "{501 * "a"}"}}, reply: {{text: ok}}'),
            "when.regex: has 501 characters, 500 are the",
        ),
        (
            one_rule("when: {time: {from: 18:00, to: 24:01, zone: Europe/Berlin}}, reply: {text: ok}"),
            "when.time.to: should be a time of day, HH:MM from 00:00 to 24:00",
        ),
        (one_rule("when: {time: {from: 18:00, to: 18:00, zone: UTC}}, reply: {text: ok}"), "begins when it ends"),
        (
            one_rule("when: {time: {from: 18:00, to: 19:00, zone: Mars}}, reply: {text: ok}"),
            "when.time.zone: this machine",
        ),
        (
            one_rule("when: {time: {from: 18:00, to: 19:00, zone: ../x}}, reply: {text: ok}"),
            "when.time.zone: this machine",
        ),
        (one_rule(f"{REST}, language: Turkish"), "rule 'a' language: "),
        (one_rule(f"{REST}, cooldown_s: -1"), "rule 'a' cooldown_s: "),
        (one_rule(f"{REST}, cooldown_s: 2592001"), "rule 'a' cooldown_s: "),
        (one_rule(f"{REST}, daily_cap: 0"), "rule 'a' daily_cap: "),
        (one_rule(f"{REST}, daily_cap: 101"), "rule 'a' daily_cap: "),
        (one_rule("when: {any_message: true}, decide: {}"), "rule 'a' decide: needs exactly one of http and function"),
        (one_rule('when: {any_message: true}, decide: {function: "os.system"}'), "rule 'a' decide.function: "),
        (
            one_rule('when: {any_message: true}, decide: {http: {url: "file:///x"}}'),
            "rule 'a' decide.http.url: should be",
        ),
        (
            one_rule('when: {any_message: true}, decide: {function: "a:b", timeout_ms: 30001}'),
            "rule 'a' decide.timeout_ms: ",
        ),
        (one_rule(REST, top="hand_over: {silence_s: 5}"), "line 2: hand_over: needs words or payloads"),
        (one_rule(REST, top="accounts: {1784: {enabled: maybe}}"), "line 2: accounts.1784.enabled: "),
        (one_rule(REST, top=f"disclosure: {{text: {301 * 'a'}}}"), "line 2: disclosure.text: has 301 bytes"),
        (one_rule(REST, top="x: &a [*a]"), "nested too deep"),
        (one_rule(REST, top="x: " + 500 * "["), "nested too deep"),
    ],
)
def test_broken_rules_file_is_refused_in_one_line_that_names_the_place(text: str, said: str) -> None:
    """One problem is one line, which says where it is; nothing is guessed."""
    (line,) = problems(text)
    assert said in line


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("{}", "reply: needs exactly one of text and generic_template"),
        ('{text: " "}', "reply.text: is blank"),
        (f"{{text: {'ä' * 501}}}", "reply.text: has 1002 bytes in UTF-8, Graph API takes 1000 at most"),
        ('{text: "a } b"}', "reply.text: a brace stands alone"),
        ('{text: "{text!r}"}', "reply.text: a placeholder is a name in braces"),
        ('{text: "{text.__class__}"}', "reply.text: a placeholder is a name in braces"),
        ('{text: "{}"}', "reply.text: a placeholder is a name in braces"),
        ('{text: "{order}"}', "reply.text: nothing gives a value to {order}; there are ad_id, ad_title, "),
        ('{text: "{title}"}', "reply.text: nothing gives a value to {title}"),
        ('{text: a, fallback_text: "{text}"}', "reply.fallback_text: is for when a value is missing"),
        ("{text: a, quick_replies: [{title: 123456789012345678901, payload: P}]}", "quick_replies.0.title: "),
        ("{text: a, quick_replies: [{title: abcdefghijklmnopqrstu, payload: P}]}", "quick_replies.0.title: "),
        ('{text: a, quick_replies: [{title: " ", payload: P}]}', "quick_replies.0.title: is blank"),
        (f"{{text: a, quick_replies: [{14 * '{title: t, payload: P},'}]}}", "reply.quick_replies: "),
        ("{text: a, quick_replies: []}", "reply.quick_replies: the list is empty"),
        ("{generic_template: [{title: a}]}", "generic_template.0: needs one more of subtitle"),
        (f"{{generic_template: [{11 * '{title: t, subtitle: s},'}]}}", "reply.generic_template: "),
        (f"{{generic_template: [{{title: {81 * 'a'}, subtitle: s}}]}}", "generic_template.0.title: "),
        (f"{{generic_template: [{{title: a, subtitle: {81 * 'a'}}}]}}", "generic_template.0.subtitle: "),
        (
            f"{{generic_template: [{{title: a, buttons: [{4 * '{title: t, payload: P},'}]}}]}}",
            "generic_template.0.buttons: ",
        ),
        ("{generic_template: [{title: a, buttons: [{title: t}]}]}", "buttons.0: needs exactly one of url and payload"),
        ('{generic_template: [{title: a, url: "javascript:x"}]}', "generic_template.0.url: should be an address"),
        ("{generic_template: [{title: a, subtitle: s}], quick_replies: [{title: t, payload: P}]}", "belong to a text"),
    ],
)
def test_answer_that_graph_would_refuse_is_refused_at_load(reply: str, said: str) -> None:
    """Meta's limits, each one over by one, and templates that could never be filled."""
    (line,) = problems(one_rule(f"when: {{any_message: true}}, reply: {reply}"))
    assert line.startswith("line 4: rule 'a' ")
    assert said in line


def test_answer_at_the_limits_is_taken() -> None:
    """The last byte, character and element is still inside."""
    quick_replies = ", ".join("{title: abcdefghijklmnopqrst, payload: P}" for _ in range(13))
    rules_of(one_rule(f"when: {{any_message: true}}, reply: {{text: {'ä' * 500}, quick_replies: [{quick_replies}]}}"))
    card = f"{{title: {80 * 'a'}, subtitle: {80 * 'b'}, buttons: [{3 * '{title: abcdefghijklmnopqrst, payload: P},'}]}}"
    rules_of(one_rule(f"when: {{any_message: true}}, reply: {{generic_template: [{10 * f'{card},'}]}}"))


def test_disclosure_counts_towards_the_limit_of_every_text() -> None:
    """What stands before an answer has to fit in with it, and that is said before it is needed."""
    top = f"disclosure: {{text: {300 * 'b'}}}"
    assert problems(one_rule(f"when: {{any_message: true}}, reply: {{text: {699 * 'a'}}}", top=top)) == [
        "line 4: rule 'a' reply.text: has 699 bytes in UTF-8, the disclosure before it leaves 698"
    ]
    rules_of(one_rule(f"when: {{any_message: true}}, reply: {{text: {698 * 'a'}}}", top=top))


def test_all_problems_of_a_file_are_told_at_once_each_with_its_line() -> None:
    """Twice-given names and keys, missing parts and wrong values together, in the file's order."""
    text = """\
version: 1
cooldown_s: soon
rules:
  - name: a
    when:
      text_contains: [hello]
      regex: "[a"
    reply:
      text: Hi
      text: Ho
  - name: a
    when: {any_message: true}
    reply:
      text: ok
      quick_replies:
        - title: This title is too long for it
          payload: P
  - name: c
    when: {any_message: true}
    reply: {text: "{order}"}
"""
    assert [line.split(":")[0] + ":" + line.split(":")[1] for line in problems(text)] == [
        "line 2: cooldown_s",
        "line 7: rule 'a' when.regex",
        "line 10: rule 'a' reply.text",
        "line 11: rule 'a' name",
        "line 16: rule 'a' reply.quick_replies.0.title",
        "line 20: rule 'c' reply.text",
    ]


def test_words_that_older_yaml_takes_for_something_else_are_words() -> None:
    """`no`, `on` and `18:00` need no quotes, and an account's number neither."""
    rules = rules_of(
        """
version: 1
accounts: {17841405822304914: {enabled: false}}
rules:
- name: a
  when: {text_words: [no, on, y], time: {from: 18:00, to: 20:30, zone: UTC}, account: [17841405822304914]}
  reply: {text: off}
"""
    )
    when = rules.rules[0].when
    assert when.text_words == ("no", "on", "y")
    assert when.time is not None
    assert (when.time.begin, when.time.end) == (18 * 60, 20 * 60 + 30)
    assert when.account == ("17841405822304914",)
    assert not rules.is_enabled("17841405822304914")
    assert rules.is_enabled("1")


def test_part_that_is_written_once_may_be_used_again() -> None:
    """YAML's anchors work."""
    rules = rules_of(
        """
version: 1
rules:
- {name: a, when: {text_words: [hi]}, reply: &hello {text: Hello}}
- {name: b, when: {text_words: [hey]}, reply: *hello}
"""
    )
    assert [one.reply and one.reply.text for one in rules.rules] == ["Hello", "Hello"]


def test_aliases_that_multiply_are_cut_off() -> None:
    """A few lines that mean a billion values are refused before they are written out."""
    lines = ["x0: &x0 [a, a, a, a, a, a, a, a, a, a]"]
    lines += [f"x{number}: &x{number} [{', '.join(10 * [f'*x{number - 1}'])}]" for number in range(1, 10)]
    (line,) = problems("\n".join(lines))
    assert "values" in line


ANY = "when: {any_message: true}"
HELLO = "when: {text_contains: [hello, hi]}"


@pytest.mark.parametrize(
    ("first", "second", "warned"),
    [
        (ANY, HELLO, True),
        (ANY, "when: {text_words: [hi], first_message: true}", True),
        (ANY, "when: {quick_reply: true}", True),
        (ANY, ANY, True),
        (ANY, "when: {postback: true}", False),
        (ANY, "when: {referral_ref: [flyer]}", False),
        (ANY, "when: {first_message: true}", False),
        (HELLO, ANY, False),
        (HELLO, "when: {text_contains: [hi]}", True),
        (HELLO, "when: {text_contains: [hi, hey]}", False),
        (HELLO, "when: {text_contains: [hi], account: ['1']}", True),
        ("when: {text_contains: [hi], account: ['1']}", HELLO, False),
        ("when: {postback: true}", "when: {postback: [A]}", True),
        ("when: {postback: [A]}", "when: {postback: true}", False),
        (f"{HELLO}, language: tr", HELLO, False),
        (f"{HELLO}, priority: -1", HELLO, False),
    ],
)
def test_rule_that_can_never_answer_is_warned_of(first: str, second: str, warned: bool) -> None:  # noqa: FBT001 - a case
    """A rule that takes everything and stands before others is allowed, and said to be hardly meant."""
    text = (
        f"version: 1\nrules:\n- {{name: a, {first}, reply: {{text: a}}}}\n- {{name: b, {second}, reply: {{text: b}}}}\n"
    )
    told = [warning.partition("rules.yaml ")[2] for warning in rules_of(text).warnings if "rule 'b' never" in warning]
    assert bool(told) == warned
    assert told in ([], ["line 4: rule 'b' never answers: rule 'a' is tried before it and takes all that it would"])


def test_rule_that_may_lack_a_value_forestalls_nothing() -> None:
    """It is passed over when the value is missing, and so the one behind it may answer."""
    template = 'when: {any_message: true}, reply: {text: "{ref}"%s}'
    second = "\n- {name: b, when: {any_message: true}, reply: {text: b}}"
    assert rules_of(f"version: 1\nrules:\n- {{name: a, {template % ''}}}{second}").warnings == ()
    assert rules_of(f"version: 1\nrules:\n- {{name: a, {template % ', fallback_text: x'}}}{second}").warnings != ()


def test_example_rules_of_the_package_load_without_a_warning() -> None:
    """The file that copiers begin with is a valid one."""
    example = resources.files("consumers.auto_reply") / "rules.example.yaml"
    with resources.as_file(example) as path:
        assert load_rules(path).warnings == ()


def test_smallest_rules_file_loads() -> None:
    """The contract's."""
    assert [one.name for one in rules_of(SMALLEST).rules] == ["hello", "rest"]


def test_missing_rules_file_is_named(tmp_path: Path) -> None:
    """The error says which file and why."""
    with pytest.raises(ConsumerError, match=r"absent\.yaml: the rules cannot be read \(No such file or directory\)"):
        load_rules(tmp_path / "absent.yaml")


def test_file_that_is_no_rules_file_at_all_is_refused_by_its_size(tmp_path: Path) -> None:
    """Whatever was named by mistake is not read to its end."""
    with (tmp_path / "big").open("wb") as file:
        file.truncate(5 * 1024 * 1024)
    with pytest.raises(ConsumerError, match="has more than 4194304 bytes"):
        load_rules(tmp_path / "big")

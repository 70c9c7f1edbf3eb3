"""What holds for every event that the schemas allow, and for every file that somebody could hand us."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from consumers.auto_reply.conversation import Conversation
from consumers.auto_reply.decision import REASONS
from consumers.auto_reply.rulebook.reply import TEXT_BYTES_MAX, Reply, Unrenderable
from consumers.decoding import Event
from consumers.errors import ConsumerError
from tests.consumers.auto_reply_rules.deciding import NOW, RECORD_NAMES, decision_on, examples, rules_of
from tests.consumers.samples import ACCOUNT, CUSTOMER, schema
from tests.docs.markdown import ROOT

EXAMPLE = (ROOT / "consumers/auto_reply/rules.example.yaml").read_text("utf-8")
TAKES_EVERYTHING = rules_of("""
version: 1
disclosure: {text: I am a bot.}
hand_over: {words: [human], payloads: [HUMAN]}
rules:
- {name: a, when: {regex: "(?P<found>[a-f]+)|x"}, reply: {text: "{found} {text}", fallback_text: ok}}
- {name: b, when: {postback: true}, reply: {text: "{payload}"}}
- {name: c, when: {referral_ref: true}, reply: {text: "{ref}"}}
- {name: d, when: {attachment_type: true}, reply: {generic_template: [{title: t, subtitle: s}]}}
- {name: e, when: {first_message: true}, reply: {text: ok}}
- {name: f, when: {first_message: false}, reply: {text: ok}}
""")

PARTS = {
    "messages": "message",
    "messaging_postbacks": "postback",
    "messaging_referral": "referral",
    "messaging_seen": "read",
}
FLAGS = ("is_echo", "is_deleted", "is_self")

texts = st.one_of(st.text(max_size=20), st.sampled_from(["human", "HUMAN", "xabc", 500 * "ä"]))
moments = st.integers(-30 * 3600, 600).map(lambda seconds: NOW + timedelta(seconds=seconds))


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    """One value, and now and then one of the others."""
    return st.sampled_from([*9 * [usual], *others])


def values_of(kind: Any, records: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:  # noqa: ANN401 - of a schema
    """Anything that a part of a schema allows; `records` keeps those that the schema names a second time."""
    if isinstance(kind, list):
        return st.one_of([values_of(branch, records) for branch in kind])
    name = kind if isinstance(kind, str) else kind.get("logicalType", kind["type"])
    if name == "record":
        members = {member["name"]: values_of(member["type"], records) for member in kind["fields"]}
        return records.setdefault(f"{kind['namespace']}.{kind['name']}", st.fixed_dictionaries(members))
    if name == "array":
        return st.lists(values_of(kind["items"], records), max_size=2)
    plain = {
        "null": st.none(),
        "boolean": st.booleans(),
        "long": st.integers(),
        "string": texts,
        "timestamp-millis": moments,
    }
    return plain[name] if name in plain else records[name]


def events_of(webhook_field: str) -> st.SearchStrategy[Event]:
    """Any event of a topic; most are a customer's of just now, or else nearly every one would be skipped for many reasons."""
    records: dict[str, st.SearchStrategy[Any]] = {}
    fields = {member["name"]: member["type"] for member in schema(RECORD_NAMES[webhook_field])["fields"]}
    members = {name: values_of(kind, records) for name, kind in fields.items()} | {
        "origin": mostly("messaging", "changes", "standby"),
        "account_id": mostly(ACCOUNT, None),
        "customer_id": mostly(CUSTOMER, None),
        "sender_id": mostly(CUSTOMER, ACCOUNT, None),
        "occurred_at": mostly(NOW, None) | moments,
        "received_at": mostly(NOW) | moments,
    }
    part = PARTS[webhook_field]
    members[part] = values_of([branch for branch in fields[part] if branch != "null"], records)

    def event(value: dict[str, Any], flag: str | None, gone: str | None, replay_id: str | None) -> Event:
        value = {name: None if name == gone else content for name, content in value.items()}
        if value.get("message"):
            value["message"] = value["message"] | {name: name == flag for name in FLAGS}
        return Event(f"instagram.{webhook_field}", 0, 0, webhook_field, value, replay_id)

    return st.builds(
        event, st.fixed_dictionaries(members), mostly(None, *FLAGS), mostly(None, part), mostly(None, "r1")
    )


events = st.one_of([events_of(webhook_field) for webhook_field in PARTS])


@settings(examples, max_examples=200)  # a quarter of them is answered
@given(st.lists(events, max_size=4), events)
def test_whatever_arrives_is_decided_and_only_a_customers_fresh_event_is_answered(
    earlier: list[Event], event: Event
) -> None:
    """No event of the schemas breaks the rules, and what is sent obeys every limit, whoever made the rules."""
    conversation = Conversation()
    for happened in earlier:
        decision = decision_on(happened, TAKES_EVERYTHING, conversation)
        conversation = conversation.seen(happened, is_own_echo=lambda _: False).answered(decision)
    decision = decision_on(event, TAKES_EVERYTHING, conversation)
    assert decision.reason in REASONS
    assert bool(decision.messages) == (decision.action == "reply") or decision.action == "silence"
    if not decision.messages:
        return
    value, message = event.value, event.value.get("message") or {}
    assert event.webhook_field in ("messages", "messaging_postbacks", "messaging_referral")
    assert event.replay_id is None
    assert (value["origin"], value["account_id"], value["customer_id"]) == ("messaging", ACCOUNT, CUSTOMER)
    assert value["sender_id"] != ACCOUNT
    assert not any(message.get(flag) for flag in FLAGS)
    assert NOW - value["occurred_at"] <= timedelta(hours=24)
    assert NOW - value["received_at"] <= timedelta(hours=1)
    assert conversation.human_at is None or NOW - conversation.human_at >= timedelta(hours=12)
    for body in decision.messages:
        assert 0 < len(body["message"].get("text", "a").encode()) <= TEXT_BYTES_MAX
    assert sum("message" in body for body in decision.messages) == (
        2 if decision.rule == "d" and decision.discloses else 1
    )


@examples
@given(st.text(alphabet="ab{}ä ", max_size=60), st.text(max_size=1200), st.booleans())
def test_text_that_is_sent_has_at_most_1000_bytes(template: str, value: str, has_fallback: bool) -> None:  # noqa: FBT001 - drawn
    """Whatever the template and its value, or it is not sent."""
    try:
        reply = Reply(text=template, fallback_text="ok" if has_fallback else None)
        (body,) = reply.bodies({"a": value, "b": None}, disclosure=None)
    except (ValueError, Unrenderable):
        return
    assert 0 < len(body["message"]["text"].encode()) <= TEXT_BYTES_MAX


@examples
@given(st.data())
def test_whatever_the_file_says_it_is_loaded_or_refused_with_its_lines(data: st.DataObject) -> None:
    """The example with some of it gone, doubled, or replaced: no file ends in anything but rules or a list of problems."""
    lines = EXAMPLE.splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        begin = data.draw(st.integers(0, len(line)))
        end = data.draw(st.integers(begin, len(line)))
        piece = data.draw(
            st.sampled_from(["", line, "[", "]", "{", "}", ":", "- ", "*a", "&a ", "!!x ", "true", "0", "null", "?"])
        )
        lines[at : at + 1] = data.draw(
            st.sampled_from([[line[:begin] + piece + line[end:]], [line, line], [f"  {line}"], []])
        )
        lines = lines or [""]
    try:
        problems = rules_of("\n".join(lines)).warnings
    except ConsumerError as error:
        problems = tuple(str(error).splitlines())
        assert problems != ()
    assert all("rules.yaml" in problem for problem in problems)

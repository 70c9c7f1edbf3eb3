"""docs/catalogue.md, made of the schemas, of one record for each topic that the street really makes, and of the settings.

`make catalogue` writes it; test_site.py holds it equal to what is made now.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import fastavro.validation

from bridge.event import OTHER
from bridge.routing import AUTO_REPLIES, DEAD_LETTER, MANAGED_FIELDS
from bridge.schemas import load
from bridge.settings import KafkaSettings
from tests.docs.markdown import ROOT
from tests.unit.street import ACCOUNT, CUSTOMER, RECEIVED_AT, change, decoded, item, record, wrapped

DOCUMENT = ROOT / "docs/catalogue.md"

_MAY_BE_NULL = ", null when absent or unreadable"
"""Ends the doc of nearly every field; the document says it once."""

_DAY_MS = 24 * 60 * 60 * 1000

_COMMENT = (
    '{"id":"17865799348089039","text":"Lovely!","from":{"id":"1254459154682919","username":"anna"},'
    '"media":{"id":"17895695668004550","media_product_type":"FEED"}}'
)
_INSIGHTS = (
    '{"media_id":"17895695668004550","impressions":4021,"reach":3880,"taps_forward":2500,"taps_back":140,'
    '"exits":310,"replies":-1}'
)
BODIES = {
    "messages": wrapped(item('"message":{"mid":"aWdf-1","text":"Do you ship to Austria?"}')),
    "message_edit": wrapped(item('"message_edit":{"mid":"aWdf-1","text":"Do you ship to Graz?","num_edit":1}')),
    "message_reactions": wrapped(
        item('"reaction":{"mid":"aWdf-1","action":"react","reaction":"love","emoji":"\\u2764\\ufe0f"}')
    ),
    "messaging_postbacks": wrapped(
        item('"postback":{"mid":"aWdf-2","title":"Where is my order?","payload":"ORDER_STATUS"}')
    ),
    "messaging_seen": wrapped(item('"read":{"mid":"aWdf-3"}')),
    "messaging_optins": wrapped(item('"optin":{"type":"notification_messages","payload":"NEWS","title":"News"}')),
    "messaging_handover": wrapped(
        item('"pass_thread_control":{"new_owner_app_id":"1217981644879629","metadata":"to the help desk"}')
    ),
    "messaging_referral": wrapped(item('"referral":{"ref":"spring-sale","source":"SHORTLINK","type":"OPEN_THREAD"}')),
    "standby": wrapped(item('"message":{"mid":"aWdf-4","text":"Is anybody there?"}'), array="standby"),
    "comments": wrapped(change("comments", _COMMENT), array="changes"),
    "live_comments": wrapped(change("live_comments", _COMMENT), array="changes"),
    "mentions": wrapped(change("mentions", '{"media_id":"17895695668004550"}'), array="changes"),
    "story_insights": wrapped(change("story_insights", _INSIGHTS), array="changes"),
    "other": wrapped(change("something_new", '{"id":"1"}'), array="changes"),
    "dead_letter": b'{"object":"instagram","entry":[',
}
"""For each topic that the bridge writes a body as Meta sends it."""

LEDGER_EXAMPLE = {
    "event_id": "8c1f0e6fd5a94b9c7b1d2e3f40516273",
    "webhook_field": "messages",
    "account_id": ACCOUNT,
    "customer_id": CUSTOMER,
    "status": "skipped",
    "reason": "cooldown",
    "rule": "hello",
    "received_at": RECEIVED_AT,
    "decided_at": RECEIVED_AT + 250,
    "source_offset": 4711,
}
"""The ledger is the sample consumer's; the street has none to show."""

_INTRODUCTION = """\
# Topics, with examples

Made by `make catalogue` from `schemas/avro`, from the code, and from one delivery for each topic that walked the bridge's own street.
The prefix is `BRIDGE_TOPIC_PREFIX`, here the default. For people who read the topics; how topics are set is in
[topics.md](topics.md), what order and identity mean in [explanation.md](explanation.md), and how to begin in [tutorial.md](tutorial.md).

| of every event topic | is |
|---|---|
| key | `<account id>:<customer id>`, or `<account id>` alone: opaque, but equal keys are one conversation, in one partition, in order |
| value | Avro: Confluent's wire format with a schema registry (subject `<topic>-value`), else single-object encoding |
| timestamp | `received_at`, when the bridge got it; Meta's time is `occurred_at` |
| partitions | the same number in all event topics, so that equal keys have equal partition numbers |
| retention | {days} days (`BRIDGE_TOPIC_RETENTION_MS`); nothing is compacted |
| duplicates | possible, with the same `event_id`: remember it where something must happen once |
| personal data | texts, names and ids of people, in the typed part and in `raw`; URLs of media that end after a while |

## What every event has

{common}

Then come the typed part, under Meta's own key, and `raw`, Meta's JSON of the item as it came. Any key of the typed part
is null when Meta did not send it, or sent what cannot be read as its type.

Headers, as CloudEvents has them: `ce_specversion`, `ce_id` (the `event_id`), `ce_source`, `ce_type`, `ce_time`, `content-type`; and
`ig_delivery_id`, `traceparent` with tracing, `ig_replay_id` on what was published again.

In the examples keys that are null are left out, times are milliseconds, and bytes are text.
"""


def catalogue() -> str:
    """The whole document."""
    common = [member for member in load(OTHER)["fields"] if member["name"] not in ("named_field", "raw")]
    names = {member["name"] for member in common} | {"raw"}
    days = KafkaSettings.model_fields["topic_retention_ms"].default // _DAY_MS
    parts = [_INTRODUCTION.format(days=days, common=_table(_rows({"fields": common}, "")))]
    parts += [_topic(topic_field, names) for topic_field in MANAGED_FIELDS]
    return "\n".join(parts)


def _topic(topic_field: str, common: set[str]) -> str:
    schema = load(topic_field)
    event = topic_field not in (DEAD_LETTER, AUTO_REPLIES)
    own = {"fields": [member for member in schema["fields"] if not event or member["name"] not in common]}
    facts = [
        ("record", f"`instagram_bridge.{schema['name']}` in `schemas/avro/instagram_bridge.{schema['name']}.avsc`"),
        ("subject", f"`instagram.{topic_field}-value`"),
        ("key", {DEAD_LETTER: "null", AUTO_REPLIES: "that of the event"}.get(topic_field, "the conversation's")),
        ("who reads it", _READERS.get(topic_field, "consumers")),
    ]
    if event:
        facts.insert(2, ("`ce_type`", f"`instagram_bridge.{topic_field}.v1`"))
    rows = "\n".join(f"| {name} | {fact} |" for name, fact in facts)
    fields = list(_rows(own, "", deep=topic_field != "standby"))
    shown = json.dumps(_without_nulls(_example(topic_field)), indent=2, ensure_ascii=False)
    return (
        f"## instagram.{topic_field}\n\n{schema['doc']}\n\n| | |\n|---|---|\n{rows}\n"
        + (f"\n{_table(fields)}\n" if fields else "")
        + f"\n```json\n{shown}\n```\n"
    )


_READERS = {
    DEAD_LETTER: "operators alone: `bridge replay dead-letters`; consumers need it for nothing",
    AUTO_REPLIES: "the sample auto_reply, and whoever wants to know what it answered",
    OTHER: "operators, to see what is new (`bridge drift`); consumers that can do with `raw`",
    "standby": "consumers that only watch: another app has the conversation, so nobody should answer",
}


def _example(topic_field: str) -> dict[str, Any]:
    if topic_field == AUTO_REPLIES:
        fastavro.validation.validate(LEDGER_EXAMPLE, fastavro.parse_schema(load(AUTO_REPLIES)))
        return LEDGER_EXAMPLE
    made = record(BODIES[topic_field])
    assert made.topic == f"instagram.{topic_field}"
    return decoded(made)


def _without_nulls(node: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(node, dict):
        return {key: _without_nulls(value) for key, value in node.items() if value is not None}
    if isinstance(node, list):
        return [_without_nulls(value) for value in node]
    return node.decode() if isinstance(node, bytes) else node


def _table(rows: Iterator[tuple[str, str, str]] | list[tuple[str, str, str]]) -> str:
    lines = [f"| `{path}` | {kind} | {doc} |" for path, kind, doc in rows]
    return "\n".join(["| key | type | is |", "|---|---|---|", *lines])


def _rows(schema: dict[str, Any], within: str, *, deep: bool = True) -> Iterator[tuple[str, str, str]]:
    """Path, type and doc of every field; those of an inner record follow it."""
    for member in schema["fields"]:
        path = f"{within}{member['name']}"
        branches = member["type"] if isinstance(member["type"], list) else [member["type"]]
        (kind,) = [branch for branch in branches if branch != "null"]
        is_array = isinstance(kind, dict) and kind["type"] == "array"
        inner = kind["items"] if is_array else kind
        named = inner.get("logicalType") or inner["type"] if isinstance(inner, dict) else inner
        if named == "record" or (isinstance(inner, str) and "." in inner):
            named = "record"
        yield path, f"array of {named}s" if is_array else named, member["doc"].replace(_MAY_BE_NULL, "")
        if deep and isinstance(inner, dict) and inner["type"] == "record":
            yield from _rows(inner, f"{path}[]." if is_array else f"{path}.")


if __name__ == "__main__":
    DOCUMENT.write_text(catalogue(), "utf-8")

from __future__ import annotations

import json
import subprocess
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge.local.meta.deliveries import Plan, deliveries
from bridge.local.meta.truth import DEAD_LETTER, Event, Ledger, read

ACCOUNT = "17841400000000017"
CUSTOMER = "6491234567890123"


def sha256(text: str) -> str:
    """What coreutils say of these bytes."""
    printed = subprocess.run(["sha256sum"], input=text.encode(), capture_output=True, check=True).stdout
    return printed.decode().split()[0]


def filled(text: str) -> str:
    """The text with real ids for A (the account), C (the customer), both parties of an item, and an entry."""
    for name, value in (
        ("<entry>", '{"object":"instagram","entry":[{"id":"<A>","time":1795338000999'),
        ("<to account>", '"sender":{"id":"<C>"},"recipient":{"id":"<A>"},"timestamp":1795338000123'),
        ("<to customer>", '"sender":{"id":"<A>"},"recipient":{"id":"<C>"},"timestamp":1795338000123'),
        ("<A>", ACCOUNT),
        ("<C>", CUSTOMER),
    ):
        text = text.replace(name, value)
    return text


class Vector(NamedTuple):
    """A body of one event; `identity` is the text whose SHA-256 its event_id begins, <digest> that of `canonical`."""

    body: str
    webhook_field: str
    key: str | None
    kind: str | None
    identity: str
    canonical: str = ""


VECTORS = {
    "message": Vector(
        r'<entry>,"messaging":[{<to account>,"message":{"mid":"m1","text":"\u00e4"}}]}]}',
        "messages",
        "<A>:<C>",
        "message",
        '["1","messages","<A>","<C>","message","m1",null]',
    ),
    "unsend with numbers for ids": Vector(
        '<entry>,"messaging":[{"sender":{"id":<C>},"recipient":{"id":<A>},"message":{"is_deleted":true,"mid":"m1"}}]}]}',
        "messages",
        "<A>:<C>",
        "message",
        '["1","messages","<A>","<C>","message","m1",true]',
    ),
    "echo in an entry of nobody": Vector(
        '{"object":"instagram","entry":[{"id":"0","messaging":[{<to customer>,"message":{"mid":"m2","is_echo":true}}]}]}',
        "messages",
        "<A>:<C>",
        "message",
        '["1","messages","<A>","<C>","message","m2",null]',
    ),
    "edit that edits nothing": Vector(
        '<entry>,"messaging":[{"timestamp":1795338000,"message_edit":{"mid":"m1","num_edit":"0"}}]}]}',
        "message_edit",
        "<A>",
        "message_edit",
        '["1","message_edit","<A>",null,"message_edit","m1",0]',
    ),
    "reaction": Vector(
        '<entry>,"messaging":[{<to account>,"reaction":'
        r'{"mid":"m1","action":"react","reaction":"love","emoji":"\u2764\ufe0f"}}]}]}',
        "message_reactions",
        "<A>:<C>",
        "reaction",
        '["1","message_reactions","<A>","<C>","reaction","m1","react","love","❤️",1795338000123]',
    ),
    "postback without mid": Vector(
        '{"object":"instagram","entry":[{"id":"<C>","messaging":[{<to account>,"postback":{"title":"T","payload":"P"}}]}]}',
        "messaging_postbacks",
        "<A>:<C>",
        "postback",
        '["1","messaging_postbacks","<A>","<C>","postback",null,1795338000123,"P"]',
    ),
    "read": Vector(
        '<entry>,"messaging":[{<to account>,"read":{"mid":"m2"}}]}]}',
        "messaging_seen",
        "<A>:<C>",
        "read",
        '["1","messaging_seen","<A>","<C>","read","m2",1795338000123]',
    ),
    "referral": Vector(
        '<entry>,"messaging":[{<to account>,"referral":{"ref":"r","source":"s","type":"OPEN_THREAD"}}]}]}',
        "messaging_referral",
        "<A>:<C>",
        "referral",
        '["1","messaging_referral","<A>","<C>","referral",1795338000123,"r","s"]',
    ),
    "standby": Vector(
        '<entry>,"standby":[{<to account>,"postback":{"mid":"m3","title":"T"}}]}]}',
        "standby",
        "<A>:<C>",
        "postback",
        '["1","standby","<A>","<C>","postback","m3"]',
    ),
    "flat comment": Vector(
        '<entry>,"field":"comments","value":{"id":"c1","from":{"id":"<C>"},"text":"t"}}]}',
        "comments",
        "<A>:<C>",
        "comments",
        '["1","comments","<A>","<C>","comments","c1"]',
    ),
    "mention": Vector(
        '<entry>,"changes":[{"value":{"media_id":"1","comment_id":"2"},"field":"mentions"}]}]}',
        "mentions",
        "<A>",
        "mentions",
        '["1","mentions","<A>",null,"mentions","<digest>"]',
        '{"field":"mentions","value":{"comment_id":"2","media_id":"1"}}',
    ),
    "no known key": Vector(
        r'<entry>,"messaging":[ {"recipient":{"id":"<A>"}, "n": 1.50, "b": [true, null, 1e2], "a": "\ud83d \u00e4\/\n"} ]}]}',
        "other",
        "<A>",
        None,
        '["1","other","<A>",null,null,"<digest>"]',
        '{"a":"\ufffd ä/\\n","b":[true,null,1e2],"n":1.50,"recipient":{"id":"<A>"}}',
    ),
    "item that is no object": Vector(
        '<entry>,"messaging":[17]}]}', "other", "<A>", None, '["1","other","<A>",null,null,"<digest>"]', "17"
    ),
    "dashboard's test": Vector(
        '{"object":"instagram","entry":[{"id":"0","time":1795338000,"changes":[{"field":"messages","value":{"sender":'
        '{"id":"12334"},"recipient":{"id":"23245"},"timestamp":"1527459824","message":{"mid":"random_mid"}}}]}]}',
        "messages",
        "23245:12334",
        "message",
        '["1","messages","23245","12334","message","random_mid",null]',
    ),
    "bare mention": Vector(
        '{"field":"mentions","value":{"media_id":"1"}}',
        "mentions",
        None,
        "mentions",
        '["1","mentions",null,null,"mentions","<digest>"]',
        '{"field":"mentions","value":{"media_id":"1"}}',
    ),
}


@pytest.mark.parametrize("name", VECTORS)
def test_event_of_a_literal_body_has_the_id_sha256sum_gives(name: str) -> None:
    """Identity, webhook field, key and kind follow the contract, by a hash that is not ours."""
    vector = VECTORS[name]
    identity = filled(vector.identity).replace("<digest>", sha256(filled(vector.canonical)))
    (event,) = read(filled(vector.body).encode())
    assert event.event_id == sha256(identity)[:32]
    assert event[1:4] == (vector.webhook_field, vector.key and filled(vector.key), vector.kind)
    assert read(filled(f"[ {vector.body} ]").encode()) == (event,)


@pytest.mark.parametrize(
    ("timestamp", "occurred_at"),
    [
        ("1795338000", 1795338000000),
        ('"1527459824"', 1527459824000),
        ("1795338000123", 1795338000123),
        ("1795338000123456", 1795338000123),
        ("900000000000000000", None),
        ('"soon"', None),
        ("null", None),
    ],
)
def test_occurred_at_of_any_unit_is_milliseconds(timestamp: str, occurred_at: int | None) -> None:
    """The unit is told by the magnitude, and what is beyond all of them is none."""
    body = f'<entry>,"messaging":[{{"timestamp":{timestamp},"read":{{"mid":"m"}}}}]}}]}}'
    (event,) = read(filled(body).encode())
    assert event.occurred_at == occurred_at


def test_bodies_of_another_object_are_one_dead_letter() -> None:
    """What is not Instagram's becomes one dead letter, without an event_id."""
    assert read(b'{"object":"page","entry":[{"messaging":[{},{}]}]}') == (Event(None, DEAD_LETTER, None, None, None),)


def items_in(body: bytes) -> int:
    """The records that a body must become, counted without a look at what they say."""
    read_body: Any = json.loads(body)
    if isinstance(read_body, list):
        return sum(items_in(json.dumps(element).encode()) for element in read_body)
    if read_body.get("object") != "instagram":
        return 1
    containers = ("messaging", "standby", "changes")
    by_entry = [
        sum(len(entry.get(name, ())) for name in containers) + ("field" in entry) for entry in read_body["entry"]
    ]
    return sum(count or 1 for count in by_entry)  # an entry without items is one record itself


def test_truth_of_a_run_counts_what_a_recount_of_the_bodies_counts(tmp_path: Path) -> None:
    """Every item of every body is in the totals once, redeliveries, retries and quirks among them."""
    taken = list(islice(deliveries(Plan(seed=5, start_ms=1_795_338_000_000, redeliver=0.1)), 400))
    ledger = Ledger("shop")
    for number, delivery in enumerate(taken):
        statuses = (503, 200) if number % 10 == 0 else (200,)
        for tried, status in enumerate(statuses):
            ledger.posting(delivery.events, is_first=tried == 0)
            ledger.answered(delivery.events, status)
    path = tmp_path / "truth.jsonl"
    ledger.write(path)
    *lines, last = map(json.loads, path.read_text().splitlines())
    totals = last["totals"]
    assert totals["deliveries"] == 400
    assert totals["posts"] == 440
    items_posted = sum(items_in(one.body) * (2 if number % 10 == 0 else 1) for number, one in enumerate(taken))
    dead_letters = totals["records_by_topic"].get("shop.dead_letter", 0)
    assert totals["events_sent"] + dead_letters == items_posted
    assert sum(totals["records_by_topic"].values()) == sum(items_in(one.body) for one in taken)
    assert sum(line["times_sent"] for line in lines) == totals["events_sent"]
    assert all(len(line["statuses"]) == line["times_sent"] for line in lines)
    assert totals["by_topic"] == Counter(line["topic"] for line in lines)
    assert totals["by_kind"] == Counter(line["kind"] or "none" for line in lines)
    assert totals["distinct"] == len({line["event_id"] for line in lines}) == len(lines)

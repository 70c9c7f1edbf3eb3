"""The figures a second time, from Meta's JSON, without Avro's typed part, SQL or any line of the consumer's."""

import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import fastavro
from aiokafka import ConsumerRecord

from tests.unit.street import PARSED

HEADER_BYTES = 10  # of single-object encoding
UPPER_S = [60, 300, 900, 3600, 14400, 86400, None]


@dataclass(frozen=True)
class Fact:
    """An event: its envelope as the bridge published it, its content as Meta sent it; times in milliseconds."""

    event_id: str
    webhook_field: str
    origin: str
    account: str | None
    customer: str | None
    occurred_at: int | None
    received_at: int
    item: Any

    @property
    def at(self) -> int:
        """The event time."""
        return self.received_at if self.occurred_at is None else self.occurred_at

    @property
    def hour(self) -> datetime:
        """The hour that it is counted in."""
        return moment(self.at).replace(minute=0, second=0, microsecond=0)

    def part(self, key: str) -> dict[str, Any]:
        """What lies under a key of the item; empty where there is nothing."""
        found = self.item.get(key) if isinstance(self.item, dict) else None
        return found if isinstance(found, dict) else {}

    @property
    def is_message(self) -> bool:
        """A direct message: no unsend, standby or dashboard test."""
        is_unsend = self.part("message").get("is_deleted") is True
        return self.webhook_field == "messages" and self.origin == "messaging" and not is_unsend

    @property
    def is_echo(self) -> bool:
        """The account wrote it."""
        return self.part("message").get("is_echo") is True


def facts(records: Iterable[ConsumerRecord[bytes, bytes]]) -> list[Fact]:
    """Distinct events, the first copy of each."""
    found: dict[str, Fact] = {}
    for record in records:
        webhook_field = record.topic.rpartition(".")[2]
        value = fastavro.schemaless_reader(
            io.BytesIO((record.value or b"")[HEADER_BYTES:]), PARSED[webhook_field], None
        )
        assert isinstance(value, dict)
        event_id = str(value["event_id"])
        if event_id not in found:
            found[event_id] = Fact(
                event_id,
                webhook_field,
                value["origin"],
                value["account_id"],
                value["customer_id"],
                value["occurred_at"],
                value["received_at"],
                json.loads(value["raw"]),
            )
    return list(found.values())


def moment(milliseconds: int) -> datetime:
    """Milliseconds since the Unix epoch as an aware time."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)


def quantile(numbers: Iterable[float], share: float) -> float | None:
    """The interpolated quantile."""
    ordered = sorted(numbers)
    if not ordered:
        return None
    place = (len(ordered) - 1) * share
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


def questions(events: Iterable[Fact]) -> list[tuple[str, str, datetime, datetime | None]]:
    """Account, customer, asked_at, answered_at: walked through message by message."""
    conversations: dict[tuple[str, str], list[Fact]] = defaultdict(list)
    for event in events:
        if event.is_message and event.account is not None and event.customer is not None:
            conversations[event.account, event.customer].append(event)
    found: list[tuple[str, str, datetime, datetime | None]] = []
    for (account, customer), messages in conversations.items():
        asked_at: datetime | None = None
        for message in sorted(messages, key=lambda one: (one.at, one.is_echo)):
            if not message.is_echo:
                asked_at = asked_at or moment(message.at)
            elif asked_at is not None:
                found.append((account, customer, asked_at, moment(message.at)))
                asked_at = None
        if asked_at is not None:
            found.append((account, customer, asked_at, None))
    return found


def top(values: Iterable[Any], count: int | None = None) -> list[tuple[Any, int]]:
    """How often each, the most frequent first, equals by name."""
    ranking = sorted(Counter(values).items(), key=lambda pair: (-pair[1], pair[0]))
    return ranking if count is None else ranking[:count]


def referrals(event: Fact) -> list[dict[str, Any]]:
    """The referrals of an event, the more inner first."""
    inner = [event.part("message").get("referral"), event.part("referral"), event.part("postback").get("referral")]
    return [referral for referral in inner if isinstance(referral, dict)]


def figures(  # noqa: C901 - as many as there are figures
    events: list[Fact],
    *,
    account_id: str | None,
    since: datetime,
    until: datetime,
    now: datetime,
    unanswered_minutes: int,
) -> dict[str, Any]:
    """As `consumers.analytics.measures.figures`, but for the lag to Kafka, which is of the process and not of events."""
    own = [event for event in events if account_id in {None, event.account}]
    here = [event for event in own if since <= moment(event.at) < until]
    messages = [event for event in here if event.is_message]
    inbound = [event for event in messages if not event.is_echo]
    outbound = [event for event in messages if event.is_echo]
    direct = [event for event in here if event.origin == "messaging"]
    unit = "hour" if until - since <= timedelta(days=3) else "day"

    def bucket(at: datetime) -> datetime:
        return at.replace(hour=at.hour if unit == "hour" else 0, minute=0, second=0, microsecond=0)

    buckets = [bucket(since)]
    while (following := buckets[-1] + timedelta(**{f"{unit}s": 1})) < until:
        buckets.append(following)
    firsts: dict[tuple[str | None, str], int] = {}
    for event in own:
        if event.is_message and not event.is_echo and event.customer is not None:
            conversation = event.account, event.customer
            firsts[conversation] = min(event.at, firsts.get(conversation, event.at))
    new = Counter(bucket(moment(at)) for at in firsts.values() if since <= moment(at) < until)
    asked = [row for row in questions(one for one in own if moment(one.at) <= now) if since <= row[2] < until]
    took = [((answered - at).total_seconds(), bucket(at)) for _, _, at, answered in asked if answered is not None]
    receipts: dict[tuple[str | None, str | None], list[int]] = defaultdict(list)
    for event in own:
        if event.webhook_field == "messaging_seen" and event.origin == "messaging" and moment(event.at) <= now:
            receipts[event.account, event.customer].append(event.at)
    sent = [event for event in outbound if event.customer is not None]
    seen_after = [
        min(later) - event.at
        for event in sent
        if (later := [at for at in receipts[event.account, event.customer] if at >= event.at])
    ]
    reactions = [event.part("reaction") for event in direct if event.webhook_field == "message_reactions"]
    reactions = [reaction for reaction in reactions if reaction.get("action") == "react"]
    attachments = [
        (event, one.get("type")) for event in messages for one in event.part("message").get("attachments") or []
    ]

    def active(some: Iterable[Fact]) -> int:
        return len({(event.account, event.customer) for event in some if event.customer is not None})

    def per_bucket(count: Callable[[list[Fact]], int], some: list[Fact]) -> list[int]:
        return [count([event for event in some if bucket(moment(event.at)) == at]) for at in buckets]

    def conversations_by(name: str) -> list[list[Any]]:
        named = {
            (str(found), event.account, event.customer)
            for event in direct
            if event.customer is not None
            and (found := next((one[name] for one in referrals(event) if one.get(name) is not None), None)) is not None
        }
        return [list(pair) for pair in top((name for name, _, _ in named), 20)]

    heat = [[0] * 24 for _ in range(7)]
    for event in inbound:
        heat[event.hour.weekday()][event.hour.hour] += 1
    fields = top(event.webhook_field for event in here)
    lags = {
        name: [
            (e.received_at - e.occurred_at) / 1000
            for e in here
            if e.webhook_field == name and e.occurred_at is not None
        ]
        for name, _ in fields
    }
    bounds = list(pairwise([-1.0, *(float(upper or "inf") for upper in UPPER_S)]))
    return {
        "account_id": account_id,
        "since": since.isoformat(),
        "until": until.isoformat(),
        "unit": unit,
        "totals": {
            "events": len(here),
            "inbound": len(inbound),
            "outbound": len(outbound),
            "unsent": sum(e.webhook_field == "messages" and not e.is_message for e in direct),
            "edited": sum(
                e.webhook_field == "message_edit" and int(e.part("message_edit").get("num_edit") or 0) >= 1
                for e in direct
            ),
            "active_customers": active(inbound),
            "new_customers": sum(new.values()),
            "reactions": len(reactions),
            "story_mentions": len({e.event_id for e, name in attachments if name == "story_mention" and not e.is_echo}),
            "story_replies": sum("story" in (e.part("message").get("reply_to") or {}) for e in inbound),
            "answered": len(took),
            "first_response_median_s": quantile((seconds for seconds, _ in took), 0.5),
            "first_response_p90_s": quantile((seconds for seconds, _ in took), 0.9),
            "unanswered": sum(
                answered is None and now - at > timedelta(minutes=unanswered_minutes) for _, _, at, answered in asked
            ),
            "unanswered_minutes": unanswered_minutes,
            "seen_share": len(seen_after) / len(sent) if sent else None,
            "time_to_seen_median_s": quantile((ms / 1000 for ms in seen_after), 0.5),
            "undated": sum(event.occurred_at is None for event in here),
            "future": sum(moment(event.at) > now for event in own),
        },
        "series": {
            "at": [at.isoformat() for at in buckets],
            "inbound": per_bucket(len, inbound),
            "outbound": per_bucket(len, outbound),
            "active_customers": per_bucket(active, inbound),
            "new_customers": [new[at] for at in buckets],
            "first_response_median_s": [quantile((s for s, at in took if at == one), 0.5) for one in buckets],
        },
        "events_by_field": dict(fields),
        "lag": {
            name: {
                "meta_to_bridge_median_s": quantile(lag, 0.5),
                "meta_to_bridge_p90_s": quantile(lag, 0.9),
                "bridge_to_kafka_median_s": None,
            }
            for name, lag in sorted(lags.items())
        },
        "reactions": dict(top(one.get("reaction") or one.get("emoji") or "unknown" for one in reactions)),
        "attachments": dict(top(name for _, name in attachments)),
        "postbacks": [
            list(pair)
            for pair in top(
                (
                    e.part("postback")["payload"]
                    for e in direct
                    if e.webhook_field == "messaging_postbacks" and "payload" in e.part("postback")
                ),
                20,
            )
        ],
        "ads": conversations_by("ad_id"),
        "refs": conversations_by("ref"),
        "response_histogram": {
            "upper_s": UPPER_S,
            "count": [sum(lower < seconds <= upper for seconds, _ in took) for lower, upper in bounds],
        },
        "heat": heat,
    }

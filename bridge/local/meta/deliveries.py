"""Items put into bodies as Meta puts them: batched, redelivered, escaped; the same bytes for the same plan.

Does no IO, reads no clock: event time begins at the plan's start and moves by the same step with every delivery.
"""

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from bridge.local.meta import quirks
from bridge.local.meta.conversations import Item, World
from bridge.local.meta.shapes import Json, chance
from bridge.local.meta.truth import Event, read

BATCH_EVENTS_MAX = 1000
"""Meta puts at most this many updates into one body (Graph API, "Webhooks: getting started")."""

RATE_PER_S = 5.0
"""Deliveries a second where none is given; also what event time goes by when they are sent as fast as possible."""

# Where redeliveries are taken from: Meta's first retry comes at once, so it repeats what is recent.
_RECENT_DELIVERIES_MAX = 50
_RECENT_ITEMS_MAX = 200
# Of the redeliveries: those with the very bytes of the first. The others repeat events among fresh ones.
_SHARE_OF_EQUAL_BYTES = 0.5
# Events of earlier deliveries that one such body repeats.
_REPEATED_MAX = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to send. Equal plans make equal bytes.

    Attributes:
        seed: where all chance comes from.
        start_ms: event time of the first delivery, milliseconds since the Unix epoch.
        accounts: business accounts.
        customers: customers of each account.
        batch: most events in one body, 1 to `BATCH_EVENTS_MAX`; most bodies hold far fewer.
        rate: deliveries a second; 0 is as fast as possible, and then event time goes by `RATE_PER_S`.
        speed: seconds of event time in one second of sending.
        redeliver: share of deliveries that repeat something, byte for byte or in another batch.
        reorder: share of items that are held back until others have overtaken them.
        quirks: share of deliveries that would break a strict parser.
    """

    seed: int
    start_ms: int
    accounts: int = 3
    customers: int = 200
    batch: int = 10
    rate: float = RATE_PER_S
    speed: float = 1.0
    redeliver: float = 0.02
    reorder: float = 0.01
    quirks: float = 0.01


@dataclass(frozen=True, eq=False)
class Delivery:
    """A body, and the records that must come of it."""

    body: bytes
    events: tuple[Event, ...]

    @property
    def keys(self) -> frozenset[str]:
        """The conversations and accounts it tells of: what must not overtake an earlier delivery of the same."""
        return frozenset(event.key for event in self.events if event.key is not None)


def deliveries(plan: Plan) -> Iterator[Delivery]:
    """The endless stream of deliveries of a plan, each made when it is asked for."""
    rng = Random(plan.seed)  # noqa: S311 - made-up customers, repeatable by seed: nothing here is secret
    world = World(rng, accounts=plan.accounts, customers=plan.customers, reorder=plan.reorder)
    sent: deque[Delivery] = deque(maxlen=_RECENT_DELIVERIES_MAX)
    sent_items: deque[Item] = deque(maxlen=_RECENT_ITEMS_MAX)
    step_ms = 1000 * plan.speed / (plan.rate or RATE_PER_S)
    number = 0
    while True:
        now = plan.start_ms + int(number * step_ms)
        number += 1
        repeats = bool(sent) and chance(rng, plan.redeliver)
        if repeats and chance(rng, _SHARE_OF_EQUAL_BYTES):
            yield rng.choice(sent)
            continue
        quirk = rng.choice(("item", "envelope", "body")) if chance(rng, plan.quirks) else None
        items: list[Item] = []
        if quirk == "body":
            notification = quirks.whole_body(rng, world.some_account(), now)
        else:
            count = 1 + int(plan.batch * rng.random() ** 3)  # most bodies are small, a few are full
            repeated_count = min(count, rng.randint(1, _REPEATED_MAX)) if repeats and sent_items else 0
            items = [world.next_item(now) for _ in range(count - repeated_count)]
            if quirk == "item" and items:
                place = rng.randrange(len(items))
                items[place] = quirks.deformed(rng, items[place])
            repeated = [rng.choice(sent_items) for _ in range(repeated_count)]
            notification = _notification([*repeated, *items], now)
            if quirk == "envelope":
                notification = quirks.oddly_wrapped(rng, notification)
        body = _bytes(notification)
        delivery = Delivery(body, read(body))
        sent.append(delivery)
        sent_items.extend(items)
        yield delivery


def _notification(items: list[Item], now: int) -> Json:
    """One notification, an entry for each account and container, items in their order within each."""
    entries: list[Json] = []
    open_entries: dict[tuple[str, str], Json] = {}
    for account, container, body in items:
        if container == "flat" and isinstance(body, dict):
            entries.append({"id": account, "time": now // 1000, **body})
            open_entries.pop((account, "changes"), None)  # what comes after a flat change stands after it
            continue
        if (account, container) not in open_entries:
            # entry.time is in milliseconds for messaging and in seconds for changes.
            time = now // 1000 if container == "changes" else now
            open_entries[account, container] = {"id": account, "time": time, container: []}
            entries.append(open_entries[account, container])
        open_entries[account, container][container].append(body)
    return {"object": "instagram", "entry": entries}


def _bytes(notification: object) -> bytes:
    """JSON as captures show it: no spaces, non-ASCII escaped in lower-case hex, slashes escaped too; bytes as they are."""
    if isinstance(notification, bytes):
        return notification
    return json.dumps(notification, separators=(",", ":")).replace("/", "\\/").encode("ascii")

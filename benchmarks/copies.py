"""As many different events as are wanted: realistic conversations, repeated under new event_ids and mids and at later times.

Making an event as the bridge does costs more than reading it; here a copy's bytes are those of a template but for the parts by
which events are told apart. A copy's `raw` keeps the template's times, which nobody reads here.
"""

from __future__ import annotations

import io
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import fastavro

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder, Encoder, single_object_prefix
from bridge.event import WEBHOOK_FIELDS
from bridge.local.meta.deliveries import Plan, deliveries
from bridge.pipeline import Pipeline
from bridge.routing import DEAD_LETTER
from bridge.schemas import load
from consumers.analytics.projection import KEYS

TEMPLATES = 20_000
RATE_PER_S = 5.0  # deliveries, in event time: the templates are of some twenty minutes
ON_THE_WAY_MS = 700  # from Meta to the bridge
EVENT_ID_AT = 11  # in a value: behind ten bytes of single-object encoding and one of length
EVENT_ID_DIGITS = 32
MID_DIGITS = 8  # of a mid's 170 characters, which tell copies apart
RECORD_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Template:
    """A record, and where in its value a copy differs.

    Attributes:
        topic: Its topic.
        key: Its key.
        value: Its value.
        times: Where event times lie, with their milliseconds; a later time takes as many bytes until the year 2527.
        mids: Where the mid's last digits lie.
    """

    topic: str
    key: bytes
    value: bytes
    times: tuple[tuple[int, int], ...]
    mids: tuple[int, ...]

    def copy(self, number: int, later_ms: int) -> bytes:
        """The value of its so-and-so-many-th copy, which happened so much later."""
        value = bytearray(self.value)
        value[EVENT_ID_AT : EVENT_ID_AT + EVENT_ID_DIGITS] = secrets.token_hex(EVENT_ID_DIGITS // 2).encode()
        for at, time_ms in self.times:
            later = _long(time_ms + later_ms)
            value[at : at + len(later)] = later
        digits = b"%0*d" % (MID_DIGITS, number)
        for at in self.mids:
            value[at : at + MID_DIGITS] = digits
        return bytes(value)


@dataclass(frozen=True, slots=True)
class Copies:
    """Templates of 100 accounts with 100 customers each, and how long in event time one round of them lasts."""

    templates: list[Template]
    span_ms: int

    @classmethod
    def beginning(cls, start_ms: int, *, rate_per_s: float = RATE_PER_S) -> Copies:
        """Templates whose event time begins then, in milliseconds since the Unix epoch, with so many deliveries a second."""
        prefixes = {name: single_object_prefix(load(name)) for name in (*WEBHOOK_FIELDS, DEAD_LETTER)}
        street = Pipeline(
            topic_prefix="instagram",
            encoders={name: Encoder(name, load(name), prefixes[name]) for name in WEBHOOK_FIELDS},
            dead_letters=DeadLetterEncoder(load(DEAD_LETTER), prefixes[DEAD_LETTER]),
            record_bytes_max=RECORD_BYTES_MAX,
        )
        plan = Plan(seed=1, start_ms=start_ms, accounts=100, customers=100, rate=rate_per_s, quirks=0, redeliver=0)
        found: list[Template] = []
        for number, delivery in enumerate(deliveries(plan)):
            at_ms = start_ms + int(number * 1000 / rate_per_s)
            received = Delivery(delivery.body, at_ms + ON_THE_WAY_MS, secrets.token_hex(16), "bench")
            records = street.records(received, [])
            found += [_template(one.topic, one.key, one.value) for one in records if one.key is not None]
            if len(found) >= TEMPLATES:
                return cls(found, at_ms - start_ms)
        raise AssertionError("the stream of deliveries is endless")

    def values(self, count: int) -> Iterator[tuple[Template, bytes]]:
        """So many records, in the order of their event times: the template, and the copy's value."""
        for number in range(count):
            copy, place = divmod(number, len(self.templates))
            template = self.templates[place]
            yield template, template.copy(copy, copy * self.span_ms)

    def duration_ms(self, count: int) -> int:
        """How long so many events last, in event time."""
        return count * self.span_ms // len(self.templates)


def _template(topic: str, key: bytes, value: bytes) -> Template:
    webhook_field = topic.partition(".")[2]
    prefix = EVENT_ID_AT - 1
    stream = io.BytesIO(value[prefix:])
    found: Any = fastavro.schemaless_reader(stream, fastavro.parse_schema(load(webhook_field)), None)
    times = []
    for name in ("occurred_at", "received_at"):
        if found[name] is not None:
            time_ms = round(found[name].timestamp() * 1000)
            times.append((value.index(_long(time_ms), prefix), time_ms))
    mid = next((found[kind].get("mid") for kind in KEYS if isinstance(found.get(kind), dict)), None)
    return Template(topic, key, value, tuple(times), tuple(_ends(value, mid.encode()) if mid else ()))


def _ends(value: bytes, mid: bytes) -> Iterator[int]:
    """Where the last digits of a mid begin, wherever it stands; shorter ones than Meta's stay as they are."""
    at = value.find(mid) if len(mid) > MID_DIGITS else -1
    while at >= 0:
        yield at + len(mid) - MID_DIGITS
        at = value.find(mid, at + len(mid))


def _long(number: int) -> bytes:
    """As Avro writes a whole number that is not negative."""
    rest, written = 2 * number, bytearray()
    while rest > 127:  # noqa: PLR2004 - seven bits, and one that says that more follows
        written.append(rest & 127 | 128)
        rest >>= 7
    written.append(rest)
    return bytes(written)

"""Made-up conversations of the stand-in for Meta as Kafka records, with its ledger of what must be in Kafka."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from aiokafka import ConsumerRecord

from bridge.delivery import Delivery
from bridge.encoding import DeadLetterEncoder
from bridge.local.meta.deliveries import Plan, deliveries
from bridge.local.meta.truth import Ledger
from bridge.pipeline import Pipeline
from bridge.record import Record
from bridge.routing import DEAD_LETTER
from tests.unit.street import ENCODERS, PREFIXES, RECORD_BYTES_MAX, SCHEMAS

PARTITIONS = 2
RATE_PER_S = 4.0
ON_THE_WAY_MS = 700  # from Meta to the bridge


@dataclass
class Stream:
    """Records in the order in which a bridge would publish them, and the ledger of `bridge simulate --truth`."""

    prefix: str
    records: list[tuple[Record, int]] = field(default_factory=list)  # with received_at
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        """A ledger of these topics."""
        self.ledger = Ledger(self.prefix)

    def read(self) -> Iterator[ConsumerRecord[bytes, bytes]]:
        """As a consumer reads them that has all of them before it: topics and partitions mixed, each in its order."""
        next_offsets: dict[tuple[str, int], int] = {}
        for record, received_at in self.records:
            place = record.topic, partition_of(record)
            offset = next_offsets[place] = next_offsets.get(place, -1) + 1
            yield ConsumerRecord(
                *place,
                offset,
                received_at,
                0,
                record.key,
                record.value,
                None,
                0,
                len(record.value),
                tuple(record.headers),
            )


def partition_of(record: Record) -> int:
    """A conversation stays in one partition."""
    return sum(record.key or b"") % PARTITIONS


def stream(prefix: str, *, count: int, start_ms: int, speed: float, seed: int = 7, **chances: float) -> Stream:
    """What becomes of so many deliveries; `speed` is seconds of event time for each second of sending, four deliveries long."""
    made = Stream(prefix)
    street = Pipeline(
        topic_prefix=prefix,
        encoders=ENCODERS,
        dead_letters=DeadLetterEncoder(SCHEMAS[DEAD_LETTER], PREFIXES[DEAD_LETTER]),
        record_bytes_max=RECORD_BYTES_MAX,
    )
    plan = Plan(seed=seed, start_ms=start_ms, rate=RATE_PER_S, speed=speed, accounts=3, customers=30, **chances)  # type: ignore[arg-type] # shares
    for number, delivery in enumerate(islice(deliveries(plan), count)):
        made.ledger.posting(delivery.events, is_first=True)
        made.ledger.answered(delivery.events, 200)
        received_at = start_ms + int(number * 1000 * speed / RATE_PER_S) + ON_THE_WAY_MS
        records = street.records(Delivery(delivery.body, received_at, secrets.token_hex(16), "test"), [])
        made.records += [(record, received_at) for record in records if not record.topic.endswith(".dead_letter")]
    return made

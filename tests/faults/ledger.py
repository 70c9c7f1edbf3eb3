"""What was sent and what became of it, against what lies in Kafka: the promise of contract.md as figures."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tests.kafka.reading import Record

_MID = re.compile(rb'"mid": "([^"]+)"')
"""In `raw`, or in a dead letter's body: as we sent it, so that no code of the bridge says what an event is."""


class Sent(NamedTuple):
    """One delivery with one event.

    Attributes:
        sent_at: before its first byte left; seconds of one clock for all.
        answered_at: when its answer was read; infinite without one.
        status: 0 without an answer.
        by: X-Acknowledged-By.
    """

    mid: str
    sent_at: float
    answered_at: float
    status: int
    by: str | None


class Figures(NamedTuple):
    """What came of all deliveries.

    Attributes:
        by_kafka, by_spool: answered 200, by whom.
        refused: answered otherwise.
        unanswered: the connection ended first.
        delivered: distinct events in Kafka.
        lost: answered 200, and not in Kafka.
        duplicated: further copies of what is there already.
        disordered: events whose first copy lies behind one that was sent after their answer.
    """

    by_kafka: int
    by_spool: int
    refused: int
    unanswered: int
    delivered: int
    lost: int
    duplicated: int
    disordered: int


class Ledger:
    """Keeps the deliveries of one run.

    Attributes:
        sent: all of them, in the order of their answers.
        outcomes: how many, by who acknowledged them, else by status.
    """

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.outcomes: Counter[str] = Counter()

    def add(self, sent: Sent) -> None:
        """Write one down."""
        self.sent.append(sent)
        self.outcomes[sent.by or f"{sent.status}"] += 1

    def figures(self, records: Sequence[Record]) -> Figures:
        """Settle the account with everything that lies in the topics."""
        mids = [mid_of(record) for record in records]
        first_copies: dict[tuple[str, bytes | None], dict[str, Record]] = {}
        for mid, record in zip(mids, records, strict=True):
            conversation = first_copies.setdefault((record.topic_field, record.key), {})
            if mid not in conversation or record.offset < conversation[mid].offset:
                conversation[mid] = record
        found = set(mids)
        safe = [sent for sent in self.sent if sent.status == 200]
        by = Counter(sent.by for sent in safe)
        unanswered = self.outcomes["0"]
        return Figures(
            by_kafka=by["kafka"],
            by_spool=by["spool"],
            refused=len(self.sent) - len(safe) - unanswered,
            unanswered=unanswered,
            delivered=len(found),
            lost=sum(sent.mid not in found for sent in safe),
            duplicated=len(mids) - len(found),
            disordered=sum(map(self._disordered, first_copies.values())),
        )

    def _disordered(self, first_copies: dict[str, Record]) -> int:
        """Going up the offsets of one conversation: whose answer came before something below it was even sent?"""
        assert len({record.partition for record in first_copies.values()}) == 1, "a conversation has one partition"
        sent = {each.mid: each for each in self.sent if each.mid in first_copies}
        latest, count = -math.inf, 0
        for mid in sorted(first_copies, key=lambda mid: first_copies[mid].offset):
            if mid in sent:
                safe = sent[mid].status == 200
                count += safe and sent[mid].answered_at < latest
                latest = max(latest, sent[mid].sent_at)
        return count


def mid_of(record: Record) -> str:
    """Which of our events this is."""
    found = _MID.search(record.value)
    assert found, "a record that is none of ours"
    return found[1].decode()

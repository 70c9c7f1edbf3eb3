"""When Meta was last heard of, and how long it took from its own clock to here: what tells what Meta did not send.

Nobody can ask Meta for a lost notification, so silence is the only sign of it. All of it is kept as plain numbers, written once
for a record or a delivery, and becomes metrics when somebody looks. Accounts are told by id in /status, and in metrics
by the labels that the settings give to a few of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bridge.record import Record

ACCOUNTS_MAX = 10_000
"""Accounts whose last event is remembered, about 2 MB; then the half that was silent the longest is forgotten."""

_DELAY_BUCKETS_MS = (100, 250, 500, 1000, 2500, 5000, 10_000, 30_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000)
"""From a healthy path to hours after the retry that comes at once; Meta retries for 36."""


class Watch(Collector):
    """Remembers; a collector of Prometheus metrics.

    Args:
        prefix: of the metrics' names.
        watched: label by account id, of the accounts whose silence matters.
    """

    def __init__(self, prefix: str, watched: Mapping[str, str]) -> None:
        self._prefix = prefix
        self._watched = watched
        self._began_ms = time.time_ns() // 1_000_000
        self._last_event_ms: dict[str | None, int] = {}
        self._meta = _Delays()
        self._arrival = _Delays()

    def saw(self, walked: Sequence[Sequence[Record]]) -> None:
        """Remember the records of deliveries; of a delivery's times the first record's count."""
        last_event_ms, meta, arrival = self._last_event_ms, self._meta, self._arrival
        for records in walked:
            if not records:
                continue
            for record in records:
                last_event_ms[record.account_id] = record.timestamp
            first = records[0]
            sent_at, occurred_at = first.sent_at, first.occurred_at
            if sent_at is not None:
                delay_ms = first.timestamp - sent_at
                arrival.counts[bisect_left(_DELAY_BUCKETS_MS, delay_ms)] += 1
                if delay_ms > 0:  # clocks that disagree make no negative delay
                    arrival.sum_ms += delay_ms
                if occurred_at is not None:
                    delay_ms = sent_at - occurred_at
                    meta.counts[bisect_left(_DELAY_BUCKETS_MS, delay_ms)] += 1
                    if delay_ms > 0:
                        meta.sum_ms += delay_ms
        if len(last_event_ms) > ACCOUNTS_MAX:
            self._forget()

    def _forget(self) -> None:
        latest = sorted(self._last_event_ms, key=self._last_event_ms.__getitem__)[-ACCOUNTS_MAX // 2 :]
        kept = {*latest, *self._watched} & self._last_event_ms.keys()
        self._last_event_ms = {account_id: self._last_event_ms[account_id] for account_id in kept}

    def seconds_ago(self, now: float) -> dict[str, int]:
        """How long ago each account's last event was received; ``now`` in seconds since the Unix epoch."""
        return {
            account_id: max(0, round(now - last_ms / 1000))
            for account_id, last_ms in self._last_event_ms.items()
            if account_id is not None
        }

    def collect(self) -> Iterator[Metric]:
        """Give the metrics."""
        yield self._meta.family(
            f"{self._prefix}_meta_seconds",
            "From an event's own time to when Meta sent it, of a delivery's first event.",
        )
        yield self._arrival.family(
            f"{self._prefix}_arrival_seconds",
            "From when Meta sent a notification to its complete body: the network, Meta's retries, and both clocks.",
        )
        silence = GaugeMetricFamily(
            f"{self._prefix}_account_last_event_timestamp_seconds",
            "When an event of this account of BRIDGE_WATCHED_ACCOUNTS was last received; the start, until there is one.",
            labels=["account"],
        )
        for account_id, label in self._watched.items():
            silence.add_metric([label], self._last_event_ms.get(account_id, self._began_ms) / 1000)
        yield silence


class _Delays:
    """A histogram of milliseconds, as seconds."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_DELAY_BUCKETS_MS) + 1)
        self.sum_ms = 0

    def family(self, name: str, text: str) -> HistogramMetricFamily:
        bounds = [*map(floatToGoString, (bound / 1000 for bound in _DELAY_BUCKETS_MS)), "+Inf"]
        buckets = list(zip(bounds, accumulate(self.counts), strict=True))
        return HistogramMetricFamily(name, text, buckets=buckets, sum_value=self.sum_ms / 1000)

"""What can be seen from outside: the closed register of metrics, and the logs. No ids as labels, no contents anywhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import traceback
from bisect import bisect_left
from collections import Counter as Tally
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from bridge.delivery import Delivery
from bridge.notification import Note
from bridge.record import Record
from bridge.watching import Watch

_NAMESPACE = "instagram_bridge"

_PATHS_MAX = 500
"""Distinct unexpected paths that are counted by name; more are counted as ``(more)``. Meta's schema has about 150 keys."""

_PATH_CHARACTERS_MAX = 100
"""A key longer than this is no key of Meta's; its beginning names it."""

_LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""From one produce request to Meta's own five seconds."""


disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every counter, which Prometheus itself does not use


class Telemetry:
    """The register of metrics of one process; docs/metrics.md is the same list (tests/docs).

    Args:
        watched: label by account id, of the accounts whose silence matters.

    Attributes:
        watch: when Meta was last heard of.
    """

    def __init__(self, watched: Mapping[str, str] | None = None) -> None:
        self.registry = CollectorRegistry()
        self.verification_requests = Counter(
            "verification_requests",
            "Verification requests: accepted, or the reason of the refusal.",
            ["outcome"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.requests_refused = Counter(
            "requests_refused",
            "Requests that were neither: another path or method, or no HTTP, by the reason.",
            ["reason"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.deliveries_in_flight = Gauge(
            "deliveries_in_flight",
            "Deliveries being read, published or spooled.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.held_bytes = Gauge(
            "held_bytes",
            "Bytes of bodies being read, published or spooled.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.producer_rebuilds = Gauge(
            "producer_rebuilds", "Producers given up since the start.", namespace=_NAMESPACE, registry=self.registry
        )
        self.spool_deliveries = Gauge(
            "spool_deliveries", "Deliveries in the spool.", namespace=_NAMESPACE, registry=self.registry
        )
        self.spool_bytes = Gauge("spool_bytes", "What they take.", namespace=_NAMESPACE, registry=self.registry)
        self.spool_bytes_max = Gauge(
            "spool_bytes_max",
            "What they may take: BRIDGE_SPOOL_BYTES_MAX.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.spool_oldest = Gauge(
            "spool_oldest_timestamp_seconds",
            "When the oldest delivery in the spool was received; 0 when it is empty.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.spool_files_set_aside = Gauge(
            "spool_files_set_aside",
            "Spool files since the start that could not be read; each needs a person.",
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self._counted = _Counted()
        self.registry.register(self._counted)
        self.unexpected = _Unexpected()
        self.registry.register(self.unexpected)
        self.watch = Watch(_NAMESPACE, watched or {})
        self.registry.register(self.watch)

    async def exposition(self) -> bytes:
        """The metrics of this process in Prometheus' text form."""
        return generate_latest(self.registry)

    def authenticated(self, deliveries: Sequence[Delivery]) -> None:
        """Count authentic deliveries."""
        counted = self._counted
        for delivery in deliveries:
            label = delivery.app_secret_label
            counted.matches[label] += 1
            counted.last_match[label] = delivery.received_at / 1000
            counted.received_bytes += len(delivery.body)

    def last_match_seconds_ago(self, label: str, now: float) -> int | None:
        """How long ago this app secret last matched; None when it has not since the start."""
        matched = self._counted.last_match.get(label)
        return None if matched is None else round(now - matched)

    def acknowledged(self, acknowledger: str, completed_s: float) -> None:
        """Count a delivery that is answered 200, and how long that took since its last byte, by the monotonic clock."""
        seconds, counted = time.monotonic() - completed_s, self._counted
        counted.deliveries[acknowledger] += 1
        counted.latencies[bisect_left(_LATENCY_BUCKETS_S, seconds)] += 1
        counted.latency_sum_s += seconds

    def refused(self, reason: str, *, delivery: bool, verification: bool) -> None:
        """Count a refusal by what it was: a delivery, a verification request, or neither."""
        if delivery:
            self._counted.deliveries[reason] += 1
        elif verification:
            self.verification_requests.labels(reason).inc()
        else:
            self.requests_refused.labels(reason).inc()

    def found(self, walked: Sequence[Sequence[Record]], notes: Sequence[Note]) -> None:
        """Count what the street found in deliveries, the records of each."""
        counts, last_record, now = self._counted.records, self._counted.last_record, time.time()
        for records in walked:
            for record in records:
                topic = record.topic
                counts[topic] += 1
                last_record[topic] = now
        self.watch.saw(walked)
        for note in notes:
            self.unexpected.count(note)


class _Counted(Collector):
    """What is counted for every delivery, as plain numbers that become metrics when somebody looks.

    prometheus_client's own counters take a lock and a check each: 25,000 instructions a delivery, a tenth of all.
    """

    def __init__(self) -> None:
        self.deliveries: Tally[str] = Tally()
        self.records: Tally[str] = Tally()
        self.last_record: dict[str, float] = {}
        self.matches: Tally[str] = Tally()
        self.last_match: dict[str, float] = {}
        self.received_bytes = 0
        self.latencies = [0] * (len(_LATENCY_BUCKETS_S) + 1)
        self.latency_sum_s = 0.0

    def collect(self) -> Iterator[Metric]:
        yield _counter(
            "deliveries",
            "POSTs by what became of them: kafka, spool, none, or the reason of the refusal.",
            "outcome",
            self.deliveries,
        )
        yield _counter("records", "Records handed to the publisher, by topic.", "topic", self.records)
        yield CounterMetricFamily(
            f"{_NAMESPACE}_received_bytes", "Bytes of authentic bodies.", value=self.received_bytes
        )
        bounds = [*map(floatToGoString, _LATENCY_BUCKETS_S), "+Inf"]
        yield HistogramMetricFamily(
            f"{_NAMESPACE}_acknowledge_seconds",
            "From a complete body to its acknowledgement.",
            buckets=list(zip(bounds, accumulate(self.latencies), strict=True)),
            sum_value=self.latency_sum_s,
        )
        yield _counter(
            "app_secret_matches",
            "Deliveries signed with this app secret: zero for a day means it can go.",
            "label",
            self.matches,
        )
        yield _gauge(
            "app_secret_last_match_timestamp_seconds", "When this app secret last matched.", "label", self.last_match
        )
        yield _gauge(
            "last_record_timestamp_seconds",
            "When a record last went to this topic: silence is the only sign of what Meta did not send.",
            "topic",
            self.last_record,
        )


def _counter(name: str, text: str, label: str, counts: Mapping[str, float]) -> CounterMetricFamily:
    family = CounterMetricFamily(f"{_NAMESPACE}_{name}", text, labels=[label])
    for value, count in list(counts.items()):
        family.add_metric([value], count)
    return family


def _gauge(name: str, text: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{_NAMESPACE}_{name}", text, labels=[label])
    for value, number in list(values.items()):
        family.add_metric([value], number)
    return family


class _Unexpected(Collector):
    """What was odd but kept: unknown keys, wrong types, second keys, empty entries, dead letters; by kind and path."""

    def __init__(self) -> None:
        self._counts: Tally[tuple[str, str]] = Tally()

    def count(self, note: Note) -> None:
        labels = (note.kind, note.path[:_PATH_CHARACTERS_MAX])
        if labels not in self._counts and len(self._counts) >= _PATHS_MAX:
            labels = (note.kind, "(more)")
        self._counts[labels] += 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            f"{_NAMESPACE}_unexpected",
            "What was odd in Meta's JSON but kept: unknown_key, unknown_value, wrong_type, second_key, empty, unreadable.",
            labels=["kind", "path"],
        )
        for labels, count in self._counts.items():
            family.add_metric(labels, count)
        yield family


class _Lines(structlog.WriteLogger):
    """One write a line, so that the lines of workers stay whole; one that cannot be written is dropped.

    A full disk or a closed pipe must not cost a delivery its answer.
    """

    def msg(self, message: str) -> None:
        with contextlib.suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = msg


def configure_logging(log_format: str, log_level: str) -> None:
    """Log to stderr: one JSON object a line, or lines for people."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(log_level),
        logger_factory=lambda *_: _Lines(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _without_traceback, *shared],
        )
    )
    # aiokafka logs keys and values on debug, so libraries never go below warning, whatever our own level is.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _without_traceback(_logger: object, _method: str, entry: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """A library's exception by its type and place: its text, and the variables around it, may hold contents."""
    exc_info = entry.pop("exc_info", None)
    if isinstance(exc_info, tuple) and exc_info[0] is not None:
        place = traceback.extract_tb(exc_info[2])[-1:]
        where = f" at {place[0].filename}:{place[0].lineno}" if place else ""
        entry["raised"] = f"{exc_info[0].__name__}{where}"
    return entry

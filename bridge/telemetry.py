"""What can be seen from outside: the closed register of metrics, and the logs. No ids as labels, no contents anywhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from functools import cache

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from bridge.notification import Note
from bridge.pipeline import Record

_NAMESPACE = "instagram_bridge"

_PATHS_MAX = 500
"""Distinct unexpected paths that are counted by name; more are counted as ``(more)``. Meta's schema has about 150 keys."""

_PATH_CHARACTERS_MAX = 100
"""A key longer than this is no key of Meta's; its beginning names it."""

_LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
"""From one produce request to Meta's own five seconds."""


disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for every counter, which Prometheus itself does not use


class Telemetry:
    """The register of metrics of one process. An attribute is a metric; docs/metrics.md is the same list (tests/docs)."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._last_match: dict[str, float] = {}
        self.deliveries = Counter(
            "deliveries",
            "POSTs by what became of them: kafka, none, or the reason of the refusal.",
            ["outcome"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
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
        self.records = Counter(
            "records",
            "Records handed to the publisher, by topic.",
            ["topic"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.received_bytes = Counter(
            "received_bytes", "Bytes of authentic bodies.", namespace=_NAMESPACE, registry=self.registry
        )
        self.acknowledge_seconds = Histogram(
            "acknowledge_seconds",
            "From a complete body to its acknowledgement.",
            namespace=_NAMESPACE,
            registry=self.registry,
            buckets=_LATENCY_BUCKETS_S,
        )
        self.app_secret_matches = Counter(
            "app_secret_matches",
            "Deliveries signed with this app secret: zero for a day means it can go.",
            ["label"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.app_secret_last_match = Gauge(
            "app_secret_last_match_timestamp_seconds",
            "When this app secret last matched.",
            ["label"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.last_record = Gauge(
            "last_record_timestamp_seconds",
            "When a record last went to this topic: silence is the only sign of what Meta did not send.",
            ["topic"],
            namespace=_NAMESPACE,
            registry=self.registry,
        )
        self.deliveries_in_flight = Gauge(
            "deliveries_in_flight", "Deliveries being read or published.", namespace=_NAMESPACE, registry=self.registry
        )
        self.held_bytes = Gauge(
            "held_bytes", "Bytes of bodies being read or published.", namespace=_NAMESPACE, registry=self.registry
        )
        self.producer_rebuilds = Gauge(
            "producer_rebuilds", "Producers given up since the start.", namespace=_NAMESPACE, registry=self.registry
        )
        self.spool_deliveries = Gauge(
            "spool_deliveries", "Deliveries in the spool.", namespace=_NAMESPACE, registry=self.registry
        )
        self.spool_bytes = Gauge(
            "spool_bytes", "What they take, of BRIDGE_SPOOL_BYTES_MAX.", namespace=_NAMESPACE, registry=self.registry
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
        # Looking up a label's child costs as much as counting, so each is looked up once.
        self._of_topic = cache(lambda topic: (self.records.labels(topic), self.last_record.labels(topic)))
        self._of_label = cache(
            lambda label: (self.app_secret_matches.labels(label), self.app_secret_last_match.labels(label))
        )
        self._of_outcome = cache(self.deliveries.labels)
        self.unexpected = _Unexpected()
        self.registry.register(self.unexpected)

    async def exposition(self) -> bytes:
        """The metrics of this process in Prometheus' text form."""
        return generate_latest(self.registry)

    def authenticated(self, label: str, received_at: int, body_bytes: int) -> None:
        """Count an authentic delivery."""
        matches, last_match = self._of_label(label)
        matches.inc()
        last_match.set(received_at / 1000)
        self._last_match[label] = received_at / 1000
        self.received_bytes.inc(body_bytes)

    def last_match_seconds_ago(self, label: str, now: float) -> int | None:
        """How long ago this app secret last matched; None when it has not since the start."""
        matched = self._last_match.get(label)
        return None if matched is None else round(now - matched)

    def acknowledged(self, acknowledger: str, seconds: float) -> None:
        """Count a delivery that was answered 200, and how long that took from its last byte."""
        self._of_outcome(acknowledger).inc()
        self.acknowledge_seconds.observe(seconds)

    def refused(self, reason: str, *, delivery: bool, verification: bool) -> None:
        """Count a refusal by what it was: a delivery, a verification request, or neither."""
        if delivery:
            self.deliveries.labels(reason).inc()
        elif verification:
            self.verification_requests.labels(reason).inc()
        else:
            self.requests_refused.labels(reason).inc()

    def found(self, records: Sequence[Record], notes: Sequence[Note]) -> None:
        """Count what the street found in a delivery; once per delivery, not per event."""
        counts: dict[str, int] = {}
        for record in records:
            counts[record.topic] = counts.get(record.topic, 0) + 1
        for topic, count in counts.items():
            counter, last_record = self._of_topic(topic)
            counter.inc(count)
            last_record.set(time.time())
        for note in notes:
            self.unexpected.count(note)


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
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
        )
    )
    # aiokafka logs keys and values on debug, so libraries never go below warning, whatever our own level is.
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)

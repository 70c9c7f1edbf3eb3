"""What auto_reply counts, for Prometheus; no label holds an id of a person, an account or a message."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from consumers.errors import ConsumerError

# Around the goal of 50 ms, and up to where people notice.
SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Figures:
    """The metrics of one process.

    Attributes:
        registry: What a scrape shows.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._decided = Counter(
            "instagram_auto_reply_events_total",
            "Entries of the ledger that this process wrote, and events that it knew already (decided_before).",
            ("outcome", "reason"),
            registry=self.registry,
        )
        self._until_request = Histogram(
            "instagram_auto_reply_request_seconds",
            "From the bridge's receipt of an event, which is its record's timestamp, to the first request for it.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._graph = Histogram(
            "instagram_auto_reply_graph_seconds",
            "From the first request for an event to the last answer.",
            buckets=SECONDS,
            registry=self.registry,
        )
        self._tally: Tally[str] = Tally()

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Adds a gauge that is asked when it is read."""
        Gauge(f"instagram_auto_reply_{name}", meaning, registry=self.registry).set_function(read)

    def decided(self, outcome: str, reason: str) -> None:
        """An entry was written, or an event recognised."""
        self._decided.labels(outcome, reason).inc()
        self._tally[outcome] += 1

    def requested(self, after_s: float) -> None:
        """The first request for an event leaves."""
        self._until_request.observe(max(0.0, after_s))

    def answered(self, after_s: float) -> None:
        """The last answer for an event came, or was given up."""
        self._graph.observe(after_s)

    def since_last(self) -> dict[str, int]:
        """The outcomes since this was asked last, for the log."""
        tally, self._tally = self._tally, Tally()
        return dict(tally)

    def serve(self, host: str, port: int) -> Callable[[], None]:
        """Serves `/metrics` from a thread of its own, and returns what ends that.

        Raises:
            ConsumerError: The port is taken.
        """
        try:
            server, thread = prometheus_client.start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ConsumerError(
                f"AUTO_REPLY_METRICS_PORT: {host}:{port} cannot be listened on ({error.strerror}): name a free one"
            ) from None

        def stop() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return stop

"""Traces by OpenTelemetry, where BRIDGE_TRACING asks for them: one span for each authentic delivery, in every record's headers.

It stands around the intake, so that nothing of it runs, or is imported, while it is off. Where spans go, how many, and the
service's name are OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME …;
opentelemetry.io, "SDK configuration"). No span holds anything of a body.

A delivery that waits in the spool is published without `traceparent`: its span ended when it was on disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from bridge.delivery import Delivery
from bridge.errors import Misconfigured, Refused
from bridge.intake import Acknowledger, Answer, Arrived

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

SERVICE_NAME = "instagram-bridge"

FLUSH_TIMEOUT_S = 2.0
"""For the last spans to be sent at the end; a collector that is away must not hold up a restart."""

_OK = 200


class Takes(Protocol):
    """What the public port needs of an intake."""

    def hold(self, more_bytes: int) -> None:
        """Count bytes of a body."""

    def release(self, held_bytes: int) -> None:
        """Count them no more."""

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Take deliveries."""


class Tracing:
    """Stands around an intake.

    Args:
        intake: takes the deliveries.
        provider: of OpenTelemetry's tracers.
    """

    def __init__(self, intake: Takes, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - an extra: imported where it is asked for

        self._intake = intake
        self._provider = provider
        self._tracer = provider.get_tracer("bridge")
        self._server, self._error = SpanKind.SERVER, StatusCode.ERROR

    def hold(self, more_bytes: int) -> None:
        """As the intake."""
        self._intake.hold(more_bytes)

    def release(self, held_bytes: int) -> None:
        """As the intake."""
        self._intake.release(held_bytes)

    def take(self, arrived: Sequence[Arrived]) -> None:
        """Take each delivery within a span, which begins when its body was complete and ends with its answer."""
        self._intake.take([self._traced(delivery, answer) for delivery, answer in arrived])

    def _traced(self, delivery: Delivery, answer: Answer) -> Arrived:
        span = self._tracer.start_span(
            "POST /webhooks/instagram",
            kind=self._server,
            attributes={
                "http.request.method": "POST",
                "http.request.body.size": len(delivery.body),
                "instagram_bridge.delivery_id": delivery.delivery_id,
                "instagram_bridge.app_secret_label": delivery.app_secret_label,
            },
            start_time=delivery.received_at * 1_000_000,
        )

        def answered(outcome: Acknowledger | Refused) -> None:
            if isinstance(outcome, Refused):
                span.set_attribute("http.response.status_code", outcome.http_status)
                span.set_status(self._error, outcome.reason)
            else:
                span.set_attribute("http.response.status_code", _OK)
                span.set_attribute("instagram_bridge.acknowledged_by", outcome)
            span.end()
            answer(outcome)

        of = span.get_span_context()
        traceparent = f"00-{of.trace_id:032x}-{of.span_id:016x}-{of.trace_flags:02x}"  # W3C Trace Context, version 00
        return msgspec.structs.replace(delivery, traceparent=traceparent), answered

    def close(self) -> None:
        """Send the last spans; blocks until they are sent, and no longer than FLUSH_TIMEOUT_S."""
        # In a thread of its own: the exporter repeats what failed for ten seconds, whatever time-out one gives.
        ending = threading.Thread(target=self._provider.shutdown, daemon=True)
        ending.start()
        ending.join(FLUSH_TIMEOUT_S)


def provider() -> TracerProvider:
    """Tracers that send to where OTEL_EXPORTER_OTLP_ENDPOINT says, over HTTP, in the background.

    Raises:
        Misconfigured: OpenTelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import SERVICE_NAME as NAME  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError:
        raise Misconfigured(
            "BRIDGE_TRACING needs OpenTelemetry: pip install 'instagram-kafka-bridge[tracing]', or set it to false"
        ) from None
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {NAME: SERVICE_NAME}
    made = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made

"""Traces by OpenTelemetry, where `…_TRACING` asks for them: a span for each record, in the trace that the bridge began.

The bridge writes W3C's `traceparent` into the records' headers. Where spans go is in OpenTelemetry's own variables
(OTEL_EXPORTER_OTLP_ENDPOINT …). While it is off nothing of OpenTelemetry is imported.
"""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from aiokafka import ConsumerRecord

from consumers.errors import ConsumerError

FLUSH_TIMEOUT_S = 2.0  # for the last spans to be sent; a collector that is away must not hold up an end


class Tracing:
    """Spans of what one consumer does.

    Args:
        service_name: What the spans are told apart by, unless OTEL_SERVICE_NAME says otherwise: the group's name.
        enabled: Whether there are any.

    Raises:
        ConsumerError: OpenTelemetry is not installed.
    """

    def __init__(self, service_name: str, *, enabled: bool) -> None:
        self._provider: Any = _provider(service_name) if enabled else None

    @contextlib.contextmanager
    def handling(self, records: Iterable[ConsumerRecord[bytes, bytes]]) -> Iterator[None]:
        """A span for each record that carries a `traceparent`, as long as the context; failed when it raises."""
        if self._provider is None:
            yield
            return
        from opentelemetry.trace import SpanKind, StatusCode  # noqa: PLC0415 - an extra, imported where it is asked for
        from opentelemetry.trace.propagation.tracecontext import (  # noqa: PLC0415 - as above
            TraceContextTextMapPropagator,
        )

        propagator, tracer = TraceContextTextMapPropagator(), self._provider.get_tracer(__name__)
        spans = [
            tracer.start_span(
                f"process {record.topic}",
                context=propagator.extract({"traceparent": traceparent}),
                kind=SpanKind.CONSUMER,
                attributes={
                    "messaging.system": "kafka",
                    "messaging.operation.type": "process",
                    "messaging.destination.name": record.topic,
                    "messaging.destination.partition.id": str(record.partition),
                    "messaging.kafka.offset": record.offset,
                },
            )
            for record in records
            if (traceparent := _traceparent(record)) is not None
        ]
        try:
            yield
        except BaseException as error:
            for span in spans:
                span.set_status(StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            for span in spans:
                span.end()

    def close(self) -> None:
        """Sends the last spans; blocks until they are sent, and no longer than FLUSH_TIMEOUT_S."""
        if self._provider is not None:
            # In a thread of its own: the exporter repeats what failed for ten seconds, whatever time-out one gives.
            ending = threading.Thread(target=self._provider.shutdown, daemon=True)
            ending.start()
            ending.join(FLUSH_TIMEOUT_S)


def _traceparent(record: ConsumerRecord[bytes, bytes]) -> str | None:
    for name, value in record.headers:
        if name == "traceparent" and value is not None:
            return bytes(value).decode("ascii", "replace")
    return None


def _provider(service_name: str) -> Any:  # noqa: ANN401 - its type is in an extra that may not be there
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - as above
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - as above
    except ImportError:
        raise ConsumerError(
            "…_TRACING needs OpenTelemetry: pip install 'instagram-kafka-bridge[tracing]', or set it to false"
        ) from None
    named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: service_name}
    provider = TracerProvider(resource=Resource.create(named), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider

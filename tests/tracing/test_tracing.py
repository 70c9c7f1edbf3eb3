"""Traces from the POST through the records' headers into a consumer, as a collector of OpenTelemetry sees them."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from bridge.delivery import Delivery
from bridge.errors import NotAcknowledged, Refused
from bridge.intake import Acknowledger, Arrived
from bridge.local.jvm import free_port
from bridge.local.service import Broker
from bridge.tracing import FLUSH_TIMEOUT_S, Tracing
from consumers.settings import ConsumerSettings
from consumers.worker import Worker
from tests.kafka.reading import Record, decode_single_object
from tests.kafka.serving import begun, message, notification, opened, serve_environment
from tests.unit.street import delivery_of

DEADLINE_S = 30


class Collector:
    """Takes spans over OTLP/HTTP."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.spans: list[tuple[str, Span]] = []
        self._came = asyncio.Event()

    async def take(self, request: web.Request) -> web.Response:
        """What an exporter sends."""
        export = ExportTraceServiceRequest.FromString(await request.read())
        for group in export.resource_spans:
            names = {each.key: each.value.string_value for each in group.resource.attributes}
            self.spans += [(names["service.name"], span) for scope in group.scope_spans for span in scope.spans]
        self._came.set()
        return web.Response(body=b"", content_type="application/x-protobuf")

    async def until(self, count: int) -> list[tuple[str, Span]]:
        """All spans, as soon as there are so many."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.spans) < count:
                self._came.clear()
                await self._came.wait()
        return self.spans


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    """In this process, on a free port."""
    port = free_port()
    made = Collector(port)
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield made
    await runner.cleanup()


def attributes(span: Span) -> dict[str, Any]:
    """By name, as texts or numbers."""
    return {each.key: each.value.string_value or each.value.int_value for each in span.attributes}


class Settings(ConsumerSettings):
    """The settings of the tests' consumer."""

    model_config = SettingsConfigDict(env_prefix="TRACING_TEST_")

    group_id: str = Field(default="tracing-test", min_length=1)


async def read_all(kafka: Broker, prefix: str, count: int) -> None:
    """A worker with tracing over the messages, until it has handled so many."""
    handled, stop = 0, asyncio.Event()

    async def handle(events: list[Any]) -> None:
        nonlocal handled
        handled += len(events)
        if handled >= count:
            stop.set()

    given = {
        "kafka_bootstrap_servers": kafka.bootstrap_servers,
        "topic_prefix": prefix,
        "group_id": f"{prefix}-group",
        "tracing": True,
    }
    async with asyncio.timeout(DEADLINE_S):
        await Worker(Settings.model_validate(given), webhook_fields=["messages"], handle=handle).run(stop)


async def test_trace_goes_from_the_post_through_the_headers_into_the_consumer(
    kafka: Broker, topic_prefix: str, tmp_path: Path, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One span for a delivery; its records name it; a consumer's spans are its children. Nothing of the body is in them."""
    for name, value in (("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url), ("OTEL_BSP_SCHEDULE_DELAY", "50")):
        monkeypatch.setenv(name, value)
    environment = serve_environment(kafka.bootstrap_servers, topic_prefix, TRACING="true")
    async with opened(tmp_path, environment, decode_single_object) as street:
        delivery_id = await street.serving.accepted(notification(message("m-1"), message("m-2")))
        records: list[Record] = await street.reader.of(delivery_id)
        ((service, span),) = await collector.until(1)
        assert (service, span.name, span.parent_span_id) == ("instagram-bridge", "POST /webhooks/instagram", b"")
        told = attributes(span)
        assert told["instagram_bridge.delivery_id"] == delivery_id
        assert told["instagram_bridge.acknowledged_by"] == "kafka"
        assert told["http.response.status_code"] == 200
        assert span.end_time_unix_nano > span.start_time_unix_nano
        for record in records:
            *named, flags = record.headers["traceparent"].split("-")
            assert (named, int(flags, 16) & 1) == (["00", span.trace_id.hex(), span.span_id.hex()], 1)

        await read_all(kafka, topic_prefix, 2)
        _, *consumed = await collector.until(3)
        for service, child in consumed:
            assert (service, child.name) == (f"{topic_prefix}-group", f"process {topic_prefix}.messages")
            assert (child.trace_id, child.parent_span_id) == (span.trace_id, span.span_id)
        offsets = {attributes(child).get("messaging.kafka.offset", 0) for _, child in consumed}
        assert offsets == {record.offset for record in records}

        await street.serving.accepted(notification(message("m-3")))
        assert await street.serving.process.end(signal.SIGTERM) == 0
        assert len(await collector.until(4)) == 4  # what was not sent yet is sent at the end
    everything = "".join(str(span) for _, span in collector.spans)
    assert not [text for text in ("m-1", "1254459154682919", "17841400000000001") if text in everything]


async def test_end_with_a_collector_that_is_away_is_not_held_up(
    topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deliveries are answered and the process ends as ever, Kafka away or not; only its spans are lost."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    environment = serve_environment(f"127.0.0.1:{free_port()}", topic_prefix, TRACING="true", SPOOL_DIR="spool")
    async with begun(tmp_path, environment) as serving:
        await serving.until_ready()
        await serving.accepted(notification(message("m-1")))
        assert await serving.process.end(signal.SIGTERM) == 0
        stopping, stopped = (
            json.loads(line)["timestamp"]
            for line in serving.process.stderr.splitlines()
            if line.startswith("{") and json.loads(line)["event"] in {"stopping", "stopped"}
        )
    assert datetime.fromisoformat(stopped) - datetime.fromisoformat(stopping) < 3 * timedelta(seconds=FLUSH_TIMEOUT_S)


async def test_tracing_without_the_extra_stops_the_start_in_one_line(
    topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where OpenTelemetry cannot be imported, the line says what to install."""
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry/__init__.py").write_text("raise ImportError('not installed')\n", "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    environment = serve_environment(f"127.0.0.1:{free_port()}", topic_prefix, TRACING="true")
    async with begun(tmp_path, environment) as serving:
        assert await serving.process.end() == 1
        (line,) = [line for line in serving.process.stderr.splitlines() if line.startswith("bridge: ")]
        assert "instagram-kafka-bridge[tracing]" in line


class Answers:
    """Answers every delivery as it was told to."""

    def __init__(self, outcome: Acknowledger | Refused) -> None:
        self._outcome = outcome
        self.taken: list[Delivery] = []

    def hold(self, more_bytes: int) -> None:
        """Nobody counts."""

    def release(self, held_bytes: int) -> None:
        """Nobody counts."""

    def take(self, arrived: Sequence[Arrived]) -> None:
        """At once."""
        for delivery, answer in arrived:
            self.taken.append(delivery)
            answer(self._outcome)


@pytest.mark.parametrize("outcome", ["spool", NotAcknowledged("Kafka is away")], ids=["spooled", "refused"])
def test_span_tells_what_became_of_a_delivery(outcome: Acknowledger | Refused) -> None:
    """Who acknowledged it, or the status and the reason of the refusal."""
    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    behind, answers = Answers(outcome), list[object]()
    Tracing(behind, provider).take([(delivery_of(b"{}"), answers.append)])
    assert answers == [outcome]
    (span,) = exporter.get_finished_spans()
    told = dict(span.attributes or {})
    if isinstance(outcome, Refused):
        assert (told["http.response.status_code"], span.status.description) == (503, "not_acknowledged")
    else:
        assert (told["http.response.status_code"], told["instagram_bridge.acknowledged_by"]) == (200, "spool")
    assert behind.taken[0].traceparent is not None
    provider.shutdown()

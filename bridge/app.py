"""The composition root: builds the rooms, wires their lifetimes, and lets them go in order."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from bridge.adapters import management, registry, topics
from bridge.adapters.connection import connection
from bridge.adapters.kafka import KafkaPublisher
from bridge.adapters.spool import SqliteSpool
from bridge.adapters.webhook import Webhook
from bridge.encoding import DeadLetterEncoder, Encoder, confluent_prefix, single_object_prefix
from bridge.errors import Misconfigured
from bridge.event import WEBHOOK_FIELDS
from bridge.intake import Intake
from bridge.pipeline import Pipeline
from bridge.routing import DEAD_LETTER, TOPIC_FIELDS, topic_name
from bridge.schemas import load
from bridge.settings import Settings, live_secrets
from bridge.telemetry import Telemetry

_log = structlog.get_logger()

_FIRST_LOOK_TIMEOUT_S = 10.0
"""For Kafka and the registry to be found at the start; then, with a spool, deliveries are taken without them."""

_BACKLOG = 1024
"""Connections that the kernel keeps while the loop is busy with a large delivery."""

_DRAIN_MARGIN_S = 2.0
"""Beyond the publish deadline, for answers to be written before the connections are cut."""


class Serving:
    """One running bridge.

    Attributes:
        stop: set to begin an orderly end.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secrets = live_secrets(settings)
        self._telemetry = Telemetry()
        self._began = time.time()
        self._prefixes: Mapping[str, bytes] = {}
        self._first_partitions: int | None = None
        self._serving = False
        self.stop = asyncio.Event()
        self._spool = SqliteSpool(Path(settings.spool_dir), settings.spool_bytes_max) if settings.spool_dir else None
        self._publisher = KafkaPublisher(
            prepare=self._prepare,
            new_producer=self._new_producer,
            deadline_s=settings.publish_deadline_ms / 1000,
        )
        self._intake = Intake(
            publisher=self._publisher,
            spool=self._spool,
            found=self._telemetry.found,
            body_bytes_max=settings.body_bytes_max,
        )
        self._watch()

    async def run(self) -> None:
        """Serve until `stop` is set, then finish what is in flight.

        Raises:
            Misconfigured: it cannot start; the message says what to mend.
        """
        settings = self._settings
        drain_s = settings.publish_deadline_ms / 1000 + _DRAIN_MARGIN_S
        if self._spool is None:
            _log.warning("no_spool", meaning="while Kafka is away deliveries are answered 503")
        app = management.application(telemetry=self._telemetry, ready=self._ready, status=self._status)
        async with _management(app, settings.management_host, settings.management_port):
            found = await self._first_look()
            sending = asyncio.create_task(self._publisher.run(), name="publisher")
            draining = asyncio.create_task(self._intake.drain(), name="drain")
            background = {sending, draining}
            stopping = asyncio.create_task(self.stop.wait())
            if found or self._spool is None:
                ready = asyncio.create_task(self._publisher.until_ready())
                timeout_s = None if self._spool is None else _FIRST_LOOK_TIMEOUT_S
                await asyncio.wait(
                    {ready, stopping, *background}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                ready.cancel()
            webhook = Webhook(
                intake=self._intake,
                app_secrets=self._secrets,
                verify_token=settings.verify_token.get_secret_value(),
                body_bytes_max=settings.body_bytes_max,
                telemetry=self._telemetry,
            )
            if not self.stop.is_set():
                server = await _listen(webhook, settings.host, settings.port)
                self._serving = True
                _log.info("serving", host=settings.host, port=settings.port, mode=self._intake.mode.value)
                await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
                _log.info("stopping", shutdown_delay_ms=settings.shutdown_delay_ms)
                await asyncio.sleep(settings.shutdown_delay_ms / 1000)
                server.close()
                await webhook.stop(drain_s)
            self._publisher.stop()
            draining.cancel()
            _, late = await asyncio.wait(background, timeout=drain_s)
            for task in late:
                task.cancel()
            if self._spool is not None:
                await self._spool.close()
            for task in background:
                if task.done() and not task.cancelled():
                    task.result()  # they end when told to: whatever they raised is a fault of ours
        _log.info("stopped")

    async def _first_look(self) -> bool:
        """Look whether Kafka and the registry are there, and as they must be.

        Raises:
            Misconfigured: they are there, and a person must mend something.
        """
        try:
            async with asyncio.timeout(_FIRST_LOOK_TIMEOUT_S):
                self._first_partitions = await self._prepare()
        except (KafkaError, OSError, registry.RegistryUnreachable) as error:
            _log.warning("kafka_or_registry_away", error=type(error).__name__, spool=self._spool is not None)
            return False
        return True

    async def _prepare(self) -> int:
        """Check the topics and look up the schemas; called before every producer, and once more by the first look."""
        if self._first_partitions is not None:
            partitions, self._first_partitions = self._first_partitions, None
            return partitions
        partitions = await topics.check(self._settings)
        prefixes = await _value_prefixes(self._settings)
        if prefixes != self._prefixes:
            self._prefixes = prefixes
            self._intake.pipeline = Pipeline(
                topic_prefix=self._settings.topic_prefix,
                encoders={field: Encoder(field, load(field), prefixes[field]) for field in WEBHOOK_FIELDS},
                dead_letters=DeadLetterEncoder(load(DEAD_LETTER), prefixes[DEAD_LETTER]),
                record_bytes_max=self._settings.record_bytes_max,
            )
        return partitions

    def _new_producer(self) -> AIOKafkaProducer:
        settings = self._settings
        return AIOKafkaProducer(
            **connection(settings),
            client_id="instagram-bridge",
            acks="all",
            enable_idempotence=True,
            max_batch_size=settings.record_bytes_max,
            max_request_size=settings.body_bytes_max + topics.DEAD_LETTER_MARGIN_BYTES,
            request_timeout_ms=settings.publish_deadline_ms,
            retry_backoff_ms=50,  # a moved leader costs a retry; aiokafka's own 100 ms would cost two
        )

    def _ready(self) -> bool:
        return self._serving and not self.stop.is_set() and self._intake.ready

    def _watch(self) -> None:
        """Let the gauges ask the rooms when they are read."""
        telemetry, intake, publisher, spool = self._telemetry, self._intake, self._publisher, self._spool
        telemetry.deliveries_in_flight.set_function(lambda: intake.deliveries_in_flight)
        telemetry.held_bytes.set_function(lambda: intake.bytes_held)
        telemetry.producer_rebuilds.set_function(lambda: publisher.rebuilds)
        if spool is not None:
            telemetry.spool_deliveries.set_function(lambda: spool.deliveries)
            telemetry.spool_bytes.set_function(lambda: spool.bytes)
            telemetry.spool_oldest.set_function(lambda: (spool.oldest_received_at or 0) / 1000)
            telemetry.spool_files_set_aside.set_function(lambda: spool.set_aside)

    def _status(self) -> dict[str, object]:
        intake, publisher, spool = self._intake, self._publisher, self._spool
        now = time.time()
        return {
            "ready": self._ready(),
            "stopping": self.stop.is_set(),
            "mode": intake.mode.value,
            "uptime_seconds": round(now - self._began),
            "deliveries_in_flight": intake.deliveries_in_flight,
            "bytes_held": intake.bytes_held,
            "kafka": {"connected": publisher.ready, "producer_rebuilds": publisher.rebuilds},
            "spool": spool
            and {
                "deliveries": spool.deliveries,
                "bytes": spool.bytes,
                "bytes_max": self._settings.spool_bytes_max,
                "oldest_age_seconds": spool.oldest_received_at and round(now - spool.oldest_received_at / 1000),
                "files_set_aside": spool.set_aside,
                "drained": intake.drained,
            },
            "app_secrets": {
                secret.label: {"last_matched_seconds_ago": self._telemetry.last_match_seconds_ago(secret.label, now)}
                for secret in self._secrets
            },
        }


async def serve(settings: Settings) -> bool:
    """Run a bridge until SIGTERM or SIGINT.

    Returns:
        Whether it was interrupted (SIGINT) rather than told to end (SIGTERM).

    Raises:
        Misconfigured: it cannot start.
    """
    serving = Serving(settings)
    interrupted = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal interrupted
        interrupted = number is signal.SIGINT
        serving.stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    await serving.run()
    return interrupted


async def _value_prefixes(settings: Settings) -> dict[str, bytes]:
    """What stands before the Avro bytes of every topic's values."""
    schemas = {field: load(field) for field in TOPIC_FIELDS}
    if settings.schema_registry_url is None:
        return {field: single_object_prefix(schema) for field, schema in schemas.items()}
    subjects = {field: f"{topic_name(settings.topic_prefix, field)}-value" for field in TOPIC_FIELDS}
    ids = await registry.schema_ids(settings, {subjects[field]: schemas[field] for field in TOPIC_FIELDS})
    return {field: confluent_prefix(ids[subjects[field]]) for field in TOPIC_FIELDS}


async def _listen(webhook: Webhook, host: str, port: int) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(webhook, host, port, backlog=_BACKLOG)
    except OSError as error:
        raise _taken(host, port, error) from None


@contextlib.asynccontextmanager
async def _management(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            raise _taken(host, port, error) from None
        yield
    finally:
        await runner.cleanup()


def _taken(host: str, port: int, error: OSError) -> Misconfigured:
    return Misconfigured(f"cannot listen on {host}:{port} ({error.strerror}): choose another port or address")

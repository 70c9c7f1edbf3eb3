"""The composition root: builds the rooms, wires their lifetimes, and lets them go in order."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from bridge.adapters import registry, topics
from bridge.adapters.connection import connection
from bridge.adapters.kafka import KafkaPublisher, Topics
from bridge.adapters.spool import SqliteSpool
from bridge.encoding import DeadLetterEncoder, Encoder, confluent_prefix, single_object_prefix
from bridge.errors import Misconfigured
from bridge.event import WEBHOOK_FIELDS
from bridge.intake import Intake, Mode
from bridge.pipeline import Pipeline
from bridge.routing import DEAD_LETTER, TOPIC_FIELDS, topic_name
from bridge.schemas import load
from bridge.settings import SECRETS, KafkaSettings, Settings, live_secrets, watched_accounts
from bridge.telemetry import Telemetry

_log = structlog.get_logger()

_FIRST_LOOK_TIMEOUT_S = 10.0
"""For Kafka and the registry to be found at the start; then, with a spool, deliveries are taken without them."""

_DRAIN_MARGIN_S = 2.0
"""Beyond the publish deadline, for answers to be written before the connections are cut."""


_COLLECT_AFTER_OBJECTS = 5_000
"""For Python's cyclic collector, whose default is 700. A delivery makes no cycles, from its bytes to Kafka's answer or the disk, so it
found next to nothing, at a twentieth of a delivery's CPU. A connection that has ended is one, of some twenty objects with its transport
and its parser: a few hundred of them is what may wait."""


_SWITCH_AFTER_S = 0.0005
"""For a thread that wants the interpreter while the loop is busy; Python's 5 ms, times the steps of a commit, is what a delivery that is
spooled during a drain would wait. There is no other thread while nothing is spooled."""


class Serving:
    """What every process of a bridge has: the publisher, an intake, and an orderly life. A subclass adds its front.

    Attributes:
        stop: set to begin an orderly end.
        telemetry: counts.
        intake: takes deliveries.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.secrets = live_secrets(settings)
        self.telemetry = Telemetry(watched_accounts(settings))
        self.stop = asyncio.Event()
        self.serving = False
        self.spool: SqliteSpool | None = None
        self.publisher = KafkaPublisher(
            prepare=self._prepare,
            new_producer=self._new_producer,
            deadline_s=settings.publish_deadline_ms / 1000,
        )
        self.intake = self.new_intake()
        self._began = time.time()
        self._prefixes: Mapping[str, bytes] = {}
        self._record_bytes_max = settings.record_bytes_max
        self._first_topics: Topics | None = None
        self._watch()

    def new_intake(self) -> Intake:
        """An intake with a spool of its own."""
        settings = self.settings
        if settings.spool_dir:
            self.spool = SqliteSpool(Path(settings.spool_dir), settings.spool_bytes_max)
        else:
            _log.warning("no_spool", meaning="while Kafka is away deliveries are answered 503")
        return Intake(
            publisher=self.publisher,
            spool=self.spool,
            found=self.telemetry.found,
            body_bytes_max=settings.body_bytes_max,
            entered=self.entered,
        )

    def entered(self, mode: Mode) -> None:
        """Hear of the intake's mode."""

    def front(self) -> AbstractAsyncContextManager[None]:
        """Take deliveries while the context is open; on the way out, stop taking them and have them answered."""
        raise NotImplementedError

    async def run(self) -> None:
        """Serve until `stop` is set, then finish what is in flight.

        Raises:
            Misconfigured: it cannot start; the message says what to mend.
        """
        found = await self._first_look()
        sending = asyncio.create_task(self.publisher.run(), name="publisher")
        draining = asyncio.create_task(self.intake.drain(), name="drain")
        background = {sending, draining}
        stopping = asyncio.create_task(self.stop.wait())
        if found or not self.intake.ready:
            ready = asyncio.create_task(self.publisher.until_ready())
            timeout_s = _FIRST_LOOK_TIMEOUT_S if self.intake.ready else None
            await asyncio.wait({ready, stopping, *background}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            ready.cancel()
        try:
            if not self.stop.is_set():
                async with self.front():
                    self.serving = True
                    _log.info("serving", mode=self.intake.mode.value)
                    await asyncio.wait({stopping, *background}, return_when=asyncio.FIRST_COMPLETED)
                    _log.info("stopping", shutdown_delay_ms=self.settings.shutdown_delay_ms)
                    self.stop.set()
                    await asyncio.sleep(self.settings.shutdown_delay_ms / 1000)
        finally:
            await self._end(sending, draining)
        _log.info("stopped")

    async def _end(self, sending: asyncio.Task[None], draining: asyncio.Task[None]) -> None:
        self.publisher.stop()
        draining.cancel()
        _, late = await asyncio.wait({sending, draining}, timeout=self.drain_s)
        for task in late:
            task.cancel()
        if self.spool is not None:
            await self.spool.close()
        for task in (sending, draining):
            if task.done() and not task.cancelled():
                task.result()  # they end when told to: whatever they raised is a fault of ours

    @property
    def drain_s(self) -> float:
        """The longest that deliveries in flight may take to be answered."""
        return self.settings.publish_deadline_ms / 1000 + _DRAIN_MARGIN_S

    def reload(self, settings: Settings) -> None:
        """Take over the secrets of newly read settings, and nothing else of them.

        A delivery that is authenticated from now on finds the new app secrets; Kafka and the registry, with the next
        connection, the new passwords.
        """
        self.settings = self.settings.model_copy(update={name: getattr(settings, name) for name in SECRETS})
        self.secrets = live_secrets(settings)
        _log.info("secrets_reloaded", app_secrets=[secret.label for secret in self.secrets])

    async def _first_look(self) -> bool:
        """Look whether Kafka and the registry are there, and as they must be.

        Raises:
            Misconfigured: they are there, and a person must mend something.
        """
        try:
            async with asyncio.timeout(_FIRST_LOOK_TIMEOUT_S):
                self._first_topics = await self._prepare()
        except (KafkaError, OSError, registry.RegistryUnreachable) as error:
            _log.warning("kafka_or_registry_away", error=type(error).__name__, spool=self.spool is not None)
            return False
        return True

    async def _prepare(self) -> Topics:
        """Check the topics and look up the schemas; called before every producer, and once more by the first look."""
        if self._first_topics is not None:
            found, self._first_topics = self._first_topics, None
            return found
        if self.serving:
            partitions, record_bytes_max = await topics.check_again(self.settings)
        else:
            partitions, record_bytes_max = await topics.check(self.settings), self.settings.record_bytes_max
        prefixes = await value_prefixes(self.settings)
        if (prefixes, record_bytes_max) != (self._prefixes, self._record_bytes_max):
            self._prefixes, self._record_bytes_max = prefixes, record_bytes_max
            self.intake.pipeline = new_pipeline(self.settings, prefixes, record_bytes_max)
        return Topics(partitions, record_bytes_max)

    def _new_producer(self) -> AIOKafkaProducer:
        settings = self.settings
        return AIOKafkaProducer(
            **connection(settings),
            client_id="instagram-bridge",
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=settings.publish_deadline_ms,
        )

    @property
    def ready(self) -> bool:
        """Whether a delivery that came now would be taken."""
        return self.serving and not self.stop.is_set() and self.intake.ready

    def _watch(self) -> None:
        """Let the gauges ask the rooms when they are read."""
        telemetry, intake, publisher, spool = self.telemetry, self.intake, self.publisher, self.spool
        telemetry.deliveries_in_flight.set_function(lambda: intake.deliveries_in_flight)
        telemetry.held_bytes.set_function(lambda: intake.bytes_held)
        telemetry.producer_rebuilds.set_function(lambda: publisher.rebuilds)
        if spool is not None:
            telemetry.spool_deliveries.set_function(lambda: spool.deliveries)
            telemetry.spool_bytes.set_function(lambda: spool.bytes)
            telemetry.spool_bytes_max.set(self.settings.spool_bytes_max)
            telemetry.spool_oldest.set_function(lambda: (spool.oldest_received_at or 0) / 1000)
            telemetry.spool_files_set_aside.set_function(lambda: spool.set_aside)

    def status(self) -> dict[str, object]:
        """What /status shows; no secrets."""
        intake, publisher, spool = self.intake, self.publisher, self.spool
        now = time.time()
        return {
            "ready": self.ready,
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
                "bytes_max": self.settings.spool_bytes_max,
                "oldest_age_seconds": spool.oldest_received_at and round(now - spool.oldest_received_at / 1000),
                "files_set_aside": spool.set_aside,
                "drained": intake.drained,
            },
            "app_secrets": {
                secret.label: {"last_matched_seconds_ago": self.telemetry.last_match_seconds_ago(secret.label, now)}
                for secret in self.secrets
            },
            "accounts": {
                account_id: {"last_event_seconds_ago": age}
                for account_id, age in self.telemetry.watch.seconds_ago(now).items()
            },
        }


async def run(serving: Serving, read_again: Callable[[], Settings]) -> bool:
    """Run a bridge, or a process of one, until SIGTERM or SIGINT. SIGHUP takes over the secrets that ``read_again`` gives.

    Returns:
        Whether it was interrupted (SIGINT) rather than told to end (SIGTERM).

    Raises:
        Misconfigured: it cannot start.
    """
    interrupted = False

    def on_signal(number: signal.Signals) -> None:
        nonlocal interrupted
        interrupted = number is signal.SIGINT
        serving.stop.set()

    def on_hangup() -> None:
        try:
            serving.reload(read_again())
        except Misconfigured as error:  # the old ones stay: a bad file must not end a bridge that serves
            _log.error("secrets_not_reloaded", problem=str(error))

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    gc.collect()
    gc.freeze()  # what is imported lives as long as the process
    gc.set_threshold(_COLLECT_AFTER_OBJECTS)
    sys.setswitchinterval(_SWITCH_AFTER_S)
    await serving.run()
    return interrupted


def new_pipeline(settings: KafkaSettings, prefixes: Mapping[str, bytes], record_bytes_max: int) -> Pipeline:
    """The street, for the topics of the settings and values that begin with these prefixes."""
    return Pipeline(
        topic_prefix=settings.topic_prefix,
        encoders={field: Encoder(field, load(field), prefixes[field]) for field in WEBHOOK_FIELDS},
        dead_letters=DeadLetterEncoder(load(DEAD_LETTER), prefixes[DEAD_LETTER]),
        record_bytes_max=record_bytes_max,
    )


async def value_prefixes(settings: KafkaSettings) -> dict[str, bytes]:
    """What stands before the Avro bytes of every topic's values; asks the registry, where there is one.

    Raises:
        Misconfigured: schemas are not registered, or the registry is not to be used with these settings.
        RegistryUnreachable: worth another try.
    """
    schemas = {field: load(field) for field in TOPIC_FIELDS}
    if settings.schema_registry_url is None:
        return {field: single_object_prefix(schema) for field, schema in schemas.items()}
    subjects = {field: f"{topic_name(settings.topic_prefix, field)}-value" for field in TOPIC_FIELDS}
    ids = await registry.schema_ids(settings, {subjects[field]: schemas[field] for field in TOPIC_FIELDS})
    return {field: confluent_prefix(ids[subjects[field]]) for field in TOPIC_FIELDS}

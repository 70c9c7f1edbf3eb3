"""Several processes behind one public port: workers that take deliveries, and the keeper, their parent, that has the spool.

The kernel shares new connections out (SO_REUSEPORT). A worker that ends is replaced; a keeper that ends takes its workers
with it, whatever ended it. One management port, the keeper's, answers for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import structlog
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry

from bridge.adapters import management
from bridge.adapters.keeper import KeeperEnd, ModeFlag, Report, WorkerEnd, connect
from bridge.app import Serving
from bridge.errors import Misconfigured
from bridge.ingress import Ingress, managing
from bridge.intake import Intake, Mode
from bridge.settings import Settings
from bridge.worker_intake import WorkerIntake

_log = structlog.get_logger()

START_TIMEOUT_S = 30.0
"""For a worker to open its port: it looks for Kafka for ten seconds, and a busy machine needs as long to start Python."""

_REPORT_TIMEOUT_S = 1.0
"""For a worker to report; Prometheus waits ten seconds for all of them."""

_REPLACE_DELAY_S = 0.5
"""Before a worker that ended or could not be started is replaced, so that one that cannot live does not keep a core busy."""

_POLL_INTERVAL_S = 0.05
_STOP_MARGIN_S = 5.0


class Worker(Ingress):
    """One of several: takes deliveries, publishes them itself, and leaves the rest to the keeper.

    Args:
        settings: the bridge's.
        end: the way to the keeper.
        mode: where deliveries go, as the keeper has it.
    """

    def __init__(self, settings: Settings, end: WorkerEnd, mode: ModeFlag) -> None:
        self._end_of_socket = end
        self._mode = mode
        # The keeper has waited for the load balancers already, and gives a worker no longer than deliveries in flight need.
        super().__init__(settings.model_copy(update={"shutdown_delay_ms": 0}))
        end.report = self._report
        end.lost = _end_at_once

    def new_intake(self) -> Intake:
        """An intake without a spool."""
        return WorkerIntake(
            publisher=self.publisher,
            found=self.telemetry.found,
            body_bytes_max=self.settings.body_bytes_max,
            keeper=self._end_of_socket,
            shared_mode=self._mode,
        )

    async def run(self) -> None:
        """Serve without a management port: the keeper's answers for all."""
        await Serving.run(self)

    def _report(self, number: int) -> Report:
        return Report(number, self.ready, generate_latest(self.telemetry.registry), self.status())


def _end_at_once() -> None:
    """End as the keeper did: by force. It would see no next keeper's mode, and could overtake what that one spools."""
    _log.error("keeper_lost")
    os._exit(1)


class Keeper(Serving):
    """Parent of the workers: has the spool, drains it, and answers on the management port."""

    def __init__(self, settings: Settings) -> None:
        self._memory = os.memfd_create("instagram-bridge-mode")
        os.ftruncate(self._memory, 1)
        self._mode = ModeFlag(self._memory)
        self._workers: dict[int, tuple[KeeperEnd, asyncio.subprocess.Process]] = {}
        super().__init__(settings)

    @property
    def ready(self) -> bool:
        """Whether a delivery that came now would be taken: there must be a worker too."""
        return bool(self._workers) and super().ready

    def entered(self, mode: Mode) -> None:
        """Let all workers see the mode."""
        self._mode.set(mode)

    async def run(self) -> None:
        """Serve with the management port open from the first moment."""
        app = management.application(metrics=self._metrics, ready=lambda: self.ready, status=self._status_of_all)
        async with managing(app, self.settings):
            await super().run()

    @contextlib.asynccontextmanager
    async def front(self) -> AsyncIterator[None]:
        """Run the workers."""
        places = [asyncio.create_task(self._keep_worker(place)) for place in range(self.settings.workers)]
        try:
            await self._until_all_serve(places)
            yield
        finally:
            for place in places:
                place.cancel()
            await asyncio.gather(*(self._stop(process) for _, process in list(self._workers.values())))
            await asyncio.gather(*places, return_exceptions=True)

    def reload(self, settings: Settings) -> None:
        """Take over new secrets, and let the workers read them too."""
        super().reload(settings)
        for _, process in self._workers.values():
            with contextlib.suppress(ProcessLookupError):  # it has just ended; the next one reads them anyway
                process.send_signal(signal.SIGHUP)

    async def _keep_worker(self, place: int) -> None:
        """Run a worker, and another one when it ends or cannot be started, until cancelled."""
        while True:
            try:
                end, process = await self._start_worker()
            except (OSError, RuntimeError) as error:  # RuntimeError: asyncio got no thread that waits for the process
                problem = error.strerror if isinstance(error, OSError) else str(error)
                told = {"error": type(error).__name__, "problem": problem, "tried_again_in_s": _REPLACE_DELAY_S}
                _log.error("worker_not_started", worker=place, **told)
            else:
                self._workers[place] = end, process
                code = await process.wait()
                del self._workers[place]
                _log.error("worker_ended", worker=place, code=code, replaced_in_s=_REPLACE_DELAY_S)
            await asyncio.sleep(_REPLACE_DELAY_S)

    async def _start_worker(self) -> tuple[KeeperEnd, asyncio.subprocess.Process]:
        """A worker's process and the way to it; when one cannot be had, or it is cancelled, nothing of the other stays."""
        async with contextlib.AsyncExitStack() as undoing:
            ours, theirs = socket.socketpair()
            undoing.callback(ours.close)
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "bridge", *sys.argv[1:], "--worker", f"{theirs.fileno()},{self._memory}"),
                    pass_fds=(theirs.fileno(), self._memory),
                    start_new_session=True,  # Ctrl-C reaches the keeper alone, which ends the workers in order
                )
            undoing.push_async_callback(_kill, process)
            end = KeeperEnd(self.intake.take, self.intake.set_aside)
            await connect(end, ours)
            undoing.pop_all()
        return end, process

    async def _until_all_serve(self, places: list[asyncio.Task[None]]) -> None:
        """Wait for that, or until it is to stop: a service manager waits no longer for an end than this does for a start."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not self.stop.is_set():
                    reports = await self._reports()
                    if len(reports) == len(places) and all(report.serving for report in reports):
                        return
                    await asyncio.sleep(_POLL_INTERVAL_S)
        except TimeoutError:
            raise Misconfigured(
                f"the workers did not serve within {START_TIMEOUT_S:g} s: see the log for why, or set BRIDGE_WORKERS=1"
            ) from None

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        """SIGTERM, and SIGKILL for one that takes longer than its deliveries can."""
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self.drain_s + _STOP_MARGIN_S)
            except TimeoutError:
                await _kill(process)

    async def _reports(self) -> list[Report]:
        ends = [end for end, _ in self._workers.values()]
        reports = await asyncio.gather(*(end.report(_REPORT_TIMEOUT_S) for end in ends))
        return [report for report in reports if report is not None]

    async def _metrics(self) -> bytes:
        texts = [await self.telemetry.exposition(), *(report.metrics for report in await self._reports())]
        registry = CollectorRegistry()
        registry.register(_Together(texts))
        return generate_latest(registry)

    async def _status_of_all(self) -> Mapping[str, object]:
        own, workers = self.status(), [report.status for report in await self._reports()]
        latest = {
            section: _latest([own, *workers], section, figure)
            for section, figure in (("app_secrets", "last_matched_seconds_ago"), ("accounts", "last_event_seconds_ago"))
        }
        return {**own, **latest, "workers": workers}


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended by itself
        process.kill()
    await process.wait()


def _latest(statuses: Iterable[Mapping[str, Any]], section: str, figure: str) -> dict[str, dict[str, int | None]]:
    """How long ago it last happened in any of these processes, for everything in a section of their statuses."""
    ages: dict[str, list[int]] = {}
    for status in statuses:
        for name, told in status[section].items():
            ages.setdefault(name, []).extend([] if told[figure] is None else [told[figure]])
    return {name: {figure: min(known, default=None)} for name, known in ages.items()}


class _Together(Collector):
    """The metrics of several processes as one: counts are added, of times the latest counts."""

    def __init__(self, texts: Iterable[bytes]) -> None:
        self._texts = texts

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        values: dict[tuple[str, str, tuple[tuple[str, str], ...]], float] = {}
        for text in self._texts:
            for family in text_string_to_metric_families(text.decode()):
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    key = family.name, sample.name, tuple(sample.labels.items())
                    latest = sample.name.endswith("_timestamp_seconds")
                    before = values.get(key, 0.0)
                    values[key] = max(before, sample.value) if latest else before + sample.value
        for (family_name, name, labels), value in values.items():
            families[family_name].add_sample(name, dict(labels), value)
        return families.values()

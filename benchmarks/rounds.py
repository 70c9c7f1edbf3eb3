"""The rounds of a run: all targets of a scenario stand ready on one core and take turns; every record is counted in Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import bento
from console import progress, say
from job import Job, Result
from report import Measurement, Scenario, measurement, medians, table
from servers import GO_SOURCES, SERVER_CORE, Place, Server, Servers, run_load
from soak import Soak, soak_table
from topics import existing, records

from bridge.errors import Misconfigured
from bridge.local.kafka import LocalKafka
from bridge.local.registry import LocalRegistry
from bridge.local.service import Broker
from bridge.settings import KafkaSettings

IN_FLIGHT_MAX = 64
"""Deliveries that wait for their answer at one time, however many connections are open: it saturates every target."""

EVENTS_IN_FLIGHT_MAX = 6_400
"""Large deliveries wait in smaller numbers: a quarter of a second's work, far from the bridge's deadline of three."""

WARM_UP_S = 1.5
"""For caches, Python's adaptive interpreter and Kafka's compiler; not measured."""

OPEN_LOOP_SHARE = 0.7
"""Of the most that a target took: where its latency is looked at."""

CEILING_S = 2.0
"""A server that does nothing has nothing to warm up."""

SPOOL_DEADLINE_S = 60.0
"""For what the bridge spooled to reach Kafka; without a spool all of it is there when it is answered."""

POLL_S = 0.2

FILES_BESIDE = 256
"""What a process opens beside its connections: libraries, Kafka, logs."""

Loop = Literal["closed", "open"]


@dataclass(frozen=True)
class Options:
    """What is asked for.

    Attributes:
        seconds: length of a round's window.
        loops: closed, open, or both in this order.
        rate: deliveries a second in the open loop; null for a share of what the closed one found.
        settings: the bridge's that are not the defaults, by their variables.
        python: further arguments for the bridge's interpreter.
        soak_minutes: of each target in each scenario, after its rounds; null for none.
    """

    targets: Sequence[str]
    scenarios: Sequence[Scenario]
    rounds: int
    seconds: float
    loops: Sequence[Loop]
    rate: float | None
    settings: Mapping[str, str] = field(default_factory=dict)
    python: Sequence[str] = ()
    soak_minutes: float | None = None


class Run:
    """One run.

    Args:
        options: what to measure.
        folder: takes logs, and a registry's data.
        broker: a running one.

    Attributes:
        rounds, soaks: what was measured so far.
        ceilings: deliveries that the load generator sends in a CPU second of its own, by events per delivery.
    """

    def __init__(self, options: Options, folder: Path, broker: Broker) -> None:
        self._options = options
        self._folder = folder
        self._broker = broker
        self._registry: LocalRegistry | None = None
        self._servers = Servers(folder, options.python, options.settings)
        self._secret = secrets.token_hex(16)
        self.rounds: list[Measurement] = []
        self.soaks: list[Soak] = []
        self.ceilings: dict[int, float] = {}

    async def run(self) -> None:
        """Measure every scenario, and print its table when it is done.

        Raises:
            Misconfigured: a server did not start, or events were lost.
        """
        targets = await self._built()
        async with contextlib.AsyncExitStack() as stack:
            if any(target in bento.CONFIGURATIONS for target in targets):
                progress("starting the schema registry")
                registry = LocalRegistry(data_dir=self._folder / "registry", port=None)
                self._registry = await stack.enter_async_context(registry)
            await self._scenarios(targets)

    async def _built(self) -> list[str]:
        """The targets that can be measured here; a line about each other one."""
        targets = []
        for target in self._options.targets:
            if target in GO_SOURCES:
                progress(f"building {target}, if that was not done: the first time Bento takes minutes")
            try:
                await self._servers.build(target)
            except Misconfigured as problem:
                say(f"{target} is left out: {problem}")
            else:
                targets.append(target)
        return targets

    async def _scenarios(self, targets: Sequence[str]) -> None:
        await self._ceiling()
        files_max = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        for number, scenario in enumerate(self._options.scenarios, start=1):
            if scenario.connections + FILES_BESIDE > files_max:
                say(f"\nleft out, because ulimit -n is {files_max}: {scenario}")
                continue
            await self._scenario(scenario, targets, f"scenario {number}/{len(self._options.scenarios)} ({scenario})")
            if self._options.loops:
                say(f"\n{table(scenario, self.rounds)}")

    async def _ceiling(self) -> None:
        """What the load generator reaches when the server does nothing."""
        for events in sorted({scenario.events for scenario in self._options.scenarios}):
            progress(f"the load generator's own ceiling with {events} events per delivery")
            scenario = Scenario(events=events)
            async with self._servers.running("trivial", self._place("trivial", scenario)) as server:
                result = await run_load(self._job(server, scenario, None, CEILING_S))
            self.ceilings[events] = result.deliveries / result.load_cpu_s
            say(
                f"load generator, {events} events per delivery: {result.deliveries / result.seconds:,.0f} deliveries/s against "
                f"a server that does nothing; {self.ceilings[events]:,.0f} in a CPU second of its own"
            )

    async def _scenario(self, scenario: Scenario, targets: Sequence[str], title: str) -> None:
        async with contextlib.AsyncExitStack() as stack:
            running: dict[str, tuple[Server, KafkaSettings]] = {}
            for target in targets:
                progress(f"{title}: starting {target}")
                place = self._place(target, scenario)
                await stack.enter_async_context(existing(place.kafka))
                if target in bento.CONFIGURATIONS:
                    await bento.register(place.kafka)
                running[target] = await stack.enter_async_context(self._servers.running(target, place)), place.kafka
            for loop in self._options.loops:
                for number in range(1, self._options.rounds + 1):
                    for target, (server, kafka) in running.items():
                        progress(f"{title}: {loop} loop, round {number}/{self._options.rounds}, {target}")
                        await self._round(target, scenario, loop, server, kafka)
            for target, (server, kafka) in running.items():
                if self._options.soak_minutes is not None:
                    progress(f"{title}: soak, {self._options.soak_minutes:g} minutes, {target}")
                    await self._soak(target, scenario, self._options.soak_minutes, server, kafka)

    async def _round(self, target: str, scenario: Scenario, loop: Loop, server: Server, kafka: KafkaSettings) -> None:
        rate = self._open_rate(target, scenario) if loop == "open" else None
        job = self._job(server, scenario, rate, self._options.seconds)
        result, found = await self._counted(target, scenario, job, kafka)
        self.rounds.append(measurement(target, scenario, loop, result, records=found, server_core=SERVER_CORE))

    async def _soak(
        self, target: str, scenario: Scenario, minutes: float, server: Server, kafka: KafkaSettings
    ) -> None:
        rate = self._open_rate(target, scenario)
        job = self._job(server, scenario, rate, 60 * minutes)
        job.parts = max(1, round(minutes))
        result, found = await self._counted(target, scenario, job, kafka)
        self.soaks.append(Soak(target=target, scenario=scenario, rate=rate, result=result, records=found))
        say(f"\n{soak_table(self.soaks[-1])}")

    async def _counted(self, target: str, scenario: Scenario, job: Job, kafka: KafkaSettings) -> tuple[Result, int]:
        """Run a load, and count the new records when what the spool took has reached Kafka too.

        Raises:
            Misconfigured: events that were answered 200 are not in Kafka, or became dead letters.
        """
        events_before, dead_before = await records(kafka)
        result = await run_load(job)
        answered = result.acknowledged * scenario.events
        deadline = time.monotonic() + SPOOL_DEADLINE_S
        while True:
            events_after, dead_after = await records(kafka)
            found = events_after - events_before
            if found >= answered or not result.spooled or time.monotonic() > deadline:
                break
            await asyncio.sleep(POLL_S)
        if found < answered or dead_after > dead_before:
            raise Misconfigured(
                f"{target}, {scenario}: {answered} events were answered 200, and Kafka holds {found} new records and "
                f"{dead_after - dead_before} new dead letters: events were lost, so no figure counts"
            )
        return result, found

    def _open_rate(self, target: str, scenario: Scenario) -> float:
        mine = [one for one in self.rounds if (one.target, one.scenario, one.loop) == (target, scenario, "closed")]
        return self._options.rate or OPEN_LOOP_SHARE * medians(mine)[0].deliveries_per_s

    def _job(self, server: Server, scenario: Scenario, rate: float | None, seconds: float) -> Job:
        return Job(
            port=server.port,
            secret=self._secret,
            seed=len(self.rounds),
            events=scenario.events,
            accounts=scenario.accounts,
            connections=scenario.connections,
            in_flight=max(1, min(IN_FLIGHT_MAX, scenario.connections, EVENTS_IN_FLIGHT_MAX // scenario.events)),
            rate=rate,
            warm_up_s=WARM_UP_S,
            seconds=seconds,
            server_pid=server.pid,
            broker_pid=self._broker.pid if isinstance(self._broker, LocalKafka) else None,
        )

    def _place(self, target: str, scenario: Scenario) -> Place:
        kafka = KafkaSettings(
            kafka_bootstrap_servers=self._broker.bootstrap_servers,
            topic_prefix=f"bench-{secrets.token_hex(4)}-{target}",
            topic_partitions=scenario.partitions,
            topic_replication_factor=1,
            schema_registry_url=self._registry.url if target in bento.CONFIGURATIONS and self._registry else None,
        )
        return Place(kafka, self._secret)

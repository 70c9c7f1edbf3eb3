"""`make chaos`: a bridge and a broker under load, broken at random moments, and the promise held against Kafka.

Repeatable: the seed decides what is broken, when, for how long, and in whose midst the bridge is killed. Everything runs in a
folder of its own and ends with it. Exits 1 when anything that was answered 200 is not in Kafka, when a conversation is out of
order beyond contract.md's promise, or when it does not heal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import NamedTuple

from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.disk import MAY_MOUNT, MIB, filled, small_disk
from tests.faults.ledger import Figures
from tests.faults.load import Load
from tests.kafka.serving import run, serve_environment

SENDERS = 24
"""Three to a conversation: some of each are in flight at any moment."""

RATE = 200
DISK_BYTES = 256 * MIB
"""For what an outage brings; more than that is refused."""

PAUSE_MAX_S = 3.0
FAULT_MIN_S, FAULT_MAX_S = 0.5, 6.0
"""Around the publish deadline: some outages are over before it is, others last."""

SLOW_MAX_S = 0.2
"""Per piece and direction: a produce request takes half a second, and some of them their deadline."""

KILL_SHARE = 0.4
"""Of all faults those in whose midst the bridge is killed, too."""

FaultContext = Callable[[], AbstractAsyncContextManager[None]]


class Chaos:
    """One run's parts and what was done to them.

    Attributes:
        recoveries_s: by fault, from its end to the next delivery that Kafka acknowledged; of a killed bridge from the kill.
    """

    def __init__(self, bridge: Bridge, kafka: ProxiedKafka, load: Load, disk: Path | None, moments: Random) -> None:
        self._bridge, self._kafka, self._load, self._disk, self._moments = bridge, kafka, load, disk, moments
        self.recoveries_s: dict[str, list[float]] = {}
        self._ended: float | None = None
        self._faults: dict[str, FaultContext] = {
            "bridge killed": self._bridge_killed,
            "broker killed": self._broker_killed,
            "network cut": lambda: self._network(kafka.network.cut),
            "network hanging": lambda: self._network(kafka.network.hang),
            "network slow": lambda: self._network(lambda: kafka.network.slow(moments.uniform(0, SLOW_MAX_S))),
        }
        if disk is not None:
            self._faults["network cut, disk full"] = lambda: self._disk_full(disk)

    async def go_on_for(self, seconds: float) -> None:
        """Break one thing after the other, each as often as the others."""
        end = time.monotonic() + seconds
        names: list[str] = []
        while (left := end - time.monotonic()) > 0:
            names = names or self._moments.sample(sorted(self._faults), len(self._faults))
            name = names.pop()
            await asyncio.sleep(self._moments.uniform(0, PAUSE_MAX_S))
            print(f"{left:6.1f} s left, {dict(self._load.ledger.outcomes)}: {name}", file=sys.stderr)
            async with self._faults[name]():
                fault_s = self._moments.uniform(FAULT_MIN_S, FAULT_MAX_S)
                await asyncio.sleep(fault_s / 2)
                if self._moments.random() < KILL_SHARE:
                    await self._restart_bridge()
                await asyncio.sleep(fault_s / 2)
            ended, self._ended = self._ended or time.monotonic(), None
            await self._load.until_more(1, "kafka")
            self.recoveries_s.setdefault(name, []).append(time.monotonic() - ended)

    async def _restart_bridge(self) -> None:
        await self._bridge.kill()
        await self._bridge.start(until="/livez")  # with Kafka away and the disk full it cannot be ready

    @asynccontextmanager
    async def _bridge_killed(self) -> AsyncIterator[None]:
        yield
        self._ended = time.monotonic()
        await self._restart_bridge()

    @asynccontextmanager
    async def _broker_killed(self) -> AsyncIterator[None]:
        await self._kafka.kill()
        yield
        await self._kafka.start()

    @asynccontextmanager
    async def _network(self, breaking: Callable[[], None]) -> AsyncIterator[None]:
        breaking()
        yield
        self._kafka.network.heal()

    @asynccontextmanager
    async def _disk_full(self, disk: Path) -> AsyncIterator[None]:
        """While Kafka is away, so that the spool is needed."""
        async with self._network(self._kafka.network.cut):
            with filled(disk):
                yield


class Result(NamedTuple):
    """What a run came to."""

    figures: Figures
    kills: int
    recoveries_s: dict[str, list[float]]

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return self.figures.lost == 0 and self.figures.disordered == 0

    def table(self) -> str:
        """The result for people."""
        rows = {
            "acknowledged by Kafka": self.figures.by_kafka,
            "acknowledged by the spool": self.figures.by_spool,
            "refused (503)": self.figures.refused,
            "without an answer": self.figures.unanswered,
            "delivered": self.figures.delivered,
            "duplicated": self.figures.duplicated,
            "lost": self.figures.lost,
            "out of order": self.figures.disordered,
            "kill -9 of the bridge": self.kills,
        }
        lines = [f"{name:<28}{count:>8}" for name, count in rows.items()]
        lines.append(f"\n{'fault':<28}{'times':>8}{'recovery, median s':>20}{'longest s':>11}")
        for name, taken in sorted(self.recoveries_s.items()):
            lines.append(f"{name:<28}{len(taken):>8}{median(taken):>20.2f}{max(taken):>11.2f}")
        return "\n".join(lines)


async def experiment(kafka: ProxiedKafka, folder: Path, *, seconds: float, seed: int, workers: int = 1) -> Result:
    """One run over a broker that runs; it is whole again afterwards."""
    prefix = f"chaos-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(small_disk(folder / "disk", DISK_BYTES)) if MAY_MOUNT else None
        settings = {"SPOOL_DIR": str((disk or folder) / "spool"), "WORKERS": f"{workers}", "LOG_LEVEL": "warning"}
        environment = serve_environment(kafka.bootstrap_servers, prefix, **settings)
        await run(folder, environment, "topics", "apply")
        async with Bridge.opened(folder, environment) as bridge:
            async with Load(bridge.port, senders=SENDERS, rate=RATE).running() as load:
                chaos = Chaos(bridge, kafka, load, disk, Random(seed))  # noqa: S311 - repeatable
                await chaos.go_on_for(seconds)
            await bridge.serving.until_counted("instagram_bridge_spool_deliveries", 0)
            kills = bridge.deaths
            figures = load.ledger.figures(await kafka.records(prefix))
    return Result(figures, kills, chaos.recoveries_s)


async def main(minutes: float, seed: int, workers: int) -> int:
    """Run the experiment and print its table; the exit code."""
    with tempfile.TemporaryDirectory(prefix="bridge-chaos-") as folder:
        kafka = ProxiedKafka(Path(folder) / "kafka")
        async with kafka:
            result = await experiment(kafka, Path(folder), seconds=60 * minutes, seed=seed, workers=workers)
        kafka.network.stop()
    print(f"{minutes:g} minutes, {RATE} deliveries a second, workers {workers}, seed {seed}\n\n{result.table()}")
    return 0 if result.kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="make chaos ARGS=…", description="Break a bridge and a broker at random; exit 1 on loss or disorder."
    )
    parser.add_argument("--minutes", type=float, default=3.0, help="how long [%(default)s]")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run")
    parser.add_argument("--workers", type=int, default=1, help="BRIDGE_WORKERS [%(default)s]")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(arguments.minutes, arguments.seed, arguments.workers)))
    except KeyboardInterrupt:
        sys.exit(130)

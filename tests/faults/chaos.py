"""`make chaos`: a bridge and a broker under load, broken at random moments, and the promise held against Kafka.

Repeatable: the seed decides what is broken, when and for how long. Everything runs in a folder of its own and ends with it.
Exits 1 when anything that was answered 200 is not in Kafka, or when a conversation's first copies are out of order.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.ledger import Figures
from tests.faults.load import Load
from tests.kafka.reading import Reader
from tests.kafka.serving import run, serve_environment

SENDERS = 16
RATE = 200
DISK_BYTES = 128 * 1024 * 1024
FILLER_BYTES = 100 * 1024 * 1024
"""Leaves less on the small disk than the spool wants to stay free (FREE_BYTES_MIN)."""

PAUSE_MAX_S = 3.0
FAULT_MAX_S = 6.0
PROGRESS_S = 5.0


class Chaos:
    """One run's parts and what was done to them.

    Attributes:
        done: how often which fault was made.
        recoveries_s: from the end of a fault to the next delivery that Kafka acknowledged.
    """

    def __init__(self, bridge: Bridge, kafka: ProxiedKafka, load: Load, disk: Path, moments: Random) -> None:
        self._bridge, self._kafka, self._load, self._disk, self._moments = bridge, kafka, load, disk, moments
        self.done: Counter[str] = Counter()
        self.recoveries_s: list[float] = []
        self._faults: dict[str, Callable[[], Awaitable[None]]] = {
            "bridge killed": self._kill_bridge,
            "broker killed": self._kill_broker,
            "network cut": self._cut_network,
            "network hanging": self._hang_network,
            "network slow": self._slow_network,
        }
        if os.getuid() == 0:  # only root may mount the small disk that is to be full
            self._faults["disk full"] = self._fill_disk

    async def go_on_for(self, seconds: float) -> None:
        """Break one thing after the other."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(self._moments.uniform(0, PAUSE_MAX_S))
            name = self._moments.choice(list(self._faults))
            await self._faults[name]()
            self.done[name] += 1
            healed = time.monotonic()
            await self._load.until_more(1, "kafka")
            self.recoveries_s.append(time.monotonic() - healed)

    async def _kill_bridge(self) -> None:
        await self._bridge.kill()
        await self._bridge.start()

    async def _kill_broker(self) -> None:
        await self._kafka.kill()
        await self._last()
        await self._kafka.start()

    async def _cut_network(self) -> None:
        await self._broken(self._kafka.network.cut)

    async def _hang_network(self) -> None:
        await self._broken(self._kafka.network.hang)

    async def _slow_network(self) -> None:
        await self._broken(lambda: self._kafka.network.slow(self._moments.uniform(0.01, 0.2)))

    async def _fill_disk(self) -> None:
        """While Kafka is away, so that the spool is needed."""
        filler = self._disk / "filler"
        filler.write_bytes(bytes(FILLER_BYTES))
        await self._broken(self._kafka.network.cut)
        filler.unlink()

    async def _broken(self, breaking: Callable[[], None]) -> None:
        breaking()
        await self._last()
        self._kafka.network.heal()

    async def _last(self) -> None:
        await asyncio.sleep(self._moments.uniform(0.2, FAULT_MAX_S))


class Result(NamedTuple):
    """What a run came to."""

    figures: Figures
    done: Counter[str]
    recoveries_s: list[float]

    @property
    def kept(self) -> bool:
        """Whether the promise was."""
        return self.figures.lost == 0 and self.figures.disordered == 0

    def table(self) -> str:
        """The result for people."""
        median = sorted(self.recoveries_s)[len(self.recoveries_s) // 2] if self.recoveries_s else 0.0
        rows = [
            ("acknowledged by Kafka", self.figures.by_kafka),
            ("acknowledged by the spool", self.figures.by_spool),
            ("refused (503)", self.figures.refused),
            ("without an answer", self.figures.unanswered),
            ("delivered", self.figures.delivered),
            ("duplicated", self.figures.duplicated),
            ("lost", self.figures.lost),
            ("out of order", self.figures.disordered),
            *((f"fault: {name}", count) for name, count in sorted(self.done.items())),
            ("recovery, median s", f"{median:.2f}"),
            ("recovery, longest s", f"{max(self.recoveries_s, default=0.0):.2f}"),
        ]
        return "\n".join(f"{name:<28}{figure:>10}" for name, figure in rows)


async def experiment(kafka: ProxiedKafka, folder: Path, *, seconds: float, seed: int) -> Result:
    """One run over a broker that runs; it is whole again afterwards."""
    prefix = f"chaos-{secrets.token_hex(4)}"
    with small_disk(folder / "disk") as disk:
        environment = serve_environment(
            kafka.bootstrap_servers,
            prefix,
            SPOOL_DIR=str(disk / "spool"),
            PUBLISH_DEADLINE_MS="1500",
            LOG_LEVEL="warning",
        )
        await run(folder, environment, "topics", "apply")
        async with Bridge.opened(folder, environment) as bridge:
            async with Load(bridge.port, senders=SENDERS, rate=RATE).running() as load, _progress(load):
                chaos = Chaos(bridge, kafka, load, disk, Random(seed))  # noqa: S311 - repeatable
                await chaos.go_on_for(seconds)
            await bridge.serving.until_counted("instagram_bridge_spool_deliveries", 0)
            reader = Reader(kafka.bootstrap_servers, prefix)
            try:
                figures = load.ledger.figures(await reader.new())
            finally:
                reader.close()
    return Result(figures, chaos.done, chaos.recoveries_s)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A disk that can be filled, where we may mount one; else a folder."""
    folder.mkdir()
    if os.getuid() != 0:
        yield folder
        return
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextlib.asynccontextmanager
async def _progress(load: Load) -> AsyncIterator[None]:
    async def show() -> None:
        while True:
            await asyncio.sleep(PROGRESS_S)
            print(f"  {dict(load.ledger.outcomes)}", file=sys.stderr)

    showing = asyncio.create_task(show())
    try:
        yield
    finally:
        showing.cancel()


async def main(minutes: float, seed: int) -> int:
    """Run the experiment and print its table; the exit code."""
    with tempfile.TemporaryDirectory(prefix="bridge-chaos-") as folder:
        kafka = ProxiedKafka(Path(folder) / "kafka")
        async with kafka:
            result = await experiment(kafka, Path(folder), seconds=60 * minutes, seed=seed)
        kafka.network.stop()
    print(f"seed {seed}, {minutes:g} minutes\n{result.table()}")
    return 0 if result.kept else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Break a bridge and its broker at random; exit 1 on loss or disorder.")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (default: 3)")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32), help="repeats a run")
    arguments = parser.parse_args()
    try:
        sys.exit(asyncio.run(main(arguments.minutes, arguments.seed)))
    except KeyboardInterrupt:
        sys.exit(130)

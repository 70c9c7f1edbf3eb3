"""``make chaos``: load on a real Kafka, and at random moments everything breaks; then the account is settled.

The seed decides what breaks, in which order, for how long, and when the bridge is killed. Exit 1 when a delivery that was
answered 200 is not in Kafka, when a conversation is out of order beyond the promise of contract.md, or when it does not heal.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from random import Random
from statistics import median

from tests.faults.bridge import Bridge
from tests.faults.broker import ProxiedKafka
from tests.faults.disk import MAY_MOUNT, MIB, filled, small_disk
from tests.faults.ledger import Figures, Ledger
from tests.faults.load import Load
from tests.kafka.serving import run, serve_environment

SENDERS = 24
"""Three to a conversation: so there is order to keep, and some are in flight at any moment."""

OUTAGE_MIN_S, OUTAGE_MAX_S = 0.5, 6.0
"""Around the publish deadline of three seconds: some outages are over before it is, others last."""

CALM_MAX_S = 3.0
SLOW_S = 0.2
"""Per piece and direction: a produce request takes half a second, and some of them their deadline."""

KILL_SHARE = 0.4
"""Of the other faults are those in whose midst the bridge is killed."""

HEAL_DEADLINE_S = 120.0
"""For a delivery to be acknowledged by Kafka again; seconds, but a machine may be busy."""

SPOOL_DISK_BYTES = 256 * MIB


class Experiment:
    """One run.

    Attributes:
        recoveries: by what broke, in seconds from its end (the kill, where the bridge was killed) to the first delivery that
            Kafka acknowledged again.
    """

    def __init__(self, bridge: Bridge, broker: ProxiedKafka, disk: Path | None, rng: Random) -> None:
        self.recoveries: dict[str, list[float]] = {}
        self._bridge = bridge
        self._broker = broker
        self._disk = disk
        self._rng = rng
        self._ended: float | None = None
        self._faults: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[None]]] = {
            "bridge killed": self._bridge_killed,
            "broker killed": self._broker_killed,
            "network cut": self._network_cut,
            "network hangs": self._network_hangs,
            "network slow": self._network_slow,
        }
        if disk is not None:
            self._faults["network cut, disk full"] = self._disk_full

    async def run(self, load: Load, until: float) -> None:
        """Break one thing after the other, each as often as the others, until the time is over."""
        rounds: list[str] = []
        while time.monotonic() < until:
            if not rounds:
                rounds = self._rng.sample(sorted(self._faults), len(self._faults))
            name = rounds.pop()
            await asyncio.sleep(self._rng.uniform(0, CALM_MAX_S))
            print(f"{until - time.monotonic():6.1f} s left  {name}  {dict(load.ledger.outcomes)}", file=sys.stderr)
            async with self._faults[name]():
                outage_s = self._rng.uniform(OUTAGE_MIN_S, OUTAGE_MAX_S)
                if self._rng.random() < KILL_SHARE:
                    await asyncio.sleep(outage_s / 2)
                    await self._restart_bridge()
                await asyncio.sleep(outage_s / 2)
            ended, self._ended = self._ended or time.monotonic(), None
            known = load.ledger.outcomes["kafka"]
            async with asyncio.timeout(HEAL_DEADLINE_S):
                while load.ledger.outcomes["kafka"] == known:  # noqa: ASYNC110 - the senders write into it
                    await asyncio.sleep(0.01)
            self.recoveries.setdefault(name, []).append(time.monotonic() - ended)

    async def _restart_bridge(self) -> None:
        await self._bridge.kill()
        await self._bridge.start()

    @contextlib.asynccontextmanager
    async def _bridge_killed(self) -> AsyncIterator[None]:
        yield
        await self._bridge.kill()
        self._ended = time.monotonic()
        await self._bridge.start()

    @contextlib.asynccontextmanager
    async def _broker_killed(self) -> AsyncIterator[None]:
        await self._broker.kill()
        yield
        await self._broker.start()

    @contextlib.asynccontextmanager
    async def _network_cut(self) -> AsyncIterator[None]:
        self._broker.network.cut()
        yield
        self._broker.network.heal()

    @contextlib.asynccontextmanager
    async def _network_hangs(self) -> AsyncIterator[None]:
        self._broker.network.hang()
        yield
        self._broker.network.heal()

    @contextlib.asynccontextmanager
    async def _network_slow(self) -> AsyncIterator[None]:
        self._broker.network.slow(self._rng.uniform(0, SLOW_S))
        yield
        self._broker.network.heal()

    @contextlib.asynccontextmanager
    async def _disk_full(self) -> AsyncIterator[None]:
        assert self._disk is not None
        self._broker.network.cut()
        with filled(self._disk):
            yield
        self._broker.network.heal()


def table(figures: Figures, recoveries: dict[str, list[float]]) -> Iterator[str]:
    """What came of it."""
    rows = {
        "acknowledged by kafka": figures.by_kafka,
        "acknowledged by spool": figures.by_spool,
        "refused, 503": figures.refused,
        "without an answer": figures.unanswered,
        "events in Kafka": figures.delivered,
        "lost": figures.lost,
        "duplicated": figures.duplicated,
        "out of order": figures.disordered,
    }
    yield from (f"{name:24}{count:8}" for name, count in rows.items())
    yield ""
    yield f"{'fault':24}{'times':>8}  recovery, median and longest"
    for name, times in sorted(recoveries.items()):
        yield f"{name:24}{len(times):8}  {median(times):.1f} s  {max(times):.1f} s"


async def experiment(minutes: float, seed: int, rate: float, workers: int) -> int:
    """Run it and print what came of it; the exit code."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bridge-chaos-")))
        disk = stack.enter_context(small_disk(folder / "disk", SPOOL_DISK_BYTES)) if MAY_MOUNT else None
        prefix = f"chaos-{secrets.token_hex(4)}"
        async with ProxiedKafka(folder / "kafka") as broker:
            stack.callback(broker.network.stop)
            spool = str((disk or folder) / "spool")
            settings = serve_environment(
                broker.bootstrap_servers, prefix, SPOOL_DIR=spool, WORKERS=f"{workers}", LOG_LEVEL="warning"
            )
            await run(folder, settings, "topics", "apply")
            async with Bridge.opened(folder, settings) as bridge:
                load = Load(bridge.port, senders=SENDERS, rate=rate, ledger=Ledger())
                chaos = Experiment(bridge, broker, disk, Random(seed))  # noqa: S311 - repeatable
                async with load.running():
                    await chaos.run(load, time.monotonic() + 60 * minutes)
                await bridge.serving.until_counted("instagram_bridge_spool_deliveries", 0)
                figures = load.ledger.figures(await broker.records(prefix))
    print(f"{minutes:g} minutes, {rate:g} deliveries/s, {workers} worker(s), seed {seed}, bridge killed {bridge.deaths - 1} times")
    print(*table(figures, chaos.recoveries), sep="\n")
    return 1 if figures.lost or figures.disordered else 0


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(prog="make chaos ARGS=…", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=5, help="how long things break [%(default)s]")
    parser.add_argument("--seed", type=int, default=1, help="what breaks, and when [%(default)s]")
    parser.add_argument("--rate", type=float, default=200, help="deliveries a second [%(default)s]")
    parser.add_argument("--workers", type=int, default=1, help="BRIDGE_WORKERS [%(default)s]")
    given = parser.parse_args()
    sys.exit(asyncio.run(experiment(given.minutes, given.seed, given.rate, given.workers)))


if __name__ == "__main__":
    main()

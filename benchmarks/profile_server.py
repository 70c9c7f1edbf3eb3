"""Which functions of a running `bridge serve` take its time: cProfile under load, on a real Kafka.

`.venv/bin/python benchmarks/profile_server.py`. cProfile makes every call dearer, so small functions look worse than they are:
read it for what is called and how often, and believe `make bench` for what it costs.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import pstats
import tempfile
from pathlib import Path

from console import progress
from report import Scenario
from rounds import Options, Run
from servers import OTHER_CORES

from bridge.local.kafka import LocalKafka


async def measure(scenario: Scenario, seconds: float, file: Path) -> None:
    """One round of the closed loop against a bridge that is profiled; its profile goes to ``file``."""
    os.sched_setaffinity(0, OTHER_CORES)
    wanted = Options(
        targets=("bridge",),
        scenarios=(scenario,),
        rounds=1,
        seconds=seconds,
        loops=("closed",),
        rate=None,
        python=("-m", "cProfile", "-o", str(file)),
    )
    progress("starting Kafka")
    async with LocalKafka(data_dir=file.parent / "kafka", port=None) as broker:
        await Run(wanted, file.parent, broker).run()


def main() -> None:
    """Print where the time went."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--events", type=int, default=1, help="events per delivery [%(default)s]")
    parser.add_argument("--seconds", type=float, default=5.0, help="[%(default)s]")
    parser.add_argument("--lines", type=int, default=40, help="functions that are shown [%(default)s]")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bridge-profile-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "profile"
        asyncio.run(measure(Scenario(events=given.events), given.seconds, file))
        pstats.Stats(str(file)).strip_dirs().sort_stats("tottime").print_stats(given.lines)


if __name__ == "__main__":
    main()

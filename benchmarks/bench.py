"""How fast, at what cost, and with nothing lost: the bridge against references, on a real Kafka, read back from it.

`make bench ARGS="…"`. Every server runs on the first core, load and Kafka on the others; the targets take turns round by
round, and medians are shown. A run fails when Kafka holds fewer records than events were answered 200.
docs/performance.md tells how to read the tables.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import bento
import msgspec
from console import progress, say
from plots import page
from report import Scenario, medians, ratios, warnings
from rounds import Loop, Options, Run
from servers import CORES, OTHER_CORES

from bridge.errors import BridgeError
from bridge.local.artifacts import KAFKA_VERSION
from bridge.local.choice import choose_kafka

TARGETS = ("bridge", "bare", "go")
"""Those measured when none are named: Bento takes minutes to build."""

ALL_TARGETS = (*TARGETS, *bento.CONFIGURATIONS)

SWEEP = tuple(
    dict.fromkeys(
        (
            *(Scenario(events=events) for events in (1, 10, 100, 1000)),
            *(Scenario(events=events, accounts=accounts) for accounts in (1, 10, 100) for events in (1, 100)),
            *(Scenario(events=events, partitions=partitions) for partitions in (12, 120) for events in (1, 100)),
            *(Scenario(connections=connections) for connections in (64, 1000, 10_000)),
        )
    )
)
"""One thing at a time against the default scenario: what an event costs should be flat in all of them."""

_FAILED, _INTERRUPTED = 1, 130


async def measure(wanted: Options, kafka: str | None) -> Run:
    """Measure everything, on a broker that lives as long."""
    task = asyncio.current_task()
    if task is not None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    os.sched_setaffinity(0, OTHER_CORES)  # Kafka inherits it, and so do all of its threads
    with tempfile.TemporaryDirectory(prefix="bridge-bench-", ignore_cleanup_errors=True) as folder:
        progress("starting Kafka")
        async with choose_kafka(kafka, data_dir=Path(folder) / "kafka", port=None) as broker:
            run = Run(wanted, Path(folder), broker)
            await run.run()
    return run


def whole(run: Run, began: str, kafka: str | None) -> bytes:
    """A run as JSON: every round, the medians, and where it was."""
    found = {
        "began": began,
        "machine": machine(kafka),
        "arguments": sys.argv[1:],
        "load_deliveries_per_cpu_second": {str(events): round(rate) for events, rate in run.ceilings.items()},
        "medians": medians(run.rounds),
        "ratios": ratios(run.rounds),
        "warnings": warnings(run.rounds),
        "rounds": run.rounds,
        "soaks": run.soaks,
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=1)


def machine(kafka: str | None) -> dict[str, str]:
    """Where and with what this was measured."""
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1024**3
    return {
        "cpu": next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown"),
        "cores": str(len(CORES)),
        "memory": f"{memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "kafka": f"{KAFKA_VERSION}, packaged" if kafka is None else kafka,
        "python": sys.version,
        **{name: version(name) for name in ("instagram-kafka-bridge", "aiokafka", "httptools", "msgspec", "uvloop")},
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add(
        "--targets",
        nargs="+",
        metavar="NAME",
        help=f"what to measure, of {', '.join(ALL_TARGETS)} [{','.join(TARGETS)}; bridge alone in a sweep and a soak]",
    )
    add("--events", nargs="+", type=int, help="events per delivery, a scenario each [1 100; 1 for a soak]")
    add("--accounts", type=int, default=Scenario().accounts, help="accounts that the events belong to [%(default)s]")
    add("--partitions", type=int, default=Scenario().partitions, help="of every topic [%(default)s]")
    add("--connections", type=int, default=Scenario().connections, help="kept open [%(default)s]")
    add("--sweep", action="store_true", help="sizes, accounts, partitions and connections in turn, closed loop only")
    add("--rounds", type=int, default=3, help="of each target and loop; medians are shown [%(default)s]")
    add("--seconds", type=float, default=8.0, help="length of a round, without its warm-up [%(default)s]")
    add("--rate", type=float, help="open loop only, at this many deliveries a second [70 %% of the most, after it]")
    add(
        "--soak-minutes",
        type=float,
        metavar="N",
        help="then N minutes at 70 %% of the most or at --rate, minute by minute",
    )
    add("--no-open-loop", action="store_true", help="only the most that is taken, no latency at 70 %% of it")
    add(
        "--set",
        nargs="+",
        default=[],
        metavar="BRIDGE_…=VALUE",
        help="settings of the bridge that are not the defaults",
    )
    add("--kafka", metavar="HOST:PORT", help="a broker that is there, or docker [the packaged one]")
    add("--json", type=Path, metavar="FILE", help="writes every round, the medians and the machine")
    add("--plot", type=Path, metavar="FILE.html", help="draws what an event costs against what varies: for a sweep")
    given = parser.parse_args()
    if any(not setting.startswith("BRIDGE_") or "=" not in setting for setting in given.set):
        parser.error("--set takes BRIDGE_…=VALUE")
    if given.targets:
        given.targets = [name for names in given.targets for name in names.split(",")]  # with commas or spaces between
    if unknown := set(given.targets or ()) - set(ALL_TARGETS):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(ALL_TARGETS)}")
    return given


def options(given: argparse.Namespace) -> Options:
    """What to measure, from the command line."""
    soak = given.soak_minutes is not None
    events_each = given.events or ([1] if soak else [1, 100])
    scenarios = (
        SWEEP
        if given.sweep
        else tuple(Scenario(events, given.accounts, given.partitions, given.connections) for events in events_each)
    )
    return Options(
        targets=given.targets or (("bridge",) if given.sweep or soak else TARGETS),
        scenarios=scenarios,
        rounds=given.rounds,
        seconds=given.seconds,
        loops=_loops(given),
        rate=given.rate,
        settings=dict(setting.split("=", 1) for setting in given.set),
        soak_minutes=given.soak_minutes,
    )


def _loops(given: argparse.Namespace) -> Sequence[Loop]:
    """A soak is an open loop of its own: before it, only what it takes a share of is measured."""
    if given.rate:
        return () if given.soak_minutes is not None else ("open",)
    closed_only = given.sweep or given.no_open_loop or given.soak_minutes is not None
    return ("closed",) if closed_only else ("closed", "open")


def main() -> int:
    """Run the command line; 0 done, 1 it failed, 130 interrupted."""
    given = arguments()
    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        del os.environ[name]  # the bridge is measured as it is by default
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        run = asyncio.run(measure(options(given), given.kafka))
    except BridgeError as error:
        progress("")
        print(f"bench: {error}", file=sys.stderr)
        return _FAILED
    except (KeyboardInterrupt, asyncio.CancelledError):
        progress("")
        return _INTERRUPTED
    say("")
    for line in (*ratios(run.rounds), *warnings(run.rounds)):
        say(line)
    if given.json is not None:
        given.json.write_bytes(whole(run, began, given.kafka))
    if given.plot is not None:
        given.plot.write_text(page(run.rounds), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The packaged Kafka and registry: which files they are (`kafka.lock`, `registry.lock`), and where they lie on this machine.

`python -m bridge.local.artifacts kafka|registry` fetches ahead; `lock` writes the lock files anew (`make lock-java`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bridge.errors import Misconfigured
from bridge.local.maven import alone, fetch, read_lock, repositories, write_lock

KAFKA_VERSION = "4.1.1"
KAFKA = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
TOOLS = f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}"
"""Kafka's own command-line tools, which our commands are held against; all that they need is there already."""
LOGGING = "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3"
"""Binds Kafka's slf4j to log4j-core, which Kafka brings; without it Kafka logs nothing. The version is that log4j-core's."""
REGISTRY_VERSION = "3.3.3"
REGISTRY = f"io.apicurio:apicurio-registry-app:{REGISTRY_VERSION}:all:tar.gz"

KAFKA_LOCK = Path(__file__).with_name("kafka.lock")
REGISTRY_LOCK = Path(__file__).with_name("registry.lock")

Result = TypeVar("Result")


def cache_dir() -> Path:
    """The folder of everything fetched, outside the checkout, so that a fresh clone finds it."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "instagram-bridge"


def kafka_jars(stop: threading.Event | None = None) -> list[Path]:
    """Kafka's class path, in the lock's order, every jar verified; fetches what is missing or torn, until ``stop`` is set.

    Raises:
        Misconfigured: A jar could not be had, or is not the one that was locked.
    """
    return fetch(f"Kafka {KAFKA_VERSION}", read_lock(KAFKA_LOCK), cache_dir() / "jars", stop)


def registry_dir(stop: threading.Event | None = None) -> Path:
    """The folder of the unpacked registry; fetched and unpacked when it is not there, until ``stop`` is set.

    Raises:
        Misconfigured: It could not be had, or is not the one that was locked.
    """
    (archive,) = files = read_lock(REGISTRY_LOCK)
    home = cache_dir() / f"apicurio-{archive.sha256[:16]}"
    if not home.is_dir():
        (packed,) = fetch(f"Apicurio Registry {REGISTRY_VERSION}", files, cache_dir() / "packed", stop)
        with alone(cache_dir()) as partial:
            if not home.is_dir():
                with tarfile.open(packed) as tar:
                    # The hash was checked, so this is no stranger's archive; the filter exists from Python 3.11.4 on.
                    tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
                    tar.extractall(partial)  # noqa: S202 - as just said
                partial.rename(home)  # only a whole one ever has this name
                packed.unlink()
    return home


async def in_background(work: Callable[[threading.Event], Result]) -> Result:
    """Runs ``work`` in a thread; told to stop when we are cancelled, so that a program's end need not wait for a download."""
    stop = threading.Event()
    try:
        return await asyncio.to_thread(work, stop)
    finally:
        stop.set()


def _relock() -> None:
    with tempfile.TemporaryDirectory() as folder:
        context = repositories(Path(folder), lambda _more_bytes: None)
        wanted, needed = context.resolver.resolve([context.create_dependency(KAFKA)])
        kafka = [f"{part.groupId}:{part.artifactId}:{part.version}" for part in (*wanted, *needed)]
        # Tools and binding come alone: resolved together with Kafka, the binding's managed versions pull an older kafka-clients.
        write_lock(KAFKA_LOCK, [*kafka, TOOLS, LOGGING], context)
        write_lock(REGISTRY_LOCK, [REGISTRY], context)


def main(arguments: Sequence[str]) -> int:
    """Does what the one argument names; 1 with a line on stderr when that fails, 2 for another argument, 130 on Ctrl-C."""
    works: dict[str, Callable[[], object]] = {"kafka": kafka_jars, "registry": registry_dir, "lock": _relock}
    work = works.get(" ".join(arguments))
    if work is None:
        sys.stderr.write("usage: python -m bridge.local.artifacts kafka|registry|lock\n")
        return 2
    try:
        work()
    except Misconfigured as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""`make test` in two processes (pytest-xdist): which tests stay together, which begin first, and which run alone.

Each process has its own broker, registry, browser and ports, so that tests know as little of the other process as of one another.
With one core, or without ``-n``, there is one process, and nothing here changes anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest
from xdist.scheduler import LoadScopeScheduling

from bridge.local import jvm

PROCESSES_MAX = 2  # each has servers of its own, up to a gigabyte of them, and keeps a core busy

TOGETHER = ("tests/http", "tests/browser", "tests/security", "tests/consumers/analytics", "tests/consumers/auto_reply")
"""Folders whose tests share something that is costly to start: they stay in one process. Elsewhere those of a file do."""

FIRST = ("tests/http", "tests/faults", "tests/security", "tests/workers", "tests/consumers/auto_reply", "tests/kafka")
"""What takes longest begins first, so that the processes end together."""


class Units(LoadScopeScheduling):  # type: ignore[misc] # xdist ships no types
    """Gives a process that has nothing to do the next folder or file, in the order of collection."""

    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return next((folder for folder in TOGETHER if file.is_relative_to(folder)), str(file))


def processes() -> int:
    """As many as there are cores for us, up to the bound."""
    return min(PROCESSES_MAX, len(os.sched_getaffinity(0)))


def rank(item: pytest.Item) -> int:
    """The place of a test's folder among those that begin first; all others come after them."""
    file = _file(item.nodeid)
    return next((place for place, folder in enumerate(FIRST) if file.is_relative_to(folder)), len(FIRST))


def part_ports() -> None:
    """Leaves this process a part of the ports: one that is given, but not listened on yet, looks free to the other process."""
    if name := os.environ.get("PYTEST_XDIST_WORKER"):
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        part, size = int(name.removeprefix("gw")) % count, len(jvm.PORTS) // count
        jvm.PORTS = jvm.PORTS[part * size : (part + 1) * size]


@contextlib.contextmanager
def turn(folder: Path, *, alone: bool) -> Iterator[None]:
    """Lasts while no test of another process is alone; when ``alone``, while none of them runs at all.

    ``folder`` is one for all processes. Who waits to be alone keeps the door shut, so that nobody else begins meanwhile; a process
    that crashes leaves no lock behind.
    """
    with (folder / "door").open("w") as door, (folder / "room").open("w") as room:
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        if not alone:
            fcntl.flock(door, fcntl.LOCK_UN)
        yield


def _file(nodeid: str) -> PurePosixPath:
    return PurePosixPath(nodeid.partition("::")[0])

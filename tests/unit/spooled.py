"""A spool, what is put into it, and what becomes of its disk."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

from structlog.testing import capture_logs

from bridge.adapters.spool import SqliteSpool
from bridge.delivery import Delivery
from bridge.errors import Refused

BYTES_MAX = 1 << 30
READ_BYTES = 4096
PAGE_BYTES = 4096  # SQLite's default
MARKER = b"for nobody else"
RECEIVED_AT = 1_763_800_000_000


def deliveries(count: int, *, first: int = 0, body_bytes: int = 300) -> list[Delivery]:
    """Distinct ones, in their order."""
    return [
        Delivery(MARKER + b"%d".ljust(body_bytes, b".") % number, RECEIVED_AT + number, f"{number:032x}", "new")
        for number in range(first, first + count)
    ]


async def put(spool: SqliteSpool, given: Sequence[Delivery]) -> list[Refused | None]:
    """Put them all at once, and what became of each."""
    outcomes: list[asyncio.Future[Refused | None]] = [asyncio.get_running_loop().create_future() for _ in given]
    for delivery, outcome in zip(given, outcomes, strict=True):
        spool.put(delivery, outcome.set_result)
    return await asyncio.gather(*outcomes)


def held(spool: SqliteSpool) -> tuple[int, int, int | None, bool]:
    """Deliveries, bytes, the oldest one's time, and whether there is room."""
    return spool.deliveries, spool.bytes, spool.oldest_received_at, spool.room


EMPTY = (0, 0, None, True)


async def drained(spool: SqliteSpool) -> list[Delivery]:
    """Everything that it holds, as the intake takes it out."""
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        while spool.deliveries:
            some = await spool.oldest(READ_BYTES)
            if some:
                found += some
                await spool.forget(len(some))
    return found


@contextlib.asynccontextmanager
async def opened(folder: Path, bytes_max: int = BYTES_MAX) -> AsyncIterator[SqliteSpool]:
    """A spool over this folder."""
    spool = SqliteSpool(folder, bytes_max)
    try:
        yield spool
    finally:
        await spool.close()


def after_a_crash(folder: Path) -> Path:
    """What the folder of a running spool would hold had it been killed now."""
    copy = folder.with_name(f"{folder.name}-{len(list(folder.parent.iterdir()))}")
    shutil.copytree(folder, copy)
    return copy


@contextlib.contextmanager
def failing_disk(file_bytes_max: int = 0) -> Iterator[None]:
    """Every write beyond that size fails; nothing may be printed meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes_max, before[1]))
    try:
        with capture_logs():
            yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files(folder: Path, pattern: str = "*") -> list[str]:
    """Names in the folder."""
    return sorted(path.name for path in folder.glob(pattern))

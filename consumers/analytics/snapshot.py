"""A copy of the database for other readers, because DuckDB gives a file to one process alone: whole, and a minute old at most."""

import asyncio
import subprocess
from pathlib import Path

import structlog

from consumers.analytics.ingest import Ingest
from consumers.analytics.store import Store
from consumers.errors import ConsumerError

INTERVAL_S = 30.0  # between two copies; the copy itself takes seconds for some gigabytes, and is promised within 60
RETRY_INTERVAL_S = 10.0  # after a failure, such as a full disk

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def keep(ingest: Ingest, store: Store, target: Path) -> None:
    """Copies until cancelled. A copy that fails is said, and tried again; the one before stays."""
    seen = -1
    while True:
        try:
            records = ingest.events + ingest.redeliveries
            await asyncio.to_thread(_renew, store, target, is_new=records != seen)
            seen = records
        except (ConsumerError, OSError, subprocess.SubprocessError) as error:
            log.error("snapshot_failed", path=str(target), reason=str(error))  # noqa: TRY400 - one line, no traceback
            await asyncio.sleep(RETRY_INTERVAL_S)
        else:
            await asyncio.sleep(INTERVAL_S)


def _renew(store: Store, target: Path, *, is_new: bool) -> None:
    if is_new or not target.exists():
        take(store, target)
    else:
        target.touch()  # what it holds is still all that there is


def take(store: Store, target: Path) -> None:
    """Puts a copy of what is committed in the place of the one before.

    Raises:
        ConsumerError: There is no space, or the folder cannot be written.
    """
    unfinished = target.with_name(f"{target.name}.unfinished")
    with store.frozen():
        # By another process: closing the file in this one would let go of DuckDB's lock on it (fcntl(2), "Advisory record
        # locking"), and a second analytics could open it.
        copied = subprocess.run(  # noqa: S603 - no shell, and paths behind `--`
            ["cp", "--reflink=auto", "--", str(store.path), str(unfinished)],  # noqa: S607 - found as any program is
            check=False,
            capture_output=True,
        )
    if copied.returncode != 0:
        unfinished.unlink(missing_ok=True)
        raise ConsumerError(f"the snapshot {target} cannot be written: is there space, and may we write in its folder?")
    target.with_name(f"{target.name}.wal").unlink(missing_ok=True)  # of somebody who opened the last one for writing
    unfinished.replace(target)

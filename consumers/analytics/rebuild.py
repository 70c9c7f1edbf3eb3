"""The database made anew from Kafka, beside the old one, and put in its place when it has caught up."""

import asyncio
from pathlib import Path

import structlog

from consumers.analytics.ingest import opened
from consumers.analytics.settings import Settings
from consumers.analytics.store import is_open_elsewhere
from consumers.errors import ConsumerError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


async def rebuild(settings: Settings, stop: asyncio.Event, *, since_ms: int | None) -> None:
    """Reads all that Kafka holds, or what the bridge received since a time, and swaps the files.

    A consumer that has the old database open may run on meanwhile, and is waited for at the end. The old file is kept as
    `<name>.before-rebuild`: it may know what Kafka has forgotten.

    Args:
        settings: As for the consumer itself.
        stop: Ends it before the swap.
        since_ms: Milliseconds since the Unix epoch; None: from the first record on.

    Raises:
        ConsumerError: It was stopped before the swap, or what a consumer may raise.
    """
    path = settings.database
    new = path.with_name(f"{path.name}.rebuild")
    for left in (new, _log_of(new)):
        left.unlink(missing_ok=True)
    lock = _Lock(path)
    async with opened(settings, new, since_ms=since_ms, is_copy=True) as (ingest, store):
        await ingest.run(lambda: stop.is_set() or (ingest.is_caught_up and lock.is_free()))
        events = store.cursor().execute("SELECT count(*) FROM events").fetchall()[0][0]
    if stop.is_set():
        for left in (new, _log_of(new)):
            left.unlink(missing_ok=True)
        raise ConsumerError(f"stopped before the swap: {path} is as it was")
    old = path.with_name(f"{path.name}.before-rebuild")
    if path.exists():
        path.replace(old)
    if _log_of(path).exists():  # of a database that could not be opened any more
        _log_of(path).replace(_log_of(old))
    new.replace(path)
    log.info("rebuilt", database=str(path), events=events, before=str(old) if old.exists() else None)


class _Lock:
    """Whether nobody else has the database open."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._was_said = False

    def is_free(self) -> bool:
        """Says it once when it is not."""
        is_free = not is_open_elsewhere(self._path)
        if not is_free and not self._was_said:
            log.warning("waiting_for_database", path=str(self._path), remedy="stop the consumer that has it open")
            self._was_said = True
        return is_free


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.wal")

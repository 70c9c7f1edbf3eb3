"""Events as Parquet files, one folder for each day and account, for tools that read no DuckDB. While the consumer runs, they are the snapshot's."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import structlog

from consumers.analytics.store import connect, is_open_elsewhere, translated
from consumers.errors import ConsumerError

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

# `day` is of the event time, UTC; what only means something within the database stays there.
_EXPORT = """
COPY (
  SELECT * EXCLUDE (conversation), event_time::DATE AS day FROM events
) TO '{folder}' (FORMAT parquet, PARTITION_BY (day, account_id), COMPRESSION zstd)
"""


def export(*, database: Path, snapshot: Path, to: Path) -> int:
    """Writes `TO/day=2026-11-22/account_id=…/data_0.parquet` and so on, all or nothing; returns how many events.

    Args:
        database: Read when no process has it open.
        snapshot: Read while the consumer runs.
        to: A folder that does not exist yet, or is empty.

    Raises:
        ConsumerError: The folder is not empty, the disk is full, or there is nothing to read.
    """
    source = snapshot if is_open_elsewhere(database) else database
    if not source.exists():
        raise ConsumerError(f"{source} does not exist: run python -m consumers.analytics for a while first")
    if to.exists() and (not to.is_dir() or any(to.iterdir())):
        raise ConsumerError(f"{to} is not empty: name a folder that does not exist yet")
    made_at = datetime.fromtimestamp(source.stat().st_mtime, UTC)
    unfinished = to.with_name(f"{to.name}.unfinished")
    if unfinished.exists():
        shutil.rmtree(unfinished)
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        with translated(source), connect(source, read_only=True) as connection:
            quoted = str(unfinished).replace("'", "''")
            [events] = connection.execute(_EXPORT.format(folder=quoted)).fetchone() or (0,)
        unfinished.mkdir(exist_ok=True)  # without events DuckDB makes none
        if to.exists():
            to.rmdir()
        unfinished.replace(to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    log.info("exported", events=events, to=str(to), source=str(source), as_of=made_at.isoformat(timespec="seconds"))
    return int(events)

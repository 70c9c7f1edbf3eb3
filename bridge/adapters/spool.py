"""The spool: deliveries that Kafka could not take, on a local disk, in order, until it can.

SQLite in WAL mode with synchronous=FULL: a commit returns when the write-ahead log is on the disk (sqlite.org/pragma.html),
and a torn tail of the log is recognised and left out by its checksums (sqlite.org/wal.html). One thread does the work. What
waits while a commit runs shares the next one, so many deliveries cost one fsync.

A file that fails (disk full, read-only, EIO, a failed fsync) takes no more; the next delivery begins a new one, and what the
old one holds is still read. A file in which reading fails is set aside under its name and ``.corrupt``, and reported.
Everything is private: the folder 0700, the files 0600.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, TypeVar

import structlog

from bridge.delivery import Delivery
from bridge.errors import Misconfigured, Refused, SpoolFailed, SpoolFull

_log = structlog.get_logger()

FREE_BYTES_MIN = 64 * 1024 * 1024
"""Left free on the disk: the write-ahead log's checkpoint, and whoever else needs the disk, must not fail first."""

_ROW_OVERHEAD_BYTES = 200
"""What a delivery takes beside its body: ids, row header, and its share of the pages."""

_FILES_MAX = 64
"""Files of a disk that fails again and again; after that many every delivery is refused until some are drained."""

_COMMIT_BYTES_MAX = 16 * 1024 * 1024
"""Bodies per commit: one largest body always fits, and no commit takes longer than a slow disk's second."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS deliveries (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at INTEGER NOT NULL,
    delivery_id TEXT NOT NULL,
    app_secret_label TEXT NOT NULL,
    body BLOB NOT NULL
) STRICT
"""

Settled = Callable[[Refused | None], None]
_Result = TypeVar("_Result")


class SqliteSpool:
    """Deliveries on disk, first in, first out; keeps `bridge.intake.Spool`.

    Args:
        folder: made when missing; one bridge at a time.
        bytes_max: what all deliveries in it may take.

    Attributes:
        deliveries: how many it holds, on disk or on their way there.
        bytes: what they take.
        oldest_received_at: when the oldest of them was received, milliseconds; None when it is empty.
        set_aside: files that could not be read.

    Raises:
        Misconfigured: the folder cannot be used, or another bridge uses it.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = _locked(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._waiting: deque[tuple[Delivery, Settled]] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._writing: _File | None = None
        self._files = [_File(path) for path in sorted(folder.glob("spool-*.db"))]
        self.deliveries = sum(file.count for file in self._files)
        self.bytes = sum(file.bytes for file in self._files)
        self.oldest_received_at = next((file.first_received_at for file in self._files if file.count), None)
        self.set_aside = 0

    def put(self, delivery: Delivery, settled: Settled) -> None:
        """Store a delivery; see `bridge.intake.Spool`."""
        size = len(delivery.body) + _ROW_OVERHEAD_BYTES
        if self.bytes + size > self._bytes_max:
            settled(SpoolFull("the spool is full"))
            return
        self.deliveries += 1
        self.bytes += size
        if self.oldest_received_at is None:
            self.oldest_received_at = delivery.received_at
        self._waiting.append((delivery, settled))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting(), name="spool")

    async def oldest(self, bytes_max: int) -> Sequence[Delivery]:
        """The oldest deliveries; see `bridge.intake.Spool`."""
        while self._committing is not None and self.deliveries == len(self._waiting):
            await asyncio.shield(self._committing)  # nothing is on disk yet
        found = await self._in_thread(self._read, bytes_max)
        if found:
            self.oldest_received_at = found[0].received_at
        return found

    async def forget(self, count: int) -> None:
        """Remove deliveries; see `bridge.intake.Spool`."""
        freed = await self._in_thread(self._delete, count)
        self.deliveries -= count
        self.bytes -= freed
        if self.deliveries == 0:
            self.oldest_received_at = None

    async def close(self) -> None:
        """Finish what is on its way to the disk, and let another bridge have the folder."""
        while self._committing is not None:
            await self._committing
        await self._in_thread(self._close_files)
        self._thread.shutdown()
        self._lock.close()

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                batch: list[tuple[Delivery, Settled]] = []
                size = 0
                while self._waiting and (not batch or size + len(self._waiting[0][0].body) <= _COMMIT_BYTES_MAX):
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1][0].body)
                refused = await self._in_thread(self._commit, [delivery for delivery, _ in batch])
                if refused is not None:
                    self.deliveries -= len(batch)
                    self.bytes -= size + _ROW_OVERHEAD_BYTES * len(batch)
                for _, settled in batch:
                    settled(refused)
        finally:
            self._committing = None

    def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    # From here on: what runs in the thread.

    def _commit(self, deliveries: Sequence[Delivery]) -> Refused | None:
        try:
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < FREE_BYTES_MIN + 2 * sum(len(delivery.body) for delivery in deliveries):
                return SpoolFull("the spool's disk is nearly full")
            if self._writing is None:
                self._writing = self._new_file()
            self._writing.insert(deliveries)
        except (sqlite3.Error, OSError) as error:
            _log.error(
                "spool_failed", error=type(error).__name__, file=self._writing.path.name if self._writing else None
            )
            self._writing = None  # what it holds is still read
            return SpoolFailed(f"the spool's disk failed ({type(error).__name__})")
        return None

    def _new_file(self) -> _File:
        if len(self._files) >= _FILES_MAX:
            raise OSError("too many files that failed")
        number = int(self._files[-1].path.stem.removeprefix("spool-")) + 1 if self._files else 1
        file = _File(self._folder / f"spool-{number:06}.db", new=True)
        self._files.append(file)
        return file

    def _read(self, bytes_max: int) -> Sequence[Delivery]:
        while self._files:
            file = self._files[0]
            try:
                found = file.read(bytes_max)
            except sqlite3.Error as error:
                self._set_aside(file, error)
                continue
            if found:
                return found
            if file is self._writing:
                return ()
            self._files.remove(file)
            file.unlink()
        return ()

    def _delete(self, count: int) -> int:
        file = self._files[0]
        try:
            return file.delete(count)
        except sqlite3.Error as error:
            # They are published: should they be read again, consumers know them by their event_id.
            _log.error("spool_not_trimmed", error=type(error).__name__, file=file.path.name)
            return file.skip(count)

    def _set_aside(self, file: _File, error: sqlite3.Error) -> None:
        _log.error("spool_file_set_aside", error=type(error).__name__, file=file.path.name, deliveries=file.count)
        self._files.remove(file)
        if file is self._writing:
            self._writing = None
        self.set_aside += 1
        self.deliveries -= file.count
        self.bytes -= file.bytes
        file.close()
        with contextlib.suppress(OSError):  # a read-only disk: it is left out until the next start
            file.path.rename(file.path.with_suffix(".db.corrupt"))

    def _close_files(self) -> None:
        for file in self._files:
            file.close()
            if file.count == 0:
                file.unlink()


class _File:
    """One SQLite file; used by the spool's thread, or before it runs.

    Attributes:
        count, bytes, first_received_at: deliveries in it, what they take, and when its first was received.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        self.count = self.bytes = 0
        self.first_received_at: int | None = None
        self._read_to: list[tuple[int, int]] = []  # place and bytes of what `read` gave last
        self._done_to = 0
        if new:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=0)
        try:
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.execute(_SCHEMA)
            for received_at, size in self._database.execute("SELECT received_at, length(body) FROM deliveries"):
                self.first_received_at = self.first_received_at or received_at
                self.count += 1
                self.bytes += size + _ROW_OVERHEAD_BYTES
        except sqlite3.Error as error:
            if new:
                raise
            _log.error("spool_file_damaged", error=type(error).__name__, file=path.name, readable=self.count)
        if new:
            _sync_folder(path.parent)  # the name must be as durable as the content

    def insert(self, deliveries: Sequence[Delivery]) -> None:
        rows = [
            (delivery.received_at, delivery.delivery_id, delivery.app_secret_label, delivery.body)
            for delivery in deliveries
        ]
        self._database.execute("BEGIN IMMEDIATE")
        try:
            self._database.executemany(
                "INSERT INTO deliveries (received_at, delivery_id, app_secret_label, body) VALUES (?, ?, ?, ?)", rows
            )
            self._database.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise
        self.count += len(deliveries)
        self.bytes += sum(len(delivery.body) + _ROW_OVERHEAD_BYTES for delivery in deliveries)

    def read(self, bytes_max: int) -> Sequence[Delivery]:
        """What can be read from the beginning; raises only when not even the first row can."""
        found: list[Delivery] = []
        self._read_to = []
        size = 0
        rows = self._database.execute(
            "SELECT place, received_at, delivery_id, app_secret_label, body FROM deliveries WHERE place > ? ORDER BY place",
            (self._done_to,),
        )
        try:
            for place, received_at, delivery_id, label, body in rows:
                size += len(body)
                if found and size > bytes_max:
                    break
                found.append(Delivery(body, received_at, delivery_id, label))
                self._read_to.append((place, len(body) + _ROW_OVERHEAD_BYTES))
        except sqlite3.Error:
            if not found:
                raise
        finally:
            rows.close()
        return found

    def delete(self, count: int) -> int:
        self._database.execute("DELETE FROM deliveries WHERE place <= ?", (self._read_to[count - 1][0],))
        return self.skip(count)

    def skip(self, count: int) -> int:
        """Read on behind them from now on; the bytes that they took."""
        self._done_to = self._read_to[count - 1][0]
        freed = sum(size for _, size in self._read_to[:count])
        self.count -= count
        self.bytes -= freed
        return freed

    def close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.close()

    def unlink(self) -> None:
        self.close()
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(OSError):
                self.path.with_name(self.path.name + suffix).unlink()


def _locked(folder: Path) -> IO[str]:
    """Make the folder private and take it; the kernel lets it go when we end, however we end."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise Misconfigured(
            f"BRIDGE_SPOOL_DIR: cannot use {folder} ({error.strerror}); name a writable folder on a local disk, or set it "
            "to nothing to run without a spool"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise Misconfigured(f"another bridge runs over the spool {folder}; stop it, or set BRIDGE_SPOOL_DIR") from None
    return lock


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

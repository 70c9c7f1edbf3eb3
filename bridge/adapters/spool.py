"""The spool: deliveries that Kafka could not take, on a local disk, in order, until it can.

One thread does the work. What waits while a commit runs shares the next one, so many deliveries cost one fsync.

A file that fails (disk full, read-only, EIO, a failed fsync, deleted by somebody) takes no more; the next delivery begins a
new one, and what the old one holds is still read. Of a damaged file everything that can be read is; then it is set aside
under its name and ``.corrupt``, and reported. Everything is private: the folder 0700, the files 0600.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from bridge.adapters.spool_file import ROW_OVERHEAD_BYTES, SpoolFile, is_damage, set_aside
from bridge.delivery import Delivery
from bridge.errors import Misconfigured, Refused, SpoolFailed, SpoolFull

_log = structlog.get_logger()

FREE_BYTES_MIN = 64 * 1024 * 1024
"""Left free on the disk: the write-ahead log's checkpoint, and whoever else needs the disk, must not fail first."""

_FILES_MAX = 64
"""Files of a disk that fails again and again; after that many every delivery is refused until some are drained."""

_COMMIT_BYTES_MAX = 16 * 1024 * 1024
"""Bodies per commit: one largest body always fits, and no commit takes longer than a slow disk's second."""

_ROOM_BYTES = 4096
"""Fewer than this, and the spool is as good as full: a lone event with its overhead takes about 1 KiB."""

_NAME = re.compile(r"spool-(\d+)\.db", re.ASCII)

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
        set_aside: damaged files since the start.

    Raises:
        Misconfigured: the folder or a file in it cannot be used, or another bridge uses it.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = _locked(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="spool")
        self._waiting: deque[tuple[Delivery, Settled]] = deque()
        self._committing: asyncio.Task[None] | None = None
        self._refused_until = 0.0
        self._writing: SpoolFile | None = None
        self._files: list[SpoolFile] = []
        self.set_aside = 0
        try:
            for path in sorted(filter(_number, folder.iterdir()), key=_number):
                if _NAME.fullmatch(path.name):
                    self._take_up(path)
        except Misconfigured:
            os.close(self._lock)
            raise
        self.deliveries = sum(file.count for file in self._files)
        self.bytes = sum(file.bytes for file in self._files)
        self._oldest_received_at = next((file.first_received_at for file in self._files), None)

    @property
    def room(self) -> bool:
        """Whether the next delivery would be taken, as far as is known."""
        return self.bytes + _ROOM_BYTES <= self._bytes_max and time.monotonic() >= self._refused_until

    @property
    def oldest_received_at(self) -> int | None:
        """When the oldest delivery was received, milliseconds; None when there is none."""
        return self._oldest_received_at if self.deliveries else None

    def put(self, delivery: Delivery, settled: Settled) -> None:
        """Store a delivery; see `bridge.intake.Spool`."""
        size = len(delivery.body) + ROW_OVERHEAD_BYTES
        if self.bytes + size > self._bytes_max:
            settled(SpoolFull("the spool is full"))
            return
        if self.deliveries == 0:
            self._oldest_received_at = delivery.received_at
        self.deliveries += 1
        self.bytes += size
        self._waiting.append((delivery, settled))
        if self._committing is None:
            self._committing = asyncio.create_task(self._commit_waiting(), name="spool")

    async def oldest(self, bytes_max: int) -> Sequence[Delivery]:
        """The oldest deliveries; see `bridge.intake.Spool`."""
        found, lost, lost_bytes = await self._in_thread(self._read, bytes_max)
        self.deliveries -= lost
        self.bytes -= lost_bytes
        if found:
            self._oldest_received_at = found[0].received_at
        return found

    async def forget(self, count: int) -> None:
        """Remove deliveries; see `bridge.intake.Spool`."""
        freed = await self._in_thread(self._delete, count)
        self.deliveries -= count
        self.bytes -= freed

    async def close(self) -> None:
        """Finish what is on its way to the disk, and let another bridge have the folder."""
        while self._committing is not None:
            await self._committing
        await self._in_thread(self._close_files)
        self._thread.shutdown()
        os.close(self._lock)

    async def _commit_waiting(self) -> None:
        try:
            while self._waiting:
                batch: list[tuple[Delivery, Settled]] = []
                size = 0
                while self._waiting and (not batch or size + len(self._waiting[0][0].body) <= _COMMIT_BYTES_MAX):
                    batch.append(self._waiting.popleft())
                    size += len(batch[-1][0].body)
                refused = await self._in_thread(self._commit, [delivery for delivery, _ in batch])
                self._refused_until = 0.0
                if refused is not None:
                    self.deliveries -= len(batch)
                    self.bytes -= size + ROW_OVERHEAD_BYTES * len(batch)
                    self._refused_until = time.monotonic() + (refused.retry_after_s or 0)
                for _, settled in batch:
                    settled(refused)
        finally:
            self._committing = None

    def _in_thread(self, function: Callable[..., _Result], *arguments: object) -> asyncio.Future[_Result]:
        return asyncio.get_running_loop().run_in_executor(self._thread, function, *arguments)

    # From here on: what runs in the thread, or before it does. It counts nothing that the loop counts.

    def _take_up(self, path: Path) -> None:
        try:
            file = SpoolFile(path)
        except sqlite3.Error as error:
            if not is_damage(error):
                raise Misconfigured(
                    f"the spool's file {path} cannot be opened ({error.sqlite_errorname}): mend the disk; it holds deliveries "
                    "that were answered 200"
                ) from None
            set_aside(path)
            self.set_aside += 1
            _log.error("spool_file_set_aside", file=path.name, error=type(error).__name__)
            return
        if file.count:
            self._files.append(file)
        elif file.damaged:
            self._set_aside(file)
        else:
            file.unlink()

    def _commit(self, deliveries: Sequence[Delivery]) -> Refused | None:
        try:
            disk = os.statvfs(self._folder)
            if disk.f_bavail * disk.f_frsize < FREE_BYTES_MIN + 2 * sum(len(delivery.body) for delivery in deliveries):
                return SpoolFull("the spool's disk is nearly full")
            if self._writing is not None and not self._writing.in_place:
                _log.error("spool_file_gone", file=self._writing.path.name, deliveries=self._writing.count)
                self._writing = None
            if self._writing is None:
                self._writing = self._new_file()
            self._writing.insert(deliveries)
        except (sqlite3.Error, OSError) as error:
            file = self._writing and self._writing.path.name
            self._writing = None  # what it holds is still read
            _log.error("spool_failed", error=type(error).__name__, file=file)
            return SpoolFailed(f"the spool's disk failed ({type(error).__name__})")
        return None

    def _new_file(self) -> SpoolFile:
        if len(self._files) >= _FILES_MAX:
            raise OSError("too many files that failed")
        number = 1 + max(map(_number, self._folder.iterdir()), default=0)  # also over those that were set aside
        file = SpoolFile(self._folder / f"spool-{number:06}.db", new=True)
        self._files.append(file)
        return file

    def _read(self, bytes_max: int) -> tuple[Sequence[Delivery], int, int]:
        """The oldest, and how many deliveries and bytes were found to be lost."""
        lost = lost_bytes = 0
        while self._files:
            file = self._files[0]
            if found := file.read(bytes_max):
                return found, lost, lost_bytes
            lost += file.count
            lost_bytes += file.bytes
            if file.damaged:
                self._set_aside(file)
            elif file is self._writing:
                break
            else:
                file.unlink()
            self._files.remove(file)
        return (), lost, lost_bytes

    def _delete(self, count: int) -> int:
        file = self._files[0]
        before = file.bytes
        if count == file.count and not file.damaged:  # nothing of it stays on the disk, in free pages or in the log
            self._files.remove(file)
            if file is self._writing:
                self._writing = None
            file.unlink()
            return before
        try:
            file.delete(count)
        except sqlite3.Error as error:
            # They are published: should they be read again, consumers know them by their event_id.
            _log.error("spool_not_trimmed", error=type(error).__name__, file=file.path.name)
        return before - file.bytes

    def _set_aside(self, file: SpoolFile) -> None:
        if file is self._writing:
            self._writing = None
        self.set_aside += 1
        file.set_aside()
        _log.error("spool_file_set_aside", file=file.path.name, deliveries=file.count)

    def _close_files(self) -> None:
        for file in self._files:
            file.close()


def _number(path: Path) -> int:
    """Of one of the spool's files, set aside or not; 0 for anything else."""
    name = _NAME.match(path.name)
    return int(name[1]) if name else 0


def _locked(folder: Path) -> int:
    """Make the folder private and take it; the kernel lets it go when we end, however we end."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if not os.access(folder, os.W_OK | os.X_OK):
            os.close(lock)
            raise PermissionError(0, "not writable")
    except OSError as error:
        raise Misconfigured(
            f"BRIDGE_SPOOL_DIR: cannot use {folder} ({error.strerror}); name a writable folder on a local disk, or set it "
            "to nothing to run without a spool"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise Misconfigured(f"another bridge runs over the spool {folder}; stop it, or set BRIDGE_SPOOL_DIR") from None
    return lock

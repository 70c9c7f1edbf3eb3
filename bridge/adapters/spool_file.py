"""One file of the spool: a SQLite database that is written at its end and read from its beginning, by one thread at a time.

SQLite in WAL mode with synchronous=FULL: a commit returns when the write-ahead log is on the disk (sqlite.org/pragma.html),
and a torn tail of the log is recognised and left out by its checksums (sqlite.org/wal.html). The database's own pages have
none, so every row carries one: what is published is what was signed. A row that cannot be read is passed over, and makes the
file a damaged one, which is kept when the others are read.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bridge.delivery import Delivery

ROW_OVERHEAD_BYTES = 200
"""What a delivery takes beside its body: ids, row header, and its share of the pages."""

_BUSY_TIMEOUT_S = 1.0
"""For a person who looks into the file with SQLite's own tool: no reason to call it damaged."""

_PRIMARY_CODE = 0xFF
"""Of SQLite's result codes the part that is the same for all kinds of one error (sqlite.org/rescode.html)."""

_DATABASE_AND_LOG = ("", "-wal", "-shm")
_SCHEMA = """
CREATE TABLE deliveries (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    received_at INTEGER NOT NULL,
    delivery_id TEXT NOT NULL,
    app_secret_label TEXT NOT NULL,
    body BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT
"""

_INSERT = "INSERT INTO deliveries (received_at, delivery_id, app_secret_label, body, checksum) VALUES "
_VALUES = "(?, ?, ?, ?, ?)"

_ROWS_TOGETHER = (64, 16, 4, 1)
"""Rows of one statement. Python's sqlite3 gives the interpreter away around every step of SQLite's, and has to wait for it again
while the loop is busy: once for a statement instead of once for a row."""


class SpoolFile:
    """One file, with what is left in it.

    Args:
        path: of the database; its log lies beside it.
        new: whether to make it.

    Attributes:
        count, bytes: deliveries that are left in it, and what they take.
        first_received_at: when the first of them was received, milliseconds; as of the opening.
        damaged: whether some row could not be read.

    Raises:
        sqlite3.Error, OSError: it cannot be made, or is no such file; nothing new is left behind.
    """

    def __init__(self, path: Path, *, new: bool = False) -> None:
        self.path = path
        self.count = self.bytes = 0
        self.first_received_at: int | None = None
        self.damaged = False
        self._read: list[tuple[int, int]] = []  # place and bytes of what `read` gave last
        self._done_to = self._last = 0
        if new:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        self._database = sqlite3.connect(
            path, isolation_level=None, check_same_thread=False, timeout=_BUSY_TIMEOUT_S, cached_statements=8
        )
        try:
            self._database.execute("PRAGMA writable_schema=ON")  # else a file that lacks its end is refused as a whole
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            if new:
                self._database.execute(_SCHEMA)
                _sync_folder(path.parent)  # the name must be as durable as the content
            else:
                self._count()
        except (sqlite3.Error, OSError):
            if new:
                self.unlink()
            else:
                self._close()
            raise

    @property
    def in_place(self) -> bool:
        """Whether what is written now would be found again: nobody has deleted the file or its log."""
        return self.path.exists() and self.path.with_name(f"{self.path.name}-wal").exists()

    def insert(self, deliveries: Sequence[Delivery]) -> None:
        """Commit them at the end, all or none."""
        rows = [
            (delivery.received_at, delivery.delivery_id, delivery.app_secret_label, delivery.body, _checksum(delivery))
            for delivery in deliveries
        ]
        with self._transaction():
            at = 0
            for together in _ROWS_TOGETHER:
                while len(rows) - at >= together:
                    some = rows[at : at + together]
                    self._database.execute(
                        _INSERT + ", ".join([_VALUES] * together), [*itertools.chain.from_iterable(some)]
                    )
                    at += together
        self._last += len(deliveries)
        self.count += len(deliveries)
        self.bytes += sum(len(delivery.body) + ROW_OVERHEAD_BYTES for delivery in deliveries)

    def read(self, bytes_max: int) -> Sequence[Delivery]:
        """The first that are left, at least one; none when no more can be read."""
        found: list[Delivery] = []
        self._read = []
        size = 0
        rows = self._rows("received_at, delivery_id, app_secret_label, body, checksum")
        for place, received_at, delivery_id, label, body, checksum in rows:
            delivery = Delivery(body, received_at, delivery_id, label)
            if not isinstance(body, bytes) or checksum != _checksum(delivery):
                self.damaged = True
                continue
            size += len(body)
            if found and size > bytes_max:
                break
            found.append(delivery)
            self._read.append((place, len(body) + ROW_OVERHEAD_BYTES))
        return found

    def delete(self, count: int) -> None:
        """Remove that many of what `read` gave; they are not counted any more even if that fails.

        Raises:
            sqlite3.Error: they are still there for who opens the file anew.
        """
        gone = self._read[:count]
        self._done_to = gone[-1][0]
        self.count -= count
        self.bytes -= sum(size for _, size in gone)
        with self._transaction():
            if self.damaged:  # what could not be read lies between them, and stays
                self._database.executemany("DELETE FROM deliveries WHERE place = ?", [(place,) for place, _ in gone])
            else:
                self._database.execute("DELETE FROM deliveries WHERE place BETWEEN ? AND ?", (gone[0][0], gone[-1][0]))

    def close(self) -> None:
        """Close it; remove it when it holds nothing."""
        if self.count or self.damaged:
            self._close()
        else:
            self.unlink()

    def unlink(self) -> None:
        """Close and remove it."""
        self._close()
        for suffix in _DATABASE_AND_LOG:
            with contextlib.suppress(OSError):
                self.path.with_name(self.path.name + suffix).unlink()

    def set_aside(self) -> None:
        """Close it and give it another name."""
        self._close()
        set_aside(self.path)

    def _count(self) -> None:
        if self._database.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
            return  # a crash came before its first commit
        (self._last,) = self._database.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence").fetchone()
        for _, received_at, size in self._rows("received_at, length(body)"):
            if isinstance(received_at, int) and isinstance(size, int):
                self.first_received_at = self.first_received_at or received_at
                self.count += 1
                self.bytes += size + ROW_OVERHEAD_BYTES

    def _rows(self, columns: str) -> Iterator[tuple[Any, ...]]:
        """Place and columns of what is left; around a page that cannot be read it feels its way place by place."""
        at = self._done_to
        while True:
            select = f"SELECT place, {columns} FROM deliveries WHERE place > ? ORDER BY place"  # noqa: S608 - our own words
            try:
                with contextlib.closing(self._database.execute(select, (at,))) as rows:
                    for row in rows:
                        at = row[0]
                        yield row
            except sqlite3.Error:
                self.damaged = True
                if at >= self._last:
                    return
                at += 1
            else:
                return

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def _close(self) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


def is_damage(error: sqlite3.Error) -> bool:
    """Whether a file is to blame that could not be opened, rather than its disk."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)  # SQLITE_ERROR: the tables are not ours
    return code & _PRIMARY_CODE in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)


def set_aside(path: Path) -> None:
    """Give a file and its log the name ``.corrupt``; who mends it can give it back under its old one."""
    for suffix in _DATABASE_AND_LOG:
        with contextlib.suppress(OSError):  # a read-only disk: it is left out until the next start
            path.with_name(path.name + suffix).rename(path.with_name(f"{path.name}.corrupt{suffix}"))


def _checksum(delivery: Delivery) -> int:
    head = f"{delivery.received_at} {delivery.delivery_id} {delivery.app_secret_label}"
    return zlib.crc32(head.encode(), zlib.crc32(delivery.body))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

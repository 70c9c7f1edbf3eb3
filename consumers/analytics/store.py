"""The DuckDB file: events once each, and in the same transaction the offsets up to which Kafka was read.

That makes it exactly once: whatever ends the process, the file holds the events before its offsets and no others, and the next
start reads on from there. A record that is read again has a known event_id and changes nothing.
"""

import contextlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from aiokafka import TopicPartition

from consumers.analytics.known import SETTLE_EVENTS_MAX, settle, take_fresh, unsettled
from consumers.analytics.projection import PATHS
from consumers.errors import ConsumerError

LAYOUT = "1"  # of the tables in schema.sql; another one needs a rebuild
# What DuckDB may hold; without it, it takes 80 % of the machine for what it has read. It keeps what it has read until it holds
# this, so it is what the process grows to. Measured: 256 are enough for the figures of a period with nine million events.
MEMORY_MAX_MB = 384
# Each query in the thread that asks: ingest and the page have one each, and a second one costs a sixth more CPU.
THREADS = 1
# Between two checkpoints, which cost a second each: what a start after kill -9 has to read again.
CHECKPOINT_WAL_MB = 256
CHECKPOINT_NEVER = "1TB"
ARRIVALS_KEPT_DAYS = 7  # a page of a week; there may be ten rows a second
TAIL_MAX = 100  # the newest events of a batch, for the live feed

_LOCKED = "Could not set lock"  # how DuckDB says that another process has the file

_ARROW = {"string": pa.string(), "long": pa.int64(), "boolean": pa.bool_(), "present": pa.bool_()}
_ARROW["timestamp-millis"] = pa.timestamp("ms")
_SCHEMA = pa.schema(
    [
        *(
            (name, pa.list_(pa.string()) if name == "attachments" else _ARROW[kind])
            for name, (kind, _) in PATHS.items()
        ),
        ("kind", pa.string()),
        ("webhook_field", pa.string()),
        ("kafka_partition", pa.int32()),
        ("kafka_offset", pa.int64()),
    ]
)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll brought, decoded.

    Attributes:
        rows: One for each distinct event_id, the first copy: `COLUMNS`, then webhook field, partition and offset.
        offsets: Where each partition goes on after it.
        arrivals: Per webhook field how many records came and their median lag in seconds; empty while catching up.
        read_at_us: When, in microseconds since the Unix epoch.
        is_behind: Whether numbers are not yet whole: then copies of events may be found as late as by `settle`.
    """

    rows: Sequence[tuple[Any, ...]]
    offsets: Mapping[TopicPartition, int]
    arrivals: Mapping[str, tuple[int, float]]
    read_at_us: int
    is_behind: bool = False


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What a batch changed: how many events were new, and the newest of them as (webhook field, partition, offset)."""

    events: int
    tail: list[tuple[str, int, int]]


class Store:
    """An open database. `absorb`, `settle` and `frozen` may be called in any thread; cursors are independent.

    Attributes:
        removed: Copies of events that were found by `settle`, after they had been taken for new ones.

    Args:
        path: The file.
        connection: Open on it.
    """

    def __init__(self, path: Path, connection: duckdb.DuckDBPyConnection) -> None:
        self.path = path
        self._connection = connection
        self._writing = threading.Lock()
        self._copying = threading.Lock()
        self._unsettled = unsettled(connection)
        self.removed = 0

    @classmethod
    def open(cls, path: Path, *, topic_prefix: str, cluster_id: str) -> "Store":
        """Opens the file, or makes it. Nobody else can have it open.

        Args:
            path: The file.
            topic_prefix: Whose topics its offsets are of.
            cluster_id: Whose partitions its offsets are of, as the Kafka cluster calls itself.

        Raises:
            ConsumerError: It is another process's, cannot be read, or is of other topics.
        """
        about = {"layout": LAYOUT, "topic_prefix": topic_prefix, "cluster_id": cluster_id}
        with translated(path):
            if not path.exists():
                _make(path, about)
            connection = connect(path)
            try:
                found = dict(connection.execute("SELECT name, content FROM about").fetchall())
            except duckdb.CatalogException:
                found = {}
            if found != about:
                connection.close()
                raise ConsumerError(_mismatch(path, found, about))
            return cls(path, connection)

    def close(self) -> None:
        """Writes what is in the log to the file, and lets it go; after a copy that is under way."""
        with self._copying, self._writing:
            for last in (self._settle, self._connection.close):
                with contextlib.suppress(duckdb.Error):  # after a failed write there is nothing left to close
                    last()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection for reading, which never waits for a write."""
        return self._connection.cursor()

    def offsets(self) -> dict[TopicPartition, int]:
        """Where to go on in each partition that was ever read."""
        with translated(self.path):
            found = self.cursor().execute("SELECT topic, kafka_partition, next_offset FROM offsets").fetchall()
        return {TopicPartition(topic, partition): offset for topic, partition, offset in found}

    def absorb(self, batch: Batch) -> Absorbed:
        """Takes a batch in, whole or not at all; raises ConsumerError when the disk is full, or the file is damaged."""
        with self._writing, translated(self.path):
            with self._transaction():
                absorbed = self._absorb(batch) if batch.rows else Absorbed(0, [])
                self._move_on(batch)
            self._unsettled += absorbed.events
            if self._unsettled >= SETTLE_EVENTS_MAX:
                self._settle()
            return absorbed

    def settle(self) -> None:
        """Finds the copies of events, and the texts of unsent messages, that lie too far away for `absorb` to look there.

        Raises:
            ConsumerError: The disk is full, or the file is damaged.
        """
        with self._writing, translated(self.path):
            self._settle()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(duckdb.Error):
                self._connection.execute("ROLLBACK")
            raise

    def _settle(self) -> None:
        if self._unsettled:
            with self._transaction():
                removed = settle(self._connection)
            self.removed += removed
            self._unsettled = 0

    def _absorb(self, batch: Batch) -> Absorbed:
        database = self._connection
        columns = zip(*batch.rows, strict=True)
        arrays = [pa.array(column, kind) for column, kind in zip(columns, _SCHEMA.types, strict=True)]
        database.register("batch", pa.Table.from_arrays(arrays, schema=_SCHEMA))
        events = take_fresh(database, is_behind=batch.is_behind)
        database.unregister("batch")
        database.execute("INSERT INTO events BY NAME FROM fresh")
        tail = database.execute(
            "SELECT webhook_field, kafka_partition, kafka_offset FROM fresh "
            "ORDER BY received_at DESC, kafka_offset DESC LIMIT ?",
            [TAIL_MAX],
        ).fetchall()
        return Absorbed(events, tail[::-1])

    def _move_on(self, batch: Batch) -> None:
        database = self._connection
        places = [(place.topic, place.partition, offset) for place, offset in batch.offsets.items()]
        names = ["topic", "kafka_partition", "next_offset"]
        database.register("places", pa.table(dict(zip(names, map(list, zip(*places, strict=True)), strict=True))))
        database.execute("INSERT INTO offsets FROM places ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset")
        database.unregister("places")
        for webhook_field, (records, lag_s) in batch.arrivals.items():
            database.execute(
                "INSERT INTO arrivals VALUES (make_timestamp(?), ?, ?, ?)",
                [batch.read_at_us, webhook_field, records, lag_s],
            )

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Within the block the file stays as it is, complete and consistent, while `absorb` goes on into the log beside it.

        Raises:
            ConsumerError: The disk is full, or the file is damaged.
        """
        with self._copying:
            with self._writing, translated(self.path):
                week_ago = datetime.now(UTC).replace(tzinfo=None) - timedelta(days=ARRIVALS_KEPT_DAYS)
                self._connection.execute("DELETE FROM arrivals WHERE read_at < ?", [week_ago])
                self._settle()
                self._connection.execute(f"SET checkpoint_threshold = '{CHECKPOINT_NEVER}'")
                self._connection.execute("CHECKPOINT")
            try:
                yield
            finally:
                with self._writing, contextlib.suppress(duckdb.Error):
                    self._connection.execute(f"SET checkpoint_threshold = '{CHECKPOINT_WAL_MB}MB'")


def connect(path: Path, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection with our bounds on memory and threads, which loads no extension and reads no other file by itself."""
    return duckdb.connect(
        str(path),
        read_only=read_only,
        config={
            "memory_limit": f"{MEMORY_MAX_MB}MB",
            "threads": THREADS,
            "checkpoint_threshold": f"{CHECKPOINT_WAL_MB}MB",
            "autoinstall_known_extensions": False,
        },
    )


def is_open_elsewhere(path: Path) -> bool:
    """Whether another process has the database open; not of one that is damaged or does not exist."""
    try:
        connect(path, read_only=True).close()
    except duckdb.Error as error:
        return _LOCKED in str(error)
    return False


def _make(path: Path, about: Mapping[str, str]) -> None:
    # Under another name until it is complete, so that a kill leaves no half-made file behind.
    unfinished = path.with_name(f"{path.name}.unfinished")
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}.wal")):
        left.unlink(missing_ok=True)
    with connect(unfinished) as connection:
        connection.execute((resources.files(__package__) / "schema.sql").read_text(encoding="utf-8"))
        connection.executemany("INSERT INTO about VALUES (?, ?)", list(about.items()))
    unfinished.replace(path)


def _mismatch(path: Path, found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    if found.get("layout") != wanted["layout"]:
        return f"{path} holds other tables than this version's: name another ANALYTICS_DATABASE, or make it anew with --rebuild"
    what = "topics with another prefix" if found["topic_prefix"] != wanted["topic_prefix"] else "another Kafka cluster"
    return f"{path} was filled from {what}: name another ANALYTICS_DATABASE, or make it anew with --rebuild"


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """DuckDB's errors and the disk's as one line that says what to do; never with their own text, which may hold content.

    Raises:
        ConsumerError: In their place.
    """
    try:
        yield
    except (duckdb.Error, OSError) as error:
        raise ConsumerError(_remedy(path, error)) from None


def _remedy(path: Path, error: Exception) -> str:
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"the {MEMORY_MAX_MB} MB that DuckDB may hold were not enough for {path}: start again, nothing is lost"
    if _LOCKED in text:
        return f"{path} is open in another process, and only one can have it: stop that one, or read its snapshot"
    if any(words in text for words in ("No space left", "File too large", "Could not write")):
        return f"no space left for {path}: free some and start again, nothing is lost"
    if isinstance(error, OSError) or "Cannot open file" in text or "Permission denied" in text:
        return f"{path} cannot be opened or written: check the folder and its permissions ({type(error).__name__})"
    return (
        f"{path} is damaged or no DuckDB database ({type(error).__name__}): move it and {path.name}.wal away, "
        "then start again and everything is read from Kafka, or bring back a snapshot under that name"
    )

"""The database alone: each event once, unsent texts gone, one process at a time, a copy that is whole, errors in one line."""

import asyncio
import contextlib
import itertools
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from aiokafka import TopicPartition

from consumers.analytics import known
from consumers.analytics.projection import row_of
from consumers.analytics.snapshot import take
from consumers.analytics.store import Batch, Store
from consumers.errors import ConsumerError
from tests.consumers.samples import decoded, message
from tests.faults.disk import MAY_MOUNT

PLACE = TopicPartition("instagram.messages", 0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the test's database is."""
    return tmp_path / "events.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An empty one."""
    opened = open_store(path)
    yield opened
    opened.close()


def open_store(path: Path, **changes: str) -> Store:
    """The database as the consumer opens it."""
    return Store.open(path, **{"topic_prefix": "instagram", "cluster_id": "a cluster"} | changes)


def batch(*values: dict[str, Any], first: int = 0) -> Batch:
    """Messages at offsets from `first` on."""
    rows = [(*row_of(decoded(value).value), "messages", 0, first + number) for number, value in enumerate(values)]
    return Batch(rows, {PLACE: first + len(values)}, {}, 0)


def texts(store: Store) -> list[str | None]:
    """The stored texts by offset."""
    return [text for (text,) in store.cursor().execute("SELECT text FROM events ORDER BY kafka_offset").fetchall()]


def unsend(mid: str) -> dict[str, Any]:
    """The unsend of a message."""
    return message(None, part={"mid": mid, "is_deleted": True})


def test_event_that_comes_again_changes_nothing(store: Store) -> None:
    """In a later batch, the first copy stays; only the offsets move on."""
    first, other = message("one"), message("two")
    assert store.absorb(batch(first)).events == 1
    again = store.absorb(batch(first | {"received_at": other["received_at"]}, other, first=1))
    assert (again.events, again.tail) == (1, [("messages", 0, 2)])
    assert store.cursor().execute("SELECT kafka_offset FROM events ORDER BY 1").fetchall() == [(0,), (2,)]
    assert store.offsets() == {PLACE: 3}


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("batches", [1, 3])
def test_unsend_blanks_text_in_whichever_order_it_comes(store: Store, order: tuple[int, ...], batches: int) -> None:
    """Of the message and of its copy under another event_id, in one batch or in three; a neighbour keeps its own."""
    given = [message("secret", part={"mid": "m"}), message("secret again", part={"mid": "m"}), unsend("m")]
    store.absorb(batch(message("neighbour", part={"mid": "n"}), first=10))
    values = [given[place] for place in order]
    if batches == 1:
        store.absorb(batch(*values))
    else:
        for number, value in enumerate(values):
            store.absorb(batch(value, first=number))
    assert texts(store) == [None, None, None, "neighbour"]


def long_ago(value: dict[str, Any]) -> dict[str, Any]:
    """The same, received long before Meta would repeat it for the last time."""
    return value | {"received_at": value["received_at"] - timedelta(days=30)}


@pytest.mark.parametrize("is_behind", [False, True])
def test_event_id_that_comes_again_long_after_is_one_event_when_settled(
    store: Store, monkeypatch: pytest.MonkeyPatch, *, is_behind: bool
) -> None:
    """Beyond what a batch is compared with: the first copy stays, also of those that came since the last time."""
    monkeypatch.setattr(known, "LAST_ROWS", 1)
    first, second = message("one"), message("two")
    for number, value in enumerate((long_ago(first), message(), second, first, message(), long_ago(second))):
        store.absorb(replace(batch(value, first=number), is_behind=is_behind))
    assert len(texts(store)) == 6
    store.settle()
    assert texts(store) == ["one", "Hello there", "two", "Hello there"]
    assert store.removed == 2
    used_again = message("three", event_id=first["event_id"])
    store.absorb(replace(batch(used_again, first=6), is_behind=is_behind))
    store.settle()
    assert (len(texts(store)), store.removed) == (4, 3)


@pytest.mark.parametrize("is_behind", [False, True])
def test_unsend_of_an_old_message_blanks_its_text_when_settled(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, is_behind: bool
) -> None:
    """And before a copy of the file is made."""
    monkeypatch.setattr(known, "LAST_ROWS", 1)
    for number, value in enumerate((long_ago(message("secret", part={"mid": "m"})), message("neighbour"), unsend("m"))):
        store.absorb(replace(batch(value, first=number), is_behind=is_behind))
    take(store, tmp_path / "copy.duckdb")
    with duckdb.connect(str(tmp_path / "copy.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT text FROM events ORDER BY kafka_offset").fetchall() == [
            (None,),
            ("neighbour",),
            (None,),
        ]


def test_many_events_are_settled_without_being_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who catches up for hours, and nobody takes a copy."""
    monkeypatch.setattr("consumers.analytics.store.SETTLE_EVENTS_MAX", 2)
    first = message("one")
    store.absorb(batch(long_ago(first)))
    store.absorb(batch(first, first=1))
    assert texts(store) == ["one"]


def test_what_was_not_settled_at_a_kill_is_settled_later(store: Store, path: Path, tmp_path: Path) -> None:
    """The file says up to where it was done."""
    first = message("one")
    store.absorb(batch(long_ago(first)))
    store.settle()
    store.absorb(batch(first, first=1))
    killed = tmp_path / "killed.duckdb"
    for suffix in ("", ".wal"):
        shutil.copyfile(f"{path}{suffix}", f"{killed}{suffix}")
    again = open_store(killed)
    assert len(texts(again)) == 2
    again.settle()
    assert (texts(again), again.removed) == (["one"], 1)
    again.close()


def test_file_from_before_there_was_settling_is_opened(path: Path) -> None:
    """Every batch was compared with all of it."""
    old = open_store(path)
    old.absorb(batch(message("one")))
    old.cursor().execute("DROP TABLE settled")
    old.close()
    store = open_store(path)
    assert store.cursor().execute("FROM settled").fetchall() == [(1, 0)]
    store.close()


def test_batch_that_fails_leaves_events_and_offsets_as_they_were(store: Store) -> None:
    """One transaction: a row that cannot be stored takes its batch with it, and the next batch goes on."""
    good = batch(message("one"))
    broken = Batch([*good.rows, (*good.rows[0][:1], *[None] * (len(good.rows[0]) - 1))], {PLACE: 9}, {}, 0)
    store.absorb(good)
    with pytest.raises(ConsumerError):
        store.absorb(Batch([(*row[:0], "another", *row[1:]) for row in broken.rows], {PLACE: 9}, {}, 0))
    assert (texts(store), store.offsets()) == (["one"], {PLACE: 1})
    assert store.absorb(batch(message("two"), first=1)).events == 1


def test_odd_values_are_stored(store: Store) -> None:
    """An event_id that is no UUID, a time that DuckDB does not know: neither stops the stream."""
    odd = batch(message("one", event_id="not hexadecimal"), message("two", occurred_at=None))
    late = (*odd.rows[1][:4], 2**62, *odd.rows[1][5:])
    late = ("0" * 32, *late[1:])
    assert store.absorb(Batch([*odd.rows, late], {PLACE: 3}, {}, 0)).events == 3
    assert store.absorb(Batch([*odd.rows, late], {PLACE: 3}, {}, 0)).events == 0


def test_second_process_on_the_same_file_is_refused_in_one_line(store: Store, path: Path, tmp_path: Path) -> None:
    """Also after a snapshot was taken, which must not let go of the lock."""
    store.absorb(batch(message()))
    take(store, tmp_path / "copy.duckdb")
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from tests.consumers.analytics.test_store import *; open_store(Path(sys.argv[1]))",
            str(path),
        ],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].endswith(
        f"{path} is open in another process, and only one can have it: stop that one, or read its snapshot"
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"hello" * len(data),
        lambda data: data[:5000],
        lambda data: data[:8192] + b"\xff" * 4096 + data[12288:],
    ],
)
def test_damaged_file_is_said_in_one_line_with_what_to_do(path: Path, damage: Callable[[bytes], bytes]) -> None:
    """And is left as it is."""
    open_store(path).close()
    path.write_bytes(found := damage(path.read_bytes()))
    with pytest.raises(ConsumerError, match="damaged or no DuckDB database") as caught:
        open_store(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == found


@pytest.mark.parametrize(
    ("changes", "said"), [({"topic_prefix": "other"}, "another prefix"), ({"cluster_id": "b"}, "another Kafka cluster")]
)
def test_database_of_other_topics_is_refused(path: Path, changes: dict[str, str], said: str) -> None:
    """Its offsets would mean other records."""
    open_store(path).close()
    with pytest.raises(ConsumerError, match=f"{said}.*--rebuild"):
        open_store(path, **changes)


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """The path of a folder's file, where a file is."""
    (tmp_path / "file").write_text("")
    with pytest.raises(ConsumerError, match="cannot be opened or written"):
        open_store(tmp_path / "file" / "events.duckdb")


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 4 MiB, which grows at the end of the block; it needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)


@contextlib.contextmanager
def small_files(_: Path) -> Iterator[None]:
    """No file of this process grows beyond 4 MiB within the block."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("narrow", [small_files, small_disk] if MAY_MOUNT else [small_files])
def test_full_disk_ends_with_one_line_and_loses_nothing(
    tmp_path: Path, narrow: Callable[[Path], contextlib.AbstractContextManager[None]]
) -> None:
    """What was committed before is there when there is space again, and the rest can follow."""
    folder = tmp_path / "disk"
    folder.mkdir()
    committed = 0

    def fill(store: Store) -> None:
        nonlocal committed
        while True:
            store.absorb(batch(*(message(os.urandom(10_000).hex()) for _ in range(10)), first=committed))
            committed += 10

    try:
        with narrow(folder):
            store = open_store(folder / "events.duckdb")
            with pytest.raises(ConsumerError, match=r"no space left .* nothing is lost"):
                fill(store)
            store.close()
        store = open_store(folder / "events.duckdb")
        assert store.offsets() == {PLACE: committed}
        assert len(texts(store)) == committed > 0
        assert store.absorb(batch(message(), first=committed)).events == 1
        store.close()
    finally:
        if narrow is small_disk:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_snapshot_taken_while_events_come_is_whole(store: Store, tmp_path: Path) -> None:
    """Its offsets are exactly those of its events, whatever is written meanwhile."""
    copy, stop = tmp_path / "copy.duckdb", threading.Event()

    def write() -> None:
        for number in itertools.count():
            store.absorb(batch(*(message("x" * 300) for _ in range(40)), first=40 * number))
            if stop.is_set():
                return

    writing = asyncio.create_task(asyncio.to_thread(write))
    seen = 0
    for _ in range(4):
        await asyncio.to_thread(take, store, copy)
        with duckdb.connect(str(copy), read_only=True) as connection:
            [(events, last)] = connection.execute("SELECT count(*), max(kafka_offset) + 1 FROM events").fetchall()
            [(offset,)] = connection.execute("SELECT next_offset FROM offsets").fetchall() or [(0,)]
        assert (last or 0) == events == offset
        assert events >= seen
        seen = events
    stop.set()
    await writing
    assert seen > 0


def test_export_writes_a_folder_for_each_day_and_account(store: Store, path: Path, tmp_path: Path) -> None:
    """All events, by the day of their event time; of the snapshot, because the database is open here. A second one is refused."""
    early = message("early", account_id="1", occurred_at=message()["received_at"].replace(year=2020, month=2, day=29))
    late = message("late", account_id="2")
    nobody = message("nobody's", account_id=None)
    store.absorb(batch(early, late, nobody))
    take(store, tmp_path / "copy.duckdb")
    to = tmp_path / "it's here" / "parquet"
    environment = {**os.environ, "ANALYTICS_DATABASE": str(path), "ANALYTICS_SNAPSHOT": str(tmp_path / "copy.duckdb")}
    command = [sys.executable, "-m", "consumers.analytics", "export", "--to", str(to)]
    exported = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert exported.returncode == 0, exported.stderr
    today = late["occurred_at"].date().isoformat()
    assert {str(file.parent.relative_to(to)) for file in to.rglob("*.parquet")} == {
        "day=2020-02-29/account_id=1",
        f"day={today}/account_id=2",
        f"day={today}/account_id=__HIVE_DEFAULT_PARTITION__",
    }
    found = duckdb.read_parquet(str(to / "**" / "*.parquet"), hive_partitioning=True)
    assert sorted(text for (text,) in found.project("text").fetchall()) == ["early", "late", "nobody's"]
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, f"error: {to} is not empty: name a folder that does not exist yet\n")

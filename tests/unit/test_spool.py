"""The spool on a real disk: what was settled is there, in order, whatever happens to the process and to its files."""
# ruff: noqa: ASYNC240 - a test alone on its loop may wait for the disk

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.adapters.spool import SqliteSpool
from bridge.delivery import Delivery
from bridge.errors import Misconfigured, Refused, SpoolFailed, SpoolFull

BYTES_MAX = 1 << 30
READ_BYTES = 4096
PAGE_BYTES = 4096  # SQLite's default
MARKER = b"for nobody else"
RECEIVED_AT = 1_763_800_000_000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the spool is; made by it."""
    return tmp_path / "spool"


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


async def left_behind(folder: Path, given: Sequence[Delivery]) -> Path:
    """A file that an earlier run left, its log checkpointed."""
    async with opened(folder) as spool:
        assert await put(spool, given) == [None] * len(given)
    [file] = folder.glob("spool-*.db")
    return file


# What is promised of a sound disk.


async def test_put_settled_survives_a_crash_in_order(folder: Path) -> None:
    """What was settled with None is there after a kill at that moment, in the order of `put`, and nothing else is."""
    given = deliveries(100)
    async with opened(folder) as spool:
        assert await put(spool, given) == [None] * 100
        copy = after_a_crash(folder)
        async with opened(copy) as survivor:
            assert held(survivor) == held(spool) == (100, spool.bytes, RECEIVED_AT, True)
            assert await drained(survivor) == given
            assert held(survivor) == EMPTY


async def test_put_of_many_at_once_shares_commits(folder: Path) -> None:
    """A thousand that wait cost a handful of fsyncs: the log of SQLite marks every commit."""
    async with opened(folder) as spool:
        await put(spool, deliveries(1))
        before = commits(folder)
        await put(spool, deliveries(1000, first=1, body_bytes=1))
        assert commits(folder) - before <= 3


def commits(folder: Path) -> int:
    """Commits in the write-ahead log: its frames that carry the database's size (sqlite.org/fileformat2.html, 4.1)."""
    [log] = folder.glob("*.db-wal")
    content = log.read_bytes()
    salts = content[16:24]
    frames = range(32, len(content), 24 + PAGE_BYTES)
    return sum(content[at + 8 : at + 16] == salts and content[at + 4 : at + 8] != bytes(4) for at in frames)


async def test_oldest_gives_at_least_one_and_no_more_than_asked(folder: Path) -> None:
    """A reading is bounded by bytes, and one that is larger than the bound comes alone."""
    given = deliveries(3, body_bytes=READ_BYTES - 100) + deliveries(1, first=3, body_bytes=3 * READ_BYTES)
    async with opened(folder) as spool:
        await put(spool, given)
        for delivery in given:
            assert await spool.oldest(READ_BYTES) == [delivery]
            assert await spool.oldest(READ_BYTES) == [delivery], "reading is not forgetting"
            await spool.forget(1)
        assert await spool.oldest(READ_BYTES) == ()


async def test_oldest_while_puts_go_on_sees_a_prefix(folder: Path) -> None:
    """Under concurrent puts, whatever is read is what was put first."""
    given = deliveries(2000, body_bytes=50)
    found: list[Delivery] = []
    async with opened(folder) as spool:
        outcomes = []
        for begin in range(0, len(given), 50):
            outcomes.append(asyncio.create_task(put(spool, given[begin : begin + 50])))
            await asyncio.sleep(0)
            some = await spool.oldest(READ_BYTES)
            if some:
                await spool.forget(len(some))
                found += some
        assert {outcome for batch in await asyncio.gather(*outcomes) for outcome in batch} == {None}
        assert found + await drained(spool) == given


async def test_put_over_the_bound_is_refused_until_there_is_room(folder: Path) -> None:
    """The bound in bytes holds, is said at once, and is lifted by forgetting."""
    given = deliveries(10)
    async with opened(folder, bytes_max=5 * 600) as spool:
        outcomes = await put(spool, given)
        taken = outcomes.count(None)
        assert 0 < taken < 10
        assert all(isinstance(outcome, SpoolFull) for outcome in outcomes[taken:])
        assert spool.bytes <= 5 * 600
        await spool.oldest(READ_BYTES)
        await spool.forget(1)
        assert (await put(spool, given[taken : taken + 2]))[0] is None
        assert await drained(spool) == given[1 : taken + 1]


async def test_spool_that_is_full_has_no_room(folder: Path) -> None:
    """Whoever asks for readiness is told that the next delivery would be refused."""
    async with opened(folder, bytes_max=10_000) as spool:
        assert held(spool) == EMPTY
        await put(spool, deliveries(30))
        assert held(spool)[-1] is False
        await drained(spool)
        assert held(spool) == EMPTY


@pytest.mark.parametrize("mask", [0o000, 0o077, 0o027])
async def test_files_are_private_whatever_the_umask(folder: Path, mask: int) -> None:
    """The folder is 0700 and every file in it 0600: they hold private messages."""
    folder.mkdir(mode=0o755)
    before = os.umask(mask)
    try:
        async with opened(folder) as spool:
            await put(spool, deliveries(10))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    finally:
        os.umask(before)
    assert len(modes) >= 3
    assert set(modes.values()) == {0o600}, modes
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_second_spool_over_the_folder_is_refused_while_one_is_open(folder: Path) -> None:
    """Two bridges never share a folder, even when somebody deletes what lies in it."""
    async with opened(folder):
        for path in folder.iterdir():
            path.unlink()
        with pytest.raises(Misconfigured, match="another bridge"):
            SqliteSpool(folder, BYTES_MAX)
    async with opened(folder):
        pass


async def test_spool_that_is_drained_leaves_no_message_on_the_disk(folder: Path) -> None:
    """What is published is not kept: neither in a file's free pages nor in its log."""
    async with opened(folder) as spool:
        await put(spool, deliveries(1000))
        await drained(spool)
        assert all(MARKER not in path.read_bytes() for path in folder.iterdir())
        assert await put(spool, deliveries(1)) == [None]


# What is promised of a disk that fails.


async def test_disk_that_fails_refuses_and_heals(folder: Path) -> None:
    """A write that fails is SpoolFailed and nothing else; what was there stays, and the next delivery is taken."""
    given = deliveries(30)
    async with opened(folder) as spool:
        assert await put(spool, given[:10]) == [None] * 10
        with failing_disk():
            outcomes = await put(spool, given[10:20])
            assert held(spool)[-1] is False
        assert {type(outcome) for outcome in outcomes} == {SpoolFailed}
        assert spool.deliveries == 10
        assert await put(spool, given[20:]) == [None] * 10
        assert held(spool)[-1] is True
        copy = after_a_crash(folder)
        assert await drained(spool) == given[:10] + given[20:]
    async with opened(copy) as survivor:
        assert await drained(survivor) == given[:10] + given[20:]


@pytest.mark.parametrize("file_bytes_max", [0, PAGE_BYTES, 2 * PAGE_BYTES])
async def test_disk_that_fails_at_a_new_file_refuses_and_heals(folder: Path, file_bytes_max: int) -> None:
    """A file that could not be made is not in the way of the next one, nor left behind."""
    async with opened(folder) as spool:
        with failing_disk(file_bytes_max):
            for _ in range(3):
                assert [type(outcome) for outcome in await put(spool, deliveries(1))] == [SpoolFailed]
        assert held(spool)[:3] == EMPTY[:3]
        assert await put(spool, deliveries(1)) == [None]
        assert files(folder, "*.db") == [files(folder, "*.db")[-1]]
        assert await drained(spool) == deliveries(1)


async def test_oldest_when_the_only_commit_fails_gives_nothing(folder: Path) -> None:
    """Who reads while a commit fails gets an empty answer, and may forget nothing of it."""
    async with opened(folder) as spool:
        with failing_disk():
            outcome = asyncio.create_task(put(spool, deliveries(1)))
            await asyncio.sleep(0)
            assert held(spool)[0] == 1
            assert await spool.oldest(READ_BYTES) == ()
            assert isinstance((await outcome)[0], SpoolFailed)
        assert held(spool)[0] == 0


async def test_files_deleted_under_it_take_no_more(folder: Path) -> None:
    """What is answered after somebody deleted the files is in a new one, which a crash does not lose; what they held is read."""
    given = deliveries(20)
    async with opened(folder) as spool:
        await put(spool, given[:10])
        for path in folder.iterdir():
            path.unlink()
        with capture_logs() as logs:
            assert await put(spool, given[10:]) == [None] * 10
        assert "spool_file_gone" in [line["event"] for line in logs]
        copy = after_a_crash(folder)
        assert await drained(spool) == given
    async with opened(copy) as survivor:
        assert await drained(survivor) == given[10:]


# What is promised of files that are damaged.


def not_a_database(content: bytearray) -> None:
    content[:] = b"#" * len(content)


def truncated(content: bytearray) -> None:
    del content[len(content) // 2 // PAGE_BYTES * PAGE_BYTES :]


def garbage_in_the_middle(content: bytearray) -> None:
    middle = len(content) // 2 // PAGE_BYTES * PAGE_BYTES
    content[middle : middle + PAGE_BYTES] = b"#" * PAGE_BYTES


def flipped_bit_in_a_body(content: bytearray) -> None:
    content[content.index(MARKER + b"100.")] ^= 1


def another_table(content: bytearray) -> None:
    content[:] = content.replace(b"CREATE TABLE deliveries", b"CREATE TABLE detiveries")


@pytest.mark.parametrize(
    ("damage", "lost_max"),
    [
        (not_a_database, 200),
        (truncated, 130),
        (garbage_in_the_middle, 12),
        (flipped_bit_in_a_body, 1),
        (another_table, 200),
    ],
)
async def test_file_that_is_damaged_is_set_aside_and_the_rest_drained(
    folder: Path, damage: Callable[[bytearray], None], lost_max: int
) -> None:
    """What can be read is drained in order, unaltered, with newer ones after it; the file is kept and reported."""
    given = deliveries(200)
    file = await left_behind(folder, given)
    content = bytearray(file.read_bytes())
    damage(content)
    file.write_bytes(content)

    with capture_logs() as logs:
        async with opened(folder) as spool:
            newer = deliveries(10, first=200)
            assert await put(spool, newer) == [None] * 10
            found = await drained(spool)
            assert spool.set_aside == 1
            assert held(spool) == EMPTY

    assert found == [each for each in given + newer if each in found]
    assert newer == found[-10:]
    assert 0 < 210 - len(found) <= lost_max
    assert "spool_file_set_aside" in [line["event"] for line in logs]
    assert files(folder, "*.db*") == [f"{file.name}.corrupt"]


async def test_file_set_aside_does_not_take_the_place_of_another(folder: Path) -> None:
    """Every one is kept: a person may still get something out of it."""
    for content in (b"one", b"two"):
        async with opened(folder) as spool:
            await put(spool, deliveries(1))
        [file] = folder.glob("spool-*.db")
        file.write_bytes(content * 1000)
    async with opened(folder) as spool:
        assert spool.set_aside == 1, "said at the start, before anything else is spooled"
    assert sorted(path.read_bytes()[:3] for path in folder.glob("*.corrupt")) == [b"one", b"two"]


async def test_log_that_is_torn_loses_no_commit_before_the_tear(folder: Path) -> None:
    """A torn tail of the log, as a power cut leaves it, is left out; every commit before it is there."""
    async with opened(folder) as spool:
        for delivery in deliveries(20):
            await put(spool, [delivery])
        copy = after_a_crash(folder)
        await put(spool, deliveries(10, first=20))
        torn = after_a_crash(folder)
    [log] = torn.glob("*.db-wal")
    [before] = copy.glob("*.db-wal")
    whole = before.stat().st_size
    with log.open("r+b") as file:
        file.truncate(whole + (log.stat().st_size - whole) // 2)
    async with opened(torn) as survivor:
        assert await drained(survivor) == deliveries(20)
        assert survivor.set_aside == 0


async def test_file_that_is_empty_is_cleared_away(folder: Path) -> None:
    """What a crash leaves between making a file and its first commit is no damage."""
    folder.mkdir()
    (folder / "spool-000007.db").touch()
    async with opened(folder) as spool:
        assert spool.set_aside == 0
        assert files(folder, "*.db") == []


async def test_disk_that_fails_at_the_start_is_no_damage(folder: Path) -> None:
    """A file that cannot be opened now is not set aside, nor overtaken: the start is refused, and the next one finds it."""
    given = deliveries(5)
    await left_behind(folder, given)
    with failing_disk(), pytest.raises(Misconfigured, match=r"spool-000001\.db"):
        SqliteSpool(folder, BYTES_MAX)
    async with opened(folder) as spool:
        assert spool.set_aside == 0
        assert await drained(spool) == given


async def test_file_given_back_is_drained_again(folder: Path) -> None:
    """One that was set aside and mended is taken up at the next start under its old name."""
    given = deliveries(5)
    file = await left_behind(folder, given)
    file.rename(folder / "spool-000003.db.corrupt")
    async with opened(folder) as spool:
        assert spool.deliveries == 0
        await put(spool, deliveries(5, first=5))
    (folder / "spool-000003.db.corrupt").rename(folder / "spool-000003.db")
    async with opened(folder) as spool:
        assert await drained(spool) == given + deliveries(5, first=5)


def test_sqlite_checks_what_the_spool_relies_on() -> None:
    """A commit waits for the disk: SQLite is built with its locks and without a weaker default."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        options = {row[0] for row in database.execute("PRAGMA compile_options")}
    assert "THREADSAFE=1" in options

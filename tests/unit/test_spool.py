"""The spool on a real disk: what was settled is there, in order, whatever happens to the process and to the disk."""
# ruff: noqa: ASYNC240 - a test alone on its loop may wait for the disk

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import stat
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.adapters.spool import SqliteSpool
from bridge.delivery import Delivery
from bridge.errors import Misconfigured, SpoolFailed, SpoolFull
from tests.unit.spooled import (
    BYTES_MAX,
    EMPTY,
    MARKER,
    PAGE_BYTES,
    READ_BYTES,
    RECEIVED_AT,
    after_a_crash,
    deliveries,
    drained,
    failing_disk,
    files,
    held,
    opened,
    put,
)

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


def test_sqlite_checks_what_the_spool_relies_on() -> None:
    """A commit waits for the disk: SQLite is built with its locks and without a weaker default."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        options = {row[0] for row in database.execute("PRAGMA compile_options")}
    assert "THREADSAFE=1" in options

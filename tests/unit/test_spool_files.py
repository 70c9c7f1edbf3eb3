"""The files that a spool finds when it opens: damaged, torn, empty, given back. What can be read of them is drained in order."""
# ruff: noqa: ASYNC240 - a test alone on its loop may wait for the disk

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bridge.adapters.spool import SqliteSpool
from bridge.delivery import Delivery
from bridge.errors import Misconfigured
from tests.unit.spooled import (
    BYTES_MAX,
    EMPTY,
    MARKER,
    PAGE_BYTES,
    after_a_crash,
    deliveries,
    drained,
    failing_disk,
    files,
    held,
    opened,
    put,
)


async def left_behind(folder: Path, given: Sequence[Delivery]) -> Path:
    """A file that an earlier run left, its log checkpointed."""
    async with opened(folder) as spool:
        assert await put(spool, given) == [None] * len(given)
    [file] = folder.glob("spool-*.db")
    return file


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

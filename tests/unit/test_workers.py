"""The keeper's places for workers, when the operating system does not give what a worker needs."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bridge.adapters.keeper import Report, WorkerEnd, connect
from bridge.settings import Settings
from bridge.workers import START_TIMEOUT_S, Keeper
from tests.processes import until

PAUSE_S = 0.5
"""Between two attempts at a worker, as docs/decisions/0005-workers.md has it."""

NO_PROCESS = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
REFUSALS = (
    (NO_PROCESS, "BlockingIOError", os.strerror(errno.EAGAIN)),
    (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "OSError", os.strerror(errno.ENOMEM)),
    (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "OSError", os.strerror(errno.EMFILE)),
    (RuntimeError("can't start new thread"), "RuntimeError", "can't start new thread"),
)
each_refusal = pytest.mark.parametrize(
    ("refusal", "error", "problem"), REFUSALS, ids=["no_process", "no_memory", "no_descriptor", "no_thread"]
)


class Spawned:
    """A worker's process, as far as the keeper sees one; its end of the socket pair is open until it ends.

    Attributes:
        ended: its exit code is known.
    """

    def __init__(self, channel: int) -> None:
        self._end = WorkerEnd()
        self._end.report = lambda number: Report(number, serving=True, metrics=b"", status={})
        self._side = socket.socket(fileno=os.dup(channel))
        self.ended = asyncio.Event()

    async def serve(self) -> None:
        """Answer the keeper's questions."""
        await connect(self._end, self._side)

    def kill(self) -> None:
        """End, by whatever force."""
        if self._end.transport is None:
            self._side.close()
        else:
            self._end.transport.abort()
        self.ended.set()

    terminate = kill

    async def wait(self) -> int:
        """Its exit code."""
        await self.ended.wait()
        return -9


class Machine:
    """Starts processes, or refuses to.

    Attributes:
        refusal: what the next attempts end with; None when they succeed.
        attempts: when each was made, in the loop's seconds.
        spawned: what was started.
    """

    def __init__(self) -> None:
        self.refusal: Exception | None = None
        self.attempts: list[float] = []
        self.spawned: list[Spawned] = []

    async def spawn(self, *_command: str, pass_fds: tuple[int, int], **_options: Any) -> Spawned:  # noqa: ANN401 - as Python's
        """In the place of `asyncio.create_subprocess_exec`."""
        self.attempts.append(asyncio.get_running_loop().time())
        if self.refusal is not None:
            raise self.refusal
        process = Spawned(pass_fds[0])
        self.spawned.append(process)
        await process.serve()
        return process

    async def until_tried(self, times: int) -> None:
        """Until so many attempts were made from now on."""
        wanted = len(self.attempts) + times
        await until(lambda: len(self.attempts) >= wanted, "another attempt")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """What every keeper here runs on."""
    made = Machine()
    monkeypatch.setattr(asyncio, "create_subprocess_exec", made.spawn)
    return made


@pytest.fixture
async def keeper(tmp_path: Path) -> AsyncIterator[Keeper]:
    """A keeper of two workers that could spool, without Kafka; not begun."""
    made = Keeper(
        Settings(
            kafka_bootstrap_servers="127.0.0.1:1",
            app_secrets="only=secret",
            verify_token="token",  # noqa: S106 - guards nothing
            spool_dir=str(tmp_path),
            workers=2,
        )
    )
    made.serving = True
    yield made
    assert made.spool is not None
    await made.spool.close()


def sockets() -> int:
    """How many this process has open; the loop opens other descriptors when it first needs them."""
    return sum(is_socket(entry) for entry in os.scandir("/proc/self/fd"))


def is_socket(entry: os.DirEntry[str]) -> bool:
    """Whether that is one; the listing's own descriptor is gone by now."""
    with contextlib.suppress(FileNotFoundError):
        return stat.S_ISSOCK(entry.stat().st_mode)
    return False


async def until_all_closed(before: int) -> None:
    """Until no more sockets are open than before."""
    await until(lambda: sockets() <= before, "the end of every socket")


async def until_logged(logs: list[Any], event: str, times: int) -> list[Any]:
    """Until so many lines of an event are there; gives them."""

    def found() -> list[Any]:
        return [line for line in logs if line["event"] == event]

    await until(lambda: len(found()) >= times, event)
    return found()


@each_refusal
async def test_place_whose_worker_cannot_be_started_is_tried_again_after_a_pause(
    keeper: Keeper, machine: Machine, refusal: Exception, error: str, problem: str
) -> None:
    """At the start as later; each attempt is one line that says why, and leaves no socket."""
    before = sockets()
    machine.refusal = refusal
    with capture_logs() as logs:
        async with asyncio.TaskGroup() as tasks:
            refused = tasks.create_task(until_logged(logs, "worker_not_started", times=4))
            refused.add_done_callback(lambda _: setattr(machine, "refusal", None))
            async with keeper.front():
                assert len(machine.spawned) == 2
    lines = refused.result()
    assert {line["worker"] for line in lines} == {0, 1}
    assert {(line["log_level"], line["error"], line["problem"]) for line in lines} == {("error", error, problem)}
    assert machine.attempts[2] - machine.attempts[0] >= PAUSE_S
    await until_all_closed(before)


async def test_worker_whose_replacement_cannot_be_started_is_replaced_later(keeper: Keeper, machine: Machine) -> None:
    """Its place is not lost, and the other worker is left alone."""
    async with keeper.front():
        stays, ends = machine.spawned
        machine.refusal = NO_PROCESS
        ends.kill()
        await machine.until_tried(2)
        assert keeper.ready
        machine.refusal = None
        await until(lambda: len(machine.spawned) == 3, "a replacement")
        assert not stays.ended.is_set()


async def test_keeper_without_any_worker_is_not_ready(keeper: Keeper, machine: Machine) -> None:
    """Nobody listens on the public port then; one worker is enough to be ready again."""
    seen = [keeper.ready]
    async with keeper.front():
        seen.append(keeper.ready)
        machine.refusal = NO_PROCESS
        for process in machine.spawned:
            process.kill()
        await machine.until_tried(2)
        seen.append(keeper.ready)
        machine.refusal = None
        await until(lambda: keeper.ready, "a worker")
    assert seen == [False, True, False]


async def test_worker_that_the_keeper_cannot_reach_is_ended_and_replaced(
    keeper: Keeper, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process without a way to the spool must not take deliveries."""
    before = sockets()
    loop = asyncio.get_running_loop()
    create_unix_connection = loop.create_unix_connection
    refused: list[asyncio.Protocol] = []

    async def connecting(make: Callable[[], asyncio.Protocol], **options: Any) -> object:  # noqa: ANN401 - as Python's
        protocol = make()
        if not isinstance(protocol, WorkerEnd) and not refused:
            refused.append(protocol)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        return await create_unix_connection(lambda: protocol, **options)

    monkeypatch.setattr(loop, "create_unix_connection", connecting)
    with capture_logs() as logs:
        async with keeper.front():
            assert len(machine.spawned) == 3
            assert [process.ended.is_set() for process in machine.spawned].count(True) == 1
            assert len(await until_logged(logs, "worker_not_started", times=1)) == 1
    assert all(process.ended.is_set() for process in machine.spawned)
    await until_all_closed(before)


async def test_worker_that_is_being_started_when_the_keeper_gives_up_is_ended(
    keeper: Keeper, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left behind, not even one that the keeper has no way to yet."""
    before = sockets()
    loop = asyncio.get_running_loop()
    create_unix_connection, never = loop.create_unix_connection, asyncio.Event()
    connecting_now: list[asyncio.Protocol] = []

    async def connecting(make: Callable[[], asyncio.Protocol], **options: Any) -> object:  # noqa: ANN401 - as Python's
        protocol = make()
        if not isinstance(protocol, WorkerEnd):
            connecting_now.append(protocol)
            await never.wait()
        return await create_unix_connection(lambda: protocol, **options)

    monkeypatch.setattr(loop, "create_unix_connection", connecting)
    front = keeper.front()
    beginning = asyncio.create_task(front.__aenter__())
    await until(lambda: len(connecting_now) == 2, "two processes without a way to them")
    beginning.cancel()
    with pytest.raises(asyncio.CancelledError):
        await beginning
    assert [process.ended.is_set() for process in machine.spawned] == [True, True]
    await until_all_closed(before)


async def test_stop_while_workers_cannot_be_started_does_not_wait_for_them(keeper: Keeper, machine: Machine) -> None:
    """A service manager's patience is as long as the keeper's with its workers."""
    machine.refusal = NO_PROCESS
    front = keeper.front()
    beginning = asyncio.create_task(front.__aenter__())
    await machine.until_tried(2)
    assert not beginning.done()
    keeper.stop.set()
    async with asyncio.timeout(START_TIMEOUT_S / 2):
        await beginning
    await front.__aexit__(None, None, None)
    assert not keeper.ready

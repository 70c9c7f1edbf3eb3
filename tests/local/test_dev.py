"""`bridge dev` as a person meets it: what it says when a part ends, what it prints to paste, which folders it refuses."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bridge.local.jvm import free_port
from tests.conftest import BeginBridge
from tests.processes import Process

READY = "Ctrl-C stops everything."
READY_DEADLINE_S = 180  # a broker, a registry and five programs, one after another, on a busy machine
EXIT_FAILED = 1
WATCH = "Or watch the topics:"
WITH = "was filled with --registry: give --registry again, or another --data"
WITHOUT = "was filled without --registry: leave it out, or give another --data"


@contextlib.asynccontextmanager
async def dev(folder: Path, *arguments: str) -> AsyncIterator[Process]:
    """`bridge dev` in a folder, with everything up; its data are in `data`."""
    process = await Process.begin(
        *("-m", "bridge", "dev", "--data", "data", "--port", str(free_port()), *arguments), folder=folder
    )
    try:
        await process.until_printed(READY, READY_DEADLINE_S)
        yield process
    finally:
        await process.end(signal.SIGINT)


@pytest.fixture(scope="module")
async def plain(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Path, Process]]:
    """A folder that plain `bridge dev` runs over."""
    folder = tmp_path_factory.mktemp("plain")
    async with dev(folder, "--no-traffic") as process:
        yield folder, process


@pytest.fixture(scope="module")
async def registered(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Path, Process]]:
    """A folder that `bridge dev --registry` runs over, with traffic."""
    folder = tmp_path_factory.mktemp("registered")
    async with dev(folder, "--registry") as process:
        yield folder, process


def child(parent: int, module: str) -> int:
    """The process id of a part of this `bridge dev` (proc(5): the fourth word of stat is the parent)."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # ended since it was listed
            words = (process / "cmdline").read_bytes().split(b"\0")
            if module.encode() in words and int((process / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                return int(process.name)
    raise AssertionError(f"{parent} has no child {module}")


async def refusal(bridge: BeginBridge, data: Path, *arguments: str) -> str:
    """What `bridge dev` says when it refuses a folder at its start."""
    process = await bridge("dev", "--no-traffic", "--data", data, "--port", str(free_port()), *arguments)
    assert await process.end() == EXIT_FAILED, process.stdout
    return process.stderr


async def test_registry_the_printed_command_reads_the_topics(registered: tuple[Path, Process]) -> None:
    """What `bridge dev --registry` prints for watching the topics can be pasted: it finds the schemas."""
    folder, process = registered
    (line,) = [line for line in process.stdout.splitlines() if WATCH in line]
    command = f"{line.partition(WATCH)[2]} messages --since 10m --count 1 --output json"
    said = await asyncio.to_thread(subprocess.check_output, ["bash", "-ec", command], cwd=folder)
    assert json.loads(said)["value"]["event_id"]


async def test_folder_filled_with_registry_is_refused_without(
    registered: tuple[Path, Process], bridge: BeginBridge
) -> None:
    """Values in Confluent's format are not mixed with others: the start says so in one line, before anything runs."""
    data = registered[0] / "data"
    assert await refusal(bridge, data) == f"bridge: {data} {WITH}\n"


async def test_folder_filled_without_registry_is_refused_with(plain: tuple[Path, Process], bridge: BeginBridge) -> None:
    """The other way round."""
    data = plain[0] / "data"
    assert await refusal(bridge, data, "--registry") == f"bridge: {data} {WITHOUT}\n"


@pytest.mark.parametrize(
    ("files", "arguments", "said"),
    [
        (["kafka/instagram.messages-0/"], ["--registry"], WITHOUT),
        (["kafka/instagram.messages-0/", "schemas.mv.db"], [], WITH),
    ],
    ids=["plain", "registry"],
)
async def test_folder_of_an_earlier_version_is_known_by_what_it_holds(
    files: list[str], arguments: list[str], said: str, tmp_path: Path, bridge: BeginBridge
) -> None:
    """Topics in a folder that nobody marked: with the registry's database they were filled with --registry, else without."""
    for file in files:
        path = tmp_path / "old" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir() if file.endswith("/") else path.touch()
    assert await refusal(bridge, Path("old"), *arguments) == f"bridge: old {said}\n"


async def test_part_that_is_killed_ends_everything_with_one_line(plain: tuple[Path, Process]) -> None:
    """Which part, how, and where its log is: no traceback, and exit code 1."""
    process = plain[1]
    os.kill(child(process.pid, "consumers.analytics"), signal.SIGKILL)
    assert await process.end() == EXIT_FAILED
    *steps, last = process.stderr.splitlines()
    assert last.startswith(f"bridge: analytics ended with {-signal.SIGKILL}: ")
    assert last.endswith("analytics.log)")
    assert not [step for step in steps if step.startswith(("bridge:", " ", "Traceback"))], process.stderr
    assert "stopped" not in process.stdout

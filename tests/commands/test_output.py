"""Where the output cannot go: one line that says so, and never a word about Kafka, which has no part in it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

import pytest

from bridge.local.service import Broker
from tests.commands.conftest import Run
from tests.commands.past import RETENTION_MS, message, notification, produce, walked

SINCE_BEGIN = "2025-11-22T08:26:40Z"
ENDS_S = 60

Into = Callable[..., Awaitable[tuple[int, list[str]]]]


@pytest.fixture
def into(environment: Mapping[str, str], tmp_path: Path) -> Into:
    """Runs `bridge` with its stdout at a file descriptor, and gives its exit code and what stderr says."""

    async def to_the_end(stdout: int, *arguments: str) -> tuple[int, list[str]]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bridge", *arguments),
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
            cwd=tmp_path,
            env={**inherited, **environment},
        )
        async with asyncio.timeout(ENDS_S):
            _, stderr = await process.communicate()
        return process.returncode or 0, stderr.decode().splitlines()

    return to_the_end


@pytest.fixture
def full() -> Iterator[int]:
    """A disk without any space left."""
    with Path("/dev/full").open("wb") as file:
        yield file.fileno()


@pytest.mark.parametrize("arguments", [("--help",), ("settings",), ("settings", "--output", "json")])
async def test_output_on_a_full_disk_is_told_in_one_line(into: Into, full: int, arguments: tuple[str, ...]) -> None:
    """Exit code 1, and the disk's own reason."""
    assert await into(full, *arguments) == (1, ["bridge: cannot write the output (No space left on device)"])


async def test_output_on_a_full_disk_amid_the_work_with_kafka_is_not_called_kafkas(
    *, run: Run, into: Into, full: int, kafka: Broker, topic_prefix: str
) -> None:
    """`tail` prints while it reads: what failed stands after the line that it begins with; `topics list` reads first."""
    assert (await run("topics", "apply", TOPIC_RETENTION_MS=RETENTION_MS)).exit_code == 0
    await produce(kafka, walked(topic_prefix, notification(message("Hello"))))
    exit_code, [begun, *stderr] = await into(full, "tail", "--since", SINCE_BEGIN, "--count", "1")
    listed = await into(full, "topics", "list")
    assert begun.startswith("tail: ")
    assert (exit_code, stderr) == listed == (1, ["bridge: cannot write the output (No space left on device)"])


async def test_output_whose_reader_has_gone_ends_without_a_word(into: Into) -> None:
    """As after `| head`: nobody is there to be told."""
    read, write = os.pipe()
    os.close(read)
    try:
        assert await into(write, "settings") == (1, [])
    finally:
        os.close(write)

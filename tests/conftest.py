"""What every test may ask for: a real broker, a real registry, names of its own, the commands as real processes.

The broker is the packaged one, unless BRIDGE_TEST_KAFKA says ``docker`` or ``HOST:PORT``; on a given broker the tests' topics,
`test-…`, stay. What is missing is a failure that
says what to do, never a skip.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator, Generator, Mapping
from pathlib import Path
from typing import Protocol

import pytest
from xdist.remote import Producer

from bridge.local.choice import choose_kafka, choose_registry
from bridge.local.service import Broker, Registry
from tests.parallel import Units, part_ports, processes, rank, turn
from tests.processes import Process

KAFKA_CHOICE = os.environ.get("BRIDGE_TEST_KAFKA") or None


def pytest_configure() -> None:
    """Before anything takes a port."""
    part_ports()


def pytest_xdist_auto_num_workers() -> int:
    """What `-n auto` means."""
    return processes()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Units:
    """Which process gets which tests."""
    config.option.loadscopereorder = False  # ours is the order
    return Units(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In one of several processes, what takes longest begins first."""
    if hasattr(config, "workerinput"):
        items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Beside the tests of the other processes, or alone."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    with turn(Path(item.config.getoption("basetemp")).parent, alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session")
async def kafka(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Broker]:
    """The broker that all tests share; `topic_prefix` keeps them apart."""
    async with choose_kafka(KAFKA_CHOICE, data_dir=tmp_path_factory.mktemp("kafka"), port=None) as broker:
        yield broker


@pytest.fixture(scope="session")
async def registry(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Registry]:
    """The schema registry that all tests share; subjects carry the topic's prefix."""
    async with choose_registry(KAFKA_CHOICE, data_dir=tmp_path_factory.mktemp("registry"), port=None) as started:
        yield started


@pytest.fixture
def topic_prefix() -> str:
    """A topic prefix that no other test has, nor another run on the same given broker."""
    return f"test-{secrets.token_hex(6)}"


class BeginBridge(Protocol):
    """Starts ``bridge ARGUMENT…`` with these variables and this standard input, and returns the running process."""

    async def __call__(
        self, *arguments: str | Path, environment: Mapping[str, str] | None = None, stdin: bytes | None = None
    ) -> Process:
        """Returns as soon as the process exists."""
        ...


@pytest.fixture
async def bridge(tmp_path: Path) -> AsyncIterator[BeginBridge]:
    """`bridge` as real processes in the test's own folder; those that still run at its end are killed."""
    begun: list[Process] = []

    async def begin(
        *arguments: str | Path, environment: Mapping[str, str] | None = None, stdin: bytes | None = None
    ) -> Process:
        process = await Process.begin("-m", "bridge", *arguments, folder=tmp_path, environment=environment, stdin=stdin)
        begun.append(process)
        return process

    yield begin
    await asyncio.gather(*(process.end(signal.SIGKILL) for process in begun))

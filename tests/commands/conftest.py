"""The operators' commands as an operator runs them: as processes, against the real broker, over topics of the test's own."""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import pytest

from bridge.__main__ import main
from bridge.local.service import Broker
from tests.conftest import BeginBridge

PARTITIONS = 2


class Outcome(NamedTuple):
    """What a command left behind."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def said(self) -> Any:  # noqa: ANN401 - any JSON
        """What it printed with --output json."""
        return json.loads(self.stdout)

    @property
    def complaint(self) -> str:
        """The one line with which it failed."""
        assert self.exit_code == 1, self
        [line] = self.stderr.splitlines()
        assert line.startswith("bridge: "), line
        return line


class Run(Protocol):
    """Runs ``bridge ARGUMENT…`` to its end; ``variables`` are settings without BRIDGE_."""

    async def __call__(self, *arguments: str, **variables: str) -> Outcome:
        """What it left behind."""
        ...


@pytest.fixture
def environment(kafka: Broker, topic_prefix: str) -> dict[str, str]:
    """Settings for the broker of the tests and a topic prefix of the test's own."""
    return {
        "BRIDGE_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "BRIDGE_TOPIC_PREFIX": topic_prefix,
        "BRIDGE_TOPIC_PARTITIONS": f"{PARTITIONS}",
        "BRIDGE_TOPIC_REPLICATION_FACTOR": "1",
    }


@pytest.fixture
def run(bridge: BeginBridge, environment: dict[str, str]) -> Run:
    """Runs commands with those settings."""

    async def to_the_end(*arguments: str, **variables: str) -> Outcome:
        given = {f"BRIDGE_{name}": value for name, value in variables.items()}
        process = await bridge(*arguments, environment={**environment, **given})
        exit_code = await process.end()
        assert "Traceback" not in process.stderr, process.stderr
        return Outcome(exit_code, process.stdout, process.stderr)

    return to_the_end


@pytest.fixture
def call_without_kafka(tmp_path: Path) -> Run:
    """The same within this process, a second faster each: for all that is not about how a process ends."""

    def main_of(arguments: Sequence[str], variables: Mapping[str, str]) -> Outcome:
        stdout, stderr = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
                patch.delenv(name)
            for name, value in variables.items():
                patch.setenv(name, value)
            patch.setattr("sys.argv", ["bridge", *arguments])
            patch.chdir(tmp_path)
            with pytest.raises(SystemExit) as ended:
                main()
        gc.collect()  # a connection that the command left open fails the test that ran it, not whichever is next
        return Outcome(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())

    async def to_the_end(*arguments: str, **variables: str) -> Outcome:
        given = {f"BRIDGE_{name}": value for name, value in variables.items()}
        return await asyncio.to_thread(main_of, arguments, given)

    return to_the_end


@pytest.fixture
def call(call_without_kafka: Run, environment: dict[str, str]) -> Run:
    """That, with the settings for the broker of the tests."""
    known = {name.removeprefix("BRIDGE_"): value for name, value in environment.items()}

    async def to_the_end(*arguments: str, **variables: str) -> Outcome:
        return await call_without_kafka(*arguments, **{**known, **variables})

    return to_the_end

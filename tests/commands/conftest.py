"""The operators' commands as an operator runs them: as processes, against the real broker, over topics of the test's own."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Protocol

import pytest

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

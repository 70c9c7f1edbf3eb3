"""Log lines of several processes into one stderr, which is what workers and their keeper do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROCESSES = 3
LINES = 2_000
LOGGING = f"""
import structlog
from bridge.telemetry import configure_logging
configure_logging("json", "info")
log = structlog.get_logger()
for number in range({LINES}):
    log.info("counted", number=number)
"""


def test_lines_of_several_processes_stay_whole(tmp_path: Path) -> None:
    """Also unbuffered, as images set it, where every write is a call of the system."""
    output = tmp_path / "stderr"
    with output.open("wb") as stderr:
        command, environment = [sys.executable, "-c", LOGGING], {**os.environ, "PYTHONUNBUFFERED": "1"}
        processes = [subprocess.Popen(command, stderr=stderr, env=environment) for _ in range(PROCESSES)]
        assert [process.wait(timeout=60) for process in processes] == [0] * PROCESSES
    numbers = [json.loads(line)["number"] for line in output.read_text("utf-8").splitlines()]
    assert sorted(numbers) == sorted([*range(LINES)] * PROCESSES)


FAILING = """
import logging
{configured}
try:
    body = "what a customer wrote"
    raise ValueError(body)
except ValueError:
    logging.getLogger("aiokafka").exception("it failed")
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize(
    "configured",
    [
        "from bridge.telemetry import configure_logging; configure_logging({!r}, 'debug')",
        "from consumers.process import configure_log; configure_log({!r})",
    ],
    ids=["bridge", "consumers"],
)
def test_exception_that_a_library_logs_is_told_by_type_and_place_alone(configured: str, log_format: str) -> None:
    """Neither its text nor a variable is written, whichever printer of tracebacks is installed."""
    program = FAILING.format(configured=configured.format(log_format))
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "it failed" in ended.stderr
    assert "ValueError at <string>:6" in ended.stderr
    assert "customer" not in ended.stderr
    assert len(ended.stderr.splitlines()) == 1

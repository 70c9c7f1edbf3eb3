"""Another engine as a process that takes SQL, and the files of deploy/ as statements for it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date, datetime
from pathlib import Path
from string import Template
from typing import Any

from bridge.local.jvm import TETHER

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-interop/bin/python"
ANSWER_DEADLINE_S = 300  # a query of Flink's takes 5 to 35 s here, a busy machine several times that
STOP_DEADLINE_S = 30
ANSWER_BYTES_MAX = 64 * 1024 * 1024  # a line with all rows of a view

Rows = list[dict[str, Any]]


class EngineError(Exception):
    """What the engine said of a statement that it would not do."""


class Engine:
    """A running engine: one statement after the other."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def run(self, statement: str) -> Rows:
        """A statement's rows, times without a zone in UTC.

        Raises:
            EngineError: It was refused.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(statement).encode() + b"\n")
        await self._process.stdin.drain()
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_DEADLINE_S)
        assert line, f"the engine ended:\n{self._log.read_text('utf-8', 'replace')[-4000:]}"
        answer = json.loads(line)
        if "error" in answer:
            raise EngineError(answer["error"])
        return [
            {name: _value(name, value) for name, value in zip(answer["columns"], row, strict=True)}
            for row in answer["rows"]
        ]


def _value(name: str, value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, str) and name == "day":
        return date.fromisoformat(value)
    if isinstance(value, str) and (name == "hour" or name.endswith("_at")):
        return datetime.fromisoformat(value)
    return value


@asynccontextmanager
async def running(shell: str, *arguments: str | Path, folder: Path) -> AsyncIterator[Engine]:
    """`shell` (a file beside this one) in its venv, with a log in the folder; gone at the block's end."""
    assert PYTHON.is_file(), "the other engines are not installed; get them with: make interop"
    log = folder / f"{shell}.log"
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), str(PYTHON)),
            *(str(Path(__file__).with_name(shell)), *map(str, arguments)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=output,
            cwd=folder,
            limit=ANSWER_BYTES_MAX,
            start_new_session=True,
        )
    try:
        yield Engine(process, log)
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends with its input, and so does the Java that it started
        try:
            await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
        except TimeoutError:
            process.kill()
            await process.wait()


def statements(path: Path, places: dict[str, str]) -> list[str]:
    """The statements of a file below deploy/, its ${…} filled in as envsubst does, without comments; a semicolon at a line's end ends one."""
    text = Template(re.sub(r"--.*", "", path.read_text("utf-8"))).substitute(places)
    return [part.strip() for part in re.split(r";\s*$", text, flags=re.MULTILINE) if part.strip()]

"""A program of ours as a child process of `bridge dev`: tethered, silent on the terminal, stopped in order, its log in a file."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import Misconfigured
from bridge.local.jvm import TETHER

STOP_DEADLINE_S = 15.0
"""An orderly end takes our programs a second or two, and the publish deadline when Kafka is away; then they are killed."""

_LOG_TAIL_BYTES = 4096


class Child:
    """One Python program: ``python ARGUMENT…``.

    Args:
        name: what messages call it.
        arguments: for the interpreter.
        log: takes everything it prints; begun anew.
        environment: all its variables.
    """

    def __init__(self, name: str, *arguments: str, log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        self._arguments = arguments
        self._environment = environment
        self._process: asyncio.subprocess.Process | None = None

    async def begin(self) -> None:
        """Start it, in a session of its own: Ctrl-C reaches us alone."""
        with self.log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", str(TETHER), str(os.getpid()), sys.executable, *self._arguments),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PYTHONUNBUFFERED": "1", **self._environment},
                start_new_session=True,
            )

    async def ended(self) -> None:
        """Wait until it ends, and say why.

        Raises:
            Misconfigured: always; the message holds its last line.
        """
        process = self._started()
        code = await process.wait()
        raise Misconfigured(f"{self.name} ended with {code}: {self._last_line()} (its log: {self.log})")

    async def run(self) -> None:
        """Run a program that ends by itself.

        Raises:
            Misconfigured: it failed; the message holds its last line.
        """
        await self.begin()
        if await self._started().wait() != 0:
            await self.ended()

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL should it not listen; returns when it is gone."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_DEADLINE_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    def _started(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._process

    def _last_line(self) -> str:
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LOG_TAIL_BYTES))
            lines = [line.strip() for line in log.read().decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else "it said nothing"
